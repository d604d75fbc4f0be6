"""The spectral match of piXedfit v1.0 as plain numpy kernels.

The recipe (Abdurro'uf et al. 2021, ApJS 254, 15; facts read from the source at tag v1.0): the
one model of least chi-square to the positive bands, smoothed, over the spectrum; a plain
polynomial through that ratio. It is reproduced with its faults, for comparison with earlier
results: the ratio is biased at low S/N, the smoothing takes a FWHM for a sigma, and a single
model carries no error. :mod:`specphoto.spectral.match` is the method to use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.polynomial import legendre
from scipy import ndimage, stats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = [
    "MARGIN",
    "SMOOTHING_SIGMA",
    "best_models",
    "clean_channels",
    "fit_factor",
    "model_range",
    "photometry_weights",
    "smooth",
]

#: Gaussian sigma that v1.0 smooths the models with, Angstrom (in truth the FWHM).
SMOOTHING_SIGMA = {"manga": 3.5, "califa": 2.6}
#: Model kept on either side of the clean channels, Angstrom.
MARGIN = 100.0
_CLIP = 2.5


def photometry_weights(
    wave: NDArray[np.float64], curves: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]
) -> NDArray[np.float64]:
    r"""Weights that turn spectra into band fluxes: ``flux @ weights``.

    .. math:: F_b = \sum_g g\, T_b(g)\, F(g) \Big/ \sum_g g\, T_b(g)

    on whole Angstroms *g* within the curve, with linear interpolation of curve and spectrum.

    Parameters
    ----------
    wave
        ``(n_wave,)`` observed wavelengths of the spectra, increasing, Angstrom.
    curves
        Wavelength (Angstrom) and transmission of each band.

    Returns
    -------
    numpy.ndarray
        ``(n_wave, n_band)``. Beyond its ends a spectrum keeps its first or last value.
    """
    weights = np.zeros((wave.size, len(curves)))
    for band, (curve_wave, transmission) in enumerate(curves):
        grid = _whole_angstroms(curve_wave)
        share = grid * np.interp(grid, curve_wave, transmission)
        share /= share.sum()
        right = np.clip(np.searchsorted(wave, grid), 1, wave.size - 1)
        step = wave[right] - wave[right - 1]
        position = np.clip((grid - wave[right - 1]) / step, 0.0, 1.0)
        np.add.at(weights[:, band], right, share * position)
        np.add.at(weights[:, band], right - 1, share * (1.0 - position))
    return weights


def best_models(
    flux: NDArray[np.floating],
    err: NDArray[np.floating],
    models: NDArray[np.float64],
    *,
    block: int = 256,
) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
    """Model of least chi-square for each pixel; bands that are not positive are left out.

    Parameters
    ----------
    flux, err
        ``(n_pixel, n_band)``.
    models
        ``(n_model, n_band)``; a band of NaN, which the models do not reach, is left out.
    block
        Pixels taken at once; sets the memory, not the result.

    Returns
    -------
    index, scale, chi2
        ``(n_pixel,)``: first best model (-1: no usable band), its factor, its chi-square (NaN).
    """
    flux, err = np.asarray(flux, dtype=float), np.asarray(err, dtype=float)
    reached = np.isfinite(models).all(axis=0)
    models = np.where(reached, models, 0.0)
    usable = (flux > 0) & np.isfinite(flux) & np.isfinite(err) & (err > 0) & reached
    weight = np.where(usable, 1.0 / np.where(usable, err, 1.0) ** 2, 0.0)
    data = np.where(usable, flux, 0.0)
    index = np.full(len(flux), -1, dtype=np.intp)
    scale, chi2 = np.full(len(flux), np.nan), np.full(len(flux), np.nan)
    for start in range(0, len(flux), block):
        rows = start + np.flatnonzero(usable[start : start + block].any(axis=1))
        if rows.size == 0:
            continue
        w, dw = weight[rows], data[rows] * weight[rows]
        norm = (dw @ models.T) / (w @ (models**2).T)
        misfit = np.sum(dw * data[rows], axis=1)[:, None] - norm * (dw @ models.T)
        best = np.nanargmin(misfit, axis=1)
        index[rows] = best
        scale[rows] = norm[np.arange(rows.size), best]
        # once more without the cancellation of the sums
        residual = data[rows] - scale[rows, None] * models[best]
        chi2[rows] = np.sum(residual**2 * w, axis=1)
    return index, scale, chi2


def clean_channels(
    wave: NDArray[np.float64],
    redshift: float,
    lines: NDArray[np.float64],
    half_width: float = 10.0,
) -> NDArray[np.bool_]:
    """Channels away from every nebular line.

    Parameters
    ----------
    wave
        ``(n_wave,)`` observed, Angstrom.
    redshift
        Of the lines.
    lines
        Rest wavelengths, Angstrom.
    half_width
        In the observed frame, Angstrom, the same for every line.
    """
    distance = np.abs(wave[:, None] - lines[None, :] * (1.0 + redshift))
    return np.asarray(~np.any(distance <= half_width, axis=1))


def model_range(wave: NDArray[np.float64], clean: NDArray[np.float64]) -> slice:
    """Part of the models' observed wavelengths within :data:`MARGIN` of the clean channels."""
    inside = np.flatnonzero((wave > clean.min() - MARGIN) & (wave < clean.max() + MARGIN))
    return slice(0, 0) if inside.size == 0 else slice(int(inside[0]), int(inside[-1]) + 1)


