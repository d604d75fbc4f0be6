"""Synthetic photometry: photon-weighted mean flux densities of spectra through filters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from specphoto.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from specphoto.photometry.filters import Filter

__all__ = ["ab_magnitude", "flux_nu", "photon_weights", "synthetic_flux"]

_LIGHT_SPEED = 2.99792458e18  # Angstrom / s
_FLUX_UNIT = 1e-17  # erg s-1 cm-2 Angstrom-1
_AB_ZERO = 48.6

# Two Gauss-Legendre points per interval: exact for cubics, which hat x response x wavelength is.
_GAUSS = np.array([-1.0, 1.0]) / np.sqrt(3.0)


def photon_weights(
    wave: ArrayLike, filters: Sequence[Filter]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""Weights that turn a spectrum into mean flux densities in bands.

    ``flux @ T`` is :math:`\langle F\rangle_b = \int F R_b \lambda\,d\lambda \big/
    \int R_b \lambda\,d\lambda`, both integrals over the part of the band that the wavelengths
    cover, exact for an :math:`F_\lambda` that is linear between them:
    :math:`T_{ib} \propto \int h_i R_b \lambda\,d\lambda` with the hat functions :math:`h_i`,
    integrated interval by interval on the union of the nodes of spectrum and curve.

    Parameters
    ----------
    wave
        Wavelengths of the spectrum, increasing, any spacing, Angstrom, shape ``(n_wave,)``.
    filters
        The filter curves.

    Returns
    -------
    weights : array of shape ``(n_wave, n_band)``
        Dimensionless; each column sums to 1, or is 0 for a band without any overlap.
    covered : array of shape ``(n_band,)``
        Share of :math:`\int R_b \lambda\,d\lambda` that lies inside the wavelengths, 0 to 1.

    Raises
    ------
    InputError
        If the wavelengths do not increase or are fewer than 2.

    Notes
    -----
    Variances of independent channels go through ``weights ** 2``. Masked channels: see
    :func:`synthetic_flux`; a NaN in the flux is NaN in every band, as in any matrix product.

    Examples
    --------
    >>> from specphoto.photometry.filters import load_filters
    >>> wave = np.arange(3600.0, 10300.0, 2.0)
    >>> weights, covered = photon_weights(wave, load_filters(["sdss_g", "wise_w1"]))
    >>> (np.full(wave.size, 7.0) @ weights).round(6), covered.round(6)
    (array([7., 0.]), array([1., 0.]))
    """
    grid = np.asarray(wave, dtype=np.float64)
    if grid.ndim != 1 or grid.size < 2 or not np.all(np.diff(grid) > 0):
        raise InputError(
            "wave", expected="at least 2 wavelengths that increase (Angstrom)",
            found=f"{grid.size} of shape {grid.shape} that do not",
            remedy="sort the spectrum in wavelength and drop repeated channels",
        )  # fmt: skip
    weights = np.zeros((grid.size, len(filters)))
    covered = np.zeros(len(filters))
    for b, curve in enumerate(filters):
        column = _hat_integrals(grid, curve)
        inside = column.sum()
        if inside > 0:
            nodes, steps = _quadrature(curve.wave)
            total = np.sum(np.interp(nodes, curve.wave, curve.response) * nodes * steps)
            weights[:, b] = column / inside
            covered[b] = min(inside / total, 1.0)
    return weights, covered


