r"""The spatial match as one linear operator, ``A = R K``.

``K`` convolves with the PSF-matching kernel on the input grid, ``R`` is the exact area overlap of
the two pixel grids. Built once per geometry and PSF, applied to every channel as a matrix
product. The same weights rule flux, variance and mask (:mod:`specphoto.spatial.varying`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import signal, sparse

from specphoto.spatial.overlap import overlap_matrix

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

__all__ = [
    "Operator",
    "build_operator",
    "build_operators",
    "full_light",
    "operator_pad",
]

# With fewer non-zero weights than this share, the sparse product is faster than BLAS.
_SPARSE_BELOW = 0.08
_ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class Operator:
    """Weights from input spaxels *j* to output pixels *o*.

    Attributes
    ----------
    weight
        ``A`` transposed, ``(n_in, n_row)`` float32, dense or sparse by density. Rows of ``A``
        that see no input spaxel are left out.
    row
        Flat index of each row's pixel in the output frame, ``(n_row,)``.
    area
        ``A 1`` with the sky beyond the bundle included, ``(n_row,)``: the output pixel's area in
        input pixels.
    overlap
        ``R`` of the same rows on the padded input grid, ``(n_row, n_padded)``.
    kernel
        ``K``, odd-sided, sum 1.
    pad
        Pixels added on each side of the input grid for ``overlap``.
    shape_in, shape_out
        ``(n_y, n_x)`` of the two grids.
    """

    weight: NDArray[np.float32] | sparse.csr_array
    row: NDArray[np.intp]
    area: NDArray[np.float64]
    overlap: sparse.csr_array
    kernel: NDArray[np.float64]
    pad: int
    shape_in: tuple[int, int]
    shape_out: tuple[int, int]

    @property
    def padded_shape(self) -> tuple[int, int]:
        """``(n_y, n_x)`` of the padded input grid."""
        return (self.shape_in[0] + 2 * self.pad, self.shape_in[1] + 2 * self.pad)

    @property
    def geometric_coverage(self) -> NDArray[np.float64]:
        """Coverage of each row if every input spaxel were good, ``(n_row,)``."""
        return np.asarray(self.weight.sum(axis=0, dtype=np.float64)).ravel() / self.area

    def scatter(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Put ``(..., n_row)`` into the output frame ``(..., n_y, n_x)``, NaN elsewhere."""
        size = self.shape_out[0] * self.shape_out[1]
        frame = np.full((*values.shape[:-1], size), np.nan, dtype=np.float32)
        frame[..., self.row] = values
        return frame.reshape(*values.shape[:-1], *self.shape_out)


def build_operator(
    corner_x: NDArray[np.float64],
    corner_y: NDArray[np.float64],
    shape_in: tuple[int, int],
    kernel: NDArray[np.float64],
    *,
    min_coverage: float = 0.0,
) -> Operator:
    """Build ``A = R K`` for one geometry and kernel.

    Parameters
    ----------
    corner_x, corner_y
        Corners of the output pixels in input pixel coordinates (centres on integers),
        shape ``(n_y + 1, n_x + 1)``.
    shape_in
        ``(n_y, n_x)`` of the input grid.
    kernel
        PSF-matching kernel on the input grid, odd-sided, sum 1.
    min_coverage
        Rows whose geometric coverage is below this are left out.

    Returns
    -------
    Operator

    Raises
    ------
    ValueError
        If the kernel has an even side.
    """
    return build_operators(corner_x, corner_y, shape_in, [kernel], min_coverage=min_coverage)[0]


def build_operators(
    corner_x: NDArray[np.float64],
    corner_y: NDArray[np.float64],
    shape_in: tuple[int, int],
    kernels: Sequence[NDArray[np.float64]],
    *,
    min_coverage: float = 0.0,
    pad: int | None = None,
) -> tuple[Operator, ...]:
    """Build one operator per kernel over the same rows: those that any of them covers.

    Parameters as for :func:`build_operator`; the kernels have one shape. ``pad`` is by default
    what :func:`operator_pad` finds.
    """
    sides = {side for kernel in kernels for side in kernel.shape}
    if any(side % 2 == 0 for side in sides) or len({kernel.shape for kernel in kernels}) != 1:
        shapes = [kernel.shape for kernel in kernels]
        msg = (
            f"kernel: expected odd sides of one shape, found {shapes}; an even one shifts the image"
        )
        raise ValueError(msg)
    shape_out = (corner_x.shape[0] - 1, corner_x.shape[1] - 1)
    if pad is None:
        pad = operator_pad(corner_x, corner_y, shape_in, kernels[0])
    padded = (shape_in[0] + 2 * pad, shape_in[1] + 2 * pad)
    overlap = overlap_matrix(corner_x + pad, corner_y + pad, padded)
    # a pixel's own area, not its share of the padded grid: what lies beyond is sky, not nothing
    area = _pixel_area(corner_x, corner_y)
    row = np.flatnonzero(np.diff(overlap.indptr))
    rows = _convolve_rows(overlap[row], np.stack(kernels), pad, padded, shape_in)
    covered = np.max([np.asarray(weight.sum(axis=1)).ravel() for weight in rows], axis=0)
    keep = covered / area[row] > max(min_coverage, 1e-9)
    row = row[keep]
    weights = [_transposed(weight[keep]) for weight in rows]
    common = {
        "row": row, "area": area[row], "overlap": overlap[row], "pad": pad, "shape_in": shape_in,
        "shape_out": shape_out,
    }  # fmt: skip
    return tuple(
        Operator(weight=weight, kernel=kernel, **common)
        for weight, kernel in zip(weights, kernels, strict=True)
    )


