"""Where the pixels of one grid lie on another.

astropy's WCS is not thread-safe: these functions are called once, before any task exists, and
the arrays they return travel to the tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from astropy.wcs import WCS
    from numpy.typing import NDArray

__all__ = ["PixelFrame", "corners_on", "positions_on", "reached"]


@dataclass(frozen=True)
class PixelFrame:
    """A rectangle of WCS pixels: first pixel numbers (0-based) and shape ``(n_y, n_x)``."""

    wcs: WCS
    first_x: int
    first_y: int
    shape: tuple[int, int]


def corners_on(
    output: PixelFrame, source: PixelFrame
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Corners of the output pixels in array coordinates of the source, ``(n_y + 1, n_x + 1)``.

    Array coordinates are 0 at the centre of the source's first pixel. Corners off the source's
    projection are NaN.
    """
    x = np.arange(output.shape[1] + 1) - 0.5 + output.first_x
    y = np.arange(output.shape[0] + 1) - 0.5 + output.first_y
    grid_x, grid_y = np.meshgrid(x, y)
    return _transform(grid_x, grid_y, output.wcs, source)


def positions_on(
    source: PixelFrame, output: PixelFrame, pad: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres of the source pixels, padded on all sides, in array coordinates of the output."""
    x = np.arange(-pad, source.shape[1] + pad) + source.first_x
    y = np.arange(-pad, source.shape[0] + pad) + source.first_y
    grid_x, grid_y = np.meshgrid(x.astype(float), y.astype(float))
    return _transform(grid_x, grid_y, source.wcs, output)


def reached(
    corner_x: NDArray[np.float64],
    corner_y: NDArray[np.float64],
    shape: tuple[int, int],
    reach: int,
    *,
    multiple: int = 1,
) -> tuple[slice, slice]:
    """Smallest box of output pixels that holds all within ``reach`` pixels of the source grid.

    Parameters
    ----------
    corner_x, corner_y
        From :func:`corners_on`.
    shape
        ``(n_y, n_x)`` of the source.
    reach
        In source pixels.
    multiple
        The box begins and ends at multiples of this, or at the end of the frame.

    Returns
    -------
    tuple of slice
        ``(y, x)``; at least one pixel.
    """
    near = np.ones((corner_x.shape[0] - 1, corner_x.shape[1] - 1), dtype=bool)
    for corner, size in ((corner_x, shape[1]), (corner_y, shape[0])):
        around = np.stack([corner[:-1, :-1], corner[:-1, 1:], corner[1:, 1:], corner[1:, :-1]])
        # comparisons with NaN are False: pixels off the sky are not near
        near &= (around.max(axis=0) > -0.5 - reach) & (around.min(axis=0) < size - 0.5 + reach)
    rows, columns = near.any(axis=1), near.any(axis=0)
    return _span(np.asarray(rows), multiple), _span(np.asarray(columns), multiple)


def _span(near: NDArray[np.bool_], multiple: int) -> slice:
    index = np.flatnonzero(near) if near.any() else np.zeros(1, dtype=int)
    first = int(index[0]) // multiple * multiple
    return slice(first, min(near.size, (int(index[-1]) // multiple + 1) * multiple))


def _transform(
    x: NDArray[np.float64], y: NDArray[np.float64], wcs: WCS, to: PixelFrame
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    # through the sky as SkyCoord, so that FK5 and ICRS headers meet correctly
    sky = wcs.celestial.pixel_to_world(x, y)
    to_x, to_y = to.wcs.celestial.world_to_pixel(sky)
    return np.asarray(to_x) - to.first_x, np.asarray(to_y) - to.first_y
