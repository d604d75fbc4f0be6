"""Put spectra on another wavelength grid and resolution: one sparse matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.special import ndtr

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "FWHM_TO_SIGMA",
    "channel_edges",
    "kernel_sigma",
    "line_profiles",
    "observing_matrix",
    "resample_matrix",
]

FWHM_TO_SIGMA = 1.0 / np.sqrt(8.0 * np.log(2.0))

_REACH = 6.0  # standard deviations: beyond lies 1e-9 of a Gaussian
_NARROW = 1e-3  # channels: a kernel so narrow is none, and keeps the formula finite


def channel_edges(wave: NDArray[np.float64]) -> NDArray[np.float64]:
    """Edges of channels half-way between their centres.

    Parameters
    ----------
    wave
        Channel centres, increasing, at least two, shape ``(n,)``.

    Returns
    -------
    array of shape ``(n + 1,)``
    """
    middle = 0.5 * (wave[1:] + wave[:-1])
    first, last = wave[0] - (middle[0] - wave[0]), wave[-1] + (wave[-1] - middle[-1])
    return np.concatenate([[first], middle, [last]])


def kernel_sigma(
    lsf: NDArray[np.float64],
    own: NDArray[np.float64],
    wave_in: NDArray[np.float64],
    wave_out: NDArray[np.float64],
) -> NDArray[np.float64]:
    r"""Width of the Gaussian that takes samples of one resolution to channels of another.

    :math:`\sigma^2 = \sigma_{lsf}^2 - \sigma_{own}^2 - \Delta^2/12 - \delta^2/6`: averaging over
    channels of width :math:`\Delta` and interpolating between samples :math:`\delta` apart
    broaden by the last two. Zero where the samples are the coarser: nothing is deconvolved.

    Parameters
    ----------
    lsf
        Standard deviation wanted, the channel included, Angstrom, shape ``(n_out,)``.
    own
        Standard deviation that the samples have, Angstrom, shape ``(n_out,)``.
    wave_in, wave_out
        Sample wavelengths ``(n_in,)`` and channel centres ``(n_out,)``, Angstrom, same frame.

    Returns
    -------
    array of shape ``(n_out,)``
    """
    step = np.interp(wave_out, wave_in, np.gradient(wave_in))
    channel = np.diff(channel_edges(wave_out))
    variance = lsf**2 - own**2 - channel**2 / 12.0 - step**2 / 6.0
    return np.asarray(np.sqrt(np.maximum(np.nan_to_num(variance), 0.0)))


def resample_matrix(
    wave_in: NDArray[np.float64],
    wave_out: NDArray[np.float64],
    sigma: NDArray[np.float64] | None = None,
) -> tuple[csr_array, NDArray[np.bool_]]:
    r"""Smooth a spectrum with a Gaussian and average it over channels, as a sparse matrix.

    The spectrum is linear between its samples. With :math:`a, b` the edges of a channel, sample
    :math:`j` has the weight

    .. math:: R_{ij} = \int h_j(x)\,
        \frac{\Phi((b_i-x)/\sigma_i) - \Phi((a_i-x)/\sigma_i)}{b_i-a_i}\,dx ,

    the hat function :math:`h_j` against the channel's box convolved with the Gaussian. It is
    exact: a difference of the second antiderivative of :math:`\Phi`,
    :math:`Q(u) = [(u^2+1)\,\Phi(u) + u\,\phi(u)]/2`. Flux is conserved: rows sum to 1.

    Parameters
    ----------
    wave_in
        Sample wavelengths, increasing, any spacing, Angstrom, shape ``(n_in,)``.
    wave_out
        Channel centres, increasing, Angstrom, shape ``(n_out,)``.
    sigma
        Standard deviation of the Gaussian at each channel, Angstrom, shape ``(n_out,)``; None
        or 0: no smoothing.

    Returns
    -------
    matrix : csr_array of shape ``(n_out, n_in)``
        Rows of channels that reach past the samples are empty.
    inside : array of shape ``(n_out,)``
        Whether the channel, and what is smoothed into it, lies within the samples.
    """
    edges = channel_edges(wave_out)
    width = np.diff(edges)
    s = np.maximum(0.0 if sigma is None else sigma, _NARROW * width)
    low, high = edges[:-1] - _REACH * s, edges[1:] + _REACH * s
    inside = (low >= wave_in[0]) & (high <= wave_in[-1])
    rows = np.flatnonzero(inside)
    shape = (wave_out.size, wave_in.size)
    if rows.size == 0:
        return csr_array(shape), inside

    first = np.searchsorted(wave_in, low[rows], side="right") - 1
    last = np.searchsorted(wave_in, high[rows], side="left")
    # neighbours on either side close the hats; beyond the ends any increasing value will do
    count = int((last - first).max()) + 1
    padded = np.concatenate(
        [[2 * wave_in[0] - wave_in[1]], wave_in, wave_in[-1] + 1.0 + np.arange(count + 1)]
    )
    x = padded[first[:, None] + np.arange(count + 2)]
    p = _second_antiderivative(x, edges[rows], edges[rows + 1], s[rows])
    slope = np.diff(p, axis=1) / np.diff(x, axis=1)
    weight = np.diff(slope, axis=1)

    column = first[:, None] + np.arange(count)
    keep = (column <= last[:, None]) & (column < wave_in.size)
    row = np.broadcast_to(rows[:, None], column.shape)
    matrix = coo_array((weight[keep], (row[keep], column[keep])), shape=shape)
    return csr_array(matrix), inside


def _second_antiderivative(
    x: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    sigma: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Twice integrated density, at ``x``, of a box ``[low, high]`` convolved with a Gaussian."""
    s = sigma[:, None]
    u_high, u_low = (high[:, None] - x) / s, (low[:, None] - x) / s
    return np.asarray(s**2 * (_q(u_high) - _q(u_low)) / (high - low)[:, None])