def operator_pad(
    corner_x: NDArray[np.float64],
    corner_y: NDArray[np.float64],
    shape_in: tuple[int, int],
    kernel: NDArray[np.float64],
) -> int:
    """Pixels to add on each side of the input grid so that no row of ``R`` is cut."""
    reach = int(max(kernel.shape)) // 2
    return reach + 2 + _largest_side(corner_x, corner_y, shape_in, reach)


def _largest_side(
    corner_x: NDArray[np.float64],
    corner_y: NDArray[np.float64],
    shape_in: tuple[int, int],
    reach: int,
) -> int:
    """Extent in input pixels of the largest output pixel near the input grid."""
    low, x_high, y_high = -reach - 2.0, shape_in[1] + reach + 2.0, shape_in[0] + reach + 2.0
    near = (corner_x > low) & (corner_x < x_high) & (corner_y > low) & (corner_y < y_high)
    side = 1.0
    for corner in (corner_x, corner_y):
        for axis in (0, 1):
            step = np.abs(np.diff(corner, axis=axis))
            edge = near.take(range(1, near.shape[axis]), axis=axis)
            side = max(side, float(np.max(step, initial=0.0, where=edge & np.isfinite(step))))
    return int(np.ceil(2.0 * side))


def _pixel_area(
    corner_x: NDArray[np.float64], corner_y: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Area of each output quadrilateral in input pixels, from its diagonals, flat."""
    dx1, dy1 = (c[1:, 1:] - c[:-1, :-1] for c in (corner_x, corner_y))
    dx2, dy2 = (c[1:, :-1] - c[:-1, 1:] for c in (corner_x, corner_y))
    return 0.5 * np.abs(dx1 * dy2 - dy1 * dx2).ravel()


def _convolve_rows(
    overlap: sparse.csr_array,
    kernels: NDArray[np.float64],
    pad: int,
    padded: tuple[int, int],
    shape_in: tuple[int, int],
) -> list[NDArray[np.float32]] | list[sparse.csr_array]:
    """Rows of ``A`` for each kernel ``(n_kernel, h, w)``: dense where BLAS wins, else sparse.

    Each row of ``R`` is an image; it is correlated with ``K`` and cut to the input.
    """
    n_row, n_in = overlap.shape[0], shape_in[0] * shape_in[1]
    if kernels[0].size >= _SPARSE_BELOW * n_in:
        dense = np.empty((len(kernels), n_row, n_in), dtype=np.float32)
        for rows, seen in _correlated(overlap, kernels, pad, padded, shape_in):
            dense[:, rows] = seen
        return list(dense)
    blocks = [[sparse.csr_array((0, n_in), dtype=np.float32)] for _ in kernels]
    for _, seen in _correlated(overlap, kernels, pad, padded, shape_in):
        for block, weight in zip(blocks, seen, strict=True):
            block.append(sparse.csr_array(weight.astype(np.float32)))
    return [sparse.vstack(block, format="csr") for block in blocks]


def _correlated(
    overlap: sparse.csr_array,
    kernels: NDArray[np.float64],
    pad: int,
    padded: tuple[int, int],
    shape_in: tuple[int, int],
) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Some rows after another, ``(n_kernel, n, n_in)``."""
    flipped = kernels[:, ::-1, ::-1]
    ry, rx = kernels.shape[1] // 2, kernels.shape[2] // 2
    inner = (slice(pad, pad + shape_in[0]), slice(pad, pad + shape_in[1]))
    for start in range(0, overlap.shape[0], _ROWS_AT_ONCE):
        part = overlap[start : start + _ROWS_AT_ONCE]
        image = np.zeros((len(kernels), part.shape[0], *padded))
        for r in range(part.shape[0]):
            span = slice(part.indptr[r], part.indptr[r + 1])
            for e, share in zip(part.indices[span], part.data[span], strict=True):
                y, x = divmod(int(e), padded[1])
                y0, x0 = max(y - ry, 0), max(x - rx, 0)
                window = flipped[
                    :, y0 - y + ry : padded[0] - y + ry, x0 - x + rx : padded[1] - x + rx
                ]
                image[:, r, y0 : y + ry + 1, x0 : x + rx + 1] += share * window
        seen = image[:, :, *inner].reshape(len(kernels), part.shape[0], -1)
        yield slice(start, start + part.shape[0]), seen


def _transposed(
    weight: NDArray[np.float32] | sparse.csr_array,
) -> NDArray[np.float32] | sparse.csr_array:
    """``A^T``, stored by input spaxels."""
    if isinstance(weight, np.ndarray):
        return np.ascontiguousarray(weight.T)
    return weight.T.tocsr()


def full_light(operator: Operator, image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Image through the operator with nothing missing, ``R (K * image)``.

    Parameters
    ----------
    operator
        The operator.
    image
        Surface brightness per input pixel on the padded input grid, ``(..., n_y, n_x)``; beyond
        its border the nearest value goes on.

    Returns
    -------
    numpy.ndarray
        Flux per output pixel, ``(..., n_row)``.
    """
    reach = max(operator.kernel.shape) // 2
    flat = image.reshape(-1, *operator.padded_shape)
    out = np.empty((flat.shape[0], operator.row.size))
    for k, plane in enumerate(flat):
        wide = np.pad(plane, reach, mode="edge")
        smooth = signal.fftconvolve(wide, operator.kernel, mode="same")
        out[k] = operator.overlap @ smooth[_core(reach, plane.shape)].ravel()
    return out.reshape(*image.shape[:-2], operator.row.size)


def _core(reach: int, shape: tuple[int, ...]) -> tuple[slice, slice]:
    return slice(reach, reach + shape[0]), slice(reach, reach + shape[1])
