r"""What a spectrum tells of its populations whatever its calibration: breaks and absorption lines.

A smooth factor changes no feature that is narrower than itself. The clean continuum is averaged
in bins, wide enough that rotation and velocity dispersion matter little, and divided by a
polynomial. The principal components ``V`` of the library's features are fitted to it,

.. math:: f_b / c_b = (1 + \bar y_b) \sum_l q_l L_l(x_b) + \sum_j a_j V_{jb}

with :math:`\bar y` the mean features of the library: polynomials are fitted along, so that neither
the factor nor dust enters the coefficients ``a``. They weigh the models in :mod:`~.sedfit`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.sparse import csr_array

from specphoto.spectral import legendre

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from specphoto.spectral.library import ObservedModels

__all__ = ["Features", "Measured", "find_features"]

# Width of a bin in km/s: several times what rotation and dispersion of a galaxy shift and smear.
_BIN = 1100.0
_C_KM_S = 299_792.458
# Order of the polynomial that takes calibration, dust and the broad shape out of the features. The
# lower, the more the spectrum tells; below 6 dust and wiggles of the calibration become features.
_ORDER = 7
_N_FEATURE = 12
# Error of the features of any model, rms per bin (by about as much the default library misses real
# MaNGA spectra), and of the velocity, km/s.
_ERROR = 0.008
_VELOCITY_ERROR = 150.0
# Relative error that caps the weight of a bin, so that bright pixels and models weigh alike.
_CAP = 0.02
# Fits of the continuum, each relative to the one before.
_TURNS = 3
# A bin counts when this share of its channels is clean, and of those, good in the pixel.
_MIN_SHARE = 0.5
# Beyond this sky residuals leave no feature, and nor does the default library's resolution (22
# Angstrom FWHM); observed and rest frame.
_RED_SKY, _RED_LIBRARY = 8900.0, 8750.0
# Models measured at once: their arrays then stay in cache.
_MODELS_AT_ONCE = 1024
# One model in so many sets the components.
_EVERY = 10


class Measured(NamedTuple):
    """Features of pixels ``(n_pixel, n_feature)`` and their inverse covariance."""

    value: NDArray[np.float64]
    weight: NDArray[np.float64]

    def take(self, rows: NDArray[np.intp]) -> Measured:
        """Some of the pixels."""
        return Measured(self.value[rows], self.weight[rows])


@dataclass(frozen=True, eq=False)
class Features:
    """Bins and components of one cube's wavelengths.

    Attributes
    ----------
    average
        What takes channels to means over the clean ones of each bin, ``(n_wave, n_bin)``.
    smooth
        ``(1 + mean features) L_l``, ``(n_poly, n_bin)``.
    component
        ``V``, orthonormal, ``(n_feature, n_bin)``.
    mean
        Mean features of the library, ``(n_bin,)``.
    error
        Covariance of the features of models against true ones, ``(n_feature, n_feature)``.
    """

    average: csr_array
    smooth: NDArray[np.float64]
    component: NDArray[np.float64]
    mean: NDArray[np.float64]
    error: NDArray[np.float64]

    def measure(
        self,
        flux: NDArray[np.float64],
        variance: NDArray[np.float64],
        good: NDArray[np.bool_],
    ) -> Measured:
        """Fit the components to spectra.

        Parameters
        ----------
        flux, variance
            Spectra and their variances, ``(n_pixel, n_wave)``, finite.
        good
            Which channels count.

        Returns
        -------
        Measured
            Errors hold the noise, raised where the spectrum scatters more about the fit, and
            the models' own. Pixels that tell nothing have weight 0.
        """
        A = self.average
        share = good @ A
        use = share >= _MIN_SHARE
        safe = np.where(use, share, 1.0)
        mean = (np.where(good, flux, 0.0) @ A) / safe
        noise = (np.where(good, variance, 0.0) @ A.power(2)) / safe**2
        use &= noise > 0
        value, covariance, lit = self._fit(mean, np.where(use, noise, np.inf))
        inverse = np.linalg.inv(np.where(lit[:, None, None], covariance, 0.0) + self.error)
        return Measured(value, np.where(lit[:, None, None], inverse, 0.0))

    def of_models(self, spectra: NDArray[np.float64]) -> NDArray[np.float64]:
        """Features of models in bins ``(n_model, n_bin)``, as :meth:`measure` would find them."""
        return self._fit(spectra, None)[0]

    def _fit(
        self, mean: NDArray[np.float64], noise: NDArray[np.float64] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """Features of means over bins, their covariance, and whether they tell anything.

        ``noise`` is the variance of the means, infinite for bins without; None for models.
        """
        known = np.True_ if noise is None else np.isfinite(noise)
        mean = np.where(known, mean, 0.0)
        level = np.full(mean.shape, 1.0) * np.abs(mean).mean(axis=1, keepdims=True)
        lit = level[:, 0] > 0
        for _ in range(_TURNS):
            level[~lit] = 1.0
            coef, _ = _least_squares(mean / level, _weight(noise, level), self.smooth)
            level = level * (coef @ self.smooth)
            lit &= (np.where(known, level, 1.0) > 0).all(axis=1)
            level = np.where(level > 0, level, 1.0)
        level = level / (1.0 + self.mean)
        design = np.vstack([self.smooth, self.component])
        weight = _weight(noise, level)
        lit &= (weight > 0).sum(axis=1) > 2 * len(design)
        coef, inverse = _least_squares(mean / level, weight, design)
        n = len(self.smooth)
        if noise is None:
            return coef[:, n:], inverse[:, n:, n:], lit
        # the weights are not only of the noise, so its covariance is a sandwich
        own = np.where(weight > 0, weight, 0.0) ** 2 * np.where(known, noise, 0.0) / level**2
        middle = (own @ _products(design)).reshape(-1, len(design), len(design))
        covariance = (inverse @ middle @ inverse)[:, n:, n:]
        chi2 = (weight * (mean / level - coef @ design) ** 2).sum(axis=1)
        freedom = np.maximum((weight > 0).sum(axis=1) - len(design), 1)
        return coef[:, n:], covariance * np.maximum(chi2 / freedom, 1.0)[:, None, None], lit


def find_features(
    models: ObservedModels,
    n_model: int,
    wave: NDArray[np.float64],
    clean: NDArray[np.bool_],
    redshift: float,
) -> tuple[Features, NDArray[np.float64]] | None:
    """Bins, components and features of all models on one cube's wavelengths.

    Parameters
    ----------
    models
        Spectra on the cube's wavelengths at its resolution.
    n_model
        Number of models.
    wave
        Of the cube, observed, Angstrom.
    clean
        Channels of clean continuum, ``(n_wave,)``.
    redshift
        Of the galaxy.

    Returns
    -------
    Features, array of shape ``(n_model, n_feature)``; None
        None where the cube has too few bins for features.
    """
    some = models.spectra(np.arange(min(n_model, 8)))
    clean = clean & np.isfinite(some).all(axis=0) & (wave < _RED_SKY)
    clean &= wave < _RED_LIBRARY * (1.0 + redshift)
    average, middle = _bins(wave, clean)
    n_feature = min(_N_FEATURE, n_model - 1)
    if middle.size <= 2 * (_ORDER + 1 + n_feature) or n_feature < 1:
        return None
    L = legendre.basis(legendre.normalized(middle, middle[0], middle[-1]), _ORDER)
    spectra = models.binned(average).spectra(np.arange(n_model))
    every = _EVERY if n_model > _EVERY * n_feature else 1
    y = _features(spectra[::every], L)
    mean = y.mean(axis=0)
    y -= mean
    # the components of most variance; eigenvalues come in increasing order
    component = np.linalg.eigh(y.T @ y)[1][:, ::-1][:, :n_feature].T
    error = _ERROR**2 * middle.size * np.eye(n_feature)
    features = Features(average, (1.0 + mean) * L, component, mean, error)
    shift = _shift(features, models, n_model, wave)
    error += _VELOCITY_ERROR**2 * np.outer(shift, shift)
    parts = (spectra[k : k + _MODELS_AT_ONCE] for k in range(0, n_model, _MODELS_AT_ONCE))
    return features, np.concatenate([features.of_models(part) for part in parts])


def _bins(
    wave: NDArray[np.float64], clean: NDArray[np.bool_]
) -> tuple[csr_array, NDArray[np.float64]]:
    """Means over the clean channels of each bin ``(n_wave, n_bin)``, and where they lie."""
    number = np.floor(np.log(wave / wave[0]) / np.log1p(_BIN / _C_KM_S)).astype(int)
    whole, count = np.bincount(number), np.bincount(number, clean)
    kept = np.flatnonzero((count >= _MIN_SHARE * whole) & (count > 0))
    place = np.full(whole.size, -1)
    place[kept] = np.arange(kept.size)
    channel = np.flatnonzero(clean & (place[number] >= 0))
    column = place[number[channel]]
    shape = (wave.size, kept.size)
    average = csr_array((1.0 / count[number[channel]], (channel, column)), shape=shape)
    return average, np.asarray(wave @ average)


def _features(spectra: NDArray[np.float64], L: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spectra in bins over their smooth shape, less 1 and less what a polynomial holds."""
    inverse = np.linalg.pinv(L)
    lowest = 1e-30 * spectra.max()
    y = spectra * np.exp(-(np.log(np.maximum(spectra, lowest)) @ inverse) @ L) - 1.0
    return np.asarray(y - (y @ inverse) @ L)


