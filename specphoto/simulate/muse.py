"""MUSE cube files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy.io import fits

from specphoto.io.survey import instrument
from specphoto.simulate.exposure import Noise, SimulatedCube, Snr, expose, shifted
from specphoto.simulate.pixels import PixelGrid
from specphoto.simulate.profile import FWHM_PER_SIGMA, Psf
from specphoto.simulate.sky import dust, make_sky
from specphoto.simulate.stream import open_stream
from specphoto.simulate.truth import own_grid
from specphoto.spectral.wavelength import air_to_vacuum

if TYPE_CHECKING:
    from specphoto.simulate.truth import Sight

__all__ = ["muse_grid", "write_muse"]

_UNIT = 1e-20
_SCALE = 0.2
_FIRST, _STEP, _N_WAVE = 4750.0, 1.25, 3681
_N_NODE = 5


def muse_grid(shape: tuple[int, int] = (60, 60)) -> PixelGrid:
    """Spaxel grid of a MUSE cube of a shape (n_y, n_x)."""
    return PixelGrid(shape, _SCALE)


def write_muse(
    path: str | Path,
    truth: Sight,
    *,
    shape: tuple[int, int] = (60, 60),
    snr: Snr = 10.0,
    noise: Noise = "independent",
    fwhm: tuple[float, float] = (0.95, -3.0e-5),
    beta: float = 2.8,
    fsf: bool = True,
    n_wave: int = _N_WAVE,
) -> SimulatedCube:
    """Write a MUSE cube: 0.2 arcsec spaxels, 4750 A + 1.25 A in air.

    Parameters
    ----------
    path, truth
        Where, and what is seen.
    shape
        ``(n_y, n_x)``.
    snr, noise
        See :func:`specphoto.simulate.exposure.expose`; always independent between spaxels.
    fwhm
        (a, b) of the Moffat PSF: FWHM = a + b wave, arcsec and Angstrom.
    beta
        Its exponent.
    fsf
        Write the FSF cards (model MOFFAT1), as MPDAF does; the ESO pipeline does not.
    n_wave
        Fewer channels: a smaller file.

    Returns
    -------
    SimulatedCube
        What is true of the file.
    """
    path = Path(path)
    pixels = own_grid(truth, muse_grid(shape))
    air = _FIRST + _STEP * np.arange(n_wave)
    wave = air_to_vacuum(air)
    lsf = np.polyval(instrument("muse")["lsf_fwhm"], air) / FWHM_PER_SIGMA
    nodes = np.linspace(wave[0], wave[-1], _N_NODE)
    curve = tuple((float(w), Psf(fwhm[0] + fwhm[1] * float(w), beta)) for w in nodes)
    observed = np.ones(pixels.shape, dtype=bool)
    light = make_sky(truth).cube(shifted(truth, pixels), curve, wave, lsf)
    exposure = expose(
        truth, light, pixels, wave, throughput=dust(truth, wave), observed=observed, snr=snr,
        noise="independent" if noise == "correlated" else noise,
    )  # fmt: skip
    shape_out, unit = (n_wave, *pixels.shape), 1e-17 / _UNIT
    header = _header(truth, pixels)
    primary = fits.Header()
    primary["TELESCOP"], primary["INSTRUME"] = "ESO-VLT-U4", "MUSE"
    primary["OBJECT"] = f"SIM{truth.seed:04d}"
    primary["RA"], primary["DEC"] = truth.ra, truth.dec
    primary["SIMULATE"] = (True, "simulated: not observed")
    if fsf:
        primary["FSFMODE"] = ("MOFFAT1", "Old model with a fixed beta")
        primary["FSF00BET"], primary["FSF00FWA"], primary["FSF00FWB"] = beta, *fwhm
    with open_stream(path) as out:
        out.header_only(primary)
        flux = (block * unit for block in exposure.flux())
        out.image("DATA", flux, shape=shape_out, dtype="f4", header=header)
        header["BUNIT"] = "(10**(-20)*erg/s/cm**2/Angstrom)**2"
        variance = ((exposure.sigma(a, b) * unit) ** 2 for a, b in exposure.blocks())
        out.image("STAT", variance, shape=shape_out, dtype="f4", header=header)
        out.image("DQ", np.zeros(shape_out, dtype=np.uint8), shape=shape_out, dtype="u1")
    return SimulatedCube(
        path, "muse", truth, pixels, curve, wave, lsf, observed, exposure, {"model": "none"}
    )


def _header(truth: Sight, pixels: PixelGrid) -> fits.Header:
    header = pixels.header(truth.ra, truth.dec)
    header["CTYPE3"], header["CUNIT3"] = "AWAV", "Angstrom"
    header["CRPIX3"], header["CRVAL3"], header["CD3_3"] = 1.0, _FIRST, _STEP
    header["OBJECT"] = f"SIM{truth.seed:04d} (DATA)"
    header["BUNIT"] = "10**(-20)*erg/s/cm**2/Angstrom"
    return header
