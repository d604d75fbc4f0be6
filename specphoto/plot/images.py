"""Three-colour images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from specphoto.cube import celestial_wcs, validate
from specphoto.drawing import rgb_array
from specphoto.plot.style import cycle, extent_of, grid_of, offsets, outline, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

__all__ = ["rgb_image"]


def rgb_image(
    ds: xr.Dataset,
    ax: Axes,
    *,
    bands: Sequence[str] | None = None,
    pixels: Sequence[tuple[int, int]] = (),
    stretch: float = 0.067,
    zoom: bool = True,
) -> Axes:
    """Three-colour image (Lupton et al. 2004) with the footprint of the IFS.

    The dashed line goes round the pixels that spectra reach (``coverage`` above 0), the solid one
    round ``spec_region``, where they are trustworthy.

    Parameters
    ----------
    ds
        A matched cube: ``photo_flux``, ``spec_region``.
    ax
        Axes to draw on.
    bands
        For red, green and blue; by default i, r and g of SDSS, else the longest, the middle and
        the shortest of those that there are.
    pixels
        Positions ``(y, x)``, 0-based, to mark; those of the other figures.
    stretch
        Share of the brightest pixel at which the scale turns from linear to logarithmic.
    zoom
        Show the galaxy's pixels only.

    Raises
    ------
    InputError
        If there are no images.
    """
    validate(ds, "photo_flux", "spec_region", verb="rgb_image")
    image, chosen = rgb_array(ds, bands=bands, stretch=stretch)
    scale, unit = grid_of(ds)
    extent = extent_of(ds, scale)
    ax.imshow(image, origin="lower", extent=extent, interpolation="nearest")
    if not image.any():
        say(ax, "no image has a known pixel")
    x, y = offsets(ds, scale)
    lines = _borders(ds, ax, extent)
    for (row, column), colour in zip(pixels, cycle(len(pixels)), strict=True):
        ax.plot(x[column], y[row], "s", mfc="none", mec=colour, ms=7, mew=2.0)
    if zoom:
        _zoom(ax, ds, x, y)
    if ds.attrs.get("wcs"):
        _compass(ax, ds)
    ax.set(xlabel=f"x offset ({unit})", ylabel=f"y offset ({unit})")
    ax.set_title("; ".join([", ".join(b.replace("_", " ") for b in chosen), *lines]), fontsize=10)
    return ax


def _borders(ds: xr.Dataset, ax: Axes, extent: tuple[float, ...]) -> list[str]:
    """Outline footprint and region; return the words that explain the lines."""
    words = []
    regions = {"solid": ("spec_region", np.asarray(ds["spec_region"].values))}
    if "coverage" in ds:
        covered = ds["coverage"].fillna(0.0).values.reshape(-1, ds.sizes["y"], ds.sizes["x"])
        regions["dashed"] = ("IFS", np.asarray((covered > 0).any(axis=0)))
    for style, (name, region) in regions.items():
        if region.any() and not region.all():
            outline(ax, region, extent, colors="white", linewidths=1.4, linestyles=style)
            words.append(f"{style}: {name}")
    return words


def _compass(ax: Axes, ds: xr.Dataset) -> None:
    """Arrows to north and east in the lower left corner."""
    matrix = celestial_wcs(ds).pixel_scale_matrix
    to_pixel = np.linalg.inv(matrix)
    for name, sky in (("N", (0.0, 1.0)), ("E", (1.0, 0.0))):
        step = to_pixel @ np.array(sky)
        step = 0.1 * step / np.hypot(*step)
        start = (0.14, 0.06)
        ax.annotate(
            "", xy=(start[0] + step[0], start[1] + step[1]), xytext=start,
            xycoords="axes fraction", textcoords="axes fraction",
            arrowprops={"arrowstyle": "->", "color": "white", "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip
        at = (start[0] + 1.3 * step[0], start[1] + 1.3 * step[1])
        ax.text(*at, name, transform=ax.transAxes, color="white", fontsize=9, ha="center",
                va="center")  # fmt: skip


def _zoom(ax: Axes, ds: xr.Dataset, x: NDArray[np.floating], y: NDArray[np.floating]) -> None:
    inside = ds["photo_region"].values if "photo_region" in ds else ds["spec_region"].values
    if inside.any():
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        edge = 1.05 * max(abs(v) for v in (*x[columns[[0, -1]]], *y[rows[[0, -1]]]))
        ax.set(xlim=(-edge, edge), ylim=(-edge, edge))
