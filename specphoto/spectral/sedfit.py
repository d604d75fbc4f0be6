r"""Fit every pixel's photometry with every model of the library: two matrix products.

For data ``d``, weights ``w = 1 / sigma^2`` and model photometry ``M`` the best scale and the
chi-square of each pair (pixel, model) are

.. math::

    s = \frac{(d w) M^T}{w (M^2)^T}, \qquad
    \chi^2 = \sum d^2 w - \frac{[(d w) M^T]^2}{w (M^2)^T}

The answer is not one model but the spread of acceptable ones: with weights
:math:`p \propto e^{-\chi^2 / 2}` the mean and covariance over the whole library are delivered of
a few numbers per model, the shape ``h`` of its spectrum (Legendre coefficients of ``ln m``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["N_BAND_MIN", "SedFit", "fit_sed", "photometric_sigma"]

#: One band has no colour: any model fits it.
N_BAND_MIN = 2

# Pixels fitted at once: the arrays (pixels, models) then stay near the size of a cache.
_PIXELS_AT_ONCE = 16
# A model whose chi-square is this far above the best weighs 1e-11 of it, and is left out.
_FAR = 50.0


class SedFit(NamedTuple):
    """Result of :func:`fit_sed`, one row a pixel.

    Pixels that cannot be fitted (fewer than two bands, or no positive light) have best -1.
    ``best`` is the index of the best model, ``scale`` and ``chi2`` belong to it, ``n_band``
    counts bands with data, ``n_eff`` = 1 / sum p^2. ``shape_mean`` ``(n_pixel, n_shape)`` and
    ``shape_cov`` are the mean and covariance over models of ``h``, the scale's logarithm and its
    error included in the first element.
    """

    best: NDArray[np.intp]
    scale: NDArray[np.float64]
    chi2: NDArray[np.float64]
    n_band: NDArray[np.intp]
    n_eff: NDArray[np.float64]
    shape_mean: NDArray[np.float64]
    shape_cov: NDArray[np.float64]


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


def fit_sed(
    flux: NDArray[np.floating],
    sigma: NDArray[np.float64],
    models: NDArray[np.float64],
    shape: NDArray[np.float64],
) -> SedFit:
    """Fit pixels with all models.

    Parameters
    ----------
    flux, sigma
        Photometry ``(n_pixel, n_band)``; an infinite sigma is a band without data.
    models
        Model photometry ``(n_model, n_band)``; must be finite where any pixel has weight.
    shape
        ``h`` of each model, ``(n_model, n_shape)``.

    Returns
    -------
    SedFit
        Equal chi-squares are decided by the lowest index, in float64.
    """
    n_pixel, n_shape = flux.shape[0], shape.shape[1]
    weight = 1.0 / sigma**2
    n_band = (weight > 0).sum(axis=1)
    weight[n_band < N_BAND_MIN] = 0.0
    data = np.where(weight > 0, flux, 0.0)
    # transposed once: the products then run along contiguous models
    m, m2 = np.ascontiguousarray(models.T), np.ascontiguousarray(models.T**2)
    out = SedFit(
        best=np.full(n_pixel, -1), scale=np.full(n_pixel, np.nan),
        chi2=np.full(n_pixel, np.nan), n_band=n_band,
        n_eff=np.full(n_pixel, np.nan), shape_mean=np.full((n_pixel, n_shape), np.nan),
        shape_cov=np.full((n_pixel, n_shape, n_shape), np.nan),
    )  # fmt: skip
    for start in range(0, n_pixel, _PIXELS_AT_ONCE):
        rows = slice(start, start + _PIXELS_AT_ONCE)
        w, d = weight[rows], data[rows]
        light, power = (d * w) @ m, w @ m2
        gain = _gain(light, power)
        for k in range(d.shape[0]):
            _weigh(out, start + k, gain[k], light[k], power[k], shape)
        # rounding may leave a perfect fit a little below 0
        out.chi2[rows] = np.maximum(out.chi2[rows] + (d * d * w).sum(axis=1), 0.0)
    return out


def _gain(light: NDArray[np.float64], power: NDArray[np.float64]) -> NDArray[np.float64]:
    r"""How much each model lowers chi-square, :math:`[(d w) M^T]^2 / w (M^2)^T`.

    0 for models that would need a negative amplitude.
    """
    gain = np.maximum(light, 0.0)
    gain *= gain
    return np.divide(gain, power, out=gain, where=power > 0)


def _weigh(
    out: SedFit, pixel: int, gain: NDArray[np.float64], light: NDArray[np.float64],
    power: NDArray[np.float64], shape: NDArray[np.float64],
) -> None:  # fmt: skip
    """Best model, and mean and covariance of ``h + ln(s) e_0`` over those that are acceptable.

    ``chi2`` is left relative to no model at all.
    """
    best = int(np.argmax(gain))
    if not gain[best] > 0:
        return
    near = np.flatnonzero(gain > max(gain[best] - _FAR, 0.0))
    p = np.exp(0.5 * (gain[near] - gain[best]))
    p /= p.sum()
    h = shape[near]
    h[:, 0] += np.log(light[near] / power[near])
    mean = p @ h
    h -= mean
    out.best[pixel] = best
    out.scale[pixel] = light[best] / power[best]
    out.chi2[pixel] = -gain[best]
    out.n_eff[pixel] = 1.0 / (p @ p)
    out.shape_mean[pixel] = mean
    out.shape_cov[pixel] = (h.T * p) @ h
    # the amplitude is uncertain within a model too: its own (S/N)^-2, near that of the best
    out.shape_cov[pixel, 0, 0] += 1.0 / gain[best]
