"""What figures and pages draw alike: colours, colour scales, outlines, three-colour images.

No matplotlib: the viewer starts without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from specphoto.cube import validate
from specphoto.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from numpy.typing import NDArray

__all__ = [
    "BLACK",
    "BLUE",
    "GREEN",
    "ORANGE",
    "PIXEL_COLOURS",
    "PURPLE",
    "RED",
    "SKY",
    "colours",
    "edges",
    "rgb_array",
]

# Okabe and Ito's
BLACK, ORANGE, SKY, GREEN, BLUE, RED, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
PIXEL_COLOURS = (BLUE, RED, GREEN, PURPLE, ORANGE)
_RGB = ("sdss_i", "sdss_r", "sdss_g")


def colours(values: NDArray[np.floating], centre: float | None) -> dict[str, Any]:
    """Colour map and limits: between the 1st and 99th percentile, or even about a centre."""
    known = values[np.isfinite(values)]
    if known.size == 0:
        return {"cmap": "viridis", "vmin": 0.0, "vmax": 1.0}
    low, high = (float(v) for v in np.percentile(known, (1.0, 99.0)))
    if centre is not None:
        reach = max(abs(low - centre), abs(high - centre), 1e-3)
        return {"cmap": "RdBu_r", "vmin": centre - reach, "vmax": centre + reach}
    # where all is the same, rounding must not be stretched over the colours
    least = max(1e-3 * abs(low), 1e-12)
    return {"cmap": "viridis", "vmin": low, "vmax": max(high, low + least)}


def edges(
    region: NDArray[np.bool_], extent: tuple[float, ...]
) -> list[list[tuple[float, float]]]:  # fmt: skip
    """Pieces of the border of a region along the edges of its pixels."""
    rows, columns = region.shape
    x = np.linspace(extent[0], extent[1], columns + 1)
    y = np.linspace(extent[2], extent[3], rows + 1)
    padded = np.pad(region, 1)
    upright = padded[1:-1, 1:] != padded[1:-1, :-1]
    level = padded[1:, 1:-1] != padded[:-1, 1:-1]
    lines = [[(x[j], y[i]), (x[j], y[i + 1])] for i, j in zip(*np.nonzero(upright), strict=True)]
    lines += [[(x[j], y[i]), (x[j + 1], y[i])] for i, j in zip(*np.nonzero(level), strict=True)]
    return lines


def rgb_array(
    ds: xr.Dataset, *, bands: Sequence[str] | None = None, stretch: float = 0.067
) -> tuple[NDArray[np.uint8], list[str]]:
    """Colours ``(y, x, 3)`` and the names of the bands; black where nothing is known.

    Parameters
    ----------
    ds, bands, stretch
        As in :func:`specphoto.plot.rgb_image`.
    """
    validate(ds, "photo_flux", verb="rgb_image")
    known = [str(b) for b in ds["band"].values]
    usual = _RGB if set(_RGB) <= set(known) else (known[-1], known[len(known) // 2], known[0])
    chosen = list(bands or usual)
    missing = sorted(set(chosen) - set(known))
    if missing or len(chosen) != 3:
        raise InputError(
            "rgb_image: bands", expected="three out of " + ", ".join(known),
            found=", ".join(chosen), remedy="name bands of the dataset",
        )  # fmt: skip
    flux = ds["photo_flux"].isel(band=[known.index(b) for b in chosen]).values
    if not np.isfinite(flux).any():
        return np.zeros((*flux.shape[1:], 3), np.uint8), chosen
    from astropy.visualization import make_lupton_rgb  # slow to import

    return make_lupton_rgb(*_in_one_scale(flux), minimum=0.0, stretch=stretch, Q=5), chosen


def _in_one_scale(planes: NDArray[np.floating]) -> NDArray[np.float64]:
    """Planes brought to equal totals, 1 at the peak: colours by their contrast in the galaxy."""
    filled = np.nan_to_num(planes.astype(np.float64))
    totals = filled.sum(axis=(1, 2), keepdims=True)
    filled = filled / np.where(totals > 0, totals, 1.0)
    # a speck of light everywhere: Lupton's formula divides by the intensity
    return np.asarray(np.maximum(filled / max(float(filled.max()), 1e-30), 1e-9))
