"""Simple stellar populations and the gas around them, and how composites are mixed from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from specphoto.errors import InputError
from specphoto.spectral.sfh import BIRTH_CLOUD_AGE, age_weights, metallicity_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from specphoto.spectral.parameters import ModelParameters

__all__ = ["Mixer", "Nebular", "SSPGrid", "whole_ages"]


@dataclass(frozen=True, eq=False)
class Nebular:
    """Gas ionised by the populations of a grid, on its metallicities and its youngest ages.

    Parameters
    ----------
    continuum
        Luminosity density, L_sun / Angstrom per solar mass formed, shape
        ``(n_met, n_young, n_wave)``.
    line_wave
        Vacuum wavelengths of the lines, Angstrom, shape ``(n_line,)``.
    line
        Luminosities, L_sun per solar mass formed, shape ``(n_met, n_young, n_line)``.
    identity
        What sets these apart, for the provenance.
    """

    continuum: NDArray[np.float32]
    line_wave: NDArray[np.float64]
    line: NDArray[np.float64]
    identity: str = "unnamed gas"


@dataclass(frozen=True, eq=False)
class SSPGrid:
    """Simple stellar populations, linear in age and in log Z between the nodes.

    Parameters
    ----------
    wave
        Rest-frame vacuum wavelengths, increasing, Angstrom, shape ``(n_wave,)``.
    age
        Increasing from 0, yr, shape ``(n_age,)``; 10 Myr is one of them.
    metallicity
        Mass fractions, increasing, shape ``(n_met,)``.
    flux
        L_sun / Angstrom per solar mass formed, shape ``(n_met, n_age, n_wave)``.
    fwhm
        Resolution of the spectra, Angstrom, shape ``(n_wave,)``.
    nebular
        Gas around the young populations, or None.
    identity
        Name and hash of the file, for the provenance.

    Raises
    ------
    InputError
        If the shapes disagree or 10 Myr is not among the ages.
    """

    wave: NDArray[np.float64]
    age: NDArray[np.float64]
    metallicity: NDArray[np.float64]
    flux: NDArray[np.float32]
    fwhm: NDArray[np.float64]
    nebular: Nebular | None = None
    identity: str = "unnamed grid"

    def __post_init__(self) -> None:
        shape = (self.metallicity.size, self.age.size, self.wave.size)
        if self.flux.shape != shape or self.fwhm.shape != self.wave.shape:
            raise InputError(
                self.identity, expected=f"flux of shape {shape} and one fwhm per wavelength",
                found=f"{self.flux.shape} and {self.fwhm.shape}", remedy="rebuild the grid",
            )  # fmt: skip
        if not np.any(self.age == BIRTH_CLOUD_AGE):
            raise InputError(
                self.identity, expected=f"an age node at {BIRTH_CLOUD_AGE:g} yr", found="none",
                remedy="interpolate the grid to that age",
            )  # fmt: skip

    @property
    def n_young(self) -> int:
        """Number of age nodes up to and including 10 Myr."""
        return int(np.searchsorted(self.age, BIRTH_CLOUD_AGE)) + 1


def whole_ages(
    age: NDArray[np.float64], flux: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Add the age nodes that a grid must have: 0, and 10 Myr where birth clouds end.

    The latter is interpolated linearly in age, as everything between nodes is. Stars younger than
    the youngest population shine like it.

    Parameters
    ----------
    age
        Increasing, yr, shape ``(n_age,)``.
    flux
        Shape ``(n_met, n_age, n_wave)``.

    Returns
    -------
    age, flux
        With up to two nodes more.
    """
    if age[0] > 0:
        age, flux = np.insert(age, 0, 0.0), np.concatenate([flux[:, :1], flux], axis=1)
    place = int(np.searchsorted(age, BIRTH_CLOUD_AGE))
    if place == age.size or age[place] == BIRTH_CLOUD_AGE:
        return age, flux
    share = np.float32((BIRTH_CLOUD_AGE - age[place - 1]) / (age[place] - age[place - 1]))
    between = (1 - share) * flux[:, place - 1] + share * flux[:, place]
    return np.insert(age, place, BIRTH_CLOUD_AGE), np.insert(flux, place, between, axis=1)


@dataclass(frozen=True, eq=False)
class Mixer:
    """The recipe from population grid to composite models, in any basis linear in flux."""

    age: NDArray[np.float64]
    metallicity: NDArray[np.float64]

    def weights(
        self, parameters: ModelParameters
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the masses on the young and old age nodes."""
        return age_weights(parameters, self.age)

    def mix(
        self,
        weights: NDArray[np.float64],
        metallicity: NDArray[np.float64],
        basis: NDArray[np.floating],
    ) -> NDArray[np.floating]:
        """Sum a basis ``(n_met, n_age, n)`` over ages and between metallicities."""
        lower, share = metallicity_weights(metallicity, self.metallicity)
        out = np.empty((len(weights), basis.shape[-1]), basis.dtype)
        for m in np.unique(lower):
            rows = lower == m
            s, w = share[rows, None], weights[rows]
            both = np.hstack([(1.0 - s) * w, s * w]).astype(basis.dtype)
            out[rows] = both @ basis[m : m + 2].reshape(both.shape[1], -1)
        return out
