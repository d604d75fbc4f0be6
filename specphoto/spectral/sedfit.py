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
_PIXELS_AT_ONCE = 32


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
    pair = (shape[:, :, None] * shape[:, None, :]).reshape(-1, n_shape * n_shape)
    moments = np.hstack([np.ones((shape.shape[0], 1)), shape, pair])
    out = SedFit(
        best=np.full(n_pixel, -1), scale=np.full(n_pixel, np.nan),
        chi2=np.full(n_pixel, np.nan), n_band=n_band,
        n_eff=np.full(n_pixel, np.nan), shape_mean=np.full((n_pixel, n_shape), np.nan),
        shape_cov=np.full((n_pixel, n_shape, n_shape), np.nan),
    )  # fmt: skip
    for start in range(0, n_pixel, _PIXELS_AT_ONCE):
        rows = slice(start, start + _PIXELS_AT_ONCE)
        _fit_block(data[rows], weight[rows], m, m2, moments, _View(out, rows))
    return out


class _View:
    """The rows of a result that one block fills."""

    def __init__(self, fit: SedFit, rows: slice) -> None:
        self.fit, self.rows = fit, rows

    def put(self, ok: NDArray[np.bool_], **values: NDArray[np.generic]) -> None:
        """Write the values of the rows that are ``ok``."""
        for name, value in values.items():
            getattr(self.fit, name)[self.rows][ok] = value[ok]


def _fit_block(
    data: NDArray[np.float64], weight: NDArray[np.float64], m: NDArray[np.float64],
    m2: NDArray[np.float64], moments: NDArray[np.float64], view: _View,
) -> None:  # fmt: skip
    scale = (data * weight) @ m
    denominator = weight @ m2
    np.divide(scale, denominator, out=scale, where=denominator > 0)
    # chi2 relative to no model at all; a model cannot have a negative amplitude
    delta = -(scale * scale * denominator)
    delta[~(scale > 0)] = np.inf
    index = np.argmin(delta, axis=1)
    each = np.arange(index.size)
    lowest, best_scale = delta[each, index], scale[each, index]
    ok = np.isfinite(lowest)
    if not ok.any():
        return
    delta -= np.where(ok, lowest, 0.0)[:, None]
    delta *= -0.5
    p = np.exp(delta, out=delta)
    total = p.sum(axis=1)
    p /= np.where(total > 0, total, 1.0)[:, None]
    mean, cov = _shape_moments(p, scale, moments)
    # the amplitude is uncertain within a model too: its own (S/N)^-2, near that of the best
    cov[:, 0, 0] += 1.0 / np.where(ok, -lowest, 1.0)
    view.put(
        ok, best=index, scale=best_scale,
        # rounding may leave a perfect fit a little below 0
        chi2=np.maximum((data * data * weight).sum(axis=1) + lowest, 0.0),
        n_eff=1.0 / np.maximum(np.einsum("pm,pm->p", p, p), 1e-300),
        shape_mean=mean, shape_cov=cov,
    )  # fmt: skip


def _shape_moments(
    p: NDArray[np.float64], scale: NDArray[np.float64], moments: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and covariance over models of ``h + ln(s) e_0``, all by products with ``p``."""
    n_shape = int(np.sqrt(moments.shape[1] - 1))
    log_scale = np.log(np.where(scale > 0, scale, 1.0), out=scale)
    plain = p @ moments
    p_log = p * log_scale
    first = p_log @ moments[:, : 1 + n_shape]
    second = np.einsum("pm,pm->p", p_log, log_scale)
    mean = plain[:, 1 : 1 + n_shape].copy()
    square = plain[:, 1 + n_shape :].reshape(-1, n_shape, n_shape).copy()
    square[:, 0, :] += first[:, 1:]
    square[:, :, 0] += first[:, 1:]
    square[:, 0, 0] += second
    mean[:, 0] += first[:, 0]
    return mean, square - mean[:, :, None] * mean[:, None, :]
