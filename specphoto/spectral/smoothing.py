"""Smoothing of spectra along wavelength, with their variance and mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["gaussian_matrix", "smooth_spectra"]

_REACH = 4.0


def gaussian_matrix(wave: NDArray[np.float64], sigma: float) -> sparse.csr_array:
    r"""Gaussian weights between channels times the channels' widths, cut at 4 sigma.

    Parameters
    ----------
    wave
        ``(n_wave,)``, increasing, Angstrom.
    sigma
        Angstrom.

    Returns
    -------
    scipy.sparse.csr_array
        ``(n_wave, n_wave)``, rows of sum 1.
    """
    first = np.searchsorted(wave, wave - _REACH * sigma)
    last = np.searchsorted(wave, wave + _REACH * sigma, side="right")
    count = last - first
    row = np.repeat(np.arange(wave.size), count)
    column = np.arange(row.size) - np.repeat(np.cumsum(count) - count, count) + first[row]
    width = np.gradient(wave) if wave.size > 1 else np.ones(1)
    weight = np.exp(-0.5 * ((wave[column] - wave[row]) / sigma) ** 2) * width[column]
    weight /= np.bincount(row, weights=weight)[row]
    return sparse.csr_array((weight, (row, column)), shape=(wave.size, wave.size))


def smooth_spectra(
    flux: NDArray[np.floating],
    var: NDArray[np.floating],
    mask: NDArray[np.bool_],
    matrix: sparse.csr_array,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""Smooth flux over the good channels, and the variance that follows.

    .. math:: f'_i = \frac{\sum_j G_{ij} w_j f_j}{\sum_j G_{ij} w_j}, \qquad
              v'_i = \frac{\sum_j G_{ij}^2 w_j v_j}{(\sum_j G_{ij} w_j)^2}

    The noise of neighbouring channels is correlated afterwards, which a variance cannot say.

    Parameters
    ----------
    flux, var, mask
        ``(n_wave, ...)``; True in the mask = do not use, weight 0.
    matrix
        ``(n_wave, n_wave)`` from :func:`gaussian_matrix`.

    Returns
    -------
    flux, var
        ``(n_wave, ...)``, NaN where no good channel is within reach. A masked channel gets the
        mean of its neighbours; the mask still holds for it.
    """
    shape = flux.shape
    good = ~mask & np.isfinite(flux) & np.isfinite(var)
    columns = [
        np.where(good, array, 0.0).astype(float).reshape(shape[0], -1) for array in (flux, var, 1.0)
    ]
    weight = matrix @ columns[2]
    known = weight > 0
    weight = np.where(known, weight, np.nan)
    smooth = (matrix @ columns[0]) / weight
    variance = (matrix.power(2) @ columns[1]) / weight**2
    return smooth.reshape(shape), variance.reshape(shape)
