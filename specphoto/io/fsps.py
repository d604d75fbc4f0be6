"""Simple stellar populations computed by FSPS, through python-fsps, where both are installed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from specphoto.errors import InputError
from specphoto.spectral.fingerprint import digest
from specphoto.spectral.ssp import SSPGrid, whole_ages

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["fsps_grid"]

_C_KM_S = 299_792.458
_SIGMA_TO_FWHM = np.sqrt(8.0 * np.log(2.0))
# Bluest and reddest wavelength kept, Angstrom: what any band of the fit sees.
_RANGE = (912.0, 6.0e4)


def fsps_grid(*, imf: int = 2) -> SSPGrid:
    """Compute the populations of FSPS at all its metallicities and ages; takes minutes.

    Stars alone: no dust, no nebular emission.

    Parameters
    ----------
    imf
        FSPS's ``imf_type``: 0 Salpeter, 1 Chabrier, 2 Kroupa.

    Returns
    -------
    SSPGrid
        912 Angstrom to 6 micron, in vacuum, L_sun / Angstrom per solar mass formed. Where FSPS
        calls its resolution poorly defined, two samples are taken for it.

    Raises
    ------
    InputError
        If python-fsps or the data of FSPS are not there.
    """
    population = _population(imf)
    wave = np.asarray(population.wavelengths, dtype=np.float64)
    keep = (wave >= _RANGE[0]) & (wave <= _RANGE[1])
    metallicity = np.asarray(population.zlegend, dtype=np.float64)
    age = 10.0 ** np.asarray(population.ssp_ages, dtype=np.float64)
    flux = np.stack([
        np.asarray(population.get_spectrum(zmet=i + 1, tage=0.0, peraa=True)[1])[:, keep]
        for i in range(metallicity.size)
    ]).astype(np.float32)  # fmt: skip
    nodes, light = whole_ages(age, flux)
    names = [v.decode() if isinstance(v, bytes) else str(v) for v in population.libraries]
    return SSPGrid(
        wave=wave[keep], age=nodes, metallicity=metallicity, flux=light,
        fwhm=_fwhm(wave[keep], np.asarray(population.resolutions, dtype=np.float64)[keep]),
        identity=f"FSPS {' '.join(names)} imf_type={imf} {digest(light)[:16]}",
    )  # fmt: skip


def _population(imf: int) -> Any:
    if not os.environ.get("SPS_HOME"):
        raise InputError(
            "grid fsps", expected="the data of FSPS, in the folder that SPS_HOME names",
            found="no SPS_HOME", remedy="get FSPS (github.com/cconroy20/fsps) and set SPS_HOME",
        )  # fmt: skip
    try:
        import fsps
    except Exception as error:  # it tells of missing data by many types
        raise InputError(
            "grid fsps", expected="python-fsps that works", found=str(error) or "an error",
            remedy="pip install fsps, and let SPS_HOME name the folder of FSPS",
        ) from error  # fmt: skip
    return fsps.StellarPopulation(
        zcontinuous=0, sfh=0, imf_type=imf, dust1=0.0, dust2=0.0, add_neb_emission=False,
        add_dust_emission=False, add_agb_dust_model=False,
    )  # fmt: skip


def _fwhm(wave: NDArray[np.float64], dispersion: NDArray[np.float64]) -> NDArray[np.float64]:
    """FWHM in Angstrom from a dispersion in km/s, which is not above 0 where it is not known."""
    known = dispersion > 0
    return np.where(known, wave * dispersion / _C_KM_S * _SIGMA_TO_FWHM, 2.0 * np.gradient(wave))