def smooth(
    wave: NDArray[np.float64],
    spectra: NDArray[np.floating],
    sigma: float,
    wave_out: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Smooth spectra on whole Angstroms and read them at other wavelengths.

    Linear interpolation to whole Angstroms, a Gaussian cut at 4 sigma with zeros beyond the ends,
    linear interpolation back to the own wavelengths and from there to ``wave_out``.

    Parameters
    ----------
    wave
        ``(n_wave,)``, increasing, Angstrom.
    spectra
        ``(n_spectrum, n_wave)``.
    sigma
        Angstrom.
    wave_out
        ``(n_out,)``, Angstrom.

    Returns
    -------
    numpy.ndarray
        ``(n_spectrum, n_out)``, NaN outside ``wave``.
    """
    grid = _whole_angstroms(wave)
    size = int(np.ceil(8.0 * sigma))
    half = size // 2  # the size is the next odd number
    profile = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
    profile /= profile.sum()
    out = np.empty((len(spectra), wave_out.size))
    for row, spectrum in zip(out, spectra, strict=True):
        fine = _flat_ends(np.interp(grid, wave, spectrum))
        fine = ndimage.convolve1d(fine, profile, mode="constant")
        back = _flat_ends(np.interp(wave, grid, fine))
        row[:] = np.interp(wave_out, wave, back, left=np.nan, right=np.nan)
    return out


def fit_factor(
    flux: NDArray[np.floating],
    model: NDArray[np.floating],
    x: NDArray[np.float64],
    order: int = 3,
) -> NDArray[np.float64]:
    """Unweighted Legendre fit of model over spectrum, outliers clipped.

    Channels further than 2.5 sigma from the mean of (model - spectrum) / model are dropped until
    none is left, then those with a ratio that is not positive.

    Parameters
    ----------
    flux, model
        ``(n_pixel, n_clean)`` spectra and models at the clean channels.
    x
        ``(n_clean,)`` those channels on the range of the polynomial, -1 to 1.
    order
        Of the polynomial.

    Returns
    -------
    numpy.ndarray
        ``(n_pixel, order + 1)`` coefficients, NaN where too few channels are left.
    """
    vander = legendre.legvander(x, order)
    coef = np.full((len(flux), order + 1), np.nan)
    for row, spectrum, reference in zip(coef, flux, model, strict=True):
        keep, ratio = _kept(np.asarray(spectrum, float), np.asarray(reference, float))
        if np.count_nonzero(keep) > order:
            row[:] = np.linalg.lstsq(vander[keep], ratio[keep], rcond=None)[0]
    return coef


def _kept(
    flux: NDArray[np.float64], model: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which channels enter the fit, and the ratio."""
    ratio, residual = np.full_like(flux, np.nan), np.full_like(flux, np.nan)
    np.divide(model, flux, out=ratio, where=flux != 0)
    np.divide(model - flux, model, out=residual, where=model != 0)
    known = np.isfinite(ratio) & np.isfinite(residual)
    if not known.any():
        return known, ratio
    clipped = stats.sigmaclip(residual[known], _CLIP, _CLIP)
    keep = known & (residual >= clipped.lower) & (residual <= clipped.upper)
    return keep & (ratio > 0), ratio


def _whole_angstroms(wave: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.arange(int(np.min(wave)), int(np.max(wave)) + 1, dtype=float)


def _flat_ends(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The first and last sample were read outside the range: repeat their neighbours."""
    values[0], values[-1] = values[1], values[-2]
    return values
