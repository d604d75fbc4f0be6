"""One pass of writing: common blocks for all cubes, each computed, written everywhere, dropped.

Left to itself, a graph of many stores may finish one cube before it begins the next, and hold
what they share until then: a whole galaxy. So all cubes are cut alike, and one task writes one
strip of blocks of all of them.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Protocol

import dask.array as da
import numpy as np
from dask.base import compute, is_dask_collection

from specphoto.cube import BLOCK_MULTIPLE
from specphoto.io.fitsfile import plane_chunks
from specphoto.tasks import task

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import xarray as xr
    from dask.delayed import Delayed
    from numpy.typing import NDArray

__all__ = ["Target", "in_blocks", "plan_chunks", "stream"]

_CUBE = ("wave", "y", "x")

# About 4 MB of float32: a spectrum touches 5 chunks of a MaNGA cube, an image 16.
_CHUNK = {"wave": 1024, "y": 32, "x": 32}


class Target(Protocol):
    """Where blocks go: region assignment, safe from several threads, processes and machines."""

    def __setitem__(self, region: tuple[slice, ...], block: NDArray[np.generic]) -> None: ...


def in_blocks(ds: xr.Dataset) -> xr.Dataset:
    """Return the dataset with all cubes cut alike, and all other lazy variables in one block.

    The blocks are those of ``spec_flux`` (or of the first lazy cube), changed only where they
    would cut the chunks of a Zarr folder. A map in hundreds of blocks would be all overhead.
    """
    cubes = [name for name in ds.data_vars if set(ds[name].dims) == set(_CUBE)]
    lazy = [name for name in cubes if is_dask_collection(ds[name].data)]
    blocks: Mapping[Any, Any] = {}
    if lazy:
        chunks = ds["spec_flux" if "spec_flux" in lazy else lazy[0]].chunksizes
    elif cubes:
        shape = tuple(ds.sizes[dim] for dim in _CUBE)
        planes = da.core.normalize_chunks(plane_chunks(shape), shape)
        chunks = dict(zip(_CUBE, planes, strict=True))
    if cubes:
        sizes = {dim: ds.sizes[dim] for dim in _CUBE}
        blocks = dict(zip(sizes, plan_chunks(chunks, sizes)[0], strict=True))
    return ds.assign({n: _cut(ds[n], blocks if n in cubes else {}) for n in ds.data_vars})


def _cut(array: xr.DataArray, blocks: Mapping[Any, Any]) -> xr.DataArray:
    chunks = tuple(blocks.get(dim, -1) for dim in array.dims)
    if is_dask_collection(array.data):
        return array.copy(data=array.data.rechunk(chunks, method="tasks"))
    if blocks:
        return array.copy(data=da.from_array(array.data, chunks=chunks, name=False))
    return array


def plan_chunks(
    blocks: Mapping[Any, tuple[int, ...]], sizes: Mapping[Any, int]
) -> tuple[tuple[Any, ...], tuple[int, ...]]:
    """Chunks to store, and blocks to compute that hold whole chunks, so that none is shared.

    Parameters
    ----------
    blocks
        Dask's block sizes by dim.
    sizes
        Length by dim.

    Returns
    -------
    blocks
        Block sizes along each axis, changed only where chunks would be cut. Planned again, they
        stay as they are.
    chunks
        Chunk length along each axis.
    """
    # maps and images are small: they are not cut
    wanted = _CHUNK if set(_CUBE) <= set(sizes) else {}
    plans = [_plan_axis(blocks[dim], sizes[dim], wanted.get(dim)) for dim in sizes]
    return tuple(b for b, _ in plans), tuple(c for _, c in plans)


def _plan_axis(
    blocks: tuple[int, ...], size: int, wanted: int | None
) -> tuple[tuple[int, ...], int]:
    wanted = max(1, min(wanted or size, size))
    if len(blocks) <= 1:
        return blocks, wanted
    # chunks of a common divisor of all places where blocks begin are cut by none of them
    common = math.gcd(*accumulate(blocks[:-1]))
    chunk = max(n for n in range(1, min(common, wanted) + 1) if common % n == 0)
    if chunk >= min(BLOCK_MULTIPLE, wanted):
        return blocks, chunk
    step = wanted * max(1, round(max(blocks) / wanted))
    whole, rest = divmod(size, step)
    return (step,) * whole + ((rest,) if rest else ()), wanted


def stream(pairs: Iterable[tuple[xr.Variable, Target]]) -> None:
    """Write every variable to its target in one pass over one graph.

    What several variables share is computed once. Variables that are cut alike are written
    together. The tasks write, so on a cluster the product must lie on a file system that all
    workers share.
    """
    groups: dict[Any, list[tuple[da.Array, Target]]] = {}
    singles: list[Delayed] = []
    for variable, target in pairs:
        if is_dask_collection(variable.data) and variable.ndim == 0:
            singles.append(task("write", _write_single)(variable.data, target))
        elif is_dask_collection(variable.data):
            groups.setdefault(variable.chunks, []).append((variable.data, target))
        else:
            target[tuple(slice(0, n) for n in variable.shape)] = np.asarray(variable.data)
    compute(*[_writes(group) for group in groups.values()], *singles)


def _write_single(value: Any, target: Target) -> bool:
    target[()] = np.asarray(value)
    return True


def _writes(group: list[tuple[da.Array, Target]]) -> da.Array:
    """Array of flags, one for each strip, that is computed by writing the strips.

    A strip is the row of blocks along the last axis: in a FITS file its pixels follow each other.
    Its blocks meet only in the task that writes them.
    """
    sources = [source for source, _ in group]
    axes = tuple(range(sources[0].ndim))
    arguments: list[Any] = []
    for axis, chunks in enumerate(sources[0].chunks):
        arguments += [da.arange(sum(chunks), chunks=(chunks,)), (axis,)]
    for source in sources:
        arguments += [source, axes]
    done: da.Array = da.blockwise(
        _write, axes[:-1], *arguments, targets=[target for _, target in group],
        adjust_chunks=dict.fromkeys(axes[:-1], 1), concatenate=False, align_arrays=False,
        dtype=bool, meta=np.empty((0,) * len(axes[:-1]), dtype=bool), token="write",
    )  # fmt: skip
    return done


def _write(*arguments: Any, targets: list[Target]) -> NDArray[np.bool_]:
    """Write a strip to each target: numbers of its pixels along each axis, then its blocks.

    What runs along the last axis comes in pieces; they are joined for one target at a time.
    """
    *places, last = arguments[: -len(targets)]
    region = tuple(slice(int(p[0]), int(p[-1]) + 1) for p in [*places, np.concatenate(last)])
    for target, pieces in zip(targets, arguments[-len(targets) :], strict=True):
        target[region] = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=-1)
    return np.ones((1,) * len(places), dtype=bool)
