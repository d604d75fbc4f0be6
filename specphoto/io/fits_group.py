"""A FITS file as a Zarr group: the same headers and the same bits, in pieces that can be read.

Each array is one object of small chunks (a shard), so that a spectrum and a plane both cost a few
of them, and a galaxy is a few dozen files. The group's attributes come last: what has them is
whole. They hold all headers, so that opening a galaxy reads one file.
"""

from __future__ import annotations

import json
import math
import re
import uuid
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from astropy.io import fits
from zarr.codecs import BloscCodec

from specphoto.errors import InputError
from specphoto.io.address import address_of, is_remote, read_bytes, remove, zarr_store
from specphoto.io.fitsfile import FitsFile, Hdu
from specphoto.io.staging import staged

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["StoredArray", "describe_group", "layout", "open_fits_group", "write_fits_group"]

SCHEMA = 1
_KEY = "specphoto_fits"
_METADATA = "zarr.json"
# Measured on a full MaNGA cube (benchmarks/README.md): a spectrum takes 18 of its 450 chunks, a
# plane 25. Smaller chunks are all overhead, and 8 x 8 spaxels a quarter larger on disk.
_CHUNK = (256, 16, 16)
_SHARD_BYTES = 256e6
_COMPRESSOR = BloscCodec(cname="zstd", clevel=1, shuffle="shuffle")


@dataclass(frozen=True)
class StoredArray:
    """Data of one HDU in a group, read slice by slice.

    ``made`` is the identity of the group: one that was written anew is another.
    """

    group: str
    name: str
    shape: tuple[int, ...]
    step: int
    made: str

    def __getitem__(self, key: Any) -> NDArray[Any]:
        key = key if isinstance(key, tuple) else (key,)
        forward, turned = _forward(key, self.shape)
        return np.asarray(_opened(self)[forward])[turned]

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return (type(self).__name__, *asdict(self).values())


@lru_cache(maxsize=256)
def _opened(array: StoredArray) -> zarr.Array[Any]:
    return zarr.open_array(zarr_store(array.group, read_only=True), path=array.name, mode="r")


def _forward(
    key: tuple[Any, ...], shape: tuple[int, ...]
) -> tuple[tuple[Any, ...], tuple[slice, ...]]:
    """Key with all steps forward, as Zarr takes it, and what turns the result round."""
    if Ellipsis in key:
        at = key.index(Ellipsis)
        key = (*key[:at], *[slice(None)] * (len(shape) - len(key) + 1), *key[at + 1 :])
    forward, turned = [], []
    for part, length in zip(key, shape, strict=False):
        if isinstance(part, slice) and (part.step or 1) < 0:
            places = range(length)[part][::-1]
            part = slice(places.start, places.stop, places.step)
            turned.append(slice(None, None, -1))
        elif isinstance(part, slice):
            turned.append(slice(None))
        forward.append(part)
    return tuple(forward), tuple(turned)


