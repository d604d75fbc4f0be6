"""Correlation of the noise of neighbouring spaxels.

Two forms: a *stencil*, the same everywhere (:func:`correlation_stencil`), and *lags*, where each
spaxel has its own correlation with its neighbours (:class:`LagCorrelation`), as MaNGA's tables
give it. What is no correlation, because some sum of spaxels would have a negative variance, is
refused; rounding and cut wings that come near to it are clipped, and how much is told.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import fft, linalg, sparse
from scipy.sparse.linalg import eigsh

from specphoto.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = [
    "LagCorrelation",
    "checked_lags",
    "clipped_share",
    "correlation_matrix",
    "correlation_stencil",
    "power_spectrum",
    "stencil_of",
]

logger = logging.getLogger(__name__)

# Cutoff over scale of MaNGA's correlation, where a model states none.
_CUTOFF = 10.0 / 3.0
# Negative eigenvalues up to this share of the largest are clipped, beyond it refused.
_LARGEST_CLIP = 0.01
# Of the largest eigenvalue: what the smallest is known to, by the tolerance of the iteration.
_TOLERANCE = 1e-3
# Smaller matrices are solved whole: Lanczos needs room.
_DENSE_BELOW = 100


@dataclass(frozen=True)
class LagCorrelation:
    """Correlation of each pixel with its neighbours.

    Attributes
    ----------
    rho
        ``(n_lag, n_y, n_x)`` float32: of pixel *(y, x)* with *(y + lag_y, x + lag_x)*, 0 where
        there is no such pair.
    lag_y, lag_x
        ``(n_lag,)``, the half plane ``lag_y > 0``, or ``lag_y == 0`` and ``lag_x > 0``.
    floor
        Largest negative eigenvalue of the matrix, as a positive number: no ratio of variances is
        known better than this, and none is given below it.
    clipped
        The same over the largest eigenvalue.
    """

    rho: NDArray[np.float32]
    lag_y: NDArray[np.int_]
    lag_x: NDArray[np.int_]
    floor: float = 0.0
    clipped: float = 0.0

    @property
    def shape(self) -> tuple[int, int]:
        """``(n_y, n_x)``."""
        return (self.rho.shape[1], self.rho.shape[2])


def correlation_stencil(scale: float, cutoff: float) -> NDArray[np.float64]:
    r"""Correlation with the central spaxel, Gaussian in distance.

    .. math:: \rho(d) = \exp(-d^2 / 2 s^2), \quad \rho = 0 \text{ past the cutoff}

    For MaNGA ``s`` = 1.92 spaxels and the cutoff is 6.4 (Westfall et al. 2019, AJ 158, 231).

    Parameters
    ----------
    scale, cutoff
        In spaxels. A scale of 0 is no correlation.

    Returns
    -------
    numpy.ndarray
        ``(2 n + 1, 2 n + 1)`` with 1 in the middle.
    """
    if scale <= 0:
        return np.ones((1, 1))
    reach = int(np.floor(cutoff))
    axis = np.arange(-reach, reach + 1)
    distance2 = axis[:, None] ** 2 + axis[None, :] ** 2
    rho: NDArray[np.float64] = np.exp(-0.5 * distance2 / scale**2)
    return np.where(distance2 <= cutoff**2, rho, 0.0)


def stencil_of(correlation: Mapping[str, Any]) -> NDArray[np.float64]:
    """Stencil of a ``correlation`` attribute (:mod:`specphoto.cube`).

    Raises
    ------
    InputError
        If the model is unknown or has no scale, or is no correlation (:func:`clipped_share`).
    """
    if correlation.get("model", "none") == "none":
        return np.ones((1, 1))
    if correlation["model"] != "gaussian":
        raise InputError(
            "correlation", expected="model 'gaussian' or 'none'",
            found=repr(correlation["model"]), remedy="give scale and cutoff in spaxels",
        )  # fmt: skip
    scale = correlation.get("scale")
    if scale is None or not np.isfinite(scale):
        raise InputError(
            "correlation", expected="a scale in spaxels beside model 'gaussian'",
            found=repr(scale), remedy=f"give scale, and cutoff if it is not {_CUTOFF:.3g} of it",
        )  # fmt: skip
    stencil = correlation_stencil(float(scale), float(correlation.get("cutoff", _CUTOFF * scale)))
    clipped_share(stencil)
    return stencil


def clipped_share(stencil: NDArray[np.float64]) -> float:
    """Most negative value of a stencil's power spectrum over its largest, as a positive number.

    :func:`power_spectrum` clips it. For MaNGA's Gaussian, cut at 6.4 spaxels, it is 0.0013.

    Raises
    ------
    InputError
        If it is beyond 1%: some sums of spaxels would have a negative variance.
    """
    side = fft.next_fast_len(max(128, 8 * max(stencil.shape)))
    power = _transform(stencil, (side, side))
    lowest, largest = float(power.min()), float(power.max())
    if not np.isfinite(lowest) or lowest < -_LARGEST_CLIP * largest:
        raise InputError(
            "correlation", expected="a correlation by which every variance is positive",
            found=f"a power spectrum down to {lowest / largest:.2%} of its maximum",
            remedy="cut it farther out (a Gaussian at 3 times its scale or more)",
        )  # fmt: skip
    return max(0.0, -lowest / largest)


def power_spectrum(stencil: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Transform of a stencil on the half plane of ``rfft2``, what is negative clipped.

    Parameters
    ----------
    stencil
        Correlation with the central spaxel.
    shape
        ``(n_y, n_x)`` of the transform, at least that of the stencil.

    Returns
    -------
    numpy.ndarray
        ``(n_y, n_x // 2 + 1)``.
    """
    return np.clip(_transform(stencil, shape), 0.0, None)