def _shift(
    features: Features, models: ObservedModels, n_model: int, wave: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Change of the features by a velocity of 1 km/s, mean over some models."""
    index = np.arange(0, n_model, max(n_model // 64, 1))
    spectra = np.nan_to_num(models.spectra(index))
    step = 100.0
    moved = np.stack([np.interp(wave / (1.0 + step / _C_KM_S), wave, s) for s in spectra])
    both = (features.of_models(s @ features.average) for s in (moved, spectra))
    return np.asarray(np.subtract(*both).mean(axis=0) / step)


def _weight(noise: NDArray[np.float64] | None, level: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights of means relative to their level; one row for models, which have no noise."""
    if noise is None:
        return np.full((1, level.shape[1]), _CAP**-2)
    return np.asarray(1.0 / (noise / level**2 + _CAP**2))


def _products(design: NDArray[np.float64]) -> NDArray[np.float64]:
    """Products of all pairs of rows, ``(n_bin, n^2)``."""
    return (design[:, None] * design[None]).reshape(len(design) ** 2, -1).T


def _least_squares(
    value: NDArray[np.float64], weight: NDArray[np.float64], design: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weighted fits of rows of ``design``: coefficients and covariances; 0 and 1 without weight."""
    n = len(design)
    normal = (weight @ _products(design)).reshape(-1, n, n)
    none = ~((weight > 0).sum(axis=1) > n)
    normal[none] = np.eye(n)
    inverse = np.linalg.inv(normal)
    right = np.where(none[:, None], 0.0, (weight * value) @ design.T)
    return np.asarray((inverse @ right[..., None])[..., 0]), np.asarray(inverse)