def _q(u: NDArray[np.float64]) -> NDArray[np.float64]:
    density = np.exp(-0.5 * u**2) / np.sqrt(2.0 * np.pi)
    return np.asarray(0.5 * ((u**2 + 1.0) * ndtr(u) + u * density))


def line_profiles(
    centre: NDArray[np.float64], sigma: NDArray[np.float64], wave_out: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Gaussian lines of unit flux, averaged over channels.

    Parameters
    ----------
    centre, sigma
        Centres and standard deviations before the channels, Angstrom, shape ``(n_line,)``.
    wave_out
        Channel centres, increasing, Angstrom, shape ``(n_out,)``.

    Returns
    -------
    array of shape ``(n_line, n_out)``
        Flux density per Angstrom; each row times the channel widths sums to 1 if inside.
    """
    edges = channel_edges(wave_out)
    s = np.maximum(sigma, _NARROW * np.median(np.diff(edges)))[:, None]
    return np.asarray(np.diff(ndtr((edges - centre[:, None]) / s), axis=1) / np.diff(edges))


def observing_matrix(
    rest_wave: NDArray[np.float64],
    fwhm: NDArray[np.float64],
    redshift: float,
    wave: NDArray[np.float64],
    lsf: NDArray[np.float64] | None,
) -> tuple[csr_array, NDArray[np.bool_]]:
    """Redshift spectra, smooth them to the data's resolution and average over the channels.

    Parameters
    ----------
    rest_wave, fwhm
        Rest-frame wavelengths of the samples and their resolution, Angstrom, shape ``(n_in,)``.
    redshift
        May be negative.
    wave
        Channel centres in the observed frame, Angstrom, shape ``(n_out,)``.
    lsf
        Standard deviation of the data's line spread, channel included, Angstrom, shape
        ``(n_out,)``; where not finite, and everywhere when None, nothing is smoothed.

    Returns
    -------
    matrix, inside
        As :func:`resample_matrix`; densities are not divided by ``1 + redshift``.
    """
    stretched = rest_wave * (1.0 + redshift)
    if lsf is None:
        return resample_matrix(stretched, wave)
    own = np.interp(wave, stretched, fwhm) * (1.0 + redshift) * FWHM_TO_SIGMA
    return resample_matrix(stretched, wave, kernel_sigma(lsf, own, stretched, wave))
