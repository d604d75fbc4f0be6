r"""Correct the spectra of a block of pixels: what one task of the spectral stage does.

With ``t`` the true spectrum of a pixel, ``f = t / P`` + noise the observed one, ``m_k`` the models
and :math:`\delta` their error, :math:`t = s\,m_k (1 + \delta)`:

1. the single best model of the photometry (and of the features of ``f``) gives a first ``P``;
   that corrects bands for what the spectrum holds inside them and the model does not: emission
   lines above all;
2. all models are weighed by the photometry, its errors and the template error, and by the features
   (:mod:`specphoto.spectral.sedfit`): mean and covariance of the broad shape of ``t``. Bands inside
   the cube correct the shape nearby, for there the template error is common to both. The
   reference ``m`` has this shape and the fine structure of the best model;
3. ``P`` is fitted on clean continuum without noise bias (:func:`~.legendre.fit_factor`), its error
   holds that of the shape; orders that nothing fixes are drawn to 0
   (:func:`~.legendre.lower_order`); where that leaves no plausible factor
   (:func:`~.legendre.plausible`), or the images contradict the corrected spectrum
   (:mod:`~.doubt`), it is unknown.

Each datum enters once: the photometry in step 2, features and level of ``f`` in 2 and 3, where they
are orthogonal by construction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from specphoto.spectral import compat, doubt
from specphoto.spectral.legendre import FactorFit, fit_factor, lower_order, plausible
from specphoto.spectral.sedfit import SedFit, best_models, fit_sed, photometric_sigma

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from specphoto.spectral.features import Measured
    from specphoto.spectral.reference import Reference

__all__ = ["Pixels", "Result", "correct_pixels"]

_PIXELS_AT_ONCE = 128
# Relative error of model photometry, independent between bands, where one model is looked for.
_FLOOR = 0.05
# Error of the shape of a single model, relative, per Legendre order.
_SINGLE_ERROR = 0.03
# Lines may add many times a model's light to a band, but nothing takes much of it away: what is
# further off is no light, and counts as an error.
_MOST_EXCESS, _LEAST_EXCESS = 10.0, 0.8
# Chance below which the template error of a pixel is raised, and fits after which that has settled.
_DOUBTFUL, _TURNS = 0.01, 2


class Pixels(NamedTuple):
    """Data of a block: photometry ``(n_pixel, n_band)``, spectra ``(n_pixel, n_wave)``.

    Velocities ``(n_pixel,)`` are in km/s relative to the galaxy's redshift, where they are known.
    """

    photo_flux: NDArray[np.floating]
    photo_err: NDArray[np.floating]
    flux: NDArray[np.floating]
    err: NDArray[np.floating]
    bad: NDArray[np.bool_]
    velocity: NDArray[np.floating] | None = None

    def take(self, rows: slice | NDArray[np.bool_]) -> Pixels:
        """Some of the pixels."""
        return Pixels(
            self.photo_flux[rows], self.photo_err[rows], self.flux[rows], self.err[rows],
            self.bad[rows], None if self.velocity is None else self.velocity[rows],
        )  # fmt: skip


class Result(NamedTuple):
    """Factor and fit of a block, one row a pixel; unknown is NaN (best -1).

    ``noise`` is the part of ``cov`` that is noise of spectrum and images; the rest is of models.
    ``photo_cov`` ``(n_pixel, order + 1, n_band)`` is the covariance of the coefficients with the
    errors of the photometry, ``unit`` ``(n_pixel, n_band, order + 1)`` the derivative of synthetic
    photometry by them. ``order`` is the order of the factor that the data fix, -1 if unknown. Each
    band of ``closure_holdout`` is left out of the fit that it judges; NaN
    unless the reference asks for it.
    """

    coef: NDArray[np.float64]
    cov: NDArray[np.float64]
    noise: NDArray[np.float64]
    photo_cov: NDArray[np.float64]
    unit: NDArray[np.float64]
    model: NDArray[np.float64]
    chi2: NDArray[np.float64]
    n_band: NDArray[np.float64]
    n_eff: NDArray[np.float64]
    best: NDArray[np.float64]
    order: NDArray[np.float64]
    closure_before: NDArray[np.float64]
    closure_after: NDArray[np.float64]
    closure_holdout: NDArray[np.float64]
    flag: NDArray[np.float64]


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


class _Spectra(NamedTuple):
    """Spectra without gaps, variance 1 and flux 0 where they are not ``good``."""

    flux: NDArray[np.float64]
    variance: NDArray[np.float64]
    good: NDArray[np.bool_]


def _correct(pixels: Pixels, reference: Reference) -> Result:
    if pixels.velocity is not None:
        reference = reference.moving(pixels.velocity.astype(np.float64))
    good = ~pixels.bad & np.isfinite(pixels.flux) & (pixels.err > 0) & np.isfinite(pixels.err)
    spectra = _Spectra(
        np.where(good, pixels.flux, 0.0).astype(np.float64),
        np.where(good, pixels.err, 1.0).astype(np.float64) ** 2,
        good,
    )
    found = _solve(pixels, spectra, reference)
    factor, model, after, sed = found.factor, found.model, found.after, found.sed
    err = np.where(np.isfinite(pixels.photo_err), pixels.photo_err, 0.0)[:, None]
    photo_noise = found.follow * (err / found.excess[:, None])
    noise = found.spectral_noise + photo_noise @ photo_noise.transpose(0, 2, 1)
    photo_cov = photo_noise * err
    held_out = np.full(after.shape, np.nan)
    if reference.holdout:
        held_out = _held_out(pixels, spectra, reference)
    contradicted = doubt.contradicted(after, pixels.photo_flux, pixels.photo_err)
    P = factor.coef @ reference.L
    clean = spectra.good & ~(reference.line | reference.sky)
    flag = doubt.flags(sed, doubt.misfit(spectra.flux * P, spectra.variance * P**2, model, clean),
                       contradicted)  # fmt: skip
    unknown = ~plausible(factor.coef, factor.cov, reference.L) | contradicted
    if reference.min_snr > 0:
        unknown |= doubt.median_snr(*spectra) < reference.min_snr
    factor.order[unknown] = -1
    for values in (factor.coef, factor.cov, noise, photo_cov, found.unit, model):
        values[unknown] = np.nan
    for values in (found.before, after, held_out):
        values[unknown] = np.nan
    before, after, held_out = (
        _magnitude(values, pixels.photo_flux) for values in (found.before, after, held_out)
    )
    return Result(
        factor.coef, factor.cov, noise, photo_cov, found.unit, model, sed.chi2,
        sed.n_band.astype(float), sed.n_eff, sed.best.astype(float), factor.order.astype(float),
        closure_before=before, closure_after=after, closure_holdout=held_out, flag=flag,
    )  # fmt: skip


class _Found(NamedTuple):
    """All that one fit of pixels gives; see the functions that make them."""

    sed: SedFit
    excess: NDArray[np.float64]
    model: NDArray[np.float64]
    factor: FactorFit
    spectral_noise: NDArray[np.float64]
    follow: NDArray[np.float64]
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    unit: NDArray[np.float64]


def _solve(pixels: Pixels, spectra: _Spectra, reference: Reference) -> _Found:
    """Fit, reference, factor and synthetic photometry."""
    sed, excess = _fit_photometry(pixels, spectra, reference)
    model = _mean_model(sed, reference)
    ratio = reference.method == "ratio"
    shape = (_published_factor if ratio else _shape_factor)(spectra, model, reference)
    factor, follow = _with_shape_error(shape, sed, reference)
    rest, order = lower_order(*factor)
    factor = FactorFit((rest @ factor.coef[..., None])[..., 0], rest @ factor.cov, order)
    spectral_noise = rest @ shape.cov @ rest.transpose(0, 2, 1)
    in_band = _in_band(spectra, model, factor, sed, reference)
    return _Found(sed, excess, model, factor, spectral_noise, rest @ follow, *in_band)


def _held_out(pixels: Pixels, spectra: _Spectra, reference: Reference) -> NDArray[np.float64]:
    """Synthetic photometry of each covered band by a factor that did not see its image."""
    out = np.full(pixels.photo_flux.shape, np.nan)
    for b in np.flatnonzero(reference.covered):
        err = np.array(pixels.photo_err, dtype=np.float64)
        err[:, b] = np.inf
        out[:, b] = _solve(pixels._replace(photo_err=err), spectra, reference).after[:, b]
    return out


def _fit_photometry(
    pixels: Pixels, spectra: _Spectra, reference: Reference
) -> tuple[SedFit, NDArray[np.float64]]:
    """Fit of the photometry, and what it was divided by: the bands' light over the models'."""
    table, floor = reference.table, reference.floor
    bayesian = reference.method == "bayesian"
    measured: Measured | None = None
    if reference.features is not None:
        at_rest = spectra if reference.motion is None else reference.motion.at_rest(*spectra)
        measured = reference.features.measure(*at_rest)
    sigma = photometric_sigma(pixels.photo_flux, pixels.photo_err, np.maximum(floor, _FLOOR))
    first = best_models(pixels.photo_flux, sigma, table, measured)
    if reference.method == "ratio":
        return first, np.ones(sigma.shape)
    typical = table.photometry[np.maximum(first.best, 0)] * first.scale[:, None]
    excess, unsure = _excess(spectra, first, typical, reference)
    flux = pixels.photo_flux / excess
    if not bayesian:
        return best_models(flux, sigma / excess, table), excess
    typical = np.nan_to_num(typical)
    own = photometric_sigma(typical, pixels.photo_err / excess, floor)
    sigma = np.where(np.isfinite(sigma), np.hypot(own, unsure * typical), np.inf)
    fit = fit_sed(flux, sigma, table, reference.error, typical, measured)
    return _admit_worse_models(fit, flux, sigma, typical, measured, reference), excess


def _admit_worse_models(
    fit: SedFit, flux: NDArray[np.float64], sigma: NDArray[np.float64],
    typical: NDArray[np.float64], measured: Measured | None, reference: Reference,
) -> SedFit:  # fmt: skip
    """Fit pixels that no model fits once more, with the template error that their chi-square asks.

    Else the few models that are the least wrong would be certain, and their shape would outweigh
    the images. The chi-square stays that of the first fit.
    """
    wild = np.flatnonzero(doubt.chance(fit) < _DOUBTFUL)
    amplitude = np.ones(len(wild))
    again = fit.take(wild)
    for _ in range(_TURNS if wild.size else 0):
        amplitude *= np.sqrt(np.maximum(again.chi2 / np.maximum(again.n_band - 1.0, 1.0), 1.0))
        part = measured and measured.take(wild)
        again = fit_sed(flux[wild], sigma[wild], reference.table, reference.error, typical[wild],
                        part, amplitude)  # fmt: skip
    for name, values in again._asdict().items():
        if name != "chi2":
            getattr(fit, name)[wild] = values
    return fit


def _excess(
    spectra: _Spectra, first: SedFit, typical: NDArray[np.float64], reference: Reference
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Light of each band over that of the model, from what the spectrum shows; its error.

    With the factor of the first model, the spectrum has its broad shape: what it adds to a band
    is lines and what the model has otherwise between them. 1 where the cube does not see.
    """
    model = _mean_model(first, reference)
    factor = _shape_factor(spectra, model, reference)
    P = factor.coef @ reference.L
    T = reference.band_weight * reference.share
    use = spectra.good & (~reference.sky | reference.line) & np.isfinite(P) & np.isfinite(model)
    added = np.where(use, np.nan_to_num(spectra.flux * P - model), 0.0) @ T
    noise = np.where(use, np.nan_to_num(P) ** 2 * spectra.variance, 0.0) @ T**2
    known = plausible(factor.coef, factor.cov, reference.L)[:, None] & (typical > 0)
    light = np.where(known, typical, 1.0)
    raw = 1.0 + added / light
    excess = np.clip(raw, _LEAST_EXCESS, _MOST_EXCESS)
    error = np.hypot(np.sqrt(noise) / light, raw - excess)
    return np.where(known, excess, 1.0), np.where(known, error, 0.0)


