"""What both steps need: photometry as piXedfit wrote it, and kernels over chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import xarray as xr

from specphoto.cube import band_scale

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import DTypeLike

__all__ = ["map_blocks", "pixedfit_photometry"]


def map_blocks(
    function: Callable[..., Any],
    *arrays: da.Array,
    dtype: DTypeLike,
    chunks: Sequence[tuple[int, ...]],
    **options: Any,
) -> da.Array:
    """``dask.array.map_blocks`` with its result declared: blocks of these chunks and type."""
    meta = np.empty((0,) * len(chunks), dtype)
    # dask ships no types: its result is declared here, once
    call: Callable[..., da.Array] = da.map_blocks
    return call(function, *arrays, dtype=dtype, chunks=tuple(chunks), meta=meta, **options)


def pixedfit_photometry(ds: xr.Dataset) -> xr.Dataset:
    """Bands as piXedfit wrote them: v1.0 compares those with its models."""
    if not ds.attrs.get("band_scale"):
        return ds
    scale = xr.DataArray(band_scale(ds), dims="band")
    out = ds.assign({n: ds[n].copy(data=(ds[n] / scale).data) for n in ("photo_flux", "photo_err")})
    return out.assign_attrs(band_scale=dict.fromkeys(map(str, ds["band"].values), 1.0))
