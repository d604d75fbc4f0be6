"""PSFs that a user names by a text: a number, a band, an image of a star, a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy.wcs.utils import proj_plane_pixel_scales

from specphoto.errors import InputError
from specphoto.io import survey
from specphoto.io.fitsfile import open_fits
from specphoto.spatial.psf import PSF

if TYPE_CHECKING:
    import os

__all__ = ["parse_psf", "read_psf_image", "read_psf_table"]

_FITS = (".fits", ".fits.gz", ".fit", ".fits.fz")


def parse_psf(text: str, *, table: bool = False) -> PSF | float | str | list[tuple[float, float]]:
    """PSF of a text, as a command line has it.

    Parameters
    ----------
    text
        FWHM in arcsec; the path of a FITS image of the PSF; with ``table`` the path of a table of
        wavelengths and FWHM; else a name, which is returned as it is: a band of known PSF.
    table
        Whether the PSF may vary with wavelength.

    Raises
    ------
    InputError
        If it is a file and cannot be read as one of these.

    Examples
    --------
    >>> parse_psf("2.5"), parse_psf("wise_w2")
    (2.5, 'wise_w2')
    """
    try:
        return float(text)
    except ValueError:
        pass
    if text.lower().endswith(_FITS):
        return read_psf_image(text)
    if not Path(text).is_file():
        return text
    if not table:
        raise InputError(
            text, expected="one PSF: a FWHM, the name of a band, or a FITS image of a star",
            found="another file", remedy="a table of wavelengths is for the cube's PSF alone",
        )  # fmt: skip
    return read_psf_table(text)


def read_psf_image(path: str | os.PathLike[str]) -> PSF:
    """PSF from an image of it, the pixel side from its card PIXSCALE or its WCS.

    Raises
    ------
    InputError
        If it is no image of a star in its middle (:meth:`specphoto.spatial.psf.PSF.from_image`), or
        its pixel is unknown.
    """
    file = open_fits(path)
    hdu = survey.first_image(file)
    where = f"{file.path}, {hdu.name}"
    scale = survey.card([hdu.header], "PIXSCALE")
    if scale is None and "CTYPE1" in hdu.header:
        side = proj_plane_pixel_scales(survey.celestial(hdu.header, where)) * 3600.0
        scale = float(np.sqrt(side[0] * side[1]))
    if not isinstance(scale, int | float) or not scale > 0:
        raise InputError(
            where, expected="the pixel side of the PSF image (card PIXSCALE, arcsec, or a WCS)",
            found=repr(scale), remedy="write the card, or give PSF.from_image(image, scale)",
        )  # fmt: skip
    return PSF.from_image(file.values(hdu.name), float(scale), name=where)


def read_psf_table(path: str | os.PathLike[str]) -> list[tuple[float, float]]:
    """Pairs of wavelength (Angstrom) and FWHM (arcsec): two columns of text, ``#`` for comments.

    Raises
    ------
    InputError
        If a line holds anything else; the message says which.
    """
    pairs = []
    for number, line in enumerate(Path(path).read_text("utf-8").splitlines(), 1):
        words = line.partition("#")[0].replace(",", " ").split()
        if not words:
            continue
        try:
            wave, fwhm = (float(word) for word in words)
        except ValueError:
            raise InputError(
                f"{path}, line {number}",
                expected="a wavelength in Angstrom and the FWHM of the PSF there in arcsec",
                found=repr(line), remedy="write two numbers on each line",
            ) from None  # fmt: skip
        pairs.append((wave, fwhm))
    return pairs