def _shape_factor(spectra: _Spectra, model: NDArray[np.float64], reference: Reference) -> FactorFit:
    """Factor from spectrum and reference, with the error of the spectrum alone."""
    clean = spectra.good & ~(reference.line | reference.sky) & (model > 0)
    return fit_factor(spectra.flux, spectra.variance, clean, np.nan_to_num(model), reference.L)


def _published_factor(
    spectra: _Spectra, model: NDArray[np.float64], reference: Reference
) -> FactorFit:
    """Factor as published: unweighted fit of the ratio, outliers clipped; no error of its own."""
    n = reference.L.shape[0]
    coef, cov = np.full((len(model), n), np.nan), np.zeros((len(model), n, n))
    clean = spectra.good & ~(reference.line | reference.sky) & (model > 0)
    x = reference.L[1] if n > 1 else np.zeros(model.shape[1])
    for i, keep in enumerate(clean):
        if keep.sum() > n:
            coef[i] = compat.fit_factor(
                spectra.flux[i : i + 1, keep], model[i : i + 1, keep], x[keep], n - 1
            )
    return FactorFit(coef, cov, np.where(np.isfinite(coef[:, 0]), n - 1, -1))


def _mean_model(sed: SedFit, reference: Reference) -> NDArray[np.float64]:
    """Best model's fine structure with the mean shape of all acceptable models, NaN if none."""
    index = np.maximum(sed.best, 0)
    best, which = np.unique(index, return_inverse=True)
    fine = reference.models.spectra(best)[which]
    if reference.motion is not None:
        fine = reference.motion.of_models(fine)
    change = np.exp((sed.shape_mean - reference.table.shape[index]) @ reference.L)
    return np.asarray(np.where((sed.best < 0)[:, None], np.nan, fine * change), dtype=np.float64)


