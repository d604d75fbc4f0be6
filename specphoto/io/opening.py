"""Whatever specphoto reads, opened by the reader that it is for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from specphoto.errors import InputError
from specphoto.io.address import is_remote
from specphoto.io.cards import read_cards
from specphoto.io.cube_reader import open_cube
from specphoto.io.fits_group import describe_group
from specphoto.io.fitsfile import open_fits
from specphoto.io.photometry import open_photometry
from specphoto.io.registry import open_ifs, readers

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    import xarray as xr

    from specphoto.io.survey import Headerlike

__all__ = ["is_known", "open_any"]


def open_any(path: str | os.PathLike[str], **options: Any) -> xr.Dataset:
    """Open a cube of spectra, a photometric cube or a product lazily, told apart by content.

    Parameters
    ----------
    path
        What :func:`specphoto.open_ifs`, :func:`specphoto.open_photometry` or
        :func:`specphoto.open_cube` opens.
    **options
        Of :func:`specphoto.open_ifs`, for cubes of spectra; others have no use for them.

    Raises
    ------
    InputError
        If it is nothing that specphoto reads.
    """
    if not is_remote(path) and Path(path).is_dir() and describe_group(path) is None:
        if Path(path, "table.parquet").is_file():
            raise InputError(
                str(path), expected="one galaxy", found="a store of many",
                remedy="name one of them (STORE/NAME), or open it with open_sample",
            )  # fmt: skip
        return open_cube(path)
    file = open_fits(path)
    kind = _kind(file.headers)
    if kind == "specphoto":
        return open_cube(path)
    if kind == "photometry":
        return open_photometry(path)
    try:
        return open_ifs(path, **options)
    except InputError as error:
        if "SPEC_FLUX" in file:  # a cube of ours without photometry
            return open_cube(path)
        raise error from None


def is_known(path: str | os.PathLike[str]) -> bool:
    """Whether a FITS file is one that specphoto reads, by its headers."""
    known = readers().values()
    try:
        for leading in (True, False):
            headers = read_cards(path, leading=leading)
            if any(reader.matches(headers) for reader in known) or _kind(headers) is not None:
                return True
    except InputError:
        return False
    return False


def _kind(headers: Mapping[str, Headerlike]) -> str | None:
    """Which product a file is, or None: perhaps a survey's cube."""
    if {"PHOTO_FLUX", "SPEC_FLUX"} <= headers.keys():
        return "specphoto"
    if headers.keys() & {"FLUX_ERR", "PHOTO_FLUX"} or "NFILTERS" in headers["PRIMARY"]:
        return "photometry"
    return None
