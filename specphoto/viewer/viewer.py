"""The viewer itself: what happens when one clicks."""

from __future__ import annotations

import base64
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from bokeh.events import DoubleTap, MouseMove, Press, SelectionGeometry, Tap
from bokeh.io import output_notebook
from bokeh.layouts import column, row
from bokeh.models import (
    Button,
    CheckboxGroup,
    ColumnDataSource,
    CustomJS,
    Div,
    InlineStyleSheet,
    Pane,
    Select,
    Slider,
    Spinner,
)
from bokeh.resources import INLINE

from specphoto.cube import celestial_wcs, identify, validate
from specphoto.drawing import rgb_array
from specphoto.errors import InputError
from specphoto.extract import aperture_extract
from specphoto.maps import QUANTITIES, known_quantities, quantity_map
from specphoto.viewer.blocks import Blocks
from specphoto.viewer.looks import CANVAS, CSS, DARK, DOWNLOAD, FOLLOW, WRAP
from specphoto.viewer.panels import MapPanel, SpectrumPanel
from specphoto.viewer.words import data_text, figure_bytes, readout

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xarray as xr
    from bokeh.models import LayoutDOM
    from numpy.typing import NDArray

    from specphoto.extract import Extract

__all__ = ["Viewer", "view"]

_RGB = "three colours"
_ELSEWHERE = (-1, -1)


def view(ds: xr.Dataset) -> Viewer:
    """Look at a dataset in Jupyter: click a pixel, drag an aperture, switch maps.

    The last expression of a cell shows it. It needs ``jupyter_bokeh``
    (``pip install 'specphoto[jupyter]'``). Outside Jupyter: ``specphoto view PRODUCT``.

    Parameters
    ----------
    ds
        A matched cube, corrected or not; lazy ones are read as far as one looks.

    Raises
    ------
    InputError
        If it has no spectra.

    Examples
    --------
    >>> import specphoto
    >>> specphoto.view(specphoto.open_cube("ngc.zarr"))  # doctest: +SKIP
    """
    return Viewer(ds)


