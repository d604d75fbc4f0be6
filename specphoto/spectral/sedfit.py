r"""Fit every pixel with every model of the library: a few matrix products.

With model photometry ``M_k``, data ``d`` and their covariance ``C`` (photometric errors and the
models' own, :class:`~.template_error.ProjectedError`), :math:`W = C^{-1}`, the best scale and the
chi-square of each pair (pixel, model) are

.. math::

    s_k = \frac{M_k^T W d}{M_k^T W M_k}, \qquad
    \chi^2_k = d^T W d - \frac{(M_k^T W d)^2}{M_k^T W M_k}

The quadratic forms are a matrix product too: elements of ``W`` against products of pairs of bands.
Features of the spectrum (:mod:`~.features`), which no smooth factor changes, add theirs,
:math:`(a - a_k)^T W_a (a - a_k)`.

The answer is not one model but the spread of acceptable ones: with weights
:math:`p \propto e^{-\chi^2 / 2}` the mean and covariance over the whole library are delivered of
the shape of the true spectrum in the cube's range (Legendre coefficients of ``ln t``). Each model
predicts it as its own shape ``h_k`` and what its residuals say of its template error,

.. math:: \ln t = h_k + \ln s_k\,e_0 + \Sigma_{hb} W' r_k, \qquad r_k = (d - s_k M_k) / m

with :math:`\Sigma_{hb}` the covariance of the template error between shape and bands, ``m`` the
model photometry that scales it, and ``W'`` the weights of relative residuals.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from specphoto.spectral.features import Measured
    from specphoto.spectral.template_error import ProjectedError

__all__ = ["ModelTable", "SedFit", "best_models", "fit_sed", "photometric_sigma"]

# Pixels fitted at once: the arrays (pixels, models) then stay near the size of a cache.
_PIXELS_AT_ONCE = 16
# A model whose chi-square is this far above the best weighs 3e-7 of it, and is left out.
_FAR = 30.0


class ModelTable:
    """What the fit knows of each model.

    Parameters
    ----------
    photometry
        ``(n_model, n_band)``; must be finite where any pixel has weight.
    shape
        Legendre coefficients of ``ln m`` over the cube's range, ``(n_model, n_shape)``.
    feature
        Features of the spectra, ``(n_model, n_feature)``; None if they are not used.
    """

    def __init__(
        self,
        photometry: NDArray[np.float64],
        shape: NDArray[np.float64],
        feature: NDArray[np.float64] | None = None,
    ) -> None:
        self.photometry = photometry
        self.shape = shape
        self.feature = np.empty((len(shape), 0)) if feature is None else feature

    def __getstate__(self) -> dict[str, object]:
        # products are made again where they are needed: they are six times what they come from
        return {name: getattr(self, name) for name in ("photometry", "shape", "feature")}

    @cached_property
    def bands(self) -> Pairs:
        """Photometry along contiguous models, and its products."""
        return Pairs.of(self.photometry)

    @cached_property
    def features(self) -> Pairs:
        """Features along contiguous models, and their products."""
        return Pairs.of(self.feature)


class Pairs(NamedTuple):
    """Values ``(n, n_model)`` and products of pairs of them, ``(n (n + 1) / 2, n_model)``."""

    value: NDArray[np.float64]
    product: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Pairs:
        """From values ``(n_model, n)``."""
        value = np.ascontiguousarray(values.T)
        first, second = np.triu_indices(len(value))
        return cls(value, value[first] * value[second])

    def quadratic(self, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        """``v^T W v`` of all models for symmetric ``W`` ``(n_pixel, n, n)``."""
        first, second = np.triu_indices(len(self.value))
        twice = np.where(first == second, 1.0, 2.0)
        return np.asarray((weight[:, first, second] * twice) @ self.product)


class SedFit(NamedTuple):
    """Result of :func:`fit_sed`, one row a pixel.

    Pixels that cannot be fitted (no band, or no positive light) have best -1. ``best`` is the
    index of the best model, ``scale`` and ``chi2`` (of the photometry) belong to it, ``n_band``
    counts bands with data, ``n_eff`` = 1 / sum p^2. ``shape_mean`` ``(n_pixel, n_shape)`` and
    ``shape_cov`` are mean and covariance of the coefficients of ``ln t``; ``shape_photo``
    ``(n_pixel, n_shape, n_band)`` is the derivative of the mean by the fluxes.
    """

    best: NDArray[np.intp]
    scale: NDArray[np.float64]
    chi2: NDArray[np.float64]
    n_band: NDArray[np.intp]
    n_eff: NDArray[np.float64]
    shape_mean: NDArray[np.float64]
    shape_cov: NDArray[np.float64]
    shape_photo: NDArray[np.float64]

    def take(self, rows: NDArray[np.intp]) -> SedFit:
        """Some of the pixels."""
        return self._replace(**{name: values[rows] for name, values in self._asdict().items()})

    @classmethod
    def unknown(cls, n_band: NDArray[np.intp], n_shape: int, n_column: int) -> SedFit:
        """Nothing known yet."""
        n = n_band.size
        return cls(
            best=np.full(n, -1), scale=np.full(n, np.nan), chi2=np.full(n, np.nan),
            n_band=n_band, n_eff=np.full(n, np.nan), shape_mean=np.full((n, n_shape), np.nan),
            shape_cov=np.full((n, n_shape, n_shape), np.nan),
            shape_photo=np.full((n, n_shape, n_column), np.nan),
        )  # fmt: skip


def photometric_sigma(
    flux: NDArray[np.floating], err: NDArray[np.floating], floor: NDArray[np.float64]
) -> NDArray[np.float64]:
    r"""Error with the models' own, :math:`\sigma^2 = \mathrm{err}^2 + (\mathrm{floor}\,|d|)^2`.

    Bands without data (flux or error not finite, error not positive) get infinity, weight 0.
    Negative fluxes are data.

    Parameters
    ----------
    flux, err
        ``(n_pixel, n_band)``.
    floor
        Relative model error per band, ``(n_band,)``; infinity leaves a band out.
    """
    use = np.isfinite(flux) & np.isfinite(err) & (err > 0) & np.isfinite(floor)
    square = np.where(use, err, 1.0) ** 2
    square += (np.where(use, np.where(np.isfinite(floor), floor, 0.0) * flux, 0.0)) ** 2
    return np.where(use, np.sqrt(square), np.inf)


def best_models(
    flux: NDArray[np.floating],
    sigma: NDArray[np.float64],
    table: ModelTable,
    measured: Measured | None = None,
) -> SedFit:
    """Single best model of each pixel, for errors that are independent between bands.

    Parameters
    ----------
    flux, sigma
        Photometry ``(n_pixel, n_band)``; an infinite sigma is a band without data.
    table
        The models.
    measured
        Features of the pixels' spectra.

    Returns
    -------
    SedFit
        With that model's shape and no spread. Equal chi-squares are decided by the lowest index,
        in float64.
    """
    weight = 1.0 / sigma**2
    data = np.where(weight > 0, flux, 0.0)
    out = SedFit.unknown((weight > 0).sum(axis=1), table.shape.shape[1], flux.shape[1])
    m, m2 = table.bands.value, table.bands.value**2
    for start in range(0, len(flux), _PIXELS_AT_ONCE):
        rows = slice(start, start + _PIXELS_AT_ONCE)
        d, w = data[rows], weight[rows]
        light, power = (d * w) @ m, w @ m2
        gain = _gain(light, power)
        best = np.argmax(np.where(gain > 0, gain + _feature_gain(table, measured, rows), -np.inf),
                         axis=1)  # fmt: skip
        k = np.arange(len(d))
        lit = gain[k, best] > 0
        out.best[rows] = np.where(lit, best, -1)
        out.scale[rows] = np.where(lit, light[k, best] / np.where(lit, power[k, best], 1.0), np.nan)
        chi2 = np.maximum((d * d * w).sum(axis=1) - gain[k, best], 0.0)
        out.chi2[rows] = np.where(lit, chi2, np.nan)
    fitted = out.best >= 0
    out.n_eff[fitted] = 1.0
    out.shape_mean[fitted] = table.shape[out.best[fitted]]
    out.shape_mean[fitted, 0] += np.log(out.scale[fitted])
    out.shape_cov[fitted] = out.shape_photo[fitted] = 0.0
    return out


def fit_sed(
    flux: NDArray[np.floating],
    sigma: NDArray[np.float64],
    table: ModelTable,
    error: ProjectedError,
    typical: NDArray[np.float64],
    measured: Measured | None = None,
    amplitude: NDArray[np.float64] | float = 1.0,
) -> SedFit:
    """Weigh all models by photometry and features, and what they say of the spectrum's shape.

    Parameters
    ----------
    flux, sigma
        Photometry ``(n_pixel, n_band)`` and its errors, independent between bands; an infinite
        sigma is a band without data.
    table
        The models.
    error
        Template error, relative.
    typical
        Model photometry of about the pixel's own, ``(n_pixel, n_band)``, that scales it; not
        positive where nothing is known.
    measured
        Features of the pixels' spectra.
    amplitude
        What the template error of each pixel is multiplied by, ``(n_pixel,)``.

    Returns
    -------
    SedFit
        Equal chi-squares are decided by the lowest index, in float64.
    """
    use = np.isfinite(sigma) & (typical > 0)
    m = np.where(use, typical, 1.0)
    d = np.where(use, flux, 0.0)
    square = np.broadcast_to(np.square(amplitude), len(flux))[:, None, None]
    between, cross, shape = (square * part for part in error)
    inverse = _relative_weight(np.where(use, sigma, 1.0) / m, use, between)
    W = inverse / (m[:, :, None] * m[:, None, :])
    gain_shape = cross @ inverse / m[:, None, :]
    # what of the template error the bands do not tell
    left = shape - gain_shape @ (m[:, :, None] * cross.transpose(0, 2, 1))
    out = SedFit.unknown(np.isfinite(sigma).sum(axis=1), table.shape.shape[1], flux.shape[1])
    for start in range(0, len(flux), _PIXELS_AT_ONCE):
        rows = slice(start, start + _PIXELS_AT_ONCE)
        Wd = np.einsum("pij,pj->pi", W[rows], d[rows])
        light, power = Wd @ table.bands.value, table.bands.quadratic(W[rows])
        gain = _gain(light, power)
        total = gain + _feature_gain(table, measured, rows)
        none = np.einsum("pi,pi->p", d[rows], Wd)
        for k in range(len(gain)):
            i = start + k
            _weigh(out, i, total[k], gain[k], light[k], table,
                   _Pixel(d[i], W[i], gain_shape[i], left[i], none[k]))  # fmt: skip
    return out


def _relative_weight(
    sigma: NDArray[np.float64], use: NDArray[np.bool_], between: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Inverse covariance of relative residuals, 0 for bands without data."""
    both = use[:, :, None] & use[:, None, :]
    covariance = np.where(both, between, 0.0)
    n = np.arange(sigma.shape[1])
    covariance[:, n, n] = np.where(use, covariance[:, n, n] + sigma**2, 1.0)
    return np.where(both, np.linalg.inv(covariance), 0.0)


