"""Bands cut into fragments that share an attenuation, for fast photometry of dusty models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array, csr_array

from specphoto.photometry.synthetic import photon_weights
from specphoto.spectral.dust import hat_weights, knots

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from specphoto.photometry.filters import Filter

__all__ = ["MIN_COVERED", "Fragments", "band_fragments", "line_fragments"]

# A band counts as inside the wavelengths when no more than 0.1 % of it is missing.
MIN_COVERED = 0.999


@dataclass(frozen=True, eq=False)
class Fragments:
    """Bands cut at dust knots: photon weights times hat functions, one fragment per pair.

    Parameters
    ----------
    matrix
        What takes spectra to fragments, shape ``(n_wave, n_fragment)``.
    band, knot
        Band (increasing) and knot of each fragment, shape ``(n_fragment,)``.
    knots
        Rest-frame wavelengths of the knots, Angstrom, shape ``(n_knot,)``.
    """

    matrix: csr_array
    band: NDArray[np.intp]
    knot: NDArray[np.intp]
    knots: NDArray[np.float64]


def band_fragments(
    rest_wave: NDArray[np.float64], redshift: float, filters: Sequence[Filter]
) -> Fragments:
    """Cut the bands that lie inside the wavelengths.

    Parameters
    ----------
    rest_wave
        Rest-frame wavelengths, increasing, Angstrom, shape ``(n_wave,)``.
    redshift
        What takes them to the frame of the filters.
    filters
        The filter curves.

    Returns
    -------
    Fragments
        Bands that are not inside have none.
    """
    weights, covered = photon_weights(rest_wave * (1.0 + redshift), filters)
    weights[:, covered < MIN_COVERED] = 0.0
    nodes = knots(rest_wave[0], rest_wave[-1])
    lower, share = hat_weights(rest_wave, nodes)
    wave, band = np.nonzero(weights)
    pair = band * nodes.size + lower[wave]
    value = weights[wave, band]
    pairs, column = np.unique(np.concatenate([pair, pair + 1]), return_inverse=True)
    matrix = coo_array(
        (
            np.concatenate([value * (1.0 - share[wave]), value * share[wave]]),
            (np.tile(wave, 2), column),
        ),
        shape=(rest_wave.size, pairs.size),
    )
    return Fragments(csr_array(matrix), pairs // nodes.size, pairs % nodes.size, nodes)


def line_fragments(
    line_wave: NDArray[np.float64],
    redshift: float,
    filters: Sequence[Filter],
    fragments: Fragments,
) -> NDArray[np.float64]:
    r"""Weights that turn luminosities of lines into mean flux densities.

    A line at :math:`\lambda` adds :math:`R\lambda L/\int R\lambda'\,d\lambda'` to a band.

    Parameters
    ----------
    line_wave
        Rest-frame vacuum wavelengths, Angstrom, shape ``(n_line,)``.
    redshift
        What takes them to the frame of the filters.
    filters
        The filter curves that ``fragments`` was made of.
    fragments
        The fragments.

    Returns
    -------
    array of shape ``(n_line, n_fragment)``
        Per Angstrom.
    """
    observed = line_wave * (1.0 + redshift)
    density = np.empty((line_wave.size, len(filters)))
    for b, curve in enumerate(filters):
        low, high = curve.wave[:-1], curve.wave[1:]
        r_low, r_high = curve.response[:-1], curve.response[1:]
        # exact for a response that is linear between its nodes
        total = np.sum(
            (high - low) * (low * (2 * r_low + r_high) + high * (r_low + 2 * r_high)) / 6.0
        )
        response = np.interp(observed, curve.wave, curve.response, left=0.0, right=0.0)
        density[:, b] = response * observed / total
    lower, share = hat_weights(line_wave, fragments.knots)
    hats = np.zeros((line_wave.size, fragments.knots.size))
    line = np.arange(line_wave.size)
    hats[line, lower], hats[line, lower + 1] = 1.0 - share, share
    return np.asarray(hats[:, fragments.knot] * density[:, fragments.band])
