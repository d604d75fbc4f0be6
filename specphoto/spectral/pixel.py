r"""Correct the spectra of a block of pixels: what one task of the spectral stage does.

With ``t`` the true spectrum of a pixel and ``f = t / P`` + noise the observed one:

1. the photometry is fitted with the whole library (:mod:`specphoto.spectral.sedfit`); the
   reference ``m`` has the fine structure of the best model and the broad shape of the mean of all
   acceptable models, whose covariance, and 3% that no model holds, is the template error of the
   factor;
2. ``P`` is fitted on clean continuum without noise bias (:func:`~.legendre.fit_factor`);
3. where emission lines fill part of a band, their flux is taken off and 1-2 are repeated;
4. the images anchor the level: the corrected spectrum's synthetic photometry ``B (P f)`` in the
   bands that the cube covers is compared with the images, a linear Gaussian update of ``P``;
   where that leaves no plausible factor (:func:`~.legendre.plausible`) it is unknown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from specphoto.spectral.legendre import FactorFit, fit_factor, plausible
from specphoto.spectral.sedfit import SedFit, fit_sed, photometric_sigma

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from specphoto.spectral.reference import Reference

__all__ = ["Pixels", "Result", "anchor", "correct_pixels"]

_PIXELS_AT_ONCE = 128
# A band anchors the factor when at least this share of its light falls on good channels.
_ANCHOR_GOOD = 0.8
# Lines are taken off the bands of a pixel when they fill more than this share of one.
_LINE_SHARE = 0.01
# Error of the shape of every model, relative, per Legendre order: smooth in wavelength, it is what
# the library's family cannot follow (dust laws, histories), and lets the images correct it.
_TEMPLATE_ERROR = 0.03


class Pixels(NamedTuple):
    """Data of a block: photometry ``(n_pixel, n_band)``, spectra ``(n_pixel, n_wave)``."""

    photo_flux: NDArray[np.floating]
    photo_err: NDArray[np.floating]
    flux: NDArray[np.floating]
    err: NDArray[np.floating]
    bad: NDArray[np.bool_]

    def take(self, rows: slice | NDArray[np.bool_]) -> Pixels:
        """Some of the pixels."""
        return Pixels(
            self.photo_flux[rows], self.photo_err[rows], self.flux[rows], self.err[rows],
            self.bad[rows],
        )  # fmt: skip


class Result(NamedTuple):
    """Factor and fit of a block, one row a pixel; unknown is NaN (best -1)."""

    coef: NDArray[np.float64]
    cov: NDArray[np.float64]
    model: NDArray[np.float64]
    chi2: NDArray[np.float64]
    n_band: NDArray[np.float64]
    n_eff: NDArray[np.float64]
    best: NDArray[np.float64]
    closure_before: NDArray[np.float64]
    closure_after: NDArray[np.float64]


def correct_pixels(pixels: Pixels, reference: Reference) -> Result:
    """Fit, reference and factor of each pixel.

    Parameters
    ----------
    pixels
        The block. Values under ``bad`` and bands that are not finite are not read.
    reference
        What all pixels share.

    Returns
    -------
    Result
    """
    parts = [
        _correct(pixels.take(slice(start, start + _PIXELS_AT_ONCE)), reference)
        for start in range(0, pixels.flux.shape[0], _PIXELS_AT_ONCE)
    ]
    return Result(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _correct(pixels: Pixels, reference: Reference) -> Result:
    good = ~pixels.bad & np.isfinite(pixels.flux) & (pixels.err > 0) & np.isfinite(pixels.err)
    flux = np.where(good, pixels.flux, 0.0).astype(np.float64)
    variance = np.where(good, pixels.err, 1.0).astype(np.float64) ** 2
    sed, model, factor = _shape_factor(pixels, flux, variance, good, reference)
    off = _line_flux(flux, variance, good, model, factor, reference)
    with np.errstate(invalid="ignore", divide="ignore"):
        again = np.asarray((off / pixels.photo_flux > _LINE_SHARE).any(axis=1))
    if again.any():
        few = pixels.take(again)
        few = few._replace(photo_flux=few.photo_flux - off[again])
        parts = _shape_factor(few, flux[again], variance[again], good[again], reference)
        flat = (*parts[0], parts[1], *parts[2])
        for whole, part in zip((*sed, model, *factor), flat, strict=True):
            whole[again] = part
    synthetic = _synthetic(flux, variance, good, model, factor, reference)
    synthetic = synthetic.times(reference.beyond[np.maximum(sed.best, 0)])
    coef, cov = anchor(
        factor, synthetic, pixels.photo_flux, pixels.photo_err, reference.anchor_error
    )
    # images that contradict the spectrum (negative where it shines) are no calibration of it
    unknown = ~plausible(coef, cov, reference.L)
    coef[unknown], cov[unknown], model[unknown] = np.nan, np.nan, np.nan
    before = np.where(unknown[:, None], np.nan, synthetic.unit @ np.eye(coef.shape[1])[0])
    return Result(
        coef, cov, model, sed.chi2, sed.n_band.astype(float), sed.n_eff, sed.best.astype(float),
        closure_before=_magnitude(before, pixels.photo_flux),
        closure_after=_magnitude(np.einsum("pbk,pk->pb", synthetic.unit, coef), pixels.photo_flux),
    )  # fmt: skip


def _shape_factor(
    pixels: Pixels, flux: NDArray[np.float64], variance: NDArray[np.float64],
    good: NDArray[np.bool_], reference: Reference,
) -> tuple[SedFit, NDArray[np.float64], FactorFit]:  # fmt: skip
    """SED fit, reference spectrum, and the factor from the shape of the reference alone."""
    sigma = photometric_sigma(pixels.photo_flux, pixels.photo_err, reference.floor)
    sed = fit_sed(pixels.photo_flux, sigma, reference.photometry, reference.shape)
    model = _mean_model(sed, reference)
    clean = good & ~(reference.line | reference.sky) & (model > 0)
    fit = fit_factor(flux, variance, clean, np.nan_to_num(model), reference.L)
    return sed, model, _with_template_error(fit, sed.shape_cov, reference.L)


def _mean_model(sed: SedFit, reference: Reference) -> NDArray[np.float64]:
    """Best model's fine structure with the mean shape of all acceptable models, NaN if none."""
    best, which = np.unique(np.maximum(sed.best, 0), return_inverse=True)
    fine = reference.models.spectra(best)[which]
    own = reference.shape[np.maximum(sed.best, 0)].copy()
    own[:, 0] += np.log(np.where(sed.scale > 0, sed.scale, 1.0))
    model = fine * (sed.scale[:, None] * np.exp((sed.shape_mean - own) @ reference.L))
    return np.asarray(np.where((sed.best < 0)[:, None], np.nan, model), dtype=np.float64)