def _with_shape_error(
    fit: FactorFit, sed: SedFit, reference: Reference
) -> tuple[FactorFit, NDArray[np.float64]]:
    r"""Add the error of the reference: :math:`\delta P = P\,\delta \ln t` projected on Legendre.

    Returns the derivative of the coefficients by the photometry, too.
    """
    L, shape_cov = reference.L, np.nan_to_num(sed.shape_cov)
    if reference.method != "bayesian":
        shape_cov = shape_cov + _SINGLE_ERROR**2 * np.eye(len(L))
    projector = np.linalg.pinv(L.T)
    factor = np.nan_to_num(fit.coef) @ L
    # T_lk = projection on L_l of P L_k
    T = np.einsum("li,pi,ki->plk", projector, factor, L, optimize=True)
    cov = fit.cov + T @ shape_cov @ T.transpose(0, 2, 1)
    return FactorFit(fit.coef, cov, fit.order), T @ np.nan_to_num(sed.shape_photo)


def _in_band(
    spectra: _Spectra, model: NDArray[np.float64], factor: FactorFit, sed: SedFit,
    reference: Reference,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:  # fmt: skip
    """Synthetic photometry in covered bands before and after the correction, NaN in the others.

    The third is its derivative by the coefficients.

    Channels without data, and those at sky lines, are filled with the reference; not where a line
    of the galaxy falls on one of the sky, for the reference has no line. What lies beyond the cube
    is the best model's.
    """
    P = factor.coef @ reference.L
    use = spectra.good & (~reference.sky | reference.line)
    beyond = np.where(reference.covered, reference.beyond[np.maximum(sed.best, 0)], np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        before = np.where(use, spectra.flux, np.nan_to_num(model / P))
    after = np.where(use, spectra.flux * P, np.nan_to_num(model))
    T = reference.band_weight
    seen = np.where(use, spectra.flux, 0.0)
    unit = np.stack([(seen * row) @ T * beyond for row in reference.L], axis=2)
    return (before @ T) * beyond, (after @ T) * beyond, unit


def _magnitude(synthetic: NDArray[np.float64], image: NDArray[np.floating]) -> NDArray[np.float64]:
    """Synthetic minus image magnitude; NaN where either is not positive."""
    lit = (synthetic > 0) & (image > 0)
    ratio = np.where(lit, synthetic, 1.0) / np.where(lit, image, 1.0)
    return np.where(lit, -2.5 * np.log10(ratio), np.nan)
