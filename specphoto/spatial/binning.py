"""Sums of pixels over bins, with errors that know how the pixels are correlated.

The variance of a sum is ``s^T rho s``, with *s* the errors of the bin's pixels in one channel and
*rho* their correlation. It is exact in every channel: *rho* is made once, and all channels of a
block go through it as matrix products.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from specphoto.spatial.correlation import LagCorrelation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

__all__ = [
    "SUM_FIELDS",
    "Bins",
    "Block",
    "bins_of",
    "correlation_blocks",
    "mean_light",
    "sum_images",
    "sum_lsf",
    "sum_planes",
]

#: Layers of :func:`sum_planes`'s result; ``bad`` is 1 where the value must not be used.
SUM_FIELDS = ("flux", "err", "bad")

# Pixels of a bin are sorted by squares of this side, and go through rho as many at a time as a
# square holds: far blocks of a large bin have nothing in common and cost nothing.
_SQUARE = 16
_AT_ONCE = _SQUARE * _SQUARE


@dataclass(frozen=True)
class Bins:
    """Which pixels make up which bin.

    Attributes
    ----------
    label
        ``(n_label,)``, increasing.
    pixel
        Flat index of all pixels in bins, bin after bin, ``(n_pixel,)``.
    start
        Where each bin begins in ``pixel``, ``(n_label + 1,)``.
    shape
        ``(n_y, n_x)`` of the map.
    """

    label: NDArray[np.int64]
    pixel: NDArray[np.intp]
    start: NDArray[np.intp]
    shape: tuple[int, int]

    @property
    def n_pixel(self) -> NDArray[np.intp]:
        """Pixels in each bin, ``(n_label,)``."""
        return np.diff(self.start)


class Block(NamedTuple):
    """Correlation of the pixels from ``i`` with those from ``j`` on, ``(n_i, n_j)``.

    Only blocks with ``j >= i`` are kept; those beside the diagonal are doubled.
    """

    i: int
    j: int
    rho: NDArray[np.float32]


def bins_of(labels: NDArray[np.int_]) -> Bins:
    """Bins of a label map ``(n_y, n_x)``; 0 and negative labels are no bin."""
    y, x = np.nonzero(labels > 0)
    order = np.lexsort((x, y, x // _SQUARE, y // _SQUARE, labels[y, x]))
    y, x = y[order], x[order]
    label, start = np.unique(labels[y, x], return_index=True)
    return Bins(
        label=label.astype(np.int64), pixel=y * labels.shape[1] + x,
        start=np.append(start, y.size), shape=(labels.shape[0], labels.shape[1]),
    )  # fmt: skip


def correlation_blocks(
    bins: Bins, correlation: NDArray[np.float64] | LagCorrelation
) -> list[Block]:
    """Correlation of the pixels of each bin, as the blocks that are not zero.

    Parameters
    ----------
    bins
        From :func:`bins_of`.
    correlation
        A stencil (:func:`~specphoto.spatial.correlation.correlation_stencil`) or lags.

    Returns
    -------
    list of Block
        Their ``i`` and ``j`` count from the first pixel of the first bin.
    """
    pairs = _LagPairs(correlation) if isinstance(correlation, LagCorrelation) else None
    stencil = np.empty((0, 0)) if isinstance(correlation, LagCorrelation) else correlation
    reach = pairs.reach if pairs else max(stencil.shape) // 2
    y, x = np.divmod(bins.pixel, bins.shape[1])
    blocks = []
    for first, stop in zip(bins.start[:-1].tolist(), bins.start[1:].tolist(), strict=True):
        for i, j in _near_blocks(y[first:stop], x[first:stop], reach):
            a, b = (slice(first + k, min(first + k + _AT_ONCE, stop)) for k in (i, j))
            at = (y[a, None], x[a, None], y[None, b], x[None, b])
            rho = pairs(*at) if pairs else _stationary_pairs(stencil, *at)
            if rho.any():
                blocks.append(Block(first + i, first + j, rho if i == j else 2.0 * rho))
    return blocks


def _near_blocks(y: NDArray[np.int_], x: NDArray[np.int_], reach: int) -> Iterator[tuple[int, int]]:
    """First pixels of each two blocks of a bin that are not farther apart than the reach."""
    start = np.arange(0, y.size, _AT_ONCE)
    near = np.ones((start.size, start.size), dtype=bool)
    for axis in (y, x):
        low, high = np.minimum.reduceat(axis, start), np.maximum.reduceat(axis, start)
        near &= (low[:, None] - high <= reach) & (low - high[:, None] <= reach)
    for i, j in np.argwhere(np.triu(near)).tolist():
        yield i * _AT_ONCE, j * _AT_ONCE


def _stationary_pairs(stencil: NDArray[np.float64], *at: NDArray[np.int_]) -> NDArray[np.float32]:
    """Correlation of pixels at (y, x) with pixels at (y, x)."""
    ry, rx = stencil.shape[0] // 2, stencil.shape[1] // 2
    step_y, step_x = at[2] - at[0], at[3] - at[1]
    inside = (np.abs(step_y) <= ry) & (np.abs(step_x) <= rx)
    rho = stencil[np.where(inside, step_y, 0) + ry, np.where(inside, step_x, 0) + rx]
    return np.where(inside, rho, 0.0).astype(np.float32)


class _LagPairs:
    """Correlation of pairs of pixels, looked up by their distance."""

    def __init__(self, lags: LagCorrelation) -> None:
        self.reach = int(max(lags.lag_y.max(initial=0), np.abs(lags.lag_x).max(initial=0)))
        side = 2 * self.reach + 1
        # 0 is no correlation, the last layer the pixel itself
        self._layer = np.zeros((side, side), dtype=int)
        self._layer[lags.lag_y + self.reach, lags.lag_x + self.reach] = (
            np.arange(lags.lag_y.size) + 1
        )
        self._rho = np.zeros((lags.lag_y.size + 2, *lags.shape), dtype=np.float32)
        self._rho[1:-1] = np.nan_to_num(lags.rho, nan=0.0)
        self._rho[-1] = 1.0
        self._layer[self.reach, self.reach] = lags.lag_y.size + 1

    def __call__(self, *at: NDArray[np.int_]) -> NDArray[np.float32]:
        step_y, step_x = at[2] - at[0], at[3] - at[1]
        inside = (np.abs(step_y) <= self.reach) & (np.abs(step_x) <= self.reach)
        # a pair is kept with its pixel from which the other lies in the half plane
        back = (step_y < 0) | ((step_y == 0) & (step_x < 0))
        sign = np.where(back, -1, 1) * inside
        layer = self._layer[sign * step_y + self.reach, sign * step_x + self.reach]
        rho = self._rho[layer, np.where(back, at[2], at[0]), np.where(back, at[3], at[1])]
        return np.where(inside, rho, np.float32(0.0))


def sum_planes(
    bins: Bins,
    blocks: Sequence[list[Block]],
    share: NDArray[np.float64],
    flux: NDArray[np.float32],
    sigma: NDArray[np.float32],
    good: NDArray[np.bool_],
    light: NDArray[np.float32],
    *,
    min_good: float,
) -> NDArray[np.float32]:
    r"""Sums over the bins in a block of channels.

    .. math::

        F_b = \frac{1}{q_b} \sum_{p \in b} w_p f_p, \qquad
        \sigma_b^2 = \frac{1}{q_b^2} \sum_{pr \in b} w_p \sigma_p \rho_{pr} w_r \sigma_r, \qquad
        q_b = \frac{\sum w_p L_p}{\sum L_p}

    with *w* 1 where the pixel is good in the channel, 0 elsewhere, and *L* the bin's mean light:
    what is missing is taken to have the bin's mean spectrum.

    Parameters
    ----------
    bins
        From :func:`bins_of`.
    blocks
        From :func:`correlation_blocks`, one for each node in wavelength.
    share
        Share of each node in each channel, ``(n_wave, n_node)``; rows sum to 1.
    flux, sigma, good
        ``(n_wave, n_y, n_x)``; values that are not ``good`` are not read.
    light
        Mean image ``(n_y, n_x)``, NaN where unknown.
    min_good
        A bin is bad in a channel if its good pixels are a smaller share of its pixels, or of its
        light, than this.

    Returns
    -------
    numpy.ndarray
        ``(3, n_wave, n_label)``, layers :data:`SUM_FIELDS`; what is bad is NaN.
    """
    n_wave, start = flux.shape[0], bins.start[:-1]
    w = good.reshape(n_wave, -1)[:, bins.pixel]
    f = np.where(w, flux.reshape(n_wave, -1)[:, bins.pixel], np.float32(0.0))
    s = np.where(w, sigma.reshape(n_wave, -1)[:, bins.pixel], np.float32(0.0))
    L = _share_of_light(bins, light)
    seen = np.add.reduceat(np.where(w, L, 0.0), start, axis=1)
    number = np.add.reduceat(w, start, axis=1, dtype=np.intp) / bins.n_pixel
    # rounding must not make a bin that has all its pixels a little less than whole
    enough = np.minimum(seen, number) > max(min_good - 1e-6, 0.0)
    variance = sum(
        share[:, node, None] * _variance(bins, of_node, s, share[:, node] > 0)
        for node, of_node in enumerate(blocks)
    )
    known = enough & (variance > 0)
    # shares of a bin that has all its pixels add up to 1 but for rounding
    scale = np.where(known, 1.0 / np.where(known & (number < 1.0), seen, 1.0), np.nan)
    total = np.add.reduceat(f, start, axis=1, dtype=np.float64) * scale
    error = np.sqrt(np.where(known, variance, np.nan)) * scale
    return np.stack([total, error, ~known]).astype(np.float32)


def _share_of_light(bins: Bins, light: NDArray[np.float32]) -> NDArray[np.float64]:
    """Each pixel's share of its bin's light, ``(n_pixel,)``; equal shares where none is seen.

    A pixel of which nothing is known has the mean of the others.
    """
    start = bins.start[:-1]
    L = np.clip(light.ravel()[bins.pixel].astype(np.float64), 0.0, None)
    known = np.isfinite(L)
    number = np.maximum(np.add.reduceat(known, start, dtype=np.intp), 1)
    mean = np.add.reduceat(np.where(known, L, 0.0), start) / number
    of = np.repeat(np.arange(bins.label.size), bins.n_pixel)
    L = np.where(known, L, mean[of])
    total = np.add.reduceat(L, start)
    dark = total <= 0
    return np.where(dark[of], 1.0 / bins.n_pixel[of], L / np.where(dark, 1.0, total)[of])


def _variance(
    bins: Bins, blocks: list[Block], sigma: NDArray[np.float32], needed: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """``s^T rho s`` of each bin, ``(n_wave, n_label)``, 0 in channels that are not needed."""
    variance = np.zeros((sigma.shape[0], bins.label.size))
    channels = np.flatnonzero(needed)
    sigma = sigma if channels.size == needed.size else sigma[channels]
    of = np.searchsorted(bins.start, [block.i for block in blocks], side="right") - 1
    for bin_, (i, j, rho) in zip(of.tolist(), blocks, strict=True):
        left, right = sigma[:, i : i + rho.shape[0]], sigma[:, j : j + rho.shape[1]]
        variance[channels, bin_] += np.einsum("wi,wi->w", left @ rho, right)
    return variance


def mean_light(flux: NDArray[np.float32], good: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Mean of the good channels, ``(n_wave, n_y, n_x)`` to ``(n_y, n_x)``, NaN where none is."""
    number = good.sum(axis=0)
    total = np.where(good, flux, 0.0).sum(axis=0, dtype=np.float64)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan).astype(np.float32)