def _quadrature(edges: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gauss-Legendre nodes and weights on consecutive intervals, flattened."""
    half = 0.5 * np.diff(edges)
    middle = 0.5 * (edges[:-1] + edges[1:])
    nodes = (middle[:, None] + half[:, None] * _GAUSS).ravel()
    return nodes, np.repeat(half, _GAUSS.size)


def _hat_integrals(wave: NDArray[np.float64], curve: Filter) -> NDArray[np.float64]:
    """Integrals of hat function x response x wavelength, shape ``(n_wave,)``."""
    lo, hi = max(wave[0], curve.wave[0]), min(wave[-1], curve.wave[-1])
    if lo >= hi:
        return np.zeros(wave.size)
    edges = np.union1d(wave, curve.wave)
    nodes, steps = _quadrature(edges[(edges >= lo) & (edges <= hi)])
    signal = np.interp(nodes, curve.wave, curve.response) * nodes * steps
    left = np.clip(np.searchsorted(wave, nodes, side="right") - 1, 0, wave.size - 2)
    share = (nodes - wave[left]) / (wave[left + 1] - wave[left])
    return np.asarray(
        np.bincount(left, signal * (1 - share), wave.size)
        + np.bincount(left + 1, signal * share, wave.size)
    )


def synthetic_flux(
    flux: ArrayLike, wave: ArrayLike, filters: Sequence[Filter], *, min_covered: float = 0.99
) -> NDArray[np.float64]:
    """Photon-weighted mean flux densities of spectra.

    Parameters
    ----------
    flux
        F_lambda in any unit, shape ``(n_wave, ...)``. Channels that are not finite are left out,
        and what they weigh counts as not covered.
    wave
        Wavelengths, increasing, Angstrom, shape ``(n_wave,)``.
    filters
        The filter curves.
    min_covered
        Bands with a smaller share of their weight on good channels are NaN. The mean is over
        that share, so a low limit biases bands in which the spectrum has a slope.

    Returns
    -------
    array of shape ``(n_band, ...)``
        In the unit of ``flux``.

    Raises
    ------
    InputError
        If the wavelengths do not increase, or are not as many as the channels.

    Examples
    --------
    >>> from specphoto.photometry.filters import load_filters
    >>> wave = np.arange(3600.0, 10300.0, 2.0)
    >>> synthetic_flux(wave * 0 + 2.0, wave, load_filters(["sdss_r", "sdss_u"])).round(6)
    array([ 2., nan])
    """
    spectra = np.asarray(flux, dtype=np.float64)
    weights, covered = photon_weights(wave, filters)
    if spectra.shape[:1] != weights.shape[:1]:
        raise InputError(
            "flux", expected=f"{weights.shape[0]} channels on the first axis, one per wavelength",
            found=f"shape {spectra.shape}", remedy="move the wavelength axis to the front",
        )  # fmt: skip
    good = np.isfinite(spectra)
    share = np.tensordot(weights.T, good.astype(np.float64), axes=1)
    mean = np.tensordot(weights.T, np.where(good, spectra, 0.0), axes=1)
    share_inside = share * covered.reshape(-1, *[1] * (share.ndim - 1))
    # rounding must not cost a band that is wholly covered
    known = share_inside >= min(min_covered, 1.0) - 1e-9
    mean = np.divide(mean, share, out=np.full(mean.shape, np.nan), where=known & (share > 0))
    return np.asarray(mean)


def ab_magnitude(flux: ArrayLike, pivot: ArrayLike) -> NDArray[np.float64]:
    r"""AB magnitude of a photon-weighted mean flux density.

    :math:`m = -2.5 \log_{10}(\langle F_\lambda\rangle \lambda_p^2 / c) - 48.6`.

    Parameters
    ----------
    flux
        Mean F_lambda in 1e-17 erg s-1 cm-2 Angstrom-1.
    pivot
        Pivot wavelength of the band in Angstrom; broadcasts against ``flux``.

    Returns
    -------
    array
        Magnitudes; NaN where the flux is not positive.

    Examples
    --------
    >>> float(ab_magnitude(100.0, 5500.0).round(3))
    16.39
    """
    f_nu = flux_nu(flux, pivot)
    return -2.5 * np.log10(np.where(f_nu > 0, f_nu, np.nan)) - _AB_ZERO


def flux_nu(flux: ArrayLike, wave: ArrayLike) -> NDArray[np.float64]:
    r"""Flux density per frequency, :math:`F_\nu = F_\lambda \lambda^2 / c`.

    Parameters
    ----------
    flux
        F_lambda in 1e-17 erg s-1 cm-2 Angstrom-1.
    wave
        Wavelengths in Angstrom; the pivot wavelength for the mean flux of a band, for which the
        relation is exact. Broadcasts against ``flux``.

    Returns
    -------
    array
        erg s-1 cm-2 Hz-1.

    Examples
    --------
    >>> float((flux_nu(100.0, 5500.0) / 1e-26).round(4))  # mJy
    1.009
    """
    f_lambda = np.asarray(flux, dtype=np.float64) * _FLUX_UNIT
    return np.asarray(f_lambda * np.asarray(wave, dtype=np.float64) ** 2 / _LIGHT_SPEED)