def _with_template_error(
    fit: FactorFit, shape_cov: NDArray[np.float64], L: NDArray[np.float64]
) -> FactorFit:
    r"""Add the error of the reference: :math:`\delta P = P\,\delta \ln m` projected on Legendre.

    It is the spread of acceptable models and what none of them holds.
    """
    projector = np.linalg.pinv(L.T)
    factor = np.nan_to_num(fit.coef) @ L
    # T_lk = projection on L_l of P L_k
    T = np.einsum("li,pi,ki->plk", projector, factor, L, optimize=True)
    error = np.nan_to_num(shape_cov) + _TEMPLATE_ERROR**2 * np.eye(shape_cov.shape[1])
    return FactorFit(fit.coef, fit.cov + T @ error @ T.transpose(0, 2, 1))


def _line_flux(
    flux: NDArray[np.float64], variance: NDArray[np.float64], good: NDArray[np.bool_],
    model: NDArray[np.float64], factor: FactorFit, reference: Reference,
) -> NDArray[np.float64]:  # fmt: skip
    """Mean F_lambda that emission lines add to each covered band, 0 where it is not significant."""
    P = factor.coef @ reference.L
    inside = good & reference.line
    excess = np.where(inside, np.nan_to_num(flux * P - model), 0.0)
    added = excess @ reference.band_weight
    noise = np.where(inside, np.nan_to_num(P) ** 2 * variance, 0.0) @ reference.band_weight**2
    return np.where(added > 3.0 * np.sqrt(noise), added, 0.0)


