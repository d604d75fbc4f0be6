r"""Images brought to a broader PSF and another pixel grid: the operator of the cube, ``A = R K``.

The rules are those of :mod:`specphoto.spatial.operator`. ``K`` convolves with the PSF-matching
kernel on the image's own pixels, ``R`` is the exact area overlap of the two grids, and the
weights *w* are 1 where the image is known and 0 where it is not:

.. math::

    c_o = \frac{\sum_j A_{oj} w_j}{\mathrm{area}_o}, \quad
    f_o = \frac{1}{c_o} \sum_j A_{oj} w_j f_j, \quad
    v_o = \frac{1}{c_o^2} \sum_j A_{oj}^2 w_j v_j

An image has many more pixels than a cube, and one channel. So ``A`` is never stored: flux and
coverage are convolved by FFT and then rebinned, and the rows of ``A`` whose squares the variance
needs are made in batches, each on the small patch that it covers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import fft, signal

from specphoto.spatial.overlap import overlap_matrix

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray
    from scipy import sparse

__all__ = ["bring_to_grid", "bring_to_psf", "near_box", "row_variance"]

# A pixel of which less than this is seen is unknown whatever the limit: the rest is rounding.
_SEEN = 1e-6
# Numbers in one batch of rows of A.
_BATCH = 4_000_000
# Terms of the kernel's singular values below this share of the first are left out.
_RANK = 1e-6
# The variance of an oversampled image is summed in blocks of this share of the kernel's rms
# radius; by block^2 / 12 rms^2 the sum of A^2 is then too small by 0.1% at most.
_BLOCK = 0.12


def bring_to_psf(
    flux: NDArray[np.float64],
    error: NDArray[np.float64],
    kernel: NDArray[np.float64],
    *,
    stencil: NDArray[np.float64] | None = None,
    min_coverage: float = 0.95,
) -> NDArray[np.float64]:
    r"""Convolve images and their errors on their own grid; ``R`` is the identity.

    With the correlation :math:`\rho_d` of pixels *d* apart, the variance is

    .. math::

        v_o = \frac{1}{c_o^2} \sum_d \rho_d \sum_j (K_{o-j} w_j \sigma_j)
              (K_{o-j-d} w_{j+d} \sigma_{j+d}),

    one convolution per lag, exact; for independent pixels only the first, that of ``K^2``.

    Parameters
    ----------
    flux, error
        ``(..., n_y, n_x)`` per pixel; NaN is unknown. A pixel of known flux and unknown error
        counts in the flux; the errors of pixels that it reaches are then unknown.
    kernel
        PSF-matching kernel, odd-sided, sum 1.
    stencil
        Correlation of the noise with the central pixel
        (:func:`specphoto.spatial.covariance.correlation_stencil`); None for independent pixels.
    min_coverage
        Pixels covered less than this are unknown (NaN).

    Returns
    -------
    numpy.ndarray
        ``(2, ..., n_y, n_x)``: flux and 1-sigma error.
    """
    planes = flux.reshape(-1, *flux.shape[-2:]), error.reshape(-1, *flux.shape[-2:])
    out = [_plane_to_psf(f, e, kernel, stencil, min_coverage) for f, e in zip(*planes, strict=True)]
    stacked = np.stack(out, axis=1) if out else np.empty((2, *flux.shape))
    return np.asarray(stacked.reshape(2, *flux.shape))


def _plane_to_psf(
    flux: NDArray[np.float64],
    error: NDArray[np.float64],
    kernel: NDArray[np.float64],
    stencil: NDArray[np.float64] | None,
    min_coverage: float,
) -> NDArray[np.float64]:
    good = np.isfinite(flux)
    sure = good & np.isfinite(error)
    coverage = _convolve(good.astype(float), kernel)
    total = _convolve(np.where(good, flux, 0.0), kernel)
    variance = _lag_variance(np.where(sure, error, 0.0), kernel, stencil)
    unsure = _convolve((good & ~sure).astype(float), np.abs(kernel))
    known = coverage >= max(min(min_coverage, 1.0) - 1e-9, _SEEN)
    scale = np.where(known, coverage, np.nan)
    sigma = np.where(unsure < 1e-9, np.sqrt(variance), np.nan)
    return np.stack([total / scale, sigma / scale])


def _convolve(image: NDArray[np.float64], kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    if kernel.size == 1:
        return np.asarray(image * kernel[0, 0])
    return np.asarray(signal.fftconvolve(image, kernel, mode="same"))


def _lag_variance(
    sigma: NDArray[np.float64], kernel: NDArray[np.float64], stencil: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """Sum over lags of correlated products; negative rounding of the FFT is 0."""
    total = _convolve(sigma**2, kernel**2)
    for dy, dx, rho in _lags(stencil):
        if abs(dy) < sigma.shape[0] and abs(dx) < sigma.shape[1]:
            weight = kernel * _moved(kernel, dy, dx)
            # both lags of a pair give the same sum
            total += 2.0 * rho * _convolve(sigma * _moved(sigma, -dy, -dx), weight)
    return np.clip(total, 0.0, None)


def _lags(stencil: NDArray[np.float64] | None) -> list[tuple[int, int, float]]:
    """Lags of half the plane with their correlation, without those of none."""
    if stencil is None:
        return []
    middle_y, middle_x = stencil.shape[0] // 2, stencil.shape[1] // 2
    return [
        (int(y) - middle_y, int(x) - middle_x, float(stencil[y, x]))
        for y, x in np.argwhere(stencil != 0.0)
        if (y, x) > (middle_y, middle_x)
    ]


def _moved(image: NDArray[np.float64], dy: int, dx: int) -> NDArray[np.float64]:
    """Image with the value of pixel ``(y, x)`` at ``(y + dy, x + dx)``; 0 comes in."""
    out = np.zeros_like(image)
    n_y, n_x = image.shape
    if abs(dy) < n_y and abs(dx) < n_x:
        to = slice(max(dy, 0), n_y + min(dy, 0)), slice(max(dx, 0), n_x + min(dx, 0))
        of = slice(max(-dy, 0), n_y + min(-dy, 0)), slice(max(-dx, 0), n_x + min(-dx, 0))
        out[to] = image[of]
    return out


def near_box(
    corner_x: NDArray[np.float64],
    corner_y: NDArray[np.float64],
    shape: tuple[int, int],
    reach: tuple[int, int],
) -> tuple[slice, slice] | None:
    """Smallest box of image pixels that output pixels can see through a kernel, or None.

    Parameters
    ----------
    corner_x, corner_y
        Corners of the output pixels in image coordinates, ``(n_y + 1, n_x + 1)``; NaN is off the
        image's projection.
    shape
        ``(n_y, n_x)`` of the image.
    reach
        Half sides of the kernel, ``(y, x)``.
    """
    box = []
    for corner, size, far in ((corner_y, shape[0], reach[0]), (corner_x, shape[1], reach[1])):
        finite = corner[np.isfinite(corner)]
        if finite.size == 0:
            return None
        first, last = np.clip([finite.min() - far - 1, finite.max() + far + 2], 0, size)
        box.append(slice(int(np.floor(first)), int(np.ceil(last))))
    return (box[0], box[1]) if all(s.stop > s.start for s in box) else None


def bring_to_grid(
    flux: NDArray[np.float64],
    variance: NDArray[np.float64],
    corner_x: NDArray[np.float64],
    corner_y: NDArray[np.float64],
    kernel: NDArray[np.float64],
    *,
    min_coverage: float = 0.95,
) -> NDArray[np.float64]:
    """Bring one image, or a cut of it, to another grid and a broader PSF.

    Parameters
    ----------
    flux, variance
        ``(n_y_in, n_x_in)`` per pixel; NaN flux is unknown. The variance is that of independent
        pixels. What lies beyond the cut is unknown: it must hold all that the kernel reaches.
    corner_x, corner_y
        Corners of the output pixels in pixel coordinates of the cut (centres on integers),
        ``(n_y + 1, n_x + 1)``.
    kernel
        PSF-matching kernel on the image's pixels, odd-sided, sum 1.
    min_coverage
        Output pixels covered less than this are unknown (NaN).

    Returns
    -------
    numpy.ndarray
        ``(2, n_y, n_x)``: flux per output pixel and its 1-sigma error.

    Examples
    --------
    >>> x, y = np.meshgrid([-0.5, 1.5, 3.5], [-0.5, 1.5])
    >>> one = np.ones((2, 4))
    >>> bring_to_grid(one, one, x, y, np.ones((1, 1))).tolist()
    [[[4.0, 4.0]], [[2.0, 2.0]]]
    """
    reach = kernel.shape[0] // 2, kernel.shape[1] // 2
    shape_out = corner_x.shape[0] - 1, corner_x.shape[1] - 1
    # the whole convolution, so that pixels beyond the cut get the light that reaches them
    whole = flux.shape[0] + 2 * reach[0], flux.shape[1] + 2 * reach[1]
    overlap = overlap_matrix(corner_x + reach[1], corner_y + reach[0], whole)
    good = np.isfinite(flux)
    seen, total = (overlap @ c for c in _whole([good, np.where(good, flux, 0.0)], kernel))
    with np.errstate(divide="ignore", invalid="ignore"):
        coverage = seen / _area(corner_x, corner_y)
    known = coverage >= max(min(min_coverage, 1.0) - 1e-9, _SEEN)
    scale = np.where(known, coverage, np.nan)
    noise = np.full(known.size, np.nan)
    sure = good & np.isfinite(variance)
    if sure.any():
        row = np.flatnonzero(known)
        noise[row] = row_variance(overlap[row], whole[1], kernel, np.where(sure, variance, 0.0))
        if not np.array_equal(sure, good):
            (unsure,) = (overlap @ c for c in _whole([good & ~sure], np.abs(kernel)))
            noise[unsure > 1e-9] = np.nan
    return np.stack([total / scale, np.sqrt(noise) / scale]).reshape(2, *shape_out)


def _whole(
    planes: Iterable[NDArray[Any]], kernel: NDArray[np.float64]
) -> Iterator[NDArray[np.float64]]:
    """Full convolution of planes, flat; the kernel is transformed once."""
    shape: tuple[int, ...] = ()
    transform: NDArray[Any] = np.empty(0)
    for plane in planes:
        if kernel.size == 1:
            yield np.asarray(plane.ravel() * kernel[0, 0], dtype=float)
            continue
        if not shape:
            size = [n + k - 1 for n, k in zip(plane.shape, kernel.shape, strict=True)]
            shape = tuple(fft.next_fast_len(n, real=True) for n in size)
            transform = fft.rfft2(kernel, s=shape)
        smooth = fft.irfft2(fft.rfft2(plane, s=shape) * transform, s=shape)
        yield smooth[: size[0], : size[1]].ravel()


def _area(corner_x: NDArray[np.float64], corner_y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area of each output quadrilateral in image pixels, from its diagonals, flat."""
    dx1, dy1 = (c[1:, 1:] - c[:-1, :-1] for c in (corner_x, corner_y))
    dx2, dy2 = (c[1:, :-1] - c[:-1, 1:] for c in (corner_x, corner_y))
    return np.asarray(0.5 * np.abs(dx1 * dy2 - dy1 * dx2).ravel())


