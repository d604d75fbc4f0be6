"""Products back to datasets, lazily: our FITS and Zarr, and piXedfit's FITS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import dask
import numpy as np
import xarray as xr

from specphoto.cube import SCHEMA_VERSION
from specphoto.errors import InputError
from specphoto.io.corr_factor import with_factor
from specphoto.io.fits_group import describe_group
from specphoto.io.fits_layout import ATTRIBUTES, image_dims
from specphoto.io.fitsfile import open_fits, plane_chunks
from specphoto.io.pixedfit_cube import is_pixedfit, open_pixedfit
from specphoto.io.survey import lazily
from specphoto.io.zarr_store import is_zarr

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from specphoto.io.fitsfile import Chunks, FitsFile

__all__ = ["open_cube"]


def open_cube(
    path: str | os.PathLike[str],
    *,
    chunks: Chunks = "auto",
    compat: Literal["pixedfit"] | None = None,
) -> xr.Dataset:
    """Open a spectrophotometric product: what was written comes back, lazily.

    Parameters
    ----------
    path
        A FITS file (``.fits`` or ``.fits.gz``) or a Zarr folder of ours, or a ``specphoto_`` or
        ``corr_specphoto_`` FITS file of piXedfit's. Told apart by content.
    chunks
        'auto': whole planes from FITS, whole stored chunks from Zarr; an int: channels per chunk;
        or a dict of 'wave', 'y', 'x'.
    compat
        'pixedfit': keep the fluxes of a piXedfit file as they are. Otherwise its photometry is
        brought to photon-weighted means, as :func:`specphoto.open_photometry` does.

    Returns
    -------
    xarray.Dataset
        Dims (band, wave, y, x); see :mod:`specphoto.cube`. ``corr_factor`` and
        ``corr_factor_err`` are rebuilt from their coefficients where a Zarr folder has those.

    Raises
    ------
    InputError
        If the path is not a product, or not a whole one.
    """
    folder = Path(path)
    if folder.is_dir() and describe_group(folder) is None:
        return _open_zarr(folder, chunks)
    file = open_fits(path)
    if ATTRIBUTES in file:
        return _open_fits(file, chunks)
    if str(file["PRIMARY"].header.get("CREATOR", "")).startswith("specphoto"):
        raise InputError(
            str(path), expected=f"the HDU {ATTRIBUTES} at the end of a product of ours",
            found=f"{file.hdus[-1].name} at the end", remedy="the file is cut: copy it again",
        )  # fmt: skip
    if is_pixedfit(file):
        return open_pixedfit(file, chunks=chunks, compat=compat)
    raise InputError(
        str(path), expected="a spectrophotometric product (HDUs PHOTO_FLUX, SPEC_FLUX, WAVE, ...)",
        found="the HDUs " + ", ".join(hdu.name for hdu in file.hdus),
        remedy="open survey cubes with open_ifs and photometric cubes with open_photometry",
    )  # fmt: skip


def _open_zarr(folder: Path, chunks: Chunks) -> xr.Dataset:
    if not is_zarr(folder):
        raise InputError(
            str(folder), expected="a Zarr folder (format 3)", found="a folder without zarr.json",
            remedy="check the path",
        )  # fmt: skip
    with dask.config.set({"array.chunk-size": "64MiB"}):
        stored: Any = "auto" if chunks == "auto" else {}
        ds = xr.open_zarr(folder, chunks=stored, consolidated=False, zarr_format=3)
    if chunks != "auto":
        wanted = chunks if isinstance(chunks, dict) else {"wave": chunks}
        ds = ds.chunk({dim: wanted.get(str(dim), -1) for dim in ds.dims})
    if "spec_flux" not in ds:
        raise InputError(
            str(folder), expected="a product with spec_flux",
            found=", ".join(map(str, ds.data_vars)), remedy="check the path",
        )  # fmt: skip
    _check_schema(str(folder), ds.attrs.get("specphoto_schema"))
    for name in ds.coords:
        if ds[name].dtype.kind in "UT":
            ds = ds.assign_coords({name: ds[name].astype(object)})
    return with_factor(_psf_in_memory(ds.drop_encoding()))


def _check_schema(path: str, version: Any) -> None:
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise InputError(
            path, expected=f"a product of schema {SCHEMA_VERSION} or before",
            found=f"schema {version}",
            remedy="open it with the version that wrote it, or a later one",
        )  # fmt: skip


def _open_fits(file: FitsFile, chunks: Chunks) -> xr.Dataset:
    text = file.array(ATTRIBUTES, dtype=np.uint8)[...].tobytes()
    try:
        document = json.loads(text)
        _check_schema(file.path, document["specphoto_schema"])
        described: Mapping[str, Any] = document["variables"]
        variables = {name: _variable(file, entry, chunks) for name, entry in described.items()}
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise InputError(
            f"{file.path}, {ATTRIBUTES}", expected="the JSON text written with the product",
            found=f"something else ({error})", remedy="write the product again",
        ) from error  # fmt: skip
    coords = [name for name, entry in described.items() if entry["coordinate"]]
    return _psf_in_memory(xr.Dataset(variables, attrs=document["attrs"]).set_coords(coords))


def _psf_in_memory(ds: xr.Dataset) -> xr.Dataset:
    """Read the image of the PSF: it is small, and needed when graphs are made."""
    return ds.assign(target_psf=ds["target_psf"].load()) if "target_psf" in ds else ds


def _variable(file: FitsFile, entry: Mapping[str, Any], chunks: Chunks) -> xr.Variable:
    dims = [str(dim) for dim in entry["dims"]]
    dtype = np.dtype(entry["dtype"])
    if "values" in entry:
        return xr.Variable(dims, np.array(entry["values"], dtype=dtype), entry["attrs"])
    hdu = entry["hdu"]
    stored = image_dims(dims)
    if len(dims) <= 1:
        line = np.asarray(file.array(hdu, dtype=dtype)[...])
        return xr.Variable(dims, line if dims else line[0], entry["attrs"])
    shape = file[hdu].shape
    blocks = plane_chunks(shape, chunks) if stored == ["wave", "y", "x"] else shape
    if "mask" not in entry:
        data = file.dask(hdu, blocks, dtype=dtype)
    else:
        flags = file.dask(entry["mask"], blocks, dtype=np.uint8)
        if dtype.kind == "b":
            data = lazily(_flagged, flags, bit=entry["bit"], dtype=dtype)
        else:
            values = file.dask(hdu, blocks, dtype=dtype)
            data = lazily(_unknown, values, flags, bit=entry["bit"], dtype=dtype)
    return xr.Variable(stored, data, entry["attrs"]).transpose(*dims)


def _flagged(flags: NDArray[np.uint8], bit: int) -> NDArray[np.bool_]:
    return np.asarray((flags >> np.uint8(bit)) & np.uint8(1) == 1)


def _unknown(values: NDArray[Any], flags: NDArray[np.uint8], bit: int) -> NDArray[Any]:
    """Values, NaN where the bit says that they are unknown."""
    return np.where(_flagged(flags, bit), values.dtype.type(np.nan), values)
