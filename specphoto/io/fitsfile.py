"""FITS files read lazily: headers now, pixels when a task asks for them.

Its arrays (:mod:`specphoto.io.fits_array`) are a few numbers and a path each. They cross to any
worker, which maps the file (or its own decompressed copy, see :mod:`specphoto.io.cache`) and reads
no more than the slice.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits
from dask.array.core import normalize_chunks

from specphoto.errors import InputError
from specphoto.io.address import is_remote
from specphoto.io.cache import Source
from specphoto.io.fits_array import FitsArray, FitsTable, MappedArray
from specphoto.io.lazy_array import as_dask
from specphoto.quiet import quietly

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    import dask.array as da
    from numpy.typing import DTypeLike, NDArray

    from specphoto.io.fits_array import Stored

__all__ = [
    "Chunks",
    "FitsFile",
    "Hdu",
    "headers",
    "open_fits",
    "plane_chunks",
]

_STORED = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
# columns of a binary table: dtype of one element by its letter, of those that are no numbers too
_COLUMN = {
    "L": "V1", "B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8",
    "A": "V1", "C": "V8", "M": "V16", "P": "V8", "Q": "V16",
}  # fmt: skip

Chunks = int | str | dict[str, Any]

_CHUNK_BYTES = 64e6
_CHUNK_COUNT = 8


@dataclass(frozen=True)
class Hdu:
    """One header-data unit: its name in capitals, its header, and its data as they are stored.

    Pixels have the shape that numpy gives them; all else is a line of bytes, without padding.
    """

    name: str
    header: fits.Header
    raw: Stored

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the pixels; empty where there are none."""
        return self.raw.shape if self.is_image else ()

    @property
    def is_image(self) -> bool:
        """Whether it holds pixels."""
        return "XTENSION" not in self.header or self.header["XTENSION"].strip() == "IMAGE"


