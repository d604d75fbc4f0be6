"""Attenuation by dust in two places: the interstellar medium and the clouds of young stars."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from specphoto.spectral.parameters import ModelParameters

__all__ = [
    "DustLaw",
    "birth_transmission",
    "calzetti_curve",
    "hat_weights",
    "ism_transmission",
    "knots",
]

#: How the interstellar medium of a galaxy dims its light.
DustLaw = Literal["power law", "Calzetti"]


_PIVOT = 5500.0  # Angstrom: where A_V is stated
_MAG = 0.4 * np.log(10.0)  # optical depth of one magnitude
_BIRTH_SLOPE = 1.0
_BUMP_WAVE, _BUMP_WIDTH = 2175.0, 350.0  # Angstrom; Noll et al. 2009, A&A 507, 1793

# 100 A to 100 micron, 0.5 % apart below 3000 A, 1 % to 1 micron, then 3 %
_KNOTS = np.concatenate(
    [
        np.geomspace(1e2, 3e3, 682)[:-1],
        np.geomspace(3e3, 1e4, 122)[:-1],
        np.geomspace(1e4, 1e6, 155),
    ]
)


def ism_transmission(
    wave: NDArray[np.float64], parameters: ModelParameters, law: DustLaw = "power law"
) -> NDArray[np.float64]:
    r"""Share of the light that the interstellar medium lets through, :math:`10^{-0.4 A}`.

    Parameters
    ----------
    wave
        Rest-frame wavelengths, Angstrom, shape ``(n_wave,)``.
    parameters
        The models.
    law
        'power law': :math:`A = A_V [(\lambda/5500)^{-n} + B D(\lambda)]` with a Drude profile
        :math:`D` at 2175 A of unit height (Charlot & Fall 2000, ApJ 539, 718; bump as in Noll et
        al. 2009). 'Calzetti': :math:`A = A_V k(\lambda) / k(5500)` of :func:`calzetti_curve`; it
        has neither slope nor bump.

    Returns
    -------
    array of shape ``(n_model, n_wave)``
    """
    if law == "Calzetti":
        shape = calzetti_curve(wave) / calzetti_curve(np.array([_PIVOT]))
        return np.asarray(np.exp(np.outer(-_MAG * parameters.a_v, shape)))
    curve = np.exp(-np.outer(parameters.slope, np.log(wave / _PIVOT)))
    curve += np.outer(parameters.bump, _drude(wave))
    curve *= (-_MAG * parameters.a_v)[:, None]
    return np.asarray(np.exp(curve, out=curve))


def calzetti_curve(wave: NDArray[np.float64]) -> NDArray[np.float64]:
    """Attenuation of starbursts, k = A / E(B-V), with R_V = 4.05.

    Calzetti et al. (2000, ApJ 533, 682), equation 4, for 0.12 to 2.2 micron; the polynomials go on
    beyond, and end at 0.

    Parameters
    ----------
    wave
        Rest-frame wavelengths, Angstrom, shape ``(n_wave,)``.
    """
    x = 1e4 / wave
    blue = 2.659 * (-2.156 + 1.509 * x - 0.198 * x**2 + 0.011 * x**3) + 4.05
    red = 2.659 * (-1.857 + 1.040 * x) + 4.05
    return np.asarray(np.maximum(np.where(wave < 6300.0, blue, red), 0.0))


def birth_transmission(
    wave: NDArray[np.float64], parameters: ModelParameters
) -> NDArray[np.float64]:
    r"""Share of the light that the birth clouds let through: the same, with slope 1, no bump.

    Parameters
    ----------
    wave
        Rest-frame wavelengths, Angstrom, shape ``(n_wave,)``.
    parameters
        The models.

    Returns
    -------
    array of shape ``(n_model, n_wave)``
    """
    depth = -_MAG * parameters.a_v * parameters.birth_ratio
    return np.exp(np.outer(depth, (wave / _PIVOT) ** -_BIRTH_SLOPE))


def _drude(wave: NDArray[np.float64]) -> NDArray[np.float64]:
    width = (wave * _BUMP_WIDTH) ** 2
    return np.asarray(width / ((wave**2 - _BUMP_WAVE**2) ** 2 + width))


def knots(low: float, high: float) -> NDArray[np.float64]:
    """Wavelengths between which attenuation is as good as linear.

    Dust is smooth: evaluating it here and interpolating saves most of the exponentials. They
    are 0.5 % apart below 3000 A, where the bump is, 1 % to a micron and 3 % beyond, which keeps
    the error below 0.2 % wherever more than 1 % of the light is left. They are the same for
    every range, so that photometry and spectra agree.

    Parameters
    ----------
    low, high
        Rest-frame range to be covered, Angstrom.

    Returns
    -------
    array of shape ``(n_knot,)``
        At least two.
    """
    first = int(np.searchsorted(_KNOTS, low, side="right")) - 1
    last = int(np.searchsorted(_KNOTS, high, side="left"))
    first = min(max(first, 0), _KNOTS.size - 2)
    return _KNOTS[first : max(last, first + 1) + 1]


def hat_weights(
    wave: NDArray[np.float64], nodes: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Place wavelengths between nodes, linearly.

    Parameters
    ----------
    wave
        Wavelengths, shape ``(n_wave,)``; clipped to the range of the nodes.
    nodes
        Increasing, shape ``(n_node,)``.

    Returns
    -------
    lower : array of shape ``(n_wave,)``
        Index of the node below.
    share : array of shape ``(n_wave,)``
        Weight of the node above, 0 to 1.
    """
    lower = np.clip(np.searchsorted(nodes, wave, side="right") - 1, 0, len(nodes) - 2)
    share = (wave - nodes[lower]) / (nodes[lower + 1] - nodes[lower])
    return lower, np.clip(share, 0.0, 1.0)