def _gain(light: NDArray[np.float64], power: NDArray[np.float64]) -> NDArray[np.float64]:
    r"""How much each model lowers chi-square, :math:`(M^T W d)^2 / M^T W M`.

    0 for models that would need a negative amplitude.
    """
    gain = np.maximum(light, 0.0)
    gain *= gain
    return np.divide(gain, power, out=np.zeros_like(gain), where=power > 0)


def _feature_gain(
    table: ModelTable, measured: Measured | None, rows: slice
) -> NDArray[np.float64] | float:
    """How much each model lowers the chi-square of the features."""
    if measured is None:
        return 0.0
    value, weight = measured.value[rows], measured.weight[rows]
    linear = 2.0 * np.einsum("pij,pj->pi", weight, value) @ table.features.value
    return np.asarray(linear - table.features.quadratic(weight))


class _Pixel(NamedTuple):
    """Data of one pixel, their weights, and how the template error follows their residuals.

    ``left`` is the covariance of the template error in the shape that they do not tell.
    """

    d: NDArray[np.float64]
    W: NDArray[np.float64]
    gain_shape: NDArray[np.float64]
    left: NDArray[np.float64]
    chi2_none: float


def _weigh(
    out: SedFit, i: int, total: NDArray[np.float64], gain: NDArray[np.float64],
    light: NDArray[np.float64], table: ModelTable, pixel: _Pixel,
) -> None:  # fmt: skip
    """Best model, and mean and covariance of the shape over those that are acceptable."""
    best = int(np.argmax(np.where(gain > 0, total, -np.inf)))
    if not gain[best] > 0:
        return
    near = np.flatnonzero((total > total[best] - _FAR) & (gain > 0))
    p = np.exp(0.5 * (total[near] - total[best]))
    p /= p.sum()
    scale = gain[near] / light[near]
    models = table.photometry[near] * scale[:, None]
    g = -models @ pixel.gain_shape.T
    h = table.shape[near] + g + pixel.gain_shape @ pixel.d
    h[:, 0] += np.log(scale)
    g[:, 0] += 1.0  # how the shape follows the amplitude of a model
    mean = p @ h
    h -= mean
    out.best[i], out.scale[i] = best, gain[best] / light[best]
    out.chi2[i] = max(pixel.chi2_none - gain[best], 0.0)
    out.n_eff[i] = 1.0 / (p @ p)
    out.shape_mean[i] = mean
    # the spread over models, the amplitude within one, and the template error that is left
    out.shape_cov[i] = (h.T * p) @ h + (g.T * (p / gain[near])) @ g + pixel.left
    along = (g.T * (p / gain[near])) @ models + (h.T * p) @ models
    out.shape_photo[i] = pixel.gain_shape + along @ pixel.W
