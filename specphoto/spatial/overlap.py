"""Exact area overlap of two pixel grids."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["overlap_matrix"]

# Below this slope in x an edge is taken as vertical: the exact integral would divide by it.
_VERTICAL = 1e-7
# A side that rises by less than this (pixels) encloses nothing: its slope would overflow.
_FLAT = 1e-12


def overlap_matrix(
    corner_x: NDArray[np.float64], corner_y: NDArray[np.float64], shape_in: tuple[int, int]
) -> sparse.csr_array:
    r"""Area that each output pixel shares with each input pixel.

    .. math:: R_{oj} = \mathrm{area}(o \cap j) / \mathrm{area}(j)

    Output pixels are quadrilaterals with straight sides on the input grid, whose pixels are unit
    squares centred on integers. By Green's theorem the shared area is a sum over the four
    directed sides, :math:`\oint \mathrm{clip}(x, x_j - 1/2, x_j + 1/2)\,dy` with *y* limited to
    the input pixel, so rotated, sheared and flipped grids are all exact.

    Parameters
    ----------
    corner_x, corner_y
        Corners of the output pixels in input pixel coordinates, shape ``(n_y + 1, n_x + 1)``.
        Pixels with a corner that is not finite (off the sky) overlap nothing.
    shape_in
        ``(n_y, n_x)`` of the input grid.

    Returns
    -------
    scipy.sparse.csr_array
        ``(n_out, n_in)`` in input pixels. A column sums to 1 for an input pixel inside the output
        frame, so surface brightness summed with these weights conserves flux.

    Examples
    --------
    >>> import numpy as np
    >>> x, y = np.meshgrid([-0.5, 1.5], [-0.5, 0.5])  # one output pixel, two input pixels wide
    >>> overlap_matrix(x, y, (1, 3)).toarray()
    array([[1., 1., 0.]])
    """
    quad_x, quad_y = _quadrilaterals(corner_x), _quadrilaterals(corner_y)
    out, col_y, col_x = _candidates(quad_x, quad_y, shape_in)
    # coordinates relative to the input pixel's centre keep the integrals well conditioned
    px = quad_x[out] - col_x[:, None]
    py = quad_y[out] - col_y[:, None]
    area = np.zeros(out.size)
    for side in range(4):
        nxt = (side + 1) % 4
        area += _side_integral(px[:, side], py[:, side], px[:, nxt], py[:, nxt])
    area = np.abs(area)
    keep = area > 1e-12
    index = (out[keep], col_y[keep] * shape_in[1] + col_x[keep])
    shape = (quad_x.shape[0], shape_in[0] * shape_in[1])
    return sparse.coo_array((area[keep], index), shape=shape).tocsr()


def _quadrilaterals(corner: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corners ``(n_y + 1, n_x + 1)`` as closed quadrilaterals ``(n_out, 4)``."""
    around = [corner[:-1, :-1], corner[:-1, 1:], corner[1:, 1:], corner[1:, :-1]]
    return np.stack([c.ravel() for c in around], axis=1)


def _candidates(
    quad_x: NDArray[np.float64], quad_y: NDArray[np.float64], shape_in: tuple[int, int]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Pairs (output pixel, input y, input x) whose bounding boxes meet."""
    ok = np.asarray(np.isfinite(quad_x).all(axis=1) & np.isfinite(quad_y).all(axis=1))
    x0, nx = _span(quad_x, ok, shape_in[1])
    y0, ny = _span(quad_y, ok, shape_in[0])
    count = nx * ny
    out = np.repeat(np.arange(ok.size), count)
    rank = np.arange(out.size) - np.repeat(np.cumsum(count) - count, count)
    return out, y0[out] + rank // nx[out], x0[out] + rank % nx[out]


def _span(
    quad: NDArray[np.float64], ok: NDArray[np.bool_], size: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First input index and number of indices that each quadrilateral can touch on one axis."""
    corner = np.where(ok[:, None], quad, -10.0)
    # clipped before the cast: corners may be far outside what an integer holds
    first = np.clip(np.floor(corner.min(axis=1) + 0.5), 0, size).astype(np.intp)
    last = np.clip(np.floor(corner.max(axis=1) + 0.5), -1, size - 1).astype(np.intp)
    return first, np.maximum(last - first + 1, 0) * ok


def _side_integral(
    xa: NDArray[np.float64],
    ya: NDArray[np.float64],
    xb: NDArray[np.float64],
    yb: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Integral of clip(x, -1/2, 1/2) dy along the side a -> b inside the strip abs(y) < 1/2."""
    dy = yb - ya
    flat = np.abs(dy) < _FLAT
    safe = np.where(flat, 1.0, dy)
    slope = (xb - xa) / safe
    y1, y2 = np.clip(ya, -0.5, 0.5), np.clip(yb, -0.5, 0.5)
    x1, x2 = xa + slope * (y1 - ya), xa + slope * (y2 - ya)
    vertical = np.abs(x2 - x1) < _VERTICAL
    dx = np.where(vertical, 1.0, x2 - x1)
    mean = np.where(
        vertical, np.clip(0.5 * (x1 + x2), -0.5, 0.5), (_primitive(x2) - _primitive(x1)) / dx
    )
    return np.where(flat, 0.0, mean * (y2 - y1))


def _primitive(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Primitive of clip(x, -1/2, 1/2), zero and smooth at the origin."""
    inner = np.clip(x, -0.5, 0.5)
    return 0.5 * inner**2 + 0.5 * (np.abs(x) - np.abs(inner))
