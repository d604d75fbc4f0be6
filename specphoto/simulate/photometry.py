"""Photometric cubes as piXedfit writes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from astropy.io import fits

from specphoto.photometry.extinction import effective_ebv, transmission
from specphoto.photometry.filters import cwave_filters, load_filters, pixedfit_scale
from specphoto.simulate.pixels import PixelGrid
from specphoto.simulate.profile import Psf
from specphoto.simulate.sky import make_sky
from specphoto.simulate.stream import FitsStream, open_stream
from specphoto.simulate.truth import Truth, own_grid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from specphoto.simulate.truth import Sight

__all__ = ["DEFAULT_BANDS", "SimulatedPhotometry", "write_photometry"]

DEFAULT_BANDS = (
    "galex_fuv", "galex_nuv", "sdss_u", "sdss_g", "sdss_r", "sdss_i", "sdss_z",
    "2mass_j", "2mass_h", "2mass_k", "wise_w1", "wise_w2",
)  # fmt: skip
_UNIT = 1e-17
_SENTINEL = -99.0 / _UNIT


@dataclass(frozen=True, eq=False)
class SimulatedPhotometry:
    """A photometric cube that was written, and what is true of it.

    Parameters
    ----------
    path
        The file.
    truth
        What was simulated.
    pixels, psf
        Grid and PSF of all bands.
    bands
        Names.
    flux
        True photon-weighted mean F_lambda ``(n_band, n_y, n_x)`` behind the Galactic dust and
        without noise, 1e-17 erg s-1 cm-2 Angstrom-1.
    stored
        What the file would hold without noise: in piXedfit's flux convention and with its
        correction for Galactic dust.
    sigma
        1-sigma noise of `stored`.
    region
        Galaxy pixels ``(n_y, n_x)``.
    """

    path: Path
    truth: Sight
    pixels: PixelGrid
    psf: Psf
    bands: tuple[str, ...]
    flux: NDArray[np.float64]
    stored: NDArray[np.float64]
    sigma: NDArray[np.float64]
    region: NDArray[np.bool_]


def write_photometry(
    path: str | Path,
    truth: Sight,
    *,
    bands: Sequence[str] = DEFAULT_BANDS,
    pixels: PixelGrid | None = None,
    psf: Psf | None = None,
    psf_band: str = "wise_w2",
    error: float = 0.02,
    floor: float = 0.002,
    region: NDArray[np.bool_] | None = None,
    isophote: float = 0.005,
    distorted: bool = True,
    noisy: bool = True,
    foreground: bool = True,
    layout: Literal["old", "new"] = "new",
) -> SimulatedPhotometry:
    """Write a photometric cube in piXedfit's format.

    Parameters
    ----------
    path, truth
        Where, and what is seen.
    bands
        piXedfit's filter names.
    pixels
        Default 101 x 101 of 1.5 arcsec; for a patchwork its own grid.
    psf
        Of all bands; default a Gaussian of 6.37 arcsec, that of `psf_band` (FPSFMTCH). Images
        that are sharper than the cube have e.g. ``Psf(1.32)`` and the band ``sdss_r``.
    error
        Relative 1-sigma error of every pixel and band.
    floor
        Added in quadrature: share of the band's mean flux inside the region (the sky).
    region
        Galaxy pixels ``(n_y, n_x)``; default those inside an isophote.
    isophote
        It, as a share of the peak in the band nearest to SDSS r.
    distorted
        In piXedfit's flux convention (fluxes at tabulated wavelengths; see
        :func:`specphoto.photometry.filters.pixedfit_scale`); otherwise photon-weighted means.
    noisy
        Whether noise is added; its sigma is stated in any case.
    foreground
        Whether the stars in front of a galaxy are in the images, or were removed from them.
    layout
        ``old``: FLUX is the primary HDU; ``new``: the primary is a bare header.

    Returns
    -------
    SimulatedPhotometry
        What is true of the file.

    Raises
    ------
    InputError
        If a filter is unknown.
    """
    path, bands = Path(path), tuple(bands)
    pixels = pixels or own_grid(truth, PixelGrid((101, 101), 1.5))
    psf = psf or Psf(6.37)
    filters = load_filters(bands)
    if not foreground and isinstance(truth, Truth):
        truth = truth.alone()
    flux = make_sky(truth).images(pixels, psf, filters)
    galebv = effective_ebv(truth.ebv, "SFD")
    corrected = transmission(np.array(cwave_filters(list(bands))), galebv, law="pixedfit")
    scale = pixedfit_scale(bands) if distorted else np.ones(len(bands))
    stored = flux / (corrected * scale)[:, None, None]
    nearest = int(np.argmin([abs(f.pivot - 6200.0) for f in filters]))
    if region is None:
        region = np.asarray(stored[nearest] > isophote * stored[nearest].max())
    level = stored[:, region].mean(axis=1)[:, None, None]
    sigma = np.hypot(error * stored, floor * level)
    noise = truth.rng(5).standard_normal(stored.shape) * sigma if noisy else 0.0
    recorded = np.where(region, stored + noise, _SENTINEL)
    errors = np.where(region, sigma, _SENTINEL)
    header = _header(truth, bands, pixels, psf, psf_band, galebv)
    with open_stream(path) as out:
        _write_flux(out, recorded, header, layout)
        out.image("FLUX_ERR", errors, shape=errors.shape, dtype="f8")
        out.image("GALAXY_REGION", region * 1.0, shape=region.shape, dtype="f8")
        out.image(
            "STAMP_IMAGE", stored[0], shape=region.shape, dtype="f4",
            header=pixels.header(truth.ra, truth.dec),
        )  # fmt: skip
    return SimulatedPhotometry(path, truth, pixels, psf, bands, flux, stored, sigma, region)


def _write_flux(
    out: FitsStream, flux: NDArray[np.float64], header: fits.Header, layout: str
) -> None:
    if layout == "old":
        out.image("FLUX", flux, shape=flux.shape, dtype="f8", header=header)
    else:
        out.header_only(header)
        out.image("FLUX", flux, shape=flux.shape, dtype="f8")


def _header(
    truth: Sight,
    bands: Sequence[str],
    pixels: PixelGrid,
    psf: Psf,
    psf_band: str,
    galebv: float,
) -> fits.Header:
    header = fits.Header()
    header["NFILTERS"] = len(bands)
    header["RA"], header["DEC"], header["Z"] = truth.ra, truth.dec, truth.redshift
    header["UNIT"], header["BUNIT"] = _UNIT, "erg/s/cm^2/A"
    header["GALEBV"] = galebv
    header["STRUCT"] = "(band,y,x)"
    header["FSAMP"], header["PIXSIZE"] = bands[0], pixels.scale
    header["FPSFMTCH"], header["PSFFWHM"] = psf_band, psf.fwhm
    header["SPECPHOT"] = 0
    for i, band in enumerate(bands):
        header[f"FIL{i}"] = band
    return header
