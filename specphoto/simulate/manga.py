"""MaNGA LOGCUBE and LINCUBE files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits
from scipy.sparse import csr_array, diags_array, triu

from specphoto.io.survey import instrument
from specphoto.photometry.filters import load_filters
from specphoto.photometry.synthetic import photon_weights
from specphoto.simulate.exposure import Exposure, Noise, SimulatedCube, Snr, expose, shifted
from specphoto.simulate.manga_cards import linked, observations, primary_header
from specphoto.simulate.noise import fibre_positions, shepard
from specphoto.simulate.pixels import PixelGrid
from specphoto.simulate.profile import FWHM_PER_SIGMA, Profile, Psf, image
from specphoto.simulate.sky import dust, make_sky
from specphoto.simulate.stream import FitsStream, open_stream
from specphoto.simulate.truth import Patchwork, Sight, Truth

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from specphoto.simulate.sky import PsfCurve

__all__ = ["Release", "manga_grid", "write_manga"]

Release = Literal["DR13", "DR15", "DR17"]

SCALE = 0.5
# spaxels on a side of the cubes of each bundle
SIZE = {19: 34, 37: 44, 61: 54, 91: 64, 127: 74}
_FIRST, _STEP, _N_WAVE = 3621.59598486, 1e-4, 4563
_BANDS = "griz"
_NOCOV, _LOWCOV, _DEADFIBER, _FORESTAR, _DONOTUSE = (1 << bit for bit in (0, 1, 2, 3, 10))
_FWHM = {"g": 2.54, "r": 2.50, "i": 2.47, "z": 2.45}
# spaxels with less of the median weight are flagged as of low coverage
_LOW_COVERAGE = 0.3
# the survey's tables have coefficients down to about this
_LEAST_RHO = 1e-3


def manga_grid(fibres: int = 127) -> PixelGrid:
    """Spaxel grid of the cubes of a bundle."""
    return PixelGrid((SIZE[fibres], SIZE[fibres]), SCALE)


def write_manga(
    path: str | Path,
    truth: Sight,
    *,
    fibres: int = 127,
    snr: Snr = 10.0,
    noise: Noise | None = None,
    fwhm: dict[str, float] | float | None = None,
    axis: Literal["log", "linear"] = "log",
    wave_range: tuple[float, float] | None = None,
    release: Release = "DR17",
    dead_channels: Sequence[tuple[int, int]] = (),
    dead_fibre: int | None = None,
    star_radius: float = 4.0,
    quality: int = 0,
) -> SimulatedCube:
    """Write a MaNGA cube.

    Parameters
    ----------
    path
        ``.fits`` or ``.fits.gz``.
    truth
        What is seen: a :class:`specphoto.simulate.Truth` or `Patchwork`.
    fibres
        19, 37, 61, 91 or 127.
    snr
        Signal to noise per channel; see :func:`specphoto.simulate.exposure.expose`.
    noise
        Default ``correlated`` as MaNGA's is; ``independent`` for a patchwork.
    fwhm
        PSF FWHM in arcsec, one or by band (``{"g": ..., "r": ..., "i": ..., "z": ...}``).
    axis
        LOGCUBE or LINCUBE.
    wave_range
        Keep only these wavelengths (Angstrom): a smaller file.
    release
        Layout: DR17 has LSFPOST and LSFPRE, DR15 DISP and PREDISP, DR13 neither and no
        correlation tables.
    dead_channels
        Ranges (start, stop) of channels without data.
    dead_fibre
        A fibre (position in the bundle) around which nothing can be used.
    star_radius
        Spaxels within this many arcsec of a star in front are flagged FORESTAR.
    quality
        DRP3QUAL.

    Returns
    -------
    SimulatedCube
        What is true of the file.

    Raises
    ------
    InputError
        If no bundle has that many fibres, or nothing was observed.
    """
    path = Path(path)
    positions = fibre_positions(fibres, rng=truth.rng(4))
    pixels = manga_grid(fibres)
    weights, observed, depth, low = _footprint(positions, pixels)
    if noise is None:
        noise = "independent" if isinstance(truth, Patchwork) else "correlated"
    wave, wave_cards = _wave_axis(axis, wave_range)
    lsf = _lsf(wave)
    psf = _psf(fwhm)
    light = make_sky(truth).cube(shifted(truth, pixels), psf, wave, lsf)
    starry = _near_stars(truth, pixels, star_radius)
    exposure = expose(
        truth, light, pixels, wave, throughput=dust(truth, wave), observed=observed, snr=snr,
        noise=noise, weights=weights, depth=depth, apart=starry,
    )  # fmt: skip
    bits = _bits(observed, low, positions, pixels, fibres, dead_fibre)
    bits[starry] |= _FORESTAR | _DONOTUSE
    primary = primary_header(
        truth, fibres=fibres, quality=quality, fwhm=dict(zip(_BANDS, _by_band(psf), strict=True))
    )
    with open_stream(path) as out:
        out.header_only(primary)
        celestial = pixels.header(*_fk5(truth.ra, truth.dec))
        cube = fits.Header([*primary.cards, *wave_cards.cards, *celestial.cards])
        images = _write_cubes(out, exposure, cube, bits, lsf, release, dead_channels)
        _write_spectra(out, wave, lsf, release)
        out.table(observations(fibres))
        _write_images(out, images, celestial, pixels, psf)
        if release != "DR13":
            _write_correlation(out, exposure, pixels)
    gaussian = {"model": "gaussian", "scale": 1.92, "cutoff": 6.4}
    return SimulatedCube(
        path, "manga", truth, pixels, psf, wave, lsf, observed, exposure,
        gaussian if noise == "correlated" else {"model": "none"},
    )  # fmt: skip


def _fk5(ra: float, dec: float) -> tuple[float, float]:
    """ICRS degrees in FK5, the frame of MaNGA's headers: they are 0.02 arcsec apart."""
    there = SkyCoord(ra, dec, unit="deg").transform_to("fk5")
    return float(there.ra.deg), float(there.dec.deg)


