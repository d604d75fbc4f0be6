"""Wavelengths in air and in vacuum."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["air_to_vacuum", "refractive_index", "vacuum_to_air"]

_SHORTEST = 2000.0


def refractive_index(wave: ArrayLike) -> NDArray[np.float64]:
    """Refractive index of standard air (15 C, 1 atm, 450 ppm CO2) at vacuum wavelengths.

    With sigma the wavenumber in 1/micron,
    ``n = 1 + 0.05792105 / (238.0185 - sigma^2) + 0.00167917 / (57.362 - sigma^2)``.
    Below 2000 A, where tables give vacuum wavelengths even "in air", it is 1.

    Parameters
    ----------
    wave
        Vacuum wavelengths, Angstrom, any shape.

    Returns
    -------
    n
        Same shape.

    References
    ----------
    Ciddor 1996, Applied Optics 35, 1566, the formula used by the SDSS.
    """
    wave = np.asarray(wave, dtype=np.float64)
    sigma2 = np.square(1e4 / np.maximum(wave, _SHORTEST))
    n = 1.0 + 0.05792105 / (238.0185 - sigma2) + 0.00167917 / (57.362 - sigma2)
    return np.where(wave < _SHORTEST, 1.0, n)


def vacuum_to_air(wave: ArrayLike) -> NDArray[np.float64]:
    """Wavelengths in standard air from vacuum wavelengths, both in Angstrom."""
    return np.asarray(wave, dtype=np.float64) / refractive_index(wave)


def air_to_vacuum(wave: ArrayLike) -> NDArray[np.float64]:
    """Vacuum wavelengths from wavelengths in standard air, both in Angstrom.

    The index is a function of the vacuum wavelength, so the relation is inverted by iteration;
    it changes so slowly that three rounds reach the precision of float64.
    """
    air = np.asarray(wave, dtype=np.float64)
    vacuum = air
    for _ in range(3):
        vacuum = air * refractive_index(vacuum)
    return vacuum
