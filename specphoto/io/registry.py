"""Readers of integral-field cubes, found by entry point.

A package adds a reader for another survey by an entry point of the group ``specphoto.readers``
whose object is a :class:`Reader`. One that is an :class:`~specphoto.io.outline.Outlining` too
fills tables of many files from their headers alone.
"""

from __future__ import annotations

import warnings
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from specphoto.cube import add_provenance, validate
from specphoto.errors import InputError
from specphoto.io.fitsfile import FitsFile, open_fits

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    import xarray as xr
    from astropy.io import fits

    from specphoto.io.fitsfile import Chunks

__all__ = ["GROUP", "Reader", "open_ifs", "readers"]

GROUP = "specphoto.readers"


@runtime_checkable
class Reader(Protocol):
    """What a survey reader is."""

    @property
    def name(self) -> str:
        """The survey, as in ``open_ifs(survey=...)``."""

    def matches(self, headers: Mapping[str, fits.Header]) -> bool:
        """Whether the file is this survey's, from the headers by HDU name in capitals."""

    def open(
        self,
        path: str | os.PathLike[str],
        *,
        chunks: Chunks,
        redshift: float | None,
        psf_fwhm: float | None,
        mask_bits: Sequence[str | int] | None,
    ) -> xr.Dataset:
        """Open the file lazily; see :func:`open_ifs` for the dataset and the options."""


@cache
def _entries() -> tuple[EntryPoint, ...]:
    """Entry points of the group; to look for them takes as long as to open a cube."""
    return tuple(entry_points(group=GROUP))


def readers() -> dict[str, Reader]:
    """Return all installed readers by survey name; one that cannot be loaded is warned of."""
    found: dict[str, Reader] = {}
    for entry in _entries():
        try:
            found[entry.name] = entry.load()
        except Exception as error:  # a third party's fault must not close the other surveys
            warnings.warn(
                f"the reader {entry.name!r} ({entry.value}) cannot be loaded: {error!r}",
                stacklevel=2,
            )
    return found


def open_ifs(
    path: str | os.PathLike[str],
    *,
    survey: str = "auto",
    chunks: Chunks = "auto",
    redshift: float | None = None,
    psf_fwhm: float | None = None,
    mask_bits: Sequence[str | int] | None = None,
) -> xr.Dataset:
    """Open a survey's integral-field cube lazily.

    Headers and small arrays are read now, cubes when they are computed. A gzipped file is
    decompressed once into the cache of :mod:`specphoto.io.cache`.

    Parameters
    ----------
    path
        FITS file, gzipped or not.
    survey
        'manga', 'califa', 'muse', the name of another installed reader, or 'auto': recognised by
        the file's content.
    chunks
        'auto' (whole planes, at most 64 MB of float32), the number of channels per chunk, or a
        dict of chunk sizes for 'wave', 'y', 'x'.
    redshift
        Redshift, where the header has none or a wrong one.
    psf_fwhm
        FWHM of the PSF in arcsec, in place of what the header or the survey says.
    mask_bits
        Names or numbers of the flags that make a voxel useless, in place of the survey's advice:
        of MaNGA's DRP3PIXMASK (NOCOV, LOWCOV, DEADFIBER, FORESTAR, DONOTUSE, all of them
        fatal), CALIFA's BADPIX or MUSE's DQ (any flag is fatal). An empty list leaves only the
        voxels out that have no number or no error.

    Returns
    -------
    ds
        ``spec_flux`` (1e-17 erg s-1 cm-2 Angstrom-1 per spaxel), ``spec_var``, ``spec_mask`` on
        (wave, y, x); ``spec_lsf``, ``recon_image``, the noise correlation ``spec_corr`` and the
        images of a point source ``psf_image`` where the file has them; ``foreground`` where the
        survey flags stars in front of the galaxy; vacuum ``wave``; attributes as in
        :mod:`specphoto.cube`.

    Raises
    ------
    InputError
        If the file is not there, not FITS, damaged, of no known survey, or lacks what its survey
        promises: extensions, celestial WCS, wavelengths that increase.
    """
    _check_options(redshift, psf_fwhm)
    file = open_fits(path)
    reader = _choose(file, survey)
    given = [mask_bits] if isinstance(mask_bits, str | int) else mask_bits
    bits = None if given is None else list(given)
    ds = reader.open(path, chunks=chunks, redshift=redshift, psf_fwhm=psf_fwhm, mask_bits=bits)
    validate(ds, "spec_flux", "spec_var", "spec_mask", "wave", verb=file.path)
    return add_provenance(
        ds, "open_ifs", survey=reader.name, input=file.name, bytes=file.size,
        options={"redshift": redshift, "psf_fwhm": psf_fwhm, "mask_bits": bits},
    )  # fmt: skip


def _check_options(redshift: float | None, psf_fwhm: float | None) -> None:
    if redshift is not None and not (np.isfinite(redshift) and redshift > -1):
        raise InputError(
            "redshift", expected="a number above -1", found=repr(redshift),
            remedy="leave it out when it is unknown",
        )  # fmt: skip
    if psf_fwhm is not None and not (np.isfinite(psf_fwhm) and psf_fwhm > 0):
        raise InputError(
            "psf_fwhm", expected="a positive FWHM in arcsec", found=repr(psf_fwhm),
            remedy="leave it out to take the survey's",
        )  # fmt: skip


def _choose(file: FitsFile, survey: str) -> Reader:
    known = readers()
    if survey != "auto":
        if survey not in known:
            raise InputError(
                "survey", expected=f"'auto' or one of {', '.join(sorted(known))}",
                found=repr(survey), remedy="choose one of them, or install its reader",
            )  # fmt: skip
        return known[survey]
    matching = {name: reader for name, reader in known.items() if reader.matches(file.headers)}
    if len(matching) == 1:
        return next(iter(matching.values()))
    if matching:
        raise InputError(
            file.path, expected="a cube of one survey",
            found="one that the readers " + ", ".join(sorted(matching)) + " all take for theirs",
            remedy="name the survey (survey=...)",
        )  # fmt: skip
    raise InputError(
        file.path, expected=f"a cube of a known survey ({', '.join(sorted(known))})",
        found="the HDUs " + ", ".join(hdu.name for hdu in file.hdus), remedy=_advice(file),
    )  # fmt: skip


def _advice(file: FitsFile) -> str:
    if {"PHOTO_FLUX", "SPEC_FLUX"} <= {hdu.name for hdu in file.hdus}:
        return "it is a spectrophotometric cube: open it with open_cube"
    if "FLUX_ERR" in file or "NFILTERS" in file.hdus[0].header:
        return "it is a photometric cube: open it with open_photometry"
    return "name the survey (survey=...) if it is one of them"
