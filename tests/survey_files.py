"""Tiny files with the HDUs and cards of the surveys'."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (12, 6, 7)
MANGA_WAVE = 10.0 ** (np.log10(3621.59598486) + 1e-4 * np.arange(SHAPE[0]))
SKY = {
    "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CUNIT1": "deg", "CUNIT2": "deg",
    "CRPIX1": 4.0, "CRPIX2": 3.0, "CRVAL1": 232.5447, "CRVAL2": 48.690201,
    "CD1_1": -0.000138889, "CD2_2": 0.000138889,
}  # fmt: skip
MANGA_PRIMARY = {
    "TELESCOP": "SDSS 2.5-M", "INSTRUME": "MaNGA", "BUNIT": "1E-17 erg/s/cm^2/Ang/spaxel",
    "OBJRA": 232.544703894, "OBJDEC": 48.6902009334, "IFURA": 232.5447, "IFUDEC": 48.690201,
    "PLATEIFU": "8485-1901", "MANGAID": "1-209232", "DRP3QUAL": 1, "EBVGAL": 0.0144335,
    "UFWHM": 2.6, "GFWHM": 2.47074, "RFWHM": 2.47547, "IFWHM": 2.45931, "ZFWHM": 2.44198,
}  # fmt: skip
MANGA_FLUX = {
    **SKY, "CTYPE3": "WAVE-LOG", "CRPIX3": 1, "CRVAL3": 3621.59598486, "CD3_3": 0.833903304339,
    "CUNIT3": "Angstrom", "BUNIT": "1E-17 erg/s/cm^2/Ang/spaxel", "BSCALE": 1.0, "BZERO": 0.0,
}  # fmt: skip


def header(cards: dict[str, Any]) -> fits.Header:
    out = fits.Header()
    for name, value in cards.items():
        if value is not None:
            out[name] = value
    return out


def image(name: str, data: np.ndarray, cards: dict[str, Any] | None = None) -> fits.ImageHDU:
    return fits.ImageHDU(data, header(cards or {}), name=name)


def write(path: Path, hdus: list[Any]) -> Path:
    """Write the HDUs, through gzip where the name ends so."""
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    fits.HDUList(hdus).writeto(plain)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(plain.read_bytes(), 1))
        plain.unlink()
    return path


def manga_arrays(seed: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    arrays = {
        "FLUX": rng.normal(1, 0.2, SHAPE).astype(np.float32),
        "IVAR": rng.uniform(10, 20, SHAPE).astype(np.float32),
        "MASK": np.zeros(SHAPE, np.int32),
    }
    arrays["IVAR"][:, 0, :] = 0
    arrays["MASK"][:, 0, :] = 1 + 2 + 1024
    arrays["MASK"][3, 2, 2] = 4  # a dead fibre
    arrays["MASK"][4, 2, 2] = 8  # a foreground star
    arrays["MASK"][5, 2, 2] = 16  # a bit of no consequence
    arrays["FLUX"][6, 2, 2] = np.nan
    return arrays


def manga(
    path: Path,
    *,
    release: str = "DR17",
    wave: np.ndarray = MANGA_WAVE,
    primary: dict[str, Any] | None = None,
    flux: dict[str, Any] | None = None,
    without: tuple[str, ...] = (),
) -> Path:
    """A MaNGA cube in the layout of a data release."""
    lsf = np.full(SHAPE, 1.1, np.float32)
    lsf[:, 0, :] = 0
    cubes = {"DR13": [], "DR15": ["DISP", "PREDISP"], "DR17": ["LSFPOST", "LSFPRE"]}[release]
    arrays = manga_arrays()
    hdus = [fits.PrimaryHDU(header=header({**MANGA_PRIMARY, **(primary or {})}))]
    hdus += [image("FLUX", arrays["FLUX"], {**MANGA_FLUX, **(flux or {})})]
    hdus += [image("IVAR", arrays["IVAR"]), image("MASK", arrays["MASK"])]
    hdus += [image(name, lsf * (0.9 if "PRE" in name else 1)) for name in cubes]
    hdus += [image("WAVE", wave), image("SPECRES", np.full(SHAPE[0], 2000.0))]
    hdus += [
        fits.BinTableHDU.from_columns([fits.Column("MJD", "J", array=[57132])], name="OBSINFO")
    ]
    hdus += [image("RIMG", np.ones(SHAPE[1:], np.float32), SKY)]
    return write(path, [hdu for hdu in hdus if hdu.name not in without])


CALIFA_PRIMARY = {
    **SKY, "CD1_1": None, "CD2_2": None, "CDELT1": -1 / 3600, "CDELT2": 1 / 3600,
    "CTYPE3": "AWAV", "CUNIT3": "Angstrom", "CRPIX3": 1.0, "CRVAL3": 3701.0, "CDELT3": 2.0,
    "OBJECT": "NGC5947", "INSTRUME": "PMAS", "MED_VEL": 5900.0, "EBV": 0.03,
}  # fmt: skip


def califa(path: Path, **cards: Any) -> Path:
    """A CALIFA rscube."""
    rng = np.random.default_rng(2)
    flux = rng.normal(1, 0.1, SHAPE).astype(np.float32)
    error = np.full(SHAPE, 0.2, np.float32)
    bad = np.zeros(SHAPE, np.uint8)
    cover = np.full(SHAPE, 3, np.uint8)
    error[2, 1, 1], bad[3, 1, 1], cover[4, 1, 1] = 1e10, 1, 0
    hdus = [fits.PrimaryHDU(flux, header({**CALIFA_PRIMARY, **cards})), image("ERROR", error)]
    hdus += [image("ERRWEIGHT", np.ones(SHAPE, np.float32))]
    return write(path, [*hdus, image("BADPIX", bad), image("FIBCOVER", cover)])


MUSE_DATA = {
    **SKY, "CDELT1": 1.0, "CDELT2": 1.0, "RADESYS": "ICRS", "CTYPE3": "AWAV",
    "CUNIT3": "Angstrom", "CRPIX3": 1.0, "CRVAL3": 4749.890625, "CD3_3": 1.25,
    "BUNIT": "10**(-20)*erg/s/cm**2/Angstrom",
}  # fmt: skip


def muse(path: Path, *, primary: dict[str, Any] | None = None, **cards: Any) -> Path:
    """A MUSE cube."""
    rng = np.random.default_rng(3)
    data = rng.normal(1000, 100, SHAPE).astype(np.float32)
    stat = np.full(SHAPE, 400.0, np.float32)
    flags = np.zeros(SHAPE, np.uint8)
    data[1, 1, 1], stat[2, 1, 1], stat[3, 1, 1], flags[4, 1, 1] = np.nan, 0, np.inf, 1
    first = {"INSTRUME": "MUSE", "OBJECT": "Abell 478", "RA": 63.355417, "DEC": 10.46556}
    return write(
        path,
        [
            fits.PrimaryHDU(header=header({**first, **(primary or {})})),
            image("DATA", data, {**MUSE_DATA, **cards}), image("STAT", stat), image("DQ", flags),
        ],
    )  # fmt: skip


FLUXMAP = {
    "NFILTERS": 3, "RA": 205.4384, "DEC": 27.0048, "Z": 0.03, "UNIT": 1e-17,
    "BUNIT": "erg/s/cm^2/A", "GALEBV": 0.032, "STRUCT": "(band,y,x)", "FSAMP": "galex_fuv",
    "PIXSIZE": 1.5, "FPSFMTCH": "wise_w2", "PSFFWHM": 6.37, "SPECPHOT": 0,
    "FIL0": "sdss_u", "FIL1": "sdss_r", "FIL2": "wise_w2",
}  # fmt: skip


def fluxmap(
    path: Path, *, older: bool = False, without: tuple[str, ...] = (), **cards: Any
) -> Path:
    """A photometric cube; ``older``: FLUX is the primary HDU."""
    unit = cards.get("UNIT", 1e-17)
    unit = unit if isinstance(unit, float) and unit > 0 else 1e-17
    region = np.zeros((5, 6))
    region[1:4, 1:5] = 1
    flux = np.arange(1.0, 91.0).reshape(3, 5, 6)
    error = 0.1 * flux
    flux[:, region == 0] = error[:, region == 0] = -99.0 / unit
    flux[1, 2, 2] = error[1, 2, 2] = -99.0
    flux[2, 2, 2] = -0.5
    error[2, 2, 3] = 0
    first = header({**FLUXMAP, **cards})
    sky = {**SKY, "CD1_1": -1.5 / 3600, "CD2_2": 1.5 / 3600}
    hdus = [fits.PrimaryHDU(flux, first)] if older else [fits.PrimaryHDU(header=first)]
    hdus += [] if older else [image("FLUX", flux)]
    hdus += [image("FLUX_ERR", error), image("GALAXY_REGION", region)]
    hdus += [image("STAMP_IMAGE", np.ones((5, 6), np.float32), sky)]
    return write(path, [hdu for hdu in hdus if hdu.name not in without])