def _transform(stencil: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float64]:
    wrapped = np.zeros(shape)
    ry, rx = stencil.shape[0] // 2, stencil.shape[1] // 2
    wrapped[: stencil.shape[0], : stencil.shape[1]] = stencil
    return np.asarray(fft.rfft2(np.roll(wrapped, (-ry, -rx), axis=(0, 1))).real)


def checked_lags(
    rho: NDArray[np.float32], lag_y: NDArray[np.int_], lag_x: NDArray[np.int_], *, name: str
) -> LagCorrelation:
    """Correlation by lags as a cube gives it, checked.

    The smallest eigenvalue is found by Lanczos iteration. One that is negative by less than 1% of
    the largest is taken for rounding or cut wings. Clipping all such eigenvalues would take the
    whole spectrum of the matrix; instead its size becomes the ``floor`` below which no ratio of
    variances goes. A clipped matrix would give ratios larger by at most the floor, and the same
    ones for the smooth, positive weights of a match, which do not reach that end of the spectrum.

    Parameters
    ----------
    rho, lag_y, lag_x
        As for :class:`LagCorrelation`; NaN counts as 0.
    name
        Of the cube, for the message.

    Raises
    ------
    InputError
        If lags are not of the half plane, a correlation is beyond 1, or an eigenvalue is too
        negative.
    """
    rho = np.nan_to_num(np.asarray(rho, dtype=np.float32), nan=0.0)
    lag_y, lag_x = np.asarray(lag_y, dtype=int), np.asarray(lag_x, dtype=int)
    half = (lag_y > 0) | ((lag_y == 0) & (lag_x > 0))
    if not half.all():
        raise InputError(
            f"{name}: spec_corr", expected="lags with lag_y > 0, or lag_y = 0 and lag_x > 0",
            found=f"lag_y, lag_x = {lag_y[~half][0]}, {lag_x[~half][0]}",
            remedy="give each pair of pixels once, from the half plane",
        )  # fmt: skip
    largest = float(np.abs(rho).max(initial=0.0))
    if largest > 1.001:
        raise InputError(
            f"{name}: spec_corr", expected="correlations between -1 and 1",
            found=f"{largest:.4g}", remedy="divide covariances by the two errors",
        )  # fmt: skip
    lags = LagCorrelation(rho, lag_y, lag_x)
    low, high = _extreme_eigenvalues(correlation_matrix(lags))
    if low < -_LARGEST_CLIP * high:
        raise InputError(
            f"{name}: spec_corr", expected="a correlation by which every variance is positive",
            found=f"an eigenvalue of {low:.3g}, {low / high:.2%} of the largest",
            remedy="check the cube's correlation, or match with the option correlation",
        )  # fmt: skip
    floor = max(0.0, -low)
    if floor > _TOLERANCE * high:
        logger.info(
            "%s: spec_corr: eigenvalues down to %.2g of the largest are negative; no variance is "
            "taken as less than %.2g of that of independent noise", name, low / high, floor,
        )  # fmt: skip
    return LagCorrelation(rho, lag_y, lag_x, floor=floor, clipped=floor / high)


def correlation_matrix(lags: LagCorrelation) -> sparse.csr_array:
    """The symmetric matrix of all pixels, ``(n_in, n_in)``, with 1 on the diagonal."""
    n_y, n_x = lags.shape
    first, second, value = [], [], []
    for rho, step_y, step_x in zip(lags.rho, lags.lag_y, lags.lag_x, strict=True):
        y, x = np.nonzero(rho)
        inside = (y + step_y < n_y) & (x + step_x >= 0) & (x + step_x < n_x)
        y, x = y[inside], x[inside]
        first.append(y * n_x + x)
        second.append((y + step_y) * n_x + x + step_x)
        value.append(rho[y, x])
    size = n_y * n_x
    if not value:
        return sparse.eye_array(size, dtype=np.float32, format="csr")
    i, j, v = (np.concatenate(part) for part in (first, second, value))
    upper = sparse.csr_array((v, (i, j)), shape=(size, size), dtype=np.float32)
    return sparse.csr_array(upper + upper.T + sparse.eye_array(size, dtype=np.float32))


def _extreme_eigenvalues(matrix: sparse.csr_array) -> tuple[float, float]:
    """Smallest and largest eigenvalue, to about a thousandth of the largest."""
    # pixels that are correlated with none are eigenvectors of 1: leave them out
    linked = np.flatnonzero(np.diff(matrix.indptr) > 1)
    if linked.size == 0:
        return 1.0, 1.0
    matrix = matrix[linked][:, linked].astype(np.float64)
    n = linked.size
    if n < _DENSE_BELOW:
        value = linalg.eigvalsh(matrix.toarray())
        return float(value[0]), float(value[-1])
    # a fixed start: the same answer every time
    start = np.random.default_rng(0).standard_normal(n)
    options: dict[str, Any] = {
        "k": 1, "which": "LA", "tol": _TOLERANCE, "v0": start, "return_eigenvectors": False,
    }  # fmt: skip
    high = float(eigsh(matrix, **options)[0])
    # the tolerance is relative, so the small end is sought as the largest of its complement
    complement = high * sparse.eye_array(n, format="csr") - matrix
    return high - float(eigsh(complement, **options)[0]), high