@dataclass(frozen=True)
class FitsFile:
    """All headers of a FITS file, and its arrays on demand.

    Parameters
    ----------
    path
        Absolute path, or address, of where it is now.
    name, size
        Of the file that it was read from, bytes.
    hdus
        Header-data units in order.
    """

    path: str
    name: str
    size: int
    hdus: tuple[Hdu, ...]

    @property
    def headers(self) -> Mapping[str, fits.Header]:
        """Headers by HDU name in capitals; the first HDU is also there as 'PRIMARY'."""
        named = {"PRIMARY": self.hdus[0].header}
        for hdu in self.hdus:
            named.setdefault(hdu.name, hdu.header)
        return named

    def __contains__(self, name: str) -> bool:
        return any(name in self._aliases(i) for i in range(len(self.hdus)))

    def __getitem__(self, name: str) -> Hdu:
        for i, hdu in enumerate(self.hdus):
            if name in self._aliases(i):
                return hdu
        raise self._lacks([name])

    def _aliases(self, i: int) -> tuple[str, ...]:
        return (self.hdus[i].name, "PRIMARY") if i == 0 else (self.hdus[i].name,)

    def _lacks(self, names: Iterable[str]) -> InputError:
        return InputError(
            self.path, expected="the extensions " + ", ".join(names),
            found="only " + ", ".join(hdu.name for hdu in self.hdus),
            remedy="check that the file is whole and of the kind you mean",
        )  # fmt: skip

    def require(self, *names: str, shape: tuple[int, ...] | None = None, ndim: int = 3) -> None:
        """Refuse a file that lacks image HDUs, or has them with other shapes.

        Parameters
        ----------
        *names
            HDUs that must be there.
        shape
            Shape that all of them must have; by default that of the first.
        ndim
            Number of axes that the first must have.

        Raises
        ------
        InputError
            Naming the file, the HDUs and what was found.
        """
        missing = [name for name in names if name not in self]
        if missing:
            raise self._lacks(missing)
        shape = shape or self[names[0]].shape
        if len(shape) != ndim:
            raise InputError(
                f"{self.path}, {names[0]}", expected=f"an array of {ndim} axes",
                found=f"shape {shape}", remedy="check that the file is of the kind you mean",
            )  # fmt: skip
        for name in names:
            if self[name].shape != shape:
                raise InputError(
                    f"{self.path}, {name}", expected=f"shape {shape}",
                    found=f"{self[name].shape}", remedy="check that the file is whole",
                )  # fmt: skip

    def array(self, name: str, *, dtype: DTypeLike = np.float32) -> FitsArray:
        """Lazy pixels of one image HDU, in the given dtype."""
        hdu = self[name]
        header = hdu.header
        if header.get("ZIMAGE"):
            raise InputError(
                f"{self.path}, {name}", expected="a plain FITS image",
                found="a tile-compressed one", remedy="unpack the file with funpack",
            )  # fmt: skip
        if not hdu.shape:
            raise InputError(
                f"{self.path}, {name}", expected="an image", found="no pixels",
                remedy="check that the file is whole and of the kind you mean",
            )  # fmt: skip
        blank = header.get("BLANK") if header["BITPIX"] > 0 else None
        return FitsArray(
            hdu.raw, np.dtype(dtype), float(header.get("BSCALE", 1.0)),
            float(header.get("BZERO", 0.0)), blank,
        )  # fmt: skip

    def dask(
        self, name: str, chunks: tuple[Any, ...], *, dtype: DTypeLike = np.float32
    ) -> da.Array:
        """Dask array of one image HDU; nothing is read."""
        return as_dask(self.array(name, dtype=dtype), chunks, name)

    def chunks(self, name: str, chunks: Chunks) -> tuple[Any, ...]:
        """Dask chunks of a cube that fit how it is stored; see :func:`plane_chunks`."""
        return plane_chunks(self[name].shape, chunks, step=self[name].raw.step)

    def table(self, name: str, *columns: str) -> FitsTable:
        """Columns of a binary table that each hold one number per row; nothing is read.

        Raises
        ------
        InputError
            If it is no binary table, or lacks one of them.
        """
        hdu = self[name]
        fields = _fields(hdu.header)
        lacking = [column for column in columns if column not in fields]
        if lacking:
            raise InputError(
                f"{self.path}, {name}",
                expected="a binary table with the columns " + ", ".join(columns),
                found=f"no {', '.join(lacking)}", remedy="check that the file is whole",
            )  # fmt: skip
        return FitsTable(
            hdu.raw, int(hdu.header["NAXIS1"]), int(hdu.header["NAXIS2"]),
            tuple((column, *fields[column]) for column in columns),
        )  # fmt: skip

    def values(self, name: str) -> NDArray[np.float64]:
        """Pixels of a small image HDU, now, in float64."""
        return self.array(name, dtype=np.float64)[...]


def open_fits(path: str | os.PathLike[str]) -> FitsFile:
    """Read the headers of all HDUs of a FITS file, ``.gz`` or not (told by content).

    A galaxy of a store (:mod:`specphoto.io.fits_group`) is opened as the file that it was.

    Raises
    ------
    InputError
        If the file is not there, not FITS, or truncated.
    """
    if is_remote(path) or Path(path).is_dir():
        return _open_group(path)
    return _read(Source.of(path))


@lru_cache(maxsize=64)
def _read(source: Source) -> FitsFile:
    """Headers of a file as it is now: a dataset is opened by several that look at them."""
    path = source.path
    with source.open() as stream:
        if stream.read(9) != b"SIMPLE  =":
            raise InputError(
                path, expected="a FITS file",
                found="something else (it does not begin with SIMPLE)", remedy="check the path",
            )  # fmt: skip
        end = stream.seek(0, 2)
        stream.seek(0)
        try:
            hdus = _scan(stream, source)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _truncated(path, str(error)) from error
    for hdu, stop in hdus:
        if stop > end:
            raise _truncated(path, f"{hdu.name} ends beyond the file's {end} bytes")
    return FitsFile(path, Path(path).name, source.size, tuple(hdu for hdu, _ in hdus))


def _open_group(path: str | os.PathLike[str]) -> FitsFile:
    # a store needs Zarr, a file does not
    from specphoto.io.fits_group import open_fits_group

    return open_fits_group(path)


def headers(path: str | os.PathLike[str]) -> Mapping[str, fits.Header]:
    """Headers of a FITS file by HDU name in capitals."""
    return open_fits(path).headers