class _Synthetic(NamedTuple):
    """Synthetic photometry as a linear function of the factor's coefficients.

    ``unit`` holds band fluxes of the spectrum times each Legendre polynomial, ``(n_pixel, n_band,
    order + 1)``; ``variance`` their noise at the fitted factor; ``usable`` the bands that may
    anchor it.
    """

    unit: NDArray[np.float64]
    variance: NDArray[np.float64]
    usable: NDArray[np.bool_]

    def times(self, factor: NDArray[np.float64]) -> _Synthetic:
        """Photometry times a factor ``(n_pixel, n_band)``, such as for light beyond the cube."""
        return _Synthetic(
            self.unit * factor[..., None], self.variance * factor**2, self.usable
        )  # fmt: skip


def _synthetic(
    flux: NDArray[np.float64], variance: NDArray[np.float64], good: NDArray[np.bool_],
    model: NDArray[np.float64], factor: FactorFit, reference: Reference,
) -> _Synthetic:  # fmt: skip
    """Synthetic photometry as a linear function of the coefficients.

    Channels without data, and those at sky lines, are filled with the reference over the factor;
    not where a line of the galaxy falls on one of the sky, for the reference has no line.
    """
    T, L = reference.band_weight, reference.L
    P = factor.coef @ L
    use = good & (~reference.sky | reference.line)
    with np.errstate(invalid="ignore", divide="ignore"):
        whole = np.where(use, flux, np.nan_to_num(model / P))
    unit = np.stack([(whole * L[k]) @ T for k in range(L.shape[0])], axis=2)
    noise = np.where(use, np.nan_to_num(P) ** 2 * variance, 0.0) @ T**2
    share = use @ T
    unit[:, ~reference.covered] = np.nan
    return _Synthetic(unit, noise, (share >= _ANCHOR_GOOD) & reference.covered)


def anchor(
    prior: FactorFit,
    synthetic: _Synthetic,
    photo_flux: NDArray[np.floating],
    photo_err: NDArray[np.floating],
    anchor_error: float,
) -> FactorFit:
    r"""Update the factor by the images in covered bands.

    With the factor from the model's shape as prior, ``c ~ N(c_0, C_0)``, and in each band
    ``d = S c`` + noise of variance ``R``, the posterior is

    .. math::

        G = C_0 S^T (S C_0 S^T + R)^{-1}, \quad c = c_0 + G (d - S c_0), \quad
        C = (1 - G S) C_0

    Parameters
    ----------
    prior
        Factor and covariance before, rows ``n_pixel``.
    synthetic
        ``S``, its noise variance and which bands count.
    photo_flux, photo_err
        ``(n_pixel, n_band)``.
    anchor_error
        Relative error added to the images' (curve, PSF and pedestal differences).
    """
    use = synthetic.usable & np.isfinite(photo_flux) & (photo_err > 0) & np.isfinite(photo_err)
    use &= np.isfinite(prior.coef[:, :1]) & np.isfinite(anchor_error)
    d = np.where(use, photo_flux, 0.0).astype(np.float64)
    S = np.where(use[:, :, None], synthetic.unit, 0.0)
    R = np.where(use, photo_err, 1.0) ** 2 + synthetic.variance
    if np.isfinite(anchor_error):
        R = R + (anchor_error * d) ** 2
    C0 = np.nan_to_num(prior.cov)
    c0 = np.nan_to_num(prior.coef)
    SC = S @ C0
    inner = SC @ S.transpose(0, 2, 1) + np.where(use, R, 1.0)[:, :, None] * np.eye(d.shape[1])
    G = np.linalg.solve(inner, SC).transpose(0, 2, 1)
    coef = c0 + np.einsum("pkb,pb->pk", G, d - np.einsum("pbk,pk->pb", S, c0))
    cov = C0 - G @ SC
    unknown = ~np.isfinite(prior.coef[:, 0])
    coef[unknown] = np.nan
    cov[unknown] = np.nan
    return FactorFit(coef, 0.5 * (cov + cov.transpose(0, 2, 1)))


def _magnitude(synthetic: NDArray[np.float64], image: NDArray[np.floating]) -> NDArray[np.float64]:
    """Synthetic minus image magnitude; NaN where either is not positive."""
    lit = (synthetic > 0) & (image > 0)
    ratio = np.where(lit, synthetic, 1.0) / np.where(lit, image, 1.0)
    return np.where(lit, -2.5 * np.log10(ratio), np.nan)
