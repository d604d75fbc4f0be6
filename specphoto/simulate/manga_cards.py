"""Header cards and small tables of MaNGA cubes, in the survey's names and order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from specphoto.simulate.truth import Sight

__all__ = ["BUNIT", "linked", "observations", "primary_header"]

BUNIT = "1E-17 erg/s/cm^2/Angstrom/spaxel"

_N_EXPOSURE = 9

# What does not depend on the object: one ordinary night.
_NIGHT: tuple[tuple[str, Any, str], ...] = (
    ("VERSDRP2", "v3_1_1", "MaNGA DRP version (2d processing)"),
    ("VERSDRP3", "v3_1_1", "MaNGA DRP Version (3d processing)"),
    ("VERSPLDS", "v5_1", "Platedesign Version"),
    ("VERSFLAT", "v1_33", "Specflat Version"),
    ("VERSCORE", "v1_9_1", "MaNGAcore Version"),
    ("VERSPRIM", "v2_9", "MaNGA Preimaging Version"),
    ("VERSUTIL", "v5_5_36", "Version of idlutils"),
    ("BSCALE", 1.0, "Intensity unit scaling"),
    ("BZERO", 0.0, "Intensity zeropoint"),
    ("BUNIT", BUNIT, "Specific intensity (per spaxel)"),
    ("MASKNAME", "MANGA_DRP3PIXMASK", "Bits in sdssMaskbits.par used by mask extension"),
    ("TELESCOP", "SDSS 2.5-M", "Sloan Digital Sky Survey"),
    ("INSTRUME", "MaNGA", "SDSS-IV MaNGA IFU"),
    ("SRVYMODE", "MaNGA dither", "Survey leading this observation and its mode"),
    ("PLATETYP", "APOGEE-2&MaNGA", "Type of plate (e.g. MaNGA, APOGEE-2&MANGA)"),
    ("OBJSYS", "ICRS", "The TCC objSys"),
    ("EQUINOX", 2000.0, ""),
    ("RADESYS", "FK5", ""),
    ("LAMPLIST", "lamphgcdne.dat", ""),
    ("TPLDATA", "BOSZ_3000-11000A.fits", ""),
    ("NEXP", _N_EXPOSURE, "Total number of exposures"),
    ("EXPTIME", 900.0 * _N_EXPOSURE, "Total exposure time (seconds)"),
    ("BLUESN2", 18.6, "Total SN2 in blue channel"),
    ("REDSN2", 39.4, "Total SN2 in red channel"),
    ("AIRMSMIN", 1.04, "Minimum airmass"),
    ("AIRMSMED", 1.05, "Median airmass"),
    ("AIRMSMAX", 1.08, "Maximum airmass"),
    ("SEEMIN", 1.2, "Best guider seeing"),
    ("SEEMED", 1.3, "Median guider seeing"),
    ("SEEMAX", 1.4, "Worst guider seeing"),
    ("TRANSMIN", 0.8, "Worst guider transparency"),
    ("TRANSMED", 0.83, "Median guider transparency"),
    ("TRANSMAX", 0.84, "Best guider transparency"),
    ("MJDMIN", 57132, "MJD of first exposure"),
    ("MJDMED", 57132, "MJD of median exposure"),
    ("MJDMAX", 57132, "MJD of last exposure"),
    ("DATE-OBS", "2015-04-20", "Date of median exposure"),
    ("MJDRED", 59186, "MJD of the reduction"),
    ("DATERED", "2020-12-03", "Date of the reduction"),
    ("MNGTARG1", 2336, "manga_target1 maskbit"),
    ("MNGTARG2", 0, "manga_target2 maskbit"),
    ("MNGTARG3", 0, "manga_target3 maskbit"),
)


def primary_header(
    truth: Sight, *, fibres: int, quality: int, fwhm: Mapping[str, float]
) -> fits.Header:
    """Cards of the primary HDU, repeated with FLUX.

    Parameters
    ----------
    truth
        Where, what E(B-V).
    fibres
        Of the bundle.
    quality
        DRP3QUAL.
    fwhm
        Reconstructed FWHM by band, arcsec.
    """
    header = fits.Header(list(_NIGHT))
    for prefix, what in (("IFU", "IFU"), ("OBJ", "Object"), ("CEN", "Plate center")):
        header[f"{prefix}RA"] = (truth.ra, f"{what} R.A. (J2000 deg.)")
        header[f"{prefix}DEC"] = (truth.dec, f"{what} Dec. (J2000 deg.)")
    header["PLATEID"] = (9999, "Current plate")
    header["DESIGNID"] = (9999, "Current design")
    header["IFUDSGN"] = (f"{fibres}01", "ifuDesign")
    header["FRLPLUG"] = (1, "Plugged ferrule")
    header["PLATEIFU"] = (f"9999-{fibres}01", "PLATEID-ifuDesign")
    header["CARTID"] = ("1", "Cart(s) used")
    header["HARNAME"] = ("ma000", "Harness name(s)")
    header["METFILE"] = ("ma000-00000-0.par", "IFU metrology file(s)")
    header["MANGAID"] = (f"0-{truth.seed}", "MaNGA ID number")
    header["CATIDNUM"] = ("0", "Primary target input catalog")
    header["PLTTARG"] = ("plateTargets-0.par", "plateTarget reference file")
    header["DRP3QUAL"] = (quality, "DRP-3d quality bitmask")
    header["EBVGAL"] = (truth.ebv, "Galactic reddening E(B-V)")
    for band, width in fwhm.items():
        header[f"{band.upper()}FWHM"] = (width, f"Reconstructed FWHM in {band}-band (arcsec)")
    header["SIMULATE"] = (True, "simulated: not observed by the survey")
    return header


def linked(header: fits.Header, kind: str) -> fits.Header:
    """Header with the cards that tie FLUX (DATA), IVAR (ERROR) and MASK (QUALITY) together."""
    out = header.copy()
    out["HDUCLASS"] = ("SDSS", "SDSS format class")
    out["HDUCLAS1"] = "CUBE"
    out["HDUCLAS2"] = kind
    if kind == "ERROR":
        out["HDUCLAS3"] = ("INVMSE", "Inverse variance")
    if kind == "QUALITY":
        out["HDUCLAS3"] = ("FLAG64BIT", "")
    for card, name, own, what in (
        ("SCIDATA", "FLUX", "DATA", "Science"),
        ("ERRDATA", "IVAR", "ERROR", "Error"),
        ("QUALDATA", "MASK", "QUALITY", "Mask"),
    ):
        if kind != own:
            out[card] = (name, f"{what} extension name")
    return out


def observations(fibres: int) -> fits.BinTableHDU:
    """OBSINFO: one row per exposure, the few columns that a reader could want."""
    n = np.arange(_N_EXPOSURE)
    columns = [
        fits.Column("IFUDESIGN", "J", array=np.full(n.size, 100 * fibres + 1)),
        fits.Column("EXPNUM", "12A", array=[f"{200000 + i}" for i in n]),
        fits.Column("EXPTIME", "E", array=np.full(n.size, 900.0), unit="s"),
        fits.Column("MGDPOS", "8A", array=["NSE"[i % 3] for i in n]),
        fits.Column("SET", "J", array=n // 3),
    ]
    return fits.BinTableHDU.from_columns(columns, name="OBSINFO")
