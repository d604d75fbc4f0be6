"""Where the pixels of one grid lie on another.

astropy's WCS is not thread-safe: these functions are called once, before any task exists, and
the arrays they return travel to the tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from specphoto.errors import InputError
from specphoto.spatial.operator import operator_pad

if TYPE_CHECKING:
    from astropy.wcs import WCS
    from numpy.typing import NDArray

__all__ = [
    "Geometry",
    "PixelFrame",
    "corners_on",
    "geometry_of",
    "positions_on",
    "reached",
    "shifted_positions",
]


@dataclass(frozen=True)
class PixelFrame:
    """A rectangle of WCS pixels: first pixel numbers (0-based) and shape ``(n_y, n_x)``."""

    wcs: WCS
    first_x: int
    first_y: int
    shape: tuple[int, int]

    @classmethod
    def of(cls, wcs: WCS, y: NDArray[np.int_], x: NDArray[np.int_], *, name: str) -> PixelFrame:
        """Frame of pixel numbers ``(n_y,)`` and ``(n_x,)``, which may be a slice of the WCS's.

        Raises
        ------
        InputError
            If pixels are skipped; ``name`` is that of the data, for the message.
        """
        for axis, number in (("y", y), ("x", x)):
            if number.size == 0 or np.any(np.diff(number) != 1):
                raise InputError(
                    f"{name}: {axis}", expected="consecutive pixel numbers",
                    found=f"{number[:5]}...", remedy="slice without a step, or rebin instead",
                )  # fmt: skip
        return cls(wcs, int(x[0]), int(y[0]), (y.size, x.size))


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


class Geometry(NamedTuple):
    """Where things are, as arrays: all that the tasks need to know of the sky.

    ``box`` is the part of the output frame that the cube can reach; ``corners`` are those of its
    pixels on the input grid; ``positions`` the padded input grid on the whole output frame;
    ``pad`` by how many pixels it is padded on each side.
    """

    box: tuple[slice, slice]
    corners: tuple[NDArray[np.float64], NDArray[np.float64]]
    positions: tuple[NDArray[np.float64], NDArray[np.float64]]
    pad: int

    @property
    def shape(self) -> tuple[int, int]:
        """``(n_y, n_x)`` of the box."""
        n_y, n_x = (s.stop - s.start for s in self.box)
        return (n_y, n_x)


def geometry_of(
    source: PixelFrame,
    output: PixelFrame,
    kernel: NDArray[np.float64],
    *,
    multiple: int = 1,
    max_shift: float = 0.0,
    name: str = "cube",
) -> Geometry:
    """Geometry of a cube on an output frame.

    Parameters
    ----------
    source, output
        The two frames.
    kernel
        PSF-matching kernel on the source's grid: it reaches beyond the source by half its side.
    multiple
        As for :func:`reached`.
    max_shift
        Largest change of the cube's pointing to make room for, in input pixels.
    name
        Of the cube, for the message.

    Raises
    ------
    InputError
        If the two do not overlap on the sky.
    """
    corner_x, corner_y = corners_on(output, source)
    x, y = positions_on(source, output)
    if not _any_within(corner_x, corner_y, source.shape) and not _any_within(x, y, output.shape):
        centre = [
            f.wcs.pixel_to_world(f.first_x + f.shape[1] / 2, f.first_y + f.shape[0] / 2)
            for f in (source, output)
        ]
        raise InputError(
            name, expected="a cube and images of the same sky",
            found=f"no overlap, centres {centre[0].separation(centre[1]).arcsec:.4g} arcsec apart",
            remedy="check that both files are of one galaxy and that their WCS are right",
        )  # fmt: skip
    reach = max(kernel.shape) // 2 + int(np.ceil(max_shift))
    box = reached(corner_x, corner_y, source.shape, reach, multiple=multiple)
    around = tuple(slice(s.start, s.stop + 1) for s in box)
    corners = (corner_x[around], corner_y[around])
    pad = operator_pad(*corners, source.shape, kernel)
    return Geometry(box, corners, positions_on(source, output, pad), pad)


def shifted_positions(
    positions: tuple[NDArray[np.float64], NDArray[np.float64]], shift: tuple[float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return where the input pixels lie once the cube's pointing has changed.

    Parameters
    ----------
    positions
        Of :class:`Geometry`.
    shift
        What is added to the corners, ``(x, y)`` in input pixels. The map from one grid to the
        other is smooth: over a few pixels its first derivatives are enough.
    """
    moved = []
    for along in positions:
        per_y, per_x = np.gradient(along)
        moved.append(along - shift[0] * per_x - shift[1] * per_y)
    return moved[0], moved[1]


def _any_within(x: NDArray[np.float64], y: NDArray[np.float64], shape: tuple[int, int]) -> bool:
    """Whether any position lies in a frame; one off the sky (NaN) does not."""
    inside = (np.abs(x / shape[1] - 0.5) < 0.5) & (np.abs(y / shape[0] - 0.5) < 0.5)
    return bool(inside.any())
