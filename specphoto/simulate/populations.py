"""Spectra of the simulated populations."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from specphoto.simulate.truth import Family
    from specphoto.spectral.library import Library
    from specphoto.spectral.ssp import SSPGrid

__all__ = ["LINES", "Line", "emission", "population_library", "two_burst_spectra"]

LIGHT_SPEED = 299792.458  # km/s

# Vacuum rest wavelength in Angstrom and flux relative to Halpha: a star-forming disc with
# A_V of about one magnitude
Line = tuple[str, float, float]
LINES: tuple[Line, ...] = (
    ("[OII]3727", 3727.09, 0.18),
    ("[OII]3730", 3729.88, 0.24),
    ("Hgamma", 4341.68, 0.11),
    ("Hbeta", 4862.68, 0.27),
    ("[OIII]4960", 4960.30, 0.06),
    ("[OIII]5008", 5008.24, 0.18),
    ("[NII]6550", 6549.86, 0.12),
    ("Halpha", 6564.61, 1.00),
    ("[NII]6585", 6585.27, 0.36),
    ("[SII]6718", 6718.29, 0.20),
    ("[SII]6733", 6732.67, 0.15),
)

# populations of the two-burst family
_N_TWO_BURST = 400


@lru_cache(maxsize=2)
def population_library(family: Family) -> Library:
    """The populations of a family: the package's default library, or two bursts.

    The two-burst family has star-formation histories (two single bursts) and a dust law
    (A ~ lambda^-1.3, one screen) that the default library does not hold.
    """
    from specphoto.io.library import default_library
    from specphoto.spectral.library import TabulatedLibrary

    library = default_library()
    if family == "library":
        return library
    flux, parameters = two_burst_spectra(library.grid, _N_TWO_BURST, seed=20260101)
    return TabulatedLibrary(library.grid.wave, flux, library.grid.fwhm, parameters)


def two_burst_spectra(
    grid: SSPGrid, n_model: int, *, seed: int
) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float64]]]:
    """Rest-frame spectra ``(n_model, n_wave)`` of an old and a young burst behind a dust screen.

    Returns the spectra in the grid's unit and the parameters: ages in yr, mass fraction of the
    young burst, metallicity (mass fraction), and A_V in magnitudes.
    """
    rng = np.random.default_rng(seed)
    old = 10.0 ** rng.uniform(9.5, 10.1, n_model)
    young = 10.0 ** rng.uniform(7.3, 9.2, n_model)
    share = 10.0 ** rng.uniform(-2.5, -0.7, n_model)
    av = rng.uniform(0.0, 1.2, n_model)
    met = rng.integers(0, len(grid.metallicity), n_model)
    i_old = np.abs(grid.age[:, None] - old).argmin(axis=0)
    i_young = np.abs(grid.age[:, None] - young).argmin(axis=0)
    flux = (1.0 - share)[:, None] * grid.flux[met, i_old] + share[:, None] * grid.flux[met, i_young]
    flux = flux * 10.0 ** (-0.4 * av[:, None] * (grid.wave / 5500.0) ** -1.3)
    parameters = {
        "age_old": grid.age[i_old],
        "age_young": grid.age[i_young],
        "young_fraction": share,
        "metallicity": grid.metallicity[met],
        "a_v": av,
    }
    return np.asarray(flux, dtype=np.float32), parameters


def emission(
    wave: NDArray[np.float64],
    lsf: NDArray[np.float64],
    *,
    redshift: float,
    dispersion: float,
) -> NDArray[np.float64]:
    """Emission-line spectrum ``(n_wave,)`` per Angstrom, for an Halpha line of unit flux.

    Parameters
    ----------
    wave
        Observed vacuum wavelengths, Angstrom.
    lsf
        1-sigma width of the line-spread function at them, Angstrom.
    redshift
        Of the gas.
    dispersion
        Velocity dispersion, km/s.
    """
    out = np.zeros(wave.size)
    for _, rest, ratio in LINES:
        centre = rest * (1.0 + redshift)
        sigma = np.hypot(np.interp(centre, wave, lsf), centre * dispersion / LIGHT_SPEED)
        out += (
            ratio / (np.sqrt(2.0 * np.pi) * sigma) * np.exp(-0.5 * ((wave - centre) / sigma) ** 2)
        )
    return out
