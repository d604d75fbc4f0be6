r"""The smooth factor ``P(lambda)``: Legendre polynomials, and the unbiased fit.

.. math:: P(\lambda) = \sum_k c_k L_k(x), \qquad x = 2 (\lambda - a) / (b - a) - 1

with ``[a, b]`` the wavelength range of the cube.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.polynomial import legendre

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "FactorFit",
    "basis",
    "channels_needed",
    "evaluate",
    "evaluate_err",
    "fit_factor",
    "lower_order",
    "normalized",
    "plausible",
]

# A factor whose relative noise is larger than this says nothing about the spectrum.
_UNKNOWN = 0.3
# A factor that leaves its mean by more than this does not follow the calibration.
_EXCURSION = 3.0
# Error of the coefficients that a spectrum cannot fix, relative to the level.
_DROPPED = 0.1
# Variance of what tells nothing, relative to that.
_NOTHING = 1e12
# A coefficient takes more than this many clean channels.
_CHANNELS_PER_COEFFICIENT = 10
# Channels over which the scatter of a spectrum is compared with its errors.
_STRETCH = 64


def normalized(wave: NDArray[np.float64], lo: float, hi: float) -> NDArray[np.float64]:
    """Wavelengths mapped linearly to [-1, 1].

    Parameters
    ----------
    wave
        Wavelengths in Angstrom.
    lo, hi
        Ends of the range, Angstrom.
    """
    return np.asarray(2.0 * (np.asarray(wave) - lo) / (hi - lo) - 1.0)


def basis(x: NDArray[np.float64], order: int) -> NDArray[np.float64]:
    """Legendre polynomials 0 to ``order`` at ``x``, ``(order + 1, n_wave)``."""
    return np.asarray(legendre.legvander(x, order).T)


def evaluate(coef: NDArray[np.floating], x: NDArray[np.float64]) -> NDArray[np.floating]:
    """Factor from its coefficients.

    Parameters
    ----------
    coef
        ``(order + 1, ...)``.
    x
        ``(n_wave,)`` from :func:`normalized`.

    Returns
    -------
    numpy.ndarray
        ``(n_wave, ...)`` of the coefficients' dtype.
    """
    L = basis(x, coef.shape[0] - 1).astype(coef.dtype)
    return np.asarray(np.tensordot(L, coef, axes=(0, 0)))


def evaluate_err(cov: NDArray[np.floating], x: NDArray[np.float64]) -> NDArray[np.floating]:
    r"""1-sigma error of the factor, :math:`\sqrt{L^T C L}`.

    It is fully correlated in wavelength: never add it in quadrature channel by channel.

    Parameters
    ----------
    cov
        ``(order + 1, order + 1, ...)``.
    x
        ``(n_wave,)``.

    Returns
    -------
    numpy.ndarray
        ``(n_wave, ...)`` of the covariance's dtype.
    """
    L = basis(x, cov.shape[0] - 1)
    products = L[:, None] * L[None, :]
    flat = products.reshape(-1, x.size).astype(cov.dtype)
    variance = np.tensordot(flat, cov.reshape(-1, *cov.shape[2:]), axes=(0, 0))
    return np.sqrt(np.maximum(variance, 0))


def channels_needed(order: int) -> int:
    """Fewest clean channels from which a factor of this order is fitted."""
    return _CHANNELS_PER_COEFFICIENT * (order + 1) + 1


class FactorFit(NamedTuple):
    """Coefficients ``(n_pixel, order + 1)``, their noise covariance, and the order that was fitted.

    Unknown is NaN, of order -1.
    """

    coef: NDArray[np.float64]
    cov: NDArray[np.float64]
    order: NDArray[np.intp]


def fit_factor(
    flux: NDArray[np.floating],
    variance: NDArray[np.floating],
    good: NDArray[np.bool_],
    model: NDArray[np.floating],
    L: NDArray[np.float64],
    *,
    template_error: float = 0.03,
) -> FactorFit:
    r"""Fit ``P`` in ``P f = m`` without the bias of noisy ``f``.

    Least squares of ``P f`` on ``m`` is attenuated by :math:`1 / (1 + 1/\mathrm{SN}^2)`, for the
    noisy spectrum multiplies itself. Here the noise-free model is the instrument: the equations

    .. math:: \sum_i u_i m_i L_l(x_i) \Big( f_i \sum_k c_k L_k(x_i) - m_i \Big) = 0

    are linear in ``f``, so noise of zero mean leaves ``c`` unbiased to first order, with
    ``f = m / P`` fitted at full weight. The weights :math:`u = 1 / (\sigma^2 + (\epsilon m)^2)`
    do not depend on ``f``.

    Parameters
    ----------
    flux, variance
        Spectra and their variances, ``(n_pixel, n_wave)``.
    good
        Clean continuum channels, ``(n_pixel, n_wave)``; what others hold is not read.
    model
        Reference models on the same scale as the spectra should have, ``(n_pixel, n_wave)``.
    L
        Legendre basis, ``(order + 1, n_wave)``.
    template_error
        Relative error of a model channel that caps the weight of bright pixels.

    Returns
    -------
    FactorFit
        Where the spectrum does not fix a polynomial of this order (noise above 30% of the factor,
        or a factor that leaves its mean by a factor of 3: it follows residuals of the sky), the
        highest order that it fixes is fitted, and those above are 0 with an error of 10%. Pixels
        without information (too few channels, a level that noise hides) are NaN.
    """
    n_pixel, n_coef = flux.shape[0], L.shape[0]
    m = np.where(good, model, 0.0)
    f = np.where(good, flux, 0.0)
    noise = np.where(good, variance, 1.0)
    u = np.where(good, 1.0 / (noise + (template_error * m) ** 2), 0.0)
    excess = _excess_noise(f, m, u)
    noise, u = noise * excess, u / excess
    um = u * m
    normal = ((um * f) @ _products(L)).reshape(-1, n_coef, n_coef)
    right, noise = (um * m) @ L.T, noise * um**2
    fit = FactorFit(np.full((n_pixel, n_coef), np.nan), np.full((n_pixel, n_coef, n_coef), np.nan),
                    np.full(n_pixel, -1))  # fmt: skip
    enough = (good.sum(axis=1) >= channels_needed(n_coef - 1)) & (normal[:, 0, 0] > 0)
    rest = np.flatnonzero(enough)
    for n in range(n_coef, 0, -1):
        if rest.size == 0:
            break
        coef, cov = _solve(normal[rest, :n, :n], right[rest, :n], noise[rest], L[:n])
        known = plausible(coef, cov, L[:n])
        rows, rest = rest[known], rest[~known]
        fit.coef[rows] = _padded(coef[known], n_coef)
        fit.cov[rows] = _padded(cov[known], n_coef)
        fit.order[rows] = n - 1
        for k in range(n, n_coef):
            fit.cov[rows, k, k] = (_DROPPED * coef[known, 0]) ** 2
    return fit


def lower_order(
    coef: NDArray[np.float64], cov: NDArray[np.float64], order: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    r"""Take the order down to what the data fix, where references leave the rest open.

    From the first coefficient that is known no better than to 10% of the level on, the data say
    less than that calibrations are alike: these ``k`` are taken together with 0, of an error of
    10%. As data of a Gaussian, that is a linear change of all coefficients,

    .. math:: c' = (1 - G H)\,c, \qquad C' = (1 - G H)\,C, \qquad
        G = C H^T (H C H^T + S)^{-1}

    with ``H`` what picks the ``k`` out, and ``S`` their variance.

    Parameters
    ----------
    coef, cov
        Coefficients ``(n_pixel, n_coef)`` and their whole covariance; NaN where unknown.
    order
        Order that the spectrum fixed, ``(n_pixel,)``: those above are as said already.

    Returns
    -------
    rest, order
        :math:`1 - G H`, ``(n_pixel, n_coef, n_coef)``, 1 where nothing changes; the new order.
    """
    n_pixel, n = coef.shape
    rest, order = np.broadcast_to(np.eye(n), (n_pixel, n, n)).copy(), order.copy()
    with np.errstate(invalid="ignore"):
        limit = (_DROPPED * coef[:, 0]) ** 2
        open_ = np.einsum("pkk->pk", cov) >= limit[:, None]
    open_[:, 0] = False
    numbers = np.arange(n)
    open_ &= numbers <= order[:, None]
    first = np.where(open_.any(axis=1), open_.argmax(axis=1), n)
    for k in range(1, n):
        rows = np.flatnonzero(first == k)
        told = numbers[k:] <= order[rows, None]
        S = limit[rows, None] * np.where(told, 1.0, _NOTHING)
        C = cov[rows]
        G = C[:, :, k:] @ np.linalg.inv(C[:, k:, k:] + S[:, :, None] * np.eye(n - k))
        rest[rows, :, k:] -= G
        order[rows] = k - 1
    return rest, order


def _products(L: NDArray[np.float64]) -> NDArray[np.float64]:
    """``L_k L_l`` of all pairs, ``(n_wave, n_coef^2)``."""
    return (L[:, None] * L[None, :]).reshape(L.shape[0] ** 2, -1).T


def _solve(
    normal: NDArray[np.float64], right: NDArray[np.float64], noise: NDArray[np.float64],
    L: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # fmt: skip
    """Coefficients and their covariance; ``noise`` is the variance of ``u m f``."""
    inverse = _inverse(normal)
    coef = np.einsum("pkl,pl->pk", inverse, right)
    middle = ((noise * (coef @ L) ** 2) @ _products(L)).reshape(normal.shape)
    return coef, np.einsum("pij,pjk,plk->pil", inverse, middle, inverse)


def _padded(values: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Zeros for the orders that were dropped, on all axes but the first."""
    more = n - values.shape[1]
    return np.pad(values, [(0, 0)] + [(0, more)] * (values.ndim - 1))


