"""Maps of any per-pixel quantity, on the sky or on offsets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.visualization.wcsaxes import WCSAxes

from specphoto.cube import celestial_wcs
from specphoto.drawing import colours
from specphoto.maps import QUANTITIES, quantity_map
from specphoto.plot.style import extent_of, grid_of, outline, say

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

__all__ = ["pixel_map", "sky_axes"]


def sky_axes(ds: xr.Dataset, figure: Figure, *position: Any) -> Axes:
    """Add axes of right ascension and declination to a figure, for :func:`pixel_map`.

    Parameters
    ----------
    ds
        A dataset with a WCS.
    figure
        Gets the axes.
    *position
        As for :meth:`matplotlib.figure.Figure.add_subplot`.

    Raises
    ------
    InputError
        If the dataset has no WCS.
    """
    ax: Axes = figure.add_subplot(*position, projection=celestial_wcs(ds))
    return ax


def pixel_map(
    ds: xr.Dataset, ax: Axes, quantity: str, *, wave: float | None = None,
    band: str | None = None, colorbar: bool = True, zoom: bool = True,
) -> Axes:  # fmt: skip
    """Map of a quantity: factor, chi2, closure, coverage, S/N, ...

    Parameters
    ----------
    ds
        A matched cube, corrected or not.
    ax
        Axes to draw on: :func:`sky_axes` for right ascension and declination, else offsets.
    quantity
        A name of :data:`specphoto.maps.QUANTITIES`.
    wave
        Angstrom, for what depends on wavelength; by default the middle of the range.
    band
        For what depends on the band; by default the one in the middle.
    colorbar
        Whether to draw one.
    zoom
        Show the pixels with a known value that is not 0 only.

    Raises
    ------
    InputError
        If the dataset has no such quantity, or no such band.
    """
    asked = quantity_map(ds, quantity, wave=wave, band=band)
    values = asked.values.astype(float)
    if "spec_region" in ds and QUANTITIES[quantity].needs[0] not in ("coverage", "photo_flux"):
        values = np.where(ds["spec_region"].values, values, np.nan)
    sky = isinstance(ax, WCSAxes)
    scale, unit = grid_of(ds)
    n_y, n_x = values.shape
    extent = (-0.5, n_x - 0.5, -0.5, n_y - 0.5) if sky else extent_of(ds, scale)
    image = ax.imshow(
        values, origin="lower", extent=extent, interpolation="nearest",
        **colours(values, QUANTITIES[quantity].centre),
    )  # fmt: skip
    ax.set_facecolor("0.85")
    if "spec_region" in ds:
        outline(ax, ds["spec_region"].values, extent, colors="0.3", linewidths=0.8)
    if not np.isfinite(values).any():
        say(ax, f"{asked.attrs['label']}: unknown in every pixel")
    else:
        if colorbar:
            ax.figure.colorbar(image, ax=ax, shrink=0.85, label=asked.attrs["unit"])
        if zoom:
            seen = np.isfinite(values) & (values != 0)
            _zoom(ax, seen if seen.any() else np.isfinite(values), extent)
    _name_axes(ax, unit, sky=sky)
    ax.set_title(asked.attrs["label"], fontsize=10)
    return ax


def _zoom(ax: Axes, known: NDArray[np.bool_], extent: tuple[float, ...]) -> None:
    """Show known pixels and a border of two."""
    for axis, name in enumerate("xy"):
        low, high = extent[2 * axis : 2 * axis + 2]
        inside = np.flatnonzero(known.any(axis=axis))
        side = (high - low) / known.shape[1 - axis]
        first, last = low + side * (inside[0] - 2), low + side * (inside[-1] + 3)
        ax.set(**{f"{name}lim": (max(low, first), min(high, last))})


def _name_axes(ax: Axes, unit: str, *, sky: bool) -> None:
    if not sky:
        ax.set(xlabel=f"x offset ({unit})", ylabel=f"y offset ({unit})")
        return
    ax.set(xlabel="right ascension", ylabel="declination")
    ax.coords[0].set_ticks(number=4)  # type: ignore[attr-defined]  # more would overlap
