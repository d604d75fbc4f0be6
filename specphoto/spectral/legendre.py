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

__all__ = ["FactorFit", "basis", "evaluate", "evaluate_err", "fit_factor", "normalized"]

# A factor whose relative noise is larger than this says nothing about the spectrum.
_UNKNOWN = 0.3
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


class FactorFit(NamedTuple):
    """Coefficients ``(n_pixel, order + 1)`` and their noise covariance; unknown is NaN."""

    coef: NDArray[np.float64]
    cov: NDArray[np.float64]


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
        Pixels without information (too few channels, noise above 30% of the factor, a factor
        that is not positive everywhere) are NaN.
    """
    n_coef = L.shape[0]
    m = np.where(good, model, 0.0)
    f = np.where(good, flux, 0.0)
    noise = np.where(good, variance, 1.0)
    u = np.where(good, 1.0 / (noise + (template_error * m) ** 2), 0.0)
    excess = _excess_noise(f, m, u)
    noise, u = noise * excess, u / excess
    products = (L[:, None] * L[None, :]).reshape(n_coef * n_coef, -1).T
    um = u * m
    normal = ((um * f) @ products).reshape(-1, n_coef, n_coef)
    right = (um * m) @ L.T
    enough = (good.sum(axis=1) > 10 * n_coef) & (normal[:, 0, 0] > 0)
    inverse = _inverse(normal, enough)
    coef = np.einsum("pkl,pl->pk", inverse, right)
    factor = coef @ L
    middle = ((noise * (um * factor) ** 2) @ products).reshape(-1, n_coef, n_coef)
    cov = np.einsum("pij,pjk,plk->pil", inverse, middle, inverse)
    known = enough & _informative(coef, cov, factor)
    coef[~known] = np.nan
    cov[~known] = np.nan
    return FactorFit(coef, cov)


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
    freedom = np.maximum(total(weight > 0) - 1.0, 1.0)
    return np.repeat(np.maximum(chi2 / freedom, 1.0), length, axis=1)


def _inverse(matrix: NDArray[np.float64], ok: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Inverse of each matrix that is well conditioned; the others give NaN."""
    out = np.full_like(matrix, np.nan)
    safe = np.where(ok[:, None, None] & np.isfinite(matrix), matrix, np.eye(matrix.shape[1]))
    fine = ok & (np.linalg.cond(safe) < 1e12)
    out[fine] = np.linalg.inv(safe[fine])
    return out


def _informative(
    coef: NDArray[np.float64], cov: NDArray[np.float64], factor: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Whether noise leaves the level of the factor known, and the factor is positive."""
    with np.errstate(invalid="ignore"):
        # the mean over wavelength of L_k^2 is 1 / (2 k + 1)
        mean_square = 1.0 / (2.0 * np.arange(coef.shape[1]) + 1.0)
        noise = np.sqrt(np.einsum("pkk,k->p", cov, mean_square))
        return np.asarray((noise < _UNKNOWN * coef[:, 0]) & (factor.min(axis=1) > 0))