class Viewer:
    """Map on the left, spectrum on the right, and what joins them.

    Parameters
    ----------
    ds
        A matched cube, corrected or not.
    blocks
        Reads its pixels; viewers of one dataset may share it.

    Attributes
    ----------
    blocks
        The same.
    layout
        Bokeh's layout, for a document or a widget.
    shown
        What the right side shows.
    """

    def __init__(self, ds: xr.Dataset, blocks: Blocks | None = None) -> None:
        validate(ds, "spec_flux", "spec_mask", "wave", verb="view")
        self._ds = ds
        self.blocks = blocks or Blocks(ds)
        self._map, self._spectrum = MapPanel(ds), SpectrumPanel()
        self._plots = [self._map.plot, self._spectrum.sed, self._spectrum.factor]
        self._wcs = celestial_wcs(ds) if ds.attrs.get("wcs") else None
        self._made: Any = None
        self._at: tuple[int, int] | None = None
        self._make_controls()
        self.layout = self._laid_out()
        self._show_map()
        self._choose(*self._first())

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """Show it in Jupyter."""
        try:
            from jupyter_bokeh import BokehModel
        except ImportError as error:
            raise InputError(
                "specphoto.view", expected="jupyter_bokeh, which joins the page to Python",
                found="none", remedy="pip install 'specphoto[jupyter]'",
            ) from error  # fmt: skip
        if self._made is None:
            # the page of the notebook gets its scripts from here: there need be no network
            output_notebook(INLINE, hide_banner=True)
            self._made = BokehModel(self.layout)
        return self._made._repr_mimebundle_(**options)

    def _first(self) -> tuple[int, int]:
        """Brightest trusted pixel, or the one in the middle."""
        middle = self._ds.sizes["y"] // 2, self._ds.sizes["x"] // 2
        if "spec_region" not in self._ds or not self._ds["spec_region"].values.any():
            return middle
        region = self._ds["spec_region"].values
        if "photo_flux" not in self._ds:
            rows, columns = np.nonzero(region)
            return int(rows[rows.size // 2]), int(columns[rows.size // 2])
        light = self._ds["photo_flux"].isel(band=self._ds.sizes["band"] // 2).values
        light = np.where(region & np.isfinite(light), light, -np.inf)
        y, x = np.unravel_index(int(np.argmax(light)), light.shape)
        return int(y), int(x)

    def _make_controls(self) -> None:
        ds, wave = self._ds, self._ds["wave"].values
        options = [(q.name, q.label) for q in known_quantities(ds)]
        if "photo_flux" in ds:
            options.insert(0, (_RGB, "three-colour image"))
        bands = [str(b) for b in ds["band"].values] if "band" in ds else []
        self.quantity = Select(
            title="Map", options=options, value=options[0][0], name="quantity", width=200
        )
        self.band = Select(
            title="Band", options=bands, value=bands[len(bands) // 2] if bands else "",
            name="band", visible=False,
        )  # fmt: skip
        self.wave = Slider(
            title="Wavelength (Å)", start=float(wave[0]), end=float(wave[-1]),
            value=float(wave[wave.size // 2]), step=float(np.median(np.diff(wave))),
            format="0", name="wave", visible=False, sizing_mode="stretch_width",
        )  # fmt: skip
        self.x, self.y = (
            Spinner(
                title=axis, low=0, high=ds.sizes[axis] - 1, step=1, value=0, width=90, name=axis
            )
            for axis in ("x", "y")
        )
        self.follow = CheckboxGroup(
            labels=["Follow the pointer"], active=[], name="follow", align="end"
        )
        self._pointer = ColumnDataSource(data={"x": [], "y": []})
        self.said = Div(name="said", html_attributes={"role": "status", "aria-live": "polite"})
        self._file = ColumnDataSource(data={"name": [], "mime": [], "base64": []}, name="file")
        self._file.js_on_change("data", CustomJS(args={"file": self._file}, code=DOWNLOAD))
        self._act()

    def _act(self) -> None:
        """Join controls and plots to what they do."""
        self.quantity.on_change("value", self._mapped)
        self.band.on_change("value", self._mapped)
        # when the handle is let go, or by a key: planes of the cube are read
        self.wave.on_change("value_throttled", self._mapped)
        for spinner in (self.x, self.y):
            spinner.on_change("value", self._typed)
        # quick and long clicks are clicks
        for click in (Tap, DoubleTap, Press):
            self._map.plot.on_event(click, self._tapped)
        self._map.plot.on_event(SelectionGeometry, self._dragged)
        moved = CustomJS(args={"follow": self.follow, "pointer": self._pointer}, code=FOLLOW)
        self._map.plot.js_on_event(MouseMove, moved)
        self._pointer.js_on_change("data", moved)
        self._pointer.on_change("data", self._pointed)

    def _laid_out(self) -> LayoutDOM:
        buttons = []
        for label, kind in (("Figure, PDF", "pdf"), ("Figure, PNG", "png"), ("Data, ECSV", "ecsv")):
            button = Button(label=label, width=110, name=kind)
            button.on_click(lambda kind=kind: self._export(kind))
            buttons.append(button)
        wrap, css = InlineStyleSheet(css=WRAP), InlineStyleSheet(css=CSS)
        row_of = {"sizing_mode": "stretch_width", "stylesheets": [wrap]}
        controls = row(self.quantity, self.band, self.x, self.y, self.follow, **row_of)
        narrow = {"sizing_mode": "stretch_width", "min_width": 320}
        left = column(controls, self.wave, self._map.plot, **narrow)
        # in a pane of its own a new text does not lay out the plots anew: a third of a click
        right = column(
            Pane(elements=[self.said]), self._spectrum.sed, self._spectrum.factor,
            row(*buttons, **row_of), **narrow,
        )  # fmt: skip
        bars = [plot.toolbar for plot in self._plots]
        for widget in (self.quantity, self.band, self.wave, self.x, self.y, self.follow, self.said,
                       *buttons, *bars):  # fmt: skip
            widget.stylesheets = [css]
        for plot in self._plots:
            plot.stylesheets = [InlineStyleSheet(css=CANVAS)]
        # only what the layout refers to reaches the browser
        made = row(left, right, name="viewer", tags=[self._file], **row_of)
        # the width is set when a plot is first laid out, in a page of its own and in a notebook
        dark = {
            "plots": self._plots, "bar": self._map.bar, "unit": self._map.unit, "layout": made,
        }  # fmt: skip
        self._map.plot.js_on_change("inner_width", CustomJS(args=dark, code=DARK))
        return made

    def _mapped(self, _attr: str, _old: Any, _new: Any) -> None:
        self._show_map()

    def _show_map(self) -> None:
        name = self.quantity.value
        per = None if name == _RGB else QUANTITIES[name].per
        self.band.visible, self.wave.visible = per == "band", per == "wave"
        self._spectrum.slit.update(location=self.wave.value, visible=per == "wave")
        if name == _RGB:
            image, bands = rgb_array(self._ds)
            self._map.show_colours(image)
            label = "three-colour image: " + ", ".join(b.replace("_", " ") for b in bands)
            known = bool(image.any())
        else:
            asked = quantity_map(self._ds, name, wave=self.wave.value, band=self.band.value)
            values = asked.values.astype(float)
            self._map.show(values, QUANTITIES[name].centre, asked.attrs["unit"])
            label, known = asked.attrs["label"], bool(np.isfinite(values).any())
        self._map.plot.title.text = label if known else f"{label}: unknown in every pixel"
        _describe(
            self._map.plot, f"Map: {self._map.plot.title.text}. Choose pixels by x and y too."
        )

    def _tapped(self, event: Any) -> None:
        y, x = round(event.y), round(event.x)
        if 0 <= y < self._ds.sizes["y"] and 0 <= x < self._ds.sizes["x"]:
            self._choose(y, x)
        else:
            self._say("outside the image: click on a pixel")

    def _pointed(self, _attr: str, _old: Any, new: Any) -> None:
        if not len(new["x"]):
            return
        y, x = int(new["y"][0]), int(new["x"][0])
        if 0 <= y < self._ds.sizes["y"] and 0 <= x < self._ds.sizes["x"]:
            self._choose(y, x)
        self._pointer.data = {"x": [], "y": []}

    def _typed(self, _attr: str, _old: Any, _new: Any) -> None:
        if self._at != _ELSEWHERE and None not in (self.x.value, self.y.value):
            self._choose(int(self.y.value), int(self.x.value))

    def _choose(self, y: int, x: int) -> None:
        """Show a pixel."""
        if self._at == (y, x):
            return
        self._at = _ELSEWHERE  # the two are set one after the other: half of it is no pixel
        self.x.value, self.y.value = x, y
        self._at = (y, x)
        inside = np.zeros((self._ds.sizes["y"], self._ds.sizes["x"]), bool)
        inside[y, x] = True
        self._show(self.blocks.pixel(y, x), inside)

    def _dragged(self, event: Any) -> None:
        if not event.final or event.geometry["type"] not in ("rect", "poly"):
            return
        inside = _inside(event.geometry, (self._ds.sizes["y"], self._ds.sizes["x"]))
        try:
            one = aperture_extract(self._ds, inside)
        except InputError as error:
            self._say(str(error))
            return
        self._at = None
        self._show(one, inside)

    def _show(self, one: Extract, inside: NDArray[np.bool_]) -> None:
        self.shown = one
        y, x = (float(v.mean()) for v in np.nonzero(inside))
        with self._drawn_once():
            self._spectrum.show(one)
            self._map.mark(inside)
            self.said.text = readout(self._ds, self._wcs, one, y, x)
            for plot, what in ((self._spectrum.sed, "Spectrum and images"),
                               (self._spectrum.factor, "Correction factor")):  # fmt: skip
                _describe(plot, f"{what} of {one.where}. {one.note}")

    @contextmanager
    def _drawn_once(self) -> Iterator[None]:
        """Let the browser draw when all changes have arrived: it would draw after each of them."""
        for plot in self._plots:
            plot.hold_render = True
        try:
            yield
        finally:
            for plot in self._plots:
                plot.hold_render = False

    def _say(self, text: str) -> None:
        self.said.text = f"<em>{text}</em>"

    def _export(self, kind: str) -> None:
        """Send the figure or the data of what is shown to the browser, as a file."""
        name = identify(self._ds).split(" (")[0]
        data = (data_text(self.shown, name).encode() if kind == "ecsv"
                else figure_bytes(self.shown, kind))  # fmt: skip
        mime = {"ecsv": "text/plain", "pdf": "application/pdf", "png": "image/png"}[kind]
        stem = f"{name} {self.shown.where}".replace(" = ", "").replace(",", "").replace(" ", "_")
        self._file.data = {
            "name": [f"{stem}.{kind}"], "mime": [mime], "base64": [base64.b64encode(data).decode()],
        }  # fmt: skip


def _describe(plot: Any, text: str) -> None:
    """Tell those who do not see a plot what it shows."""
    plot.html_attributes = {"role": "img", "aria-label": text}


def _inside(geometry: dict[str, Any], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels whose middle is inside a rectangle or a drawn line."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    if geometry["type"] == "rect":
        x0, x1 = sorted((geometry["x0"], geometry["x1"]))
        y0, y1 = sorted((geometry["y0"], geometry["y1"]))
        return np.asarray((x >= x0) & (x <= x1) & (y >= y0) & (y <= y1))
    from matplotlib.path import Path as Outline  # the page is there before matplotlib is needed

    corners = np.column_stack([geometry["x"], geometry["y"]])
    points = np.column_stack([x.ravel(), y.ravel()])
    return np.asarray(Outline(corners).contains_points(points).reshape(shape))