def layout(shape: tuple[int, ...], itemsize: int) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Chunks and shards of an array.

    Cubes have small chunks in shards of at most a quarter of a gigabyte, whole planes where they
    fit; all else is one chunk.

    >>> layout((4563, 74, 74), 4)
    ((256, 16, 16), (4608, 80, 80))
    """
    if len(shape) != 3 or 0 in shape:
        return tuple(max(1, n) for n in shape), None
    chunk = tuple(min(c, n) for c, n in zip(_CHUNK, shape, strict=True))
    whole = [-(-n // c) * c for n, c in zip(shape, chunk, strict=True)]
    room = max(1, int(_SHARD_BYTES / (itemsize * math.prod(chunk))))  # chunks to a shard
    counts = []
    for n, c in zip(reversed(whole), reversed(chunk), strict=True):
        counts.append(max(1, min(n // c, room)))
        room //= counts[-1]
    shard = tuple(c * k for c, k in zip(chunk, reversed(counts), strict=True))
    return chunk, shard


def write_fits_group(
    file: FitsFile, path: str | os.PathLike[str], *, about: Mapping[str, Any], overwrite: bool
) -> None:
    """Write all headers and data of a FITS file as a group.

    Parameters
    ----------
    file
        The file.
    path
        Folder, which appears when it is whole; or address, where the group's attributes, written
        last, say that it is.
    about
        What to keep with it, as JSON has it.
    overwrite
        Whether what is there is replaced.

    Raises
    ------
    InputError
        If something is there and must not be replaced, or it cannot be written.
    """
    if not is_remote(path):
        with staged(path, overwrite=overwrite) as aside:
            _write(file, str(aside), about)
        return
    address = address_of(path)
    if describe_group(address) is not None and not overwrite:
        raise InputError(
            address, expected="a name not taken", found="a galaxy already there",
            remedy="say overwrite=True (--overwrite) to replace it, or choose another store",
        )  # fmt: skip
    remove(address)
    _write(file, address, about)


def _write(file: FitsFile, address: str, about: Mapping[str, Any]) -> None:
    store = zarr_store(address, read_only=False)
    described = []
    names = _array_names(file)
    for hdu, name in zip(file.hdus, names, strict=True):
        has_data = 0 not in hdu.raw.shape and hdu.raw.shape != ()
        step = _write_array(store, name, hdu) if has_data else 1
        described.append({
            "name": hdu.name, "header": hdu.header.tostring(sep="\n"),
            "array": name if has_data else None, "shape": list(hdu.raw.shape), "step": step,
        })  # fmt: skip
    attributes = {
        _KEY: SCHEMA, "made": uuid.uuid4().hex, "file": {"name": file.name, "bytes": file.size},
        **about, "hdus": described,
    }  # fmt: skip
    zarr.open_group(store, mode="a").attrs.put(attributes)


def _array_names(file: FitsFile) -> list[str]:
    """Names of the arrays: those of the HDUs where they are plain and its own."""
    names: list[str] = []
    for i, hdu in enumerate(file.hdus):
        plain = re.fullmatch(r"[A-Za-z0-9_-]+", hdu.name) and hdu.name not in names
        names.append(hdu.name if plain else f"HDU{i}")
    return names


def _write_array(store: Any, name: str, hdu: Hdu) -> int:
    """Write the data of one HDU; return how many planes are in a chunk."""
    first = hdu.raw[tuple(slice(0, 1) for _ in hdu.raw.shape)]
    dtype = first.dtype.newbyteorder("=")
    chunks, shards = layout(hdu.raw.shape, dtype.itemsize)
    array = zarr.create_array(
        store, name=name, shape=hdu.raw.shape, dtype=dtype, chunks=chunks, shards=shards,
        compressors=(_COMPRESSOR,), fill_value=0,
        # a chunk of -0.0 is not one of 0.0
        config={"write_empty_chunks": True},
    )  # fmt: skip
    step = (shards or chunks)[0]
    for start in range(0, hdu.raw.shape[0], step):
        part = slice(start, start + step)
        array[part] = hdu.raw[part].astype(dtype, copy=False)
    return int(chunks[0])


def describe_group(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Metadata of a group that was a FITS file; None where there is no such group.

    Raises
    ------
    InputError
        If it is of a newer schema, or its metadata are damaged.
    """
    address = address_of(path)
    text = read_bytes(address_of(address, _METADATA))
    return None if text is None else _attributes(address, text)


@lru_cache(maxsize=64)
def _attributes(address: str, text: bytes) -> dict[str, Any] | None:
    try:
        attributes: dict[str, Any] = json.loads(text).get("attributes", {})
    except ValueError as error:
        raise InputError(
            address, expected="a Zarr group (format 3)", found=f"damaged metadata ({error})",
            remedy="ingest the file again",
        ) from error  # fmt: skip
    if _KEY not in attributes:
        return None
    if attributes[_KEY] > SCHEMA:
        raise InputError(
            address, expected=f"a galaxy of a store of schema {SCHEMA} or before",
            found=f"schema {attributes[_KEY]}",
            remedy="open it with the version that wrote it, or a later one",
        )  # fmt: skip
    return attributes


def open_fits_group(path: str | os.PathLike[str]) -> FitsFile:
    """Open a group as the FITS file that it was made of.

    Raises
    ------
    InputError
        If there is none, or only half of one.
    """
    address = address_of(path)
    text = read_bytes(address_of(address, _METADATA))
    file = None if text is None else _file(address, text)
    if file is None:
        there = is_remote(address) or any(Path(address).glob("*/zarr.json"))
        raise InputError(
            address, expected="a galaxy of a store, or a FITS file",
            found="none, or one half-written" if there else "neither",
            remedy="check the path, or ingest the file again",
        )  # fmt: skip
    return file


@lru_cache(maxsize=64)
def _file(address: str, text: bytes) -> FitsFile | None:
    """File that metadata describe: a dataset is opened by several that look at them."""
    attributes = _attributes(address, text)
    if attributes is None:
        return None
    hdus = tuple(
        Hdu(
            str(h["name"]), fits.Header.fromstring(h["header"], sep="\n"),
            StoredArray(address, str(h["array"]), tuple(h["shape"]), h["step"], attributes["made"]),
        )
        for h in attributes["hdus"]
    )  # fmt: skip
    return FitsFile(address, attributes["file"]["name"], attributes["file"]["bytes"], hdus)
