"""Errors of matched pixels when the input spaxels are correlated.

Survey cubes are resampled from fibres, so neighbouring spaxels share noise. The exact variance
``a^T C a`` is evaluated at a few wavelengths; its ratio to the diagonal sum is smooth in
wavelength and is applied at every channel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import fft

from specphoto.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from specphoto.spatial.operator import Operator

__all__ = ["correlation_stencil", "stencil_of", "variance_ratio"]

# Cutoff over scale of MaNGA's correlation, where a model states none.
_CUTOFF = 10.0 / 3.0

_ROWS_AT_ONCE = 256


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
        If the model is unknown or has no scale.
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
    return correlation_stencil(float(scale), float(correlation.get("cutoff", _CUTOFF * scale)))


def variance_ratio(
    operator: Operator,
    good: NDArray[np.bool_],
    sigma: NDArray[np.float64],
    stencil: NDArray[np.float64],
) -> NDArray[np.float64]:
    r"""Ratio of the correlated to the independent variance of each matched pixel.

    .. math:: \frac{\sum_{jk} b_j b_k \rho_{jk}}{\sum_j b_j^2}, \quad b_j = A_{oj} w_j \sigma_j

    The sum over *k* is a convolution with the correlation, so by Parseval's theorem the numerator
    is the power of *b* weighted with the transform of the correlation. A Gaussian that is cut is
    not positive semi-definite (smallest eigenvalue about -0.03 of a diagonal of 1): the negative
    part of its transform is clipped.

    Parameters
    ----------
    operator
        The operator.
    good
        Good spaxels, ``(n_y, n_x)``.
    sigma
        Their 1-sigma errors, ``(n_y, n_x)``.
    stencil
        From :func:`correlation_stencil`.

    Returns
    -------
    numpy.ndarray
        ``(n_row,)``, NaN for a row with no good spaxel.
    """
    if stencil.size == 1:
        return np.ones(operator.row.size)
    n_y, n_x = operator.shape_in
    shape = (fft.next_fast_len(n_y + stencil.shape[0]), fft.next_fast_len(n_x + stencil.shape[1]))
    power = _power_spectrum(stencil, shape)
    scale = np.where(good, sigma, 0.0).astype(np.float32).ravel()
    numerator = np.empty(operator.row.size)
    denominator = np.empty(operator.row.size)
    for start in range(0, operator.row.size, _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        part = operator.weight[:, rows]
        dense = part if isinstance(part, np.ndarray) else part.toarray()
        b = (dense * scale[:, None]).T.reshape(-1, n_y, n_x)
        spectrum = fft.rfft2(b, s=shape, axes=(1, 2))
        numerator[rows] = (np.abs(spectrum) ** 2 * power).sum(axis=(1, 2), dtype=np.float64)
        denominator[rows] = (b * b).sum(axis=(1, 2), dtype=np.float64)
    empty = denominator <= 0
    return np.where(empty, np.nan, numerator / np.where(empty, 1.0, denominator))


def _power_spectrum(stencil: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Transform of the correlation on the half plane of ``rfft2``, as Parseval weights."""
    wrapped = np.zeros(shape)
    ry, rx = stencil.shape[0] // 2, stencil.shape[1] // 2
    wrapped[: stencil.shape[0], : stencil.shape[1]] = stencil
    wrapped = np.roll(wrapped, (-ry, -rx), axis=(0, 1))
    transform = np.clip(fft.rfft2(wrapped).real, 0.0, None)
    # every frequency but the first (and, for even sizes, the last) column stands for two
    twice = np.full(transform.shape[1], 2.0)
    twice[0] = 1.0
    if shape[1] % 2 == 0:
        twice[-1] = 1.0
    return np.asarray(transform * twice / (shape[0] * shape[1]), dtype=np.float32)