def _excess_noise(
    flux: NDArray[np.float64], model: NDArray[np.float64], weight: NDArray[np.float64]
) -> NDArray[np.float64]:
    r"""How many times the stated variance the spectrum scatters about the model, at least 1.

    Residuals of the sky are many times the errors of faint spectra, in the red above all. In
    stretches of channels the model is scaled to the spectrum, and reduced :math:`\chi^2` is taken.
    It does not know the sign of the noise, so that weights made of it bias nothing.
    """
    start = np.arange(0, flux.shape[1], _STRETCH)
    length = np.diff(start, append=flux.shape[1])

    def total(values: NDArray[np.floating]) -> NDArray[np.float64]:
        return np.asarray(np.add.reduceat(values, start, axis=1), dtype=np.float64)

    weighted = weight * model
    mm, fm = total(weighted * model), total(weighted * flux)
    chi2 = total(weight * flux**2) - fm**2 / np.where(mm > 0, mm, 1.0)
    freedom = np.maximum(total((weight > 0).astype(float)) - 1.0, 1.0)
    return np.repeat(np.maximum(chi2 / freedom, 1.0), length, axis=1)


def _inverse(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse of each matrix that is well conditioned; the others give NaN."""
    out = np.full_like(matrix, np.nan)
    fine = np.linalg.cond(matrix) < 1e12
    out[fine] = np.linalg.inv(matrix[fine])
    return out


def plausible(
    coef: NDArray[np.float64], cov: NDArray[np.float64], L: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Whether noise leaves a factor known, and it is such as calibrations are.

    Its noise is below 30% of its level, and it is positive and nowhere further from its mean than
    a factor of 3.

    Parameters
    ----------
    coef, cov
        ``(n_pixel, n_coef)`` and their covariance; NaN is not plausible.
    L
        Legendre basis, ``(n_coef, n_wave)``.

    Returns
    -------
    numpy.ndarray
        ``(n_pixel,)`` bool.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        # the mean over wavelength of L_k^2 is 1 / (2 k + 1)
        mean_square = 1.0 / (2.0 * np.arange(coef.shape[1]) + 1.0)
        noise = np.sqrt(np.einsum("pkk,k->p", cov, mean_square))
        near = (coef @ L) / coef[:, :1]
        smooth = (near.min(axis=1) > 1.0 / _EXCURSION) & (near.max(axis=1) < _EXCURSION)
        return np.asarray((noise < _UNKNOWN * coef[:, 0]) & smooth)