def row_variance(
    overlap: sparse.csr_array,
    width: int,
    kernel: NDArray[np.float64],
    variance: NDArray[np.float64],
) -> NDArray[np.float64]:
    r"""Sum of ``A^2`` times the variance, row by row of ``A = R K``, in batches.

    Each row of ``R`` is a small patch of image pixels, and ``K`` a short sum of separable terms
    (its singular vectors), so a batch of rows of ``A`` is two matrix products,
    :math:`A = \sum_r T(u_r) R\, T(v_r)^T` with Toeplitz matrices ``T``.

    Parameters
    ----------
    overlap
        ``R`` on the image padded by half the kernel's sides, ``(n_row, n_padded)``.
    width
        Columns of the padded image.
    kernel
        ``K``, odd-sided.
    variance
        ``(n_y, n_x)`` of the image without padding; 0 where unknown.

    Returns
    -------
    numpy.ndarray
        ``(n_row,)``.
    """
    block = _block(kernel)
    first, side = _patches(overlap, width, block)
    # the patch of A begins up to a whole block further out than the kernel's side
    far = tuple(-(-(n - 1) // block) * block for n in kernel.shape)
    terms = _separable(kernel)
    up = [_toeplitz(u, side[0], far[0], block) for u, _ in terms]
    across = [_toeplitz(v, side[1], far[1], block) for _, v in terms]
    patch = up[0].shape[0], across[0].shape[0]
    sums = _blocks(variance, far, first.max(axis=0, initial=0), patch, block)
    start = first // block
    windows = np.lib.stride_tricks.sliding_window_view(sums, patch)
    # the blocks' sums times the squared mean of A in each
    out = np.empty(first.shape[0])
    step = max(1, _BATCH // (patch[0] * patch[1] + side[0] * side[1]))
    for row in range(0, first.shape[0], step):
        rows = slice(row, row + step)
        R = _dense(overlap[rows], width, first[rows], side)
        A = sum(T @ (R @ S.T) for T, S in zip(up, across, strict=True))
        V = windows[start[rows, 0], start[rows, 1]]
        out[rows] = np.einsum("nij,nij,nij->n", A, A, V, optimize=False)
    return out


def _block(kernel: NDArray[np.float64]) -> int:
    """Side in pixels of the blocks in which an oversampled image's variance is summed."""
    weight = np.abs(kernel) / np.abs(kernel).sum()
    spread = []
    for axis in (0, 1):
        profile, at = weight.sum(axis=1 - axis), np.arange(kernel.shape[axis])
        spread.append(np.sqrt(np.sum(profile * (at - np.sum(profile * at)) ** 2)))
    return max(1, int(_BLOCK * min(spread)))


def _separable(
    kernel: NDArray[np.float64],
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Kernel as a short sum of outer products of columns and rows."""
    u, s, v = np.linalg.svd(kernel)
    return [(u[:, r] * s[r], v[r]) for r in range(s.size) if s[r] > _RANK * s[0]]


def _toeplitz(profile: NDArray[np.float64], side: int, far: int, block: int) -> NDArray[np.float64]:
    """Weights of image pixels (mean of each block) in padded pixels, ``(n_block, side)``.

    Image pixel *j* of a patch that begins ``far`` before the padded patch gives the padded pixel
    *Y* the share ``profile[Y - j + far]``.
    """
    n_block = -(-(side + far) // block)
    index = np.arange(side) - np.arange(n_block * block)[:, None] + far
    inside = (index >= 0) & (index < profile.size)
    weight = np.where(inside, profile[np.clip(index, 0, profile.size - 1)], 0.0)
    return np.asarray(weight.reshape(n_block, block, side).mean(axis=1))


def _patches(
    overlap: sparse.csr_array, width: int, block: int
) -> tuple[NDArray[np.intp], tuple[int, int]]:
    """First padded pixel ``(y, x)`` of each row's patch, a multiple of the block, and the side."""
    count = np.diff(overlap.indptr)
    at = np.stack(np.divmod(overlap.indices.astype(np.intp), width), axis=1)
    first, last = np.zeros((2, count.size, 2), dtype=np.intp)
    used = count > 0
    if used.any():
        begin = overlap.indptr[:-1][used]
        first[used] = np.minimum.reduceat(at, begin, axis=0) // block * block
        last[used] = np.maximum.reduceat(at, begin, axis=0)
    side = (last - first + 1).max(axis=0, initial=1)
    return first, (int(side[0]), int(side[1]))


def _dense(
    overlap: sparse.csr_array, width: int, first: NDArray[np.intp], side: tuple[int, int]
) -> NDArray[np.float64]:
    """Rows of ``R`` on their patches, ``(n_row, side_y, side_x)``."""
    row = np.repeat(np.arange(first.shape[0]), np.diff(overlap.indptr))
    y, x = np.divmod(overlap.indices.astype(np.intp), width)
    out = np.zeros((first.shape[0], *side))
    out[row, y - first[row, 0], x - first[row, 1]] = overlap.data
    return out


def _blocks(
    variance: NDArray[np.float64],
    far: tuple[int, ...],
    last: NDArray[np.intp],
    patch: tuple[int, int],
    block: int,
) -> NDArray[np.float64]:
    """Variance summed in blocks, on a frame that holds the patches of all rows.

    The frame begins ``far`` pixels before the image, so that the patch of a row of ``R`` that
    begins at padded pixel *Y* begins at block ``Y / block`` of it; ``last`` is the largest *Y*.
    """
    n_block = [
        max(int(last[k]) // block + patch[k], -(-(far[k] + variance.shape[k]) // block))
        for k in (0, 1)
    ]
    frame = np.zeros((n_block[0] * block, n_block[1] * block))
    frame[far[0] : far[0] + variance.shape[0], far[1] : far[1] + variance.shape[1]] = variance
    return np.asarray(frame.reshape(n_block[0], block, n_block[1], block).sum(axis=(1, 3)))
