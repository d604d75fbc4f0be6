"""Whether what was found of a pixel is to be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import special

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from specphoto.spectral.sedfit import SedFit

__all__ = ["FLAGS", "chance", "contradicted", "flags", "median_snr", "misfit"]

#: Reasons for doubt, bits of a flag: photometry that no model fits within its errors and the
#: template error; a corrected spectrum that leaves its reference; an image far from it.
FLAGS = (1, 2, 4)
_UNLIKELY = 1e-4
# Rms of the corrected spectrum about its reference, in stretches of this many channels.
_MISFIT, _STRETCH = 0.05, 64
# An image contradicts the spectrum when it is off by this share and by as many sigma.
_CONTRADICTION, _CONTRADICTION_SIGMA = 0.5, 5.0


def flags(
    sed: SedFit, misfit: NDArray[np.float64], contradicted: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Why references of pixels are not to be trusted, ``(n_pixel,)`` sums of :data:`FLAGS`.

    Parameters
    ----------
    sed
        Fit of the photometry.
    misfit, contradicted
        Of the functions of these names.
    """
    with np.errstate(invalid="ignore"):
        reasons = (chance(sed) < _UNLIKELY, misfit > _MISFIT, contradicted)
    return np.asarray(sum(bit * r.astype(float) for bit, r in zip(FLAGS, reasons, strict=True)))


def chance(sed: SedFit) -> NDArray[np.float64]:
    """Chance of the photometry's chi-square within its errors and the template error."""
    return np.asarray(special.chdtrc(np.maximum(sed.n_band - 1.0, 1.0), sed.chi2))


def misfit(
    flux: NDArray[np.float64],
    variance: NDArray[np.float64],
    model: NDArray[np.float64],
    clean: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Rms difference of corrected spectra and references over the references, beyond the noise.

    In stretches of clean continuum, wide enough that fine structure and noise average out.

    Parameters
    ----------
    flux, variance, model, clean
        Corrected spectra, their variances, references, and channels of clean continuum, ``(n_pixel,
        n_wave)``; NaN where there is no factor.
    """
    clean = clean & (model > 0) & np.isfinite(flux)
    m = np.where(clean, model, 1.0)
    away = np.where(clean, flux / m - 1.0, 0.0)
    noise = np.where(clean, variance / m**2, 0.0)
    start = np.arange(0, m.shape[1], _STRETCH)
    count, total, scatter = (
        np.add.reduceat(a, start, axis=1) for a in (clean.astype(float), away, noise)
    )
    some = count > 0.5 * _STRETCH
    n = np.where(some, count, 1.0)
    excess = np.where(some, (total / n) ** 2 - scatter / n**2, 0.0).sum(axis=1)
    return np.asarray(np.sqrt(np.maximum(excess / np.maximum(some.sum(axis=1), 1), 0.0)))


def median_snr(
    flux: NDArray[np.float64], variance: NDArray[np.float64], good: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Median S/N of the good channels of spectra ``(n_pixel, n_wave)``; 0 where none is."""
    snr = np.where(good, flux / np.sqrt(variance), np.nan)
    snr[~good.any(axis=1)] = 0.0
    return np.asarray(np.nanmedian(snr, axis=1))


def contradicted(
    synthetic: NDArray[np.float64], image: NDArray[np.floating], error: NDArray[np.floating]
) -> NDArray[np.bool_]:
    """Whether an image is far from the corrected spectrum: it is no calibration of it.

    Parameters
    ----------
    synthetic, image, error
        Synthetic photometry of the corrected spectra, images and their errors, ``(n_pixel,
        n_band)``; NaN where there is none.
    """
    with np.errstate(invalid="ignore"):
        miss = np.abs(synthetic - image)
        far = (miss > _CONTRADICTION * synthetic) & (miss > _CONTRADICTION_SIGMA * error)
    return np.asarray(far.any(axis=1))
