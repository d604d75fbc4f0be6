"""The two panels: the map on the left, the spectrum on the right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from bokeh.models import (
    BoxSelectTool,
    ColorBar,
    ColumnDataSource,
    FixedTicker,
    HoverTool,
    Label,
    LassoSelectTool,
    LinearColorMapper,
    NumeralTickFormatter,
    Range1d,
    Span,
    TeeHead,
    Title,
    Whisker,
)
from bokeh.plotting import figure

from specphoto.cube import FLUX_LABEL
from specphoto.drawing import BLACK, BLUE, ORANGE, RED, SKY, colours, edges

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from specphoto.extract import Extract

__all__ = ["MapPanel", "SpectrumPanel"]

# What every product has; the rest comes with the spectral stage.
_ALWAYS = ("as observed", "images")
_TICKS = [2000, 3000, 5000, 10000, 20000, 40000]
_PALETTES = {"viridis": "Viridis256", "RdBu_r": "RdBu11"}


def _sampled(n_wave: int) -> NDArray[np.intp]:
    """Channels that the factor is drawn at: it is smooth, and a click waits for what is sent."""
    return np.unique(np.linspace(0, n_wave - 1, 256).astype(np.intp))


class MapPanel:
    """Image or map, with the region, the chosen pixels, and their selection.

    Parameters
    ----------
    ds
        Gives the frame, and ``spec_region``.
    """

    def __init__(self, ds: xr.Dataset) -> None:
        n_y, n_x = ds.sizes["y"], ds.sizes["x"]
        self.extent = (-0.5, n_x - 0.5, -0.5, n_y - 0.5)
        self.source = ColumnDataSource(
            data={"image": [np.zeros((n_y, n_x), np.float32)]}, name="image"
        )
        self.colours = ColumnDataSource(data={"image": [np.zeros((n_y, n_x), np.uint32)]})
        self.mapper = LinearColorMapper(
            palette="Viridis256", low=0.0, high=1.0, nan_color="#9a9a9a"
        )
        self.chosen = ColumnDataSource(data={"xs": [], "ys": []}, name="chosen")
        self.plot = figure(
            match_aspect=True, tools="pan,wheel_zoom,reset,save",
            sizing_mode="scale_width", aspect_ratio=1.2, toolbar_location="above",
            x_axis_label="x (pixel)", y_axis_label="y (pixel)", name="map",
        )  # fmt: skip
        # pixels stay square only where ranges follow data: what is not seen sets them
        (left, right), (bottom, top) = self._shown(ds, 1), self._shown(ds, 0)
        frame = self.plot.quad(left, right, top, bottom, alpha=0.0)
        for span in (self.plot.x_range, self.plot.y_range):
            span.update(renderers=[frame], range_padding=0.0)
        place = {"x": -0.5, "y": -0.5, "dw": n_x, "dh": n_y}
        drawn = self.plot.image("image", source=self.source, color_mapper=self.mapper, **place)
        self.rgb = self.plot.image_rgba("image", source=self.colours, visible=False, **place)
        self.value = drawn
        self.bar = ColorBar(color_mapper=self.mapper, padding=4)
        self.unit = Title(text_font_style="normal", align="center", standoff=8)
        self.plot.add_layout(self.bar, "right")
        self.plot.add_layout(self.unit, "right")
        if "spec_region" in ds:
            xs, ys = self._border(ds["spec_region"].values)
            self.plot.multi_line(xs, ys, color="white", line_width=3.0)
            self.plot.multi_line(xs, ys, color=BLACK, line_width=1.2)
        self.plot.multi_line("xs", "ys", source=self.chosen, color="white", line_width=5.0)
        self.plot.multi_line("xs", "ys", source=self.chosen, color=RED, line_width=2.5)
        box = BoxSelectTool(description="Drag an aperture")
        self.plot.add_tools(
            box, LassoSelectTool(description="Draw an aperture", continuous=False),
            HoverTool(renderers=[drawn], tooltips=[("x, y", "$x{0}, $y{0}"), ("value", "@image")]),
        )  # fmt: skip
        self.plot.toolbar.update(active_drag=box, logo=None)

    @staticmethod
    def _shown(ds: xr.Dataset, axis: int) -> tuple[float, float]:
        """Limits of what is worth seeing along an axis: the known pixels and a border of two."""
        region = ds["photo_region"] if "photo_region" in ds else ds.get("spec_region")
        length = ds.sizes["yx"[axis]]
        inside = np.empty(0) if region is None else np.flatnonzero(region.values.any(axis=1 - axis))
        if inside.size == 0:
            return -0.5, length - 0.5
        return max(-0.5, inside[0] - 2.5), min(length - 0.5, inside[-1] + 2.5)

    def _border(self, region: NDArray[np.bool_]) -> tuple[list[Any], list[Any]]:
        lines = edges(region, self.extent)
        return [[a[0], b[0]] for a, b in lines], [[a[1], b[1]] for a, b in lines]

    def show(self, values: NDArray[np.floating], centre: float | None, unit: str) -> None:
        """Draw a map."""
        scale = colours(values, centre)
        palette = _PALETTES[scale["cmap"]]
        # one change of each model: the page draws once
        self.mapper.update(palette=palette, low=scale["vmin"], high=scale["vmax"])
        self.source.data = {"image": [np.asarray(values, np.float32)]}
        self.rgb.visible, self.value.visible, self.bar.visible = False, True, True
        self.unit.update(text=unit, visible=bool(unit))

    def show_colours(self, image: NDArray[np.uint8]) -> None:
        """Draw a three-colour image ``(y, x, 3)``."""
        opaque = np.concatenate([image, np.full((*image.shape[:2], 1), 255, np.uint8)], axis=2)
        self.colours.data = {"image": [np.ascontiguousarray(opaque).view(np.uint32)[..., 0]]}
        self.rgb.visible, self.value.visible, self.bar.visible = True, False, False
        self.unit.visible = False

    def mark(self, inside: NDArray[np.bool_]) -> None:
        """Outline the chosen pixels."""
        xs, ys = self._border(inside)
        self.chosen.data = {"xs": xs, "ys": ys}


class SpectrumPanel:
    """SED with spectrum and model, and the factor below it."""

    def __init__(self) -> None:
        self.spectrum = ColumnDataSource(
            data={n: [] for n in ("wave", "observed", "corrected", "model")}, name="spectrum"
        )
        self.curve = ColumnDataSource(
            data={n: [] for n in ("wave", "factor", "low", "high")}, name="curve"
        )
        self.images = ColumnDataSource(
            data={n: [] for n in ("wave", "flux", "low", "high", "band")}, name="images"
        )
        self.sed = figure(
            x_axis_type="log", y_axis_type="log", height=370, sizing_mode="stretch_width",
            tools="pan,box_zoom,wheel_zoom,reset,save", toolbar_location="above", name="sed",
            x_axis_label="observed wavelength (Å)", y_axis_label=f"Fλ ({FLUX_LABEL})",
            output_backend="canvas", x_range=Range1d(1000, 60000), y_range=Range1d(0.1, 10),
        )  # fmt: skip
        self._draw_sed()
        self.factor = figure(
            height=240, sizing_mode="stretch_width", tools="pan,box_zoom,reset,save",
            toolbar_location="above", name="factor", x_axis_label="observed wavelength (Å)",
            y_axis_label="correction factor", x_range=Range1d(3000, 11000),
            y_range=Range1d(0.5, 1.5),
        )  # fmt: skip
        self.sed.toolbar.logo = self.factor.toolbar.logo = None
        self.factor.varea("wave", "low", "high", source=self.curve, color=BLUE, alpha=0.25)
        self.factor.line("wave", "factor", source=self.curve, color=BLUE, line_width=2)
        self.slit = Span(dimension="height", line_color=RED, line_dash="dashed", visible=False)
        self.sed.add_layout(self.slit)
        self.why = Label(
            x=180, y=10, x_units="screen", y_units="screen", text="", background_fill_color="white",
            text_color=BLACK, background_fill_alpha=0.9, padding=6, name="why",
        )  # fmt: skip
        self.why_factor = self.why.clone(name="why-factor")
        self.sed.add_layout(self.why)
        self.factor.add_layout(self.why_factor)

    def _draw_sed(self) -> None:
        line = self.sed.line
        line("wave", "model", source=self.spectrum, color=ORANGE, line_width=4, alpha=0.8,
             legend_label="reference model")  # fmt: skip
        line("wave", "observed", source=self.spectrum, color=SKY, legend_label="as observed")
        line("wave", "corrected", source=self.spectrum, color=BLUE, legend_label="corrected")
        points = self.sed.scatter("wave", "flux", source=self.images, color=RED, size=9,
                                  legend_label="images")  # fmt: skip
        heads = {"upper_head": TeeHead(size=6, line_color=RED),
                 "lower_head": TeeHead(size=6, line_color=RED)}  # fmt: skip
        self.sed.add_layout(Whisker(
            base="wave", lower="low", upper="high", source=self.images, line_color=RED, **heads,
        ))  # fmt: skip
        self.sed.add_tools(
            HoverTool(renderers=[points], tooltips=[("band", "@band"), ("flux", "@flux")])
        )
        self.sed.xaxis.ticker = FixedTicker(ticks=_TICKS)
        self.sed.xaxis.formatter = NumeralTickFormatter(format="0")
        self.sed.legend.location = "bottom_left"
        self.sed.legend.click_policy = "hide"
        self.sed.legend.background_fill_alpha = 0.6
        self.sed.legend.label_text_font_size = "11px"

    def show(self, one: Extract) -> None:
        """Draw what a pixel or an aperture holds, or say why there is nothing."""
        unknown = np.full(one.wave.size, np.nan, np.float32)
        factor = unknown if one.factor is None else one.factor
        error = 0.0 if one.factor_err is None else one.factor_err
        self.spectrum.data = {
            "wave": one.wave.astype(np.float32),
            "observed": np.where(one.good, one.observed, np.nan),
            "corrected": unknown if one.factor is None else one.masked,
            "model": unknown if one.model is None else one.model,
        }  # fmt: skip
        few = _sampled(one.wave.size)
        curve = {"factor": factor, "low": factor - error, "high": factor + error}
        self.curve.data = {"wave": one.wave[few]} | {n: v[few] for n, v in curve.items()}
        low = np.maximum(one.photo_flux - one.photo_err, 1e-30)
        for item in self.sed.legend.items:
            item.visible = one.factor is not None or item.label.value in _ALWAYS
        self.images.data = {
            "wave": one.band_wave, "flux": one.photo_flux, "low": low,
            "high": one.photo_flux + one.photo_err,
            "band": [b.replace("_", " ") for b in one.bands],
        }  # fmt: skip
        self._scale(one, factor, error)

    def _scale(self, one: Extract, factor: NDArray[np.floating], error: Any) -> None:
        flux = np.concatenate([one.photo_flux, one.masked])
        flux = flux[np.isfinite(flux) & (flux > 0)]
        if flux.size:
            low, high = np.percentile(flux, (0.5, 99.9))
            low = min(low, *one.photo_flux[one.photo_flux > 0], high)
            self.sed.y_range.update(start=0.5 * low, end=2.0 * max(high, flux.max() / 2))
        wave = np.concatenate([one.band_wave, one.wave])
        self.sed.x_range.update(start=0.9 * wave.min(), end=1.1 * wave.max())
        known = np.isfinite(factor)
        if known.any():
            reach = max(0.02, float(np.nanmax(np.abs(factor - 1.0) + error)))
            self.factor.y_range.update(start=1.0 - 1.1 * reach, end=1.0 + 1.1 * reach)
        self.factor.x_range.update(start=one.wave[0], end=one.wave[-1])
        self.why.text = one.note if one.note or flux.size else "no positive flux"
        self.why_factor.text = "" if known.any() else one.note or "no factor here"
        self.why.visible, self.why_factor.visible = bool(self.why.text), bool(self.why_factor.text)
