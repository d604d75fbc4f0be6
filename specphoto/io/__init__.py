"""Survey files to datasets, datasets to FITS and Zarr.

The modules are loaded when first used: reading needs no writer, and a plain import stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from specphoto.io.cube_reader import open_cube
    from specphoto.io.fits_writer import write_fits
    from specphoto.io.photometry import open_photometry
    from specphoto.io.registry import open_ifs
    from specphoto.io.zarr_store import write_zarr

__all__ = ["open_cube", "open_ifs", "open_photometry", "write_fits", "write_zarr"]

_HOME = {
    "open_cube": "cube_reader",
    "open_ifs": "registry",
    "open_photometry": "photometry",
    "write_fits": "fits_writer",
    "write_zarr": "zarr_store",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"specphoto.io.{_HOME[name]}"), name)
    msg = f"module 'specphoto.io' has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