def sum_lsf(
    bins: Bins,
    lsf: NDArray[np.float32],
    good: NDArray[np.bool_],
    light: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Width of the bins' line-spread function, ``(n_wave, n_label)``.

    The second moment of a sum of lines is the mean of theirs, weighted with the light.

    Parameters
    ----------
    bins, good, light
        As for :func:`sum_planes`.
    lsf
        1-sigma widths, ``(n_wave, n_y, n_x)``.
    """
    start = bins.start[:-1]
    width = lsf.reshape(lsf.shape[0], -1)[:, bins.pixel]
    w = good.reshape(lsf.shape[0], -1)[:, bins.pixel]
    weight = np.where(w & (width > 0), _share_of_light(bins, light), 0.0)
    second = np.add.reduceat(weight * np.where(weight > 0, width, 0.0) ** 2, start, axis=1)
    total = np.add.reduceat(weight, start, axis=1)
    known = total > 0
    return np.where(known, np.sqrt(second / np.where(known, total, 1.0)), np.nan).astype(np.float32)


def sum_images(bins: Bins, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Plain sums ``(n_band, n_y, n_x)`` to ``(n_band, n_label)``; NaN where any pixel is."""
    values = image.reshape(image.shape[0], -1)[:, bins.pixel].astype(np.float64)
    return np.add.reduceat(values, bins.start[:-1], axis=1).astype(np.float32)
