"""Join galaxies' integral-field spectra with their multi-band images, pixel by pixel.

The verbs are loaded when first used, so that the plain numpy modules of :mod:`specphoto.spatial`
and :mod:`specphoto.spectral` can be imported without Dask or xarray.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from specphoto.cube import Grid
    from specphoto.errors import InputError
    from specphoto.explore import GalaxySample, ingest, open_sample
    from specphoto.io import open_cube, open_ifs, open_photometry, write_fits, write_zarr
    from specphoto.io.image_file import Image
    from specphoto.photometry.match import photometry_from_images
    from specphoto.pipeline import match
    from specphoto.sample import Sample, run_sample
    from specphoto.spatial.match import match_spatial
    from specphoto.spatial.register import register
    from specphoto.spatial.sums import sum_spectra
    from specphoto.spectral.match import match_spectral
    from specphoto.viewer import view

__version__ = "0.1.0"

__all__ = [
    "GalaxySample",
    "Grid",
    "Image",
    "InputError",
    "Sample",
    "ingest",
    "match",
    "match_spatial",
    "match_spectral",
    "open_cube",
    "open_ifs",
    "open_photometry",
    "open_sample",
    "photometry_from_images",
    "register",
    "run_sample",
    "sum_spectra",
    "view",
    "write_fits",
    "write_zarr",
]

_HOME = {
    "GalaxySample": "specphoto.explore",
    "Grid": "specphoto.cube",
    "Image": "specphoto.io.image_file",
    "InputError": "specphoto.errors",
    "Sample": "specphoto.sample",
    "ingest": "specphoto.explore",
    "match": "specphoto.pipeline",
    "match_spatial": "specphoto.spatial.match",
    "match_spectral": "specphoto.spectral.match",
    "open_cube": "specphoto.io",
    "open_ifs": "specphoto.io",
    "open_photometry": "specphoto.io",
    "open_sample": "specphoto.explore",
    "photometry_from_images": "specphoto.photometry.match",
    "register": "specphoto.spatial.register",
    "run_sample": "specphoto.sample",
    "sum_spectra": "specphoto.spatial.sums",
    "view": "specphoto.viewer",
    "write_fits": "specphoto.io",
    "write_zarr": "specphoto.io",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    msg = f"module 'specphoto' has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