def _footprint(
    positions: NDArray[np.float64], pixels: PixelGrid
) -> tuple[csr_array, NDArray[np.bool_], NDArray[np.float64], NDArray[np.bool_]]:
    """Weights of unit quadratic sum, observed spaxels, relative sigma, low coverage."""
    weights, total = shepard(positions, pixels)
    norm = np.sqrt(weights.multiply(weights).sum(axis=1))
    observed = norm > 0.0
    unit = csr_array(diags_array(1.0 / np.where(observed, norm, 1.0)) @ weights)
    depth = norm / np.median(norm[observed])
    low = total < _LOW_COVERAGE * np.median(total[observed])
    shape = pixels.shape
    return unit, observed.reshape(shape), depth.reshape(shape), low.reshape(shape)


def _wave_axis(
    axis: str, wave_range: tuple[float, float] | None
) -> tuple[NDArray[np.float64], fits.Header]:
    header = fits.Header()
    if axis == "log":
        wave = 10.0 ** (np.log10(_FIRST) + _STEP * np.arange(_N_WAVE))
    else:
        wave = 3622.0 + np.arange(6732.0)
    if wave_range is not None:
        wave = wave[(wave >= wave_range[0]) & (wave <= wave_range[1])]
    step = wave[0] * _STEP * np.log(10.0) if axis == "log" else 1.0
    if axis == "log" and wave[0] == _FIRST:
        step = 0.833903304339  # as the survey writes it
    header["CTYPE3"] = "WAVE-LOG" if axis == "log" else "WAVE"
    header["CRPIX3"] = (1, "Starting pixel (1-indexed)")
    header["CRVAL3"] = (float(wave[0]), "Central wavelength of first pixel")
    header["CD3_3"] = (float(step), "Initial dispersion per pixel")
    header["CUNIT3"] = "Angstrom"
    return wave, header


def _lsf(wave: NDArray[np.float64]) -> NDArray[np.float64]:
    """1-sigma LSF in Angstrom: a resolution of 1400 in the blue to 2700 in the red."""
    return wave / (1400.0 + 0.2 * (wave - 3600.0)) / FWHM_PER_SIGMA


