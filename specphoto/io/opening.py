"""Whatever specphoto reads, opened by the reader that it is for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from specphoto.errors import InputError
from specphoto.io.cube_reader import open_cube
from specphoto.io.fitsfile import open_fits
from specphoto.io.photometry import open_photometry
from specphoto.io.registry import open_ifs

if TYPE_CHECKING:
    import os

    import xarray as xr

__all__ = ["open_any"]


def open_any(path: str | os.PathLike[str]) -> xr.Dataset:
    """Open a cube of spectra, a photometric cube or a product lazily, told apart by content.

    Parameters
    ----------
    path
        What :func:`specphoto.open_ifs`, :func:`specphoto.open_photometry` or
        :func:`specphoto.open_cube` opens.

    Raises
    ------
    InputError
        If it is nothing that specphoto reads.
    """
    if Path(path).is_dir():
        return open_cube(path)
    file = open_fits(path)
    names = {hdu.name for hdu in file.hdus}
    if {"PHOTO_FLUX", "SPEC_FLUX"} <= names:
        return open_cube(path)
    if {"FLUX_ERR", "PHOTO_FLUX"} & names or "NFILTERS" in file.hdus[0].header:
        return open_photometry(path)
    try:
        return open_ifs(path)
    except InputError as error:
        if "SPEC_FLUX" in names:  # a cube of ours without photometry
            return open_cube(path)
        raise error from None
