"""CALIFA COMB rscube files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy.io import fits

from specphoto.io.survey import instrument
from specphoto.photometry.extinction import transmission
from specphoto.simulate.exposure import Noise, SimulatedCube, Snr, expose, shifted
from specphoto.simulate.pixels import PixelGrid
from specphoto.simulate.populations import LIGHT_SPEED
from specphoto.simulate.profile import FWHM_PER_SIGMA, Psf
from specphoto.simulate.sky import dust, make_sky
from specphoto.simulate.stream import open_stream
from specphoto.simulate.truth import own_grid
from specphoto.spectral.wavelength import air_to_vacuum

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from specphoto.simulate.truth import Sight

__all__ = ["califa_grid", "write_califa"]

_UNIT = 1e-16
_BAD_ERROR = 1e10
_SHAPE = (73, 78)
_N_WAVE, _FIRST, _STEP = 1901, 3701.0, 2.0
# corner to centre of the hexagonal bundle of PPak, arcsec
_BUNDLE = 37.0


def califa_grid() -> PixelGrid:
    """Spaxel grid of the COMB cubes."""
    return PixelGrid(_SHAPE, 1.0)


def write_califa(
    path: str | Path,
    truth: Sight,
    *,
    snr: Snr = 15.0,
    noise: Noise = "independent",
    psf: Psf | None = None,
    n_wave: int = _N_WAVE,
    bad_channels: tuple[tuple[int, int], ...] = (),
) -> SimulatedCube:
    """Write a CALIFA COMB cube: 78 x 73 spaxels of 1 arcsec, 3701 A + 2 A in air.

    The survey corrects for Galactic extinction; its correction uses the E(B-V) of Schlegel et al.
    (1998) unscaled and the law of Cardelli et al. (1989): where the truth differs, its trace is
    in the file.

    Parameters
    ----------
    path, truth
        Where, and what is seen.
    snr, noise
        See :func:`specphoto.simulate.exposure.expose`; noise is independent between spaxels
        (``correlated`` is not offered here: no matrix is published).
    psf
        Default: the survey's Moffat of 2.5 arcsec.
    n_wave
        Fewer channels: a smaller file.
    bad_channels
        Ranges (start, stop) of channels that are flagged in BADPIX, with an error of 1e10.

    Returns
    -------
    SimulatedCube
        What is true of the file.
    """
    path = Path(path)
    pixels = own_grid(truth, califa_grid())
    facts = instrument("califa")
    psf = psf or Psf(facts["psf"]["fwhm"], facts["psf"]["beta"])
    wave = air_to_vacuum(_FIRST + _STEP * np.arange(n_wave))
    lsf = np.full(n_wave, facts["setups"]["COMB"]["lsf_fwhm"] / FWHM_PER_SIGMA)
    curve = ((float(wave[n_wave // 2]), psf),)
    observed = hexagon(pixels, _BUNDLE)
    light = make_sky(truth).cube(shifted(truth, pixels), curve, wave, lsf)
    # the survey takes the map's value as it is
    undone = transmission(wave, truth.ebv, law=facts["extinction"]["law"])
    exposure = expose(
        truth, light, pixels, wave, throughput=dust(truth, wave) / undone, observed=observed,
        snr=snr, noise="independent" if noise == "correlated" else noise,
    )  # fmt: skip
    bad = np.zeros(n_wave, dtype=bool)
    for start, stop in bad_channels:
        bad[start:stop] = True
    shape = (n_wave, *pixels.shape)

    def errors() -> Iterator[NDArray[np.float64]]:
        for a, b in exposure.blocks():
            sigma = exposure.sigma(a, b) * (1e-17 / _UNIT)
            yield np.where(np.isfinite(sigma) & ~bad[a:b, None, None], sigma, _BAD_ERROR)

    flags = ((bad[a:b, None, None] | ~observed) for a, b in exposure.blocks())
    ones = (np.ones((b - a, *pixels.shape)) for a, b in exposure.blocks())
    cover = (np.broadcast_to(3 * observed, (b - a, *pixels.shape)) for a, b in exposure.blocks())
    header = _header(truth, pixels)
    with open_stream(path) as out:
        flux = (block * (1e-17 / _UNIT) for block in exposure.flux())
        out.image(None, flux, shape=shape, dtype="f4", header=header)
        out.image("ERROR", errors(), shape=shape, dtype="f4")
        out.image("ERRWEIGHT", ones, shape=shape, dtype="f4")
        out.image("BADPIX", flags, shape=shape, dtype="u1")
        out.image("FIBCOVER", cover, shape=shape, dtype="u1")
    return SimulatedCube(
        path, "califa", truth, pixels, curve, wave, lsf, observed, exposure, {"model": "none"}
    )


def _header(truth: Sight, pixels: PixelGrid) -> fits.Header:
    header = fits.Header()
    header["OBJECT"] = f"SIM{truth.seed:04d}"
    header["INSTRUME"] = "PMAS"
    header["BUNIT"] = "1E-16 erg/s/cm^2/Angstrom"
    header["RA"], header["DEC"] = truth.ra, truth.dec
    header["MED_VEL"] = (LIGHT_SPEED * truth.redshift, "systemic velocity c z (km/s)")
    header["EBV"] = (truth.ebv, "Galactic reddening, corrected for")
    header["SIMULATE"] = (True, "simulated: not observed by the survey")
    header.update(pixels.header(truth.ra, truth.dec))
    header["CTYPE3"], header["CUNIT3"] = "AWAV", "Angstrom"
    header["CRPIX3"], header["CRVAL3"], header["CDELT3"] = 1.0, _FIRST, _STEP
    header["CD3_3"] = _STEP
    return header


def hexagon(pixels: PixelGrid, radius: float) -> NDArray[np.bool_]:
    """Pixels in a hexagon with corners at `radius` arcsec to east and west."""
    east, north = (np.abs(a) for a in pixels.offsets())
    apothem = 0.5 * np.sqrt(3.0) * radius
    return np.asarray((north <= apothem) & (np.sqrt(3.0) * east + north <= 2.0 * apothem))