def _psf(fwhm: dict[str, float] | float | None) -> PsfCurve:
    given = dict.fromkeys(_BANDS, fwhm) if isinstance(fwhm, float | int) else (fwhm or _FWHM)
    nodes = instrument("manga")["psf"]["cards"]
    curve = tuple((float(nodes[f"{b.upper()}FWHM"]), Psf(float(given[b]))) for b in _BANDS)
    return curve if len({p for _, p in curve}) > 1 else curve[:1]


def _bits(
    observed: NDArray[np.bool_],
    low: NDArray[np.bool_],
    positions: NDArray[np.float64],
    pixels: PixelGrid,
    fibres: int,
    dead_fibre: int | None,
) -> NDArray[np.int32]:
    """DRP3PIXMASK of every spaxel ``(n_y, n_x)``."""
    bits = np.zeros(pixels.shape, dtype=np.int32)
    bits[low] = _LOWCOV | _DONOTUSE
    bits[~observed] = _NOCOV | _LOWCOV | _DONOTUSE
    if dead_fibre is not None:
        east, north = pixels.offsets()
        for x, y in positions[dead_fibre::fibres]:
            bits[np.hypot(east - x, north - y) < 1.0] |= _DEADFIBER | _DONOTUSE
    return bits


def _near_stars(truth: Sight, pixels: PixelGrid, radius: float) -> NDArray[np.bool_]:
    """Spaxels ``(n_y, n_x)`` within a radius in arcsec of a star in front, where it is seen."""
    near = np.zeros(pixels.shape, dtype=bool)
    east, north = pixels.offsets()
    for star in truth.foreground if isinstance(truth, Truth) else ():
        x, y = np.add(star.profile.centre, truth.pointing)
        near |= np.hypot(east - x, north - y) < radius
    return near


def _by_band(psf: PsfCurve) -> list[float]:
    return [p.fwhm for _, p in (psf if len(psf) > 1 else psf * len(_BANDS))]


def _write_cubes(
    out: FitsStream,
    exposure: Exposure,
    header: fits.Header,
    bits: NDArray[np.int32],
    lsf: NDArray[np.float64],
    release: Release,
    dead_channels: Sequence[tuple[int, int]],
) -> NDArray[np.float64]:
    """Write FLUX, IVAR, MASK and the LSF; return the reconstructed images ``(4, n_y, n_x)``."""
    wave, shape = exposure.wave, (exposure.wave.size, *exposure.sigma_map.shape)
    dead = np.zeros(wave.size, dtype=bool)
    for start, stop in dead_channels:
        dead[start:stop] = True
    bands, _ = photon_weights(wave, load_filters([f"sdss_{b}" for b in _BANDS]))
    images = np.zeros((len(_BANDS), *shape[1:]))
    ivar_map = 1.0 / np.where(np.isfinite(exposure.sigma_map), exposure.sigma_map, np.inf) ** 2
    lit = ivar_map > 0.0

    def flux() -> Iterator[NDArray[np.float64]]:
        for (start, stop), block in zip(exposure.blocks(), exposure.flux(), strict=True):
            block[dead[start:stop]] = 0.0
            images[...] += np.tensordot(bands[start:stop], block, (0, 0))
            yield block

    def separable(
        spectrum: NDArray[np.floating], plane: NDArray[np.floating]
    ) -> Iterator[NDArray[np.float64]]:
        return (spectrum[a:b, None, None] * plane for a, b in exposure.blocks())

    ivar = np.where(dead, 0.0, 1.0 / exposure.sigma_wave**2)
    flags = (np.where(dead[a:b, None, None], bits | _DONOTUSE, bits) for a, b in exposure.blocks())
    out.image("FLUX", flux(), shape=shape, dtype="f4", header=linked(header, "DATA"))
    out.image(
        "IVAR", separable(ivar, ivar_map), shape=shape, dtype="f4",
        header=linked(fits.Header(), "ERROR"),
    )  # fmt: skip
    out.image("MASK", flags, shape=shape, dtype="i4", header=linked(fits.Header(), "QUALITY"))
    if release != "DR13":
        post, pre = ("LSFPOST", "LSFPRE") if release == "DR17" else ("DISP", "PREDISP")
        before = np.sqrt(lsf**2 - np.gradient(wave) ** 2 / 12.0)
        out.image(post, separable(lsf, lit * 1.0), shape=shape, dtype="f4")
        out.image(pre, separable(before, lit * 1.0), shape=shape, dtype="f4")
    return images


