"""Errors of matched pixels when the input spaxels are correlated, and their own correlation.

Survey cubes are resampled from fibres, so neighbouring spaxels share noise. The exact variance
``a^T C a`` is evaluated at a few wavelengths; its ratio to the diagonal sum is smooth in
wavelength and is applied at every channel. The match itself correlates the output pixels:
:func:`output_correlation` gives ``A C A^T`` by lag, so that sums over pixels can have errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import fft, ndimage

from specphoto.spatial.correlation import (
    LagCorrelation,
    checked_lags,
    clipped_share,
    correlation_matrix,
    correlation_stencil,
    power_spectrum,
    stencil_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from scipy import sparse

    from specphoto.spatial.operator import Operator

__all__ = [
    "LagCorrelation",
    "checked_lags",
    "clipped_share",
    "correlation_stencil",
    "local_affine",
    "output_correlation",
    "output_lags",
    "stencil_of",
    "variance_ratio",
]

# Sides of the squares of output pixels that are worked on at once.
_TILE = 16
_TILE_WITH_NEIGHBOURS = 8


def variance_ratio(
    operator: Operator,
    good: NDArray[np.bool_],
    sigma: NDArray[np.float64],
    correlation: NDArray[np.float64] | LagCorrelation,
) -> NDArray[np.float64]:
    r"""Ratio of the correlated to the independent variance of each matched pixel.

    .. math:: \frac{\sum_{jk} b_j b_k \rho_{jk}}{\sum_j b_j^2}, \quad b_j = A_{oj} w_j \sigma_j

    For a stencil the sum over *k* is a convolution, so by Parseval's theorem the numerator is the
    power of *b* weighted with the transform of the correlation. A Gaussian that is cut is not
    positive semi-definite (MaNGA's: smallest eigenvalue about -0.03 of a diagonal of 1): the
    negative part of its transform is clipped. For lags the numerator is the product with the
    sparse matrix, and no ratio is below their ``floor``.

    Parameters
    ----------
    operator
        The operator.
    good
        Good spaxels, ``(n_y, n_x)``.
    sigma
        Their 1-sigma errors, ``(n_y, n_x)``.
    correlation
        A stencil (:func:`correlation_stencil`) or lags (:func:`checked_lags`).

    Returns
    -------
    numpy.ndarray
        ``(n_row,)``, NaN for a row with no good spaxel, or with no positive variance.
    """
    ratio = np.full(operator.row.size, np.nan)
    noise = _Noise(operator, good, sigma, correlation)
    for rows in _tiles(operator, _TILE):
        cells, b = noise.of(rows)
        independent = (b * b).sum(axis=1, dtype=np.float64)
        seen = independent > 0
        if noise.independent:
            ratio[rows[seen]] = 1.0
        elif seen.any():
            ratio[rows[seen]] = noise.variance(cells, b[seen]) / independent[seen]
    if isinstance(correlation, LagCorrelation):
        ratio = np.maximum(ratio, correlation.floor)
    return np.where(ratio > 0, ratio, np.nan)


def output_correlation(
    operator: Operator,
    good: NDArray[np.bool_],
    sigma: NDArray[np.float64],
    correlation: NDArray[np.float64] | LagCorrelation,
    lag_y: NDArray[np.int_],
    lag_x: NDArray[np.int_],
) -> NDArray[np.float32]:
    r"""Correlation of each matched pixel with its neighbours.

    .. math::

        \rho_{op} = \frac{V_{op}}{\sqrt{V_{oo} V_{pp}}}, \quad
        V_{op} = \sum_{jk} b_{oj} b_{pk} \rho_{jk}, \quad b_{oj} = A_{oj} w_j \sigma_j

    Squares of output pixels are worked on one after the other, each with its neighbours and the
    spaxels that those see, so the memory is bounded and the time grows with the number of pixels.

    Parameters
    ----------
    operator, good, sigma, correlation
        As for :func:`variance_ratio`.
    lag_y, lag_x
        From :func:`output_lags`, ``(n_lag,)``.

    Returns
    -------
    numpy.ndarray
        ``(n_lag, n_row)``: of the row's pixel *(y, x)* with *(y + lag_y, x + lag_x)*; NaN where
        there is no such pixel, or either has no good spaxel.
    """
    lag_y, lag_x = np.asarray(lag_y, dtype=int), np.asarray(lag_x, dtype=int)
    covariance = np.full((lag_y.size, operator.row.size), np.nan, dtype=np.float32)
    if lag_y.size == 0:
        return covariance
    position = np.full(operator.shape_out, -1)
    position.ravel()[operator.row] = np.arange(operator.row.size)
    partner = _partners(operator, position, lag_y, lag_x)
    variance = np.zeros(operator.row.size)
    noise = _Noise(operator, good, sigma, correlation)
    for rows in _tiles(operator, _TILE_WITH_NEIGHBOURS):
        pairs = partner[:, rows]
        # the tile's own rows come first; -1, no partner, sorts before all and is cut off
        others = np.setdiff1d(pairs, rows)
        near = np.concatenate([rows, others[others >= 0]])
        cells, b = noise.of(near)
        if cells.size == 0:
            continue
        product = noise.correlated(cells, b[: rows.size]) @ b.T
        own = np.arange(rows.size)
        variance[rows] = product[own, own]
        column = np.full(operator.row.size + 1, -1)
        column[near] = np.arange(near.size)
        index = column[pairs]
        covariance[:, rows] = np.where(index >= 0, product[own, index], np.nan)
    sigma_out = np.sqrt(np.where(variance > 0, variance, np.nan)).astype(np.float32)
    both = sigma_out * np.where(partner >= 0, sigma_out[partner], np.float32(np.nan))
    return np.asarray(np.clip(covariance / both, -1.0, 1.0), dtype=np.float32)


def output_lags(
    kernels: Sequence[NDArray[np.float64]],
    stencil: NDArray[np.float64],
    affine: NDArray[np.float64],
    *,
    threshold: float = 0.01,
    max_lag: int = 1000,
) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    r"""Lags on the output grid at which matched pixels are correlated.

    Far from the edges and with equal errors the covariance of the output is the input's stencil,
    correlated with the kernel and the output pixel, each twice, and depends on the lag alone.

    Parameters
    ----------
    kernels
        PSF-matching kernels on the input grid; the lags of all are joined.
    stencil
        Correlation of the input spaxels, the nearest there is.
    affine
        From :func:`local_affine`.
    threshold
        Lags of a smaller correlation are left out. With 1% the error of a sum over 300 pixels
        comes out 0.2% too small for Gaussian PSFs and up to 1.2% for Moffats' wings, over 600
        pixels 0.3% and 1.8%.
    max_lag
        With more lags than this none are given: the output grid oversamples its PSF so much that
        its correlation is not worth its room.

    Returns
    -------
    lag_y, lag_x
        ``(n_lag,)``, of the half plane ``lag_y > 0``, or ``lag_y == 0`` and ``lag_x > 0``.
    """
    reach = max(max(k.shape) for k in kernels) + max(stencil.shape) // 2
    reach += int(np.ceil(2 * np.abs(affine).sum(axis=1).max())) + 2
    # lags at which the images can overlap, in output pixels
    far = np.ceil(np.abs(np.linalg.inv(affine)).sum(axis=1) * reach).astype(int)
    lag_y, lag_x = np.mgrid[0 : far[1] + 1, -far[0] : far[0] + 1].reshape(2, -1)
    half = (lag_y > 0) | (lag_x > 0)
    lag_y, lag_x = lag_y[half], lag_x[half]
    x, y = affine @ np.stack([lag_x, lag_y])
    within = np.hypot(x, y) <= reach
    lag_y, lag_x, x, y = (a[within] for a in (lag_y, lag_x, x, y))
    largest = np.zeros(lag_y.size)
    for kernel in kernels:
        rho = _stationary(kernel, stencil, affine, reach)
        here = np.abs(ndimage.map_coordinates(rho, [y + reach, x + reach]))
        largest = np.maximum(largest, here)
    found = largest >= threshold
    if found.sum() > max_lag:
        found[:] = False
    return lag_y[found], lag_x[found]


def local_affine(
    corner_x: NDArray[np.float64], corner_y: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Steps on the input grid per output pixel, ``[[dx/dx, dx/dy], [dy/dx, dy/dy]]``.

    Parameters
    ----------
    corner_x, corner_y
        Corners of the output pixels in input pixels, as for
        :func:`~specphoto.spatial.operator.build_operator`.
    """
    return np.array(
        [[np.nanmedian(np.diff(c, axis=axis)) for axis in (1, 0)] for c in (corner_x, corner_y)]
    )


def _stationary(
    kernel: NDArray[np.float64],
    stencil: NDArray[np.float64],
    affine: NDArray[np.float64],
    reach: int,
) -> NDArray[np.float64]:
    """Correlation of the output at steps of one input pixel, ``(2 reach + 1, 2 reach + 1)``."""
    n = fft.next_fast_len(2 * reach + 2)
    fy, fx = fft.fftfreq(n)[:, None], fft.rfftfreq(n)[None, :]
    # transforms of the output pixel, a parallelogram, and of the spaxel it is sampled with
    box = np.sinc(fx) * np.sinc(fy)
    for step_x, step_y in affine.T:
        box = box * np.sinc(fx * step_x + fy * step_y)
    spectrum = np.abs(fft.rfft2(kernel, s=(n, n))) ** 2 * box**2 * power_spectrum(stencil, (n, n))
    rho = fft.fftshift(fft.irfft2(spectrum, s=(n, n)))
    middle = n // 2
    around = slice(middle - reach, middle + reach + 1)
    return np.asarray(rho[around, around] / rho[middle, middle])


def _partners(
    operator: Operator,
    position: NDArray[np.int_],
    lag_y: NDArray[np.int_],
    lag_x: NDArray[np.int_],
) -> NDArray[np.int_]:
    """Row of the pixel at each lag from each row, ``(n_lag, n_row)``, -1 where there is none."""
    n_y, n_x = operator.shape_out
    y, x = np.divmod(operator.row, n_x)
    to_y, to_x = y + lag_y[:, None], x + lag_x[:, None]
    inside = (to_y < n_y) & (to_x >= 0) & (to_x < n_x)
    return np.where(inside, position[np.where(inside, to_y, 0), np.where(inside, to_x, 0)], -1)


def _tiles(operator: Operator, side: int) -> Iterator[NDArray[np.intp]]:
    """Rows in squares of output pixels."""
    n_x = operator.shape_out[1]
    y, x = np.divmod(operator.row, n_x)
    tile = (y // side) * (n_x // side + 1) + x // side
    order = np.argsort(tile, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(tile[order])) + 1) if order.size else ()


class _Noise:
    """What rows see of the input noise, ``b = A w sigma``, and its product with the correlation.

    Spaxels are *cells*: flat indices of those that are good and that any of the rows sees.
    """

    def __init__(
        self,
        operator: Operator,
        good: NDArray[np.bool_],
        sigma: NDArray[np.float64],
        correlation: NDArray[np.float64] | LagCorrelation,
    ) -> None:
        self._shape = operator.shape_in
        self._correlation = correlation
        self._matrix = (
            correlation_matrix(correlation) if isinstance(correlation, LagCorrelation) else None
        )
        scale = np.where(good, sigma, 0.0).astype(np.float32).ravel()
        self._cells = np.flatnonzero(scale)
        if isinstance(operator.weight, np.ndarray):
            self._b = np.take(operator.weight.T, self._cells, axis=1)
            self._b *= scale[self._cells]
            self._seen = None
            if self._matrix is not None:
                self._matrix = self._matrix[self._cells][:, self._cells]
        else:
            self._seen = (operator.weight[self._cells] * scale[self._cells, None]).tocsc()

    @property
    def independent(self) -> bool:
        """Whether there is no correlation."""
        return isinstance(self._correlation, np.ndarray) and self._correlation.size == 1

    def of(self, rows: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Cells ``(n_cell,)`` and ``b`` ``(n_rows, n_cell)``."""
        if self._seen is None:
            return self._cells, self._b[rows]
        part: sparse.csc_array = self._seen[:, rows]
        # a look-up table over all cells is much faster than sorting the entries
        column = np.zeros(self._cells.size, dtype=np.intp)
        column[part.indices] = 1
        cells = np.flatnonzero(column)
        column[cells] = np.arange(cells.size)
        b = np.zeros((rows.size, cells.size), dtype=np.float32)
        b[np.repeat(np.arange(rows.size), np.diff(part.indptr)), column[part.indices]] = part.data
        return self._cells[cells], b

    def variance(self, cells: NDArray[np.intp], b: NDArray[np.float32]) -> NDArray[np.float64]:
        """``b^T C b`` of each row."""
        if self._matrix is not None:
            return np.asarray((b * self.correlated(cells, b)).sum(axis=1, dtype=np.float64))
        spectrum, power = self._spectrum(cells, b)
        n_x = 2 * (spectrum.shape[2] - 1)
        # every frequency but the first and the last column stands for two
        power[:, 1:-1] *= 2.0
        total = (np.abs(spectrum) ** 2 * power).sum(axis=(1, 2), dtype=np.float64)
        return np.asarray(total / (spectrum.shape[1] * n_x))

    def correlated(self, cells: NDArray[np.intp], b: NDArray[np.float32]) -> NDArray[np.float32]:
        """``C b`` at the same cells."""
        if self.independent:
            return b
        if self._matrix is not None:
            dense = self._seen is None
            matrix = self._matrix if dense else self._matrix[cells][:, cells]
            return np.ascontiguousarray((matrix @ b.T).T)
        spectrum, power = self._spectrum(cells, b)
        shape = (spectrum.shape[1], 2 * (spectrum.shape[2] - 1))
        image = fft.irfft2(spectrum * power, s=shape, axes=(1, 2))
        y, x = self._in_box(cells)
        return np.ascontiguousarray(image[:, y, x])

    def _spectrum(
        self, cells: NDArray[np.intp], b: NDArray[np.float32]
    ) -> tuple[NDArray[np.complex64], NDArray[np.float32]]:
        """Transforms of the rows as images of a box round the cells, and of the stencil.

        The box has an even number of columns and is wide enough for a convolution without wrap.
        """
        stencil = np.asarray(self._correlation)
        y, x = self._in_box(cells)
        n_y, n_x = (
            int(fft.next_fast_len(max(int(i.max()) + 1 + side // 2, 2 * side), real=True))
            for i, side in ((y, stencil.shape[0]), (x, stencil.shape[1]))
        )
        while n_x % 2:
            n_x = int(fft.next_fast_len(n_x + 1, real=True))
        image = np.zeros((b.shape[0], n_y, n_x), dtype=np.float32)
        image[:, y, x] = b
        power = power_spectrum(stencil, (n_y, n_x)).astype(np.float32)
        return fft.rfft2(image, axes=(1, 2)), power

    def _in_box(self, cells: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        y, x = np.divmod(cells, self._shape[1])
        return y - y.min(), x - x.min()
