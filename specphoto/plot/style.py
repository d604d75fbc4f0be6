"""What all figures share: style, labels, extents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.ticker import FixedLocator, NullFormatter, ScalarFormatter

from specphoto.cube import celestial_wcs, pixel_scale
from specphoto.drawing import PIXEL_COLOURS, edges

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

__all__ = [
    "F_LAMBDA",
    "STYLE",
    "binned",
    "cycle",
    "extent_of",
    "grid_of",
    "offsets",
    "outline",
    "plain_wavelengths",
    "say",
]

#: For :func:`matplotlib.rc_context`: what a journal's page asks of a figure.
STYLE: dict[Any, Any] = {
    "font.size": 10, "axes.titlesize": 10, "legend.fontsize": 8, "legend.frameon": False,
    "xtick.direction": "in", "ytick.direction": "in", "savefig.dpi": 150,
}  # fmt: skip

F_LAMBDA = r"$F_\lambda$  ($10^{-17}$ erg s$^{-1}$ cm$^{-2}$ Å$^{-1}$)"
_BIN = 12


def offsets(ds: xr.Dataset, scale: float) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Offsets of columns and rows from the middle, ``(n_x,)`` and ``(n_y,)``."""
    n_x, n_y = ds.sizes["x"], ds.sizes["y"]
    return (np.arange(n_x) - (n_x - 1) / 2) * scale, (np.arange(n_y) - (n_y - 1) / 2) * scale


def extent_of(ds: xr.Dataset, scale: float) -> tuple[float, float, float, float]:
    """Left, right, lower and upper border in offsets from the middle."""
    half_x, half_y = ds.sizes["x"] * scale / 2, ds.sizes["y"] * scale / 2
    return -half_x, half_x, -half_y, half_y


def binned(values: NDArray[Any], size: int = _BIN) -> NDArray[np.float64]:
    """Means over `size` channels, unknown ones left out, so that lines stay visible in noise."""
    whole = values[: values.size // size * size].reshape(-1, size)
    known = np.isfinite(whole)
    count = known.sum(axis=1)
    total = np.where(known, whole, 0.0).sum(axis=1, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def plain_wavelengths(ax: Axes) -> None:
    """Label a logarithmic axis of wavelengths with round numbers."""
    lo, hi = ax.get_xlim()
    ticks = [t for t in (1500, 2000, 3000, 5000, 7000, 10000, 20000, 40000) if lo < t < hi]
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_formatter(NullFormatter())


def cycle(n: int) -> list[str]:
    """Colours of `n` pixels."""
    return [PIXEL_COLOURS[i % len(PIXEL_COLOURS)] for i in range(n)]


def grid_of(ds: xr.Dataset) -> tuple[float, str]:
    """Side of a pixel and its unit: arcsec where there is a WCS, else pixels."""
    if ds.attrs.get("wcs"):
        return pixel_scale(celestial_wcs(ds)), "arcsec"
    return 1.0, "pixel"


def outline(
    ax: Axes, region: NDArray[np.bool_], extent: tuple[float, ...], **style: Any
) -> LineCollection:
    """Draw the border of a region along the edges of its pixels."""
    border = LineCollection(edges(region, extent), capstyle="round", **style)
    ax.add_collection(border, autolim=False)
    return border


def say(ax: Axes, why: str) -> Axes:
    """Write in the middle of axes why they are empty."""
    ax.text(
        0.5, 0.5, why, transform=ax.transAxes, ha="center", va="center", wrap=True, fontsize=10,
        bbox={"boxstyle": "round", "facecolor": "white", "edgecolor": "0.6"}, zorder=10,
    )  # fmt: skip
    return ax