def _write_spectra(
    out: FitsStream, wave: NDArray[np.float64], lsf: NDArray[np.float64], release: Release
) -> None:
    resolution = wave / (lsf * FWHM_PER_SIGMA)
    out.image("WAVE", wave, shape=wave.shape, dtype="f8")
    for prefix in ("",) if release == "DR13" else ("", "PRE"):
        for suffix, values in (("", resolution), ("D", 0.01 * resolution)):
            out.image(f"{prefix}SPECRES{suffix}", values, shape=wave.shape, dtype="f8")


def _write_images(
    out: FitsStream,
    images: NDArray[np.float64],
    celestial: fits.Header,
    pixels: PixelGrid,
    psf: PsfCurve,
) -> None:
    """Reconstructed images in nanomaggies, and PSF images of unit flux."""
    pivots = np.array([f.pivot for f in load_filters([f"sdss_{b}" for b in _BANDS])])
    # F_nu = F_lambda lambda^2 / c; 1 nanomaggy is 3.631e-29 erg s-1 cm-2 Hz-1
    nanomaggies = images * (1e-17 * pivots**2 / 2.99792458e18 / 3.631e-29)[:, None, None]
    for band, plane, fwhm in zip(_BANDS, nanomaggies, _by_band(psf), strict=True):
        header = celestial.copy()
        header["BUNIT"] = "nanomaggies/pixel"
        header[f"{band.upper()}FWHM"] = fwhm
        out.image(f"{band.upper()}IMG", plane, shape=pixels.shape, dtype="f4", header=header)
    for band, fwhm in zip(_BANDS, _by_band(psf), strict=True):
        header = celestial.copy()
        header["BUNIT"], header[f"{band.upper()}FWHM"] = "nanomaggies/pixel", fwhm
        plane = image(Profile(shape="point"), Psf(fwhm), pixels)
        out.image(f"{band.upper()}PSF", plane, shape=pixels.shape, dtype="f4", header=header)


def _write_correlation(out: FitsStream, exposure: Exposure, pixels: PixelGrid) -> None:
    """Correlation coefficients of the spaxels, as upper triangles (the same in every band)."""
    n = exposure.sigma_map.size
    weights = exposure.weights
    rho = triu(weights @ weights.T if weights is not None else diags_array(np.ones(n))).tocoo()
    keep = (rho.data > _LEAST_RHO) & np.isfinite(exposure.sigma_map.ravel()[rho.row])
    row, col, value = rho.row[keep], rho.col[keep], rho.data[keep]
    columns: list[tuple[str, str, Any]] = [
        ("INDXI_C1", "J", row % pixels.shape[1]),
        ("INDXI_C2", "J", row // pixels.shape[1]),
        ("INDXJ_C1", "J", col % pixels.shape[1]),
        ("INDXJ_C2", "J", col // pixels.shape[1]),
        ("RHOIJ", "D", value),
    ]
    nodes = instrument("manga")["psf"]["cards"]
    for band in _BANDS:
        table = fits.BinTableHDU.from_columns(
            [fits.Column(name, form, array=data) for name, form, data in columns],
            name=f"{band.upper()}CORREL",
        )
        centre = nodes[f"{band.upper()}FWHM"]
        table.header["BBWAVE"] = (centre, "Wavelength (Angstroms)")
        index = int(np.argmin(np.abs(exposure.wave - centre)))
        table.header["BBINDEX"] = (index, "Slice number")
        table.header["COVTYPE"] = "Correlation"
        table.header["COVSHAPE"] = f"({n},{n})"
        out.table(table)