def _scan(stream: Any, source: Source) -> list[tuple[Hdu, int]]:
    """Header-data units, and where in the file the data of each end."""
    found = []
    # archive headers break the standard in small ways that do not touch the pixels; truncation,
    # which astropy also only warns of, is checked against the file's size
    with (
        quietly(),
        fits.open(stream, disable_image_compression=True, lazy_load_hdus=False) as file,
    ):
        for i, hdu in enumerate(file):
            name = str(hdu.header.get("EXTNAME", "PRIMARY" if i == 0 else f"HDU{i}"))
            offset = int(hdu.fileinfo()["datLoc"])
            raw = _raw(hdu.header, source, offset, is_image=hdu.is_image)
            found.append((Hdu(name.strip().upper(), hdu.header.copy(), raw), offset + raw.size))
    return found


def _raw(header: fits.Header, source: Source, offset: int, *, is_image: bool) -> MappedArray:
    axes = [int(header[f"NAXIS{k}"]) for k in range(int(header["NAXIS"]), 0, -1)]
    if is_image:
        return MappedArray(source, offset, _STORED[header["BITPIX"]], tuple(axes))
    items = math.prod(axes) + int(header.get("PCOUNT", 0)) if axes else 0
    size = abs(int(header["BITPIX"])) // 8 * int(header.get("GCOUNT", 1)) * items
    return MappedArray(source, offset, "u1", (size,))


def _fields(header: fits.Header) -> dict[str, tuple[str, int, float, float]]:
    """Columns of a binary table with one number per row; see :class:`FitsTable`."""
    found, start = {}, 0
    if header.get("XTENSION") != "BINTABLE":
        return {}
    for i in range(1, int(header.get("TFIELDS", 0)) + 1):
        form = re.match(r"(\d*)([A-Z])", str(header[f"TFORM{i}"]).strip())
        count, letter = (int(form[1] or 1), form[2]) if form else (0, "")
        if letter in "EDBIJK" and count == 1:
            scale, zero = float(header.get(f"TSCAL{i}", 1.0)), float(header.get(f"TZERO{i}", 0.0))
            name = str(header.get(f"TTYPE{i}", "")).strip().upper()
            found[name] = (_COLUMN[letter], start, scale, zero)
        bits = letter == "X"
        start += -(-count // 8) if bits else count * np.dtype(_COLUMN.get(letter, "V0")).itemsize
    return found


def _truncated(path: str, why: str) -> InputError:
    return InputError(
        path, expected="a whole FITS file", found=f"a truncated or damaged one ({why})",
        remedy="download or copy it again",
    )  # fmt: skip


def plane_chunks(
    shape: tuple[int, ...], chunks: Chunks = "auto", *, step: int = 1
) -> tuple[Any, ...]:
    """Dask chunks of a cube ``(n_wave, n_y, n_x)``: whole planes, split in wave.

    Parameters
    ----------
    shape
        Shape of the cube.
    chunks
        'auto': about eight chunks, none above 64 MB of float32 where `step` allows; an int:
        channels per chunk; or a dict of 'wave', 'y', 'x' (what is missing is not split, -1
        neither).
    step
        Planes that are stored together: 'auto' cuts none of them.

    Raises
    ------
    InputError
        For anything else.
    """
    if chunks == "auto":
        room = int(_CHUNK_BYTES // (4 * shape[1] * shape[2]))
        wave = max(1, min(room, -(-shape[0] // _CHUNK_COUNT)))
        return (min(-(-wave // step) * step, shape[0]), *shape[1:])
    if isinstance(chunks, int) and (chunks > 0 or chunks == -1):
        return (shape[0] if chunks == -1 else min(chunks, shape[0]), *shape[1:])
    if isinstance(chunks, dict) and set(chunks) <= {"wave", "y", "x"}:
        given = tuple(chunks.get(dim, -1) for dim in ("wave", "y", "x"))
        return tuple(normalize_chunks(given, shape=shape))
    raise InputError(
        "chunks", expected="'auto', a number of channels, or a dict of wave, y and x",
        found=repr(chunks), remedy="leave the option out if in doubt",
    )  # fmt: skip
