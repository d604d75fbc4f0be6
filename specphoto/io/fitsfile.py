"""FITS files read lazily: headers now, pixels when a task asks for them.

A :class:`FitsArray` is a few numbers and a path. It crosses to any worker, which maps the file
(or its own decompressed copy, see :mod:`specphoto.io.cache`) and reads no more than the slice.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
from astropy.io import fits
from dask.array.core import normalize_chunks
from dask.base import tokenize

from specphoto.errors import InputError
from specphoto.io.cache import Source

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from numpy.typing import DTypeLike, NDArray

__all__ = [
    "Chunks",
    "FitsArray",
    "FitsFile",
    "FitsTable",
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
class FitsArray:
    """The pixels of one image HDU, read slice by slice.

    ``value = bscale * stored + bzero``; stored integers equal to ``blank`` are NaN. The result
    has the machine's byte order and the dtype asked for.
    """

    source: Source
    offset: int
    stored: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    bscale: float = 1.0
    bzero: float = 0.0
    blank: int | None = None

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of pixels."""
        return int(np.prod(self.shape))

    def __getitem__(self, key: Any) -> NDArray[Any]:
        with self.source.open() as stream:
            mapped = np.memmap(
                stream, dtype=self.stored, mode="r", offset=self.offset, shape=self.shape
            )
            part = np.asarray(mapped[key])
            with np.errstate(over="ignore"):
                if self.bscale == 1.0 and self.bzero == 0.0 and self.blank is None:
                    return part.astype(self.dtype)
                value = self.bscale * part.astype(np.float64) + self.bzero
                if self.blank is not None:
                    value = np.where(part == self.blank, np.nan, value)
                return np.asarray(value).astype(self.dtype)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            msg = "a FitsArray is read from disk: it cannot be had without a copy"
            raise ValueError(msg)
        value = self[...]
        return value if dtype is None else value.astype(dtype)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return (type(self).__name__, *asdict(self).values())


@dataclass(frozen=True)
class FitsTable:
    """Columns of numbers of one binary table, read when they are asked for.

    ``fields`` are name, dtype as stored, place in the row (bytes), and what the numbers are
    multiplied with and added to (TSCAL, TZERO).
    """

    source: Source
    offset: int
    row_bytes: int
    n_row: int
    fields: tuple[tuple[str, str, int, float, float], ...]

    def columns(self, *names: str) -> list[NDArray[np.float64]]:
        """Columns ``(n_row,)`` by name, all in one go, as float64."""
        known = {field[0]: field[1:] for field in self.fields}
        with self.source.open() as stream:
            rows = np.memmap(
                stream, dtype="u1", mode="r", offset=self.offset,
                shape=(self.n_row, self.row_bytes),
            )  # fmt: skip
            found = []
            for stored, start, scale, zero in (known[name] for name in names):
                cells = np.ascontiguousarray(rows[:, start : start + np.dtype(stored).itemsize])
                found.append(cells.view(stored)[:, 0].astype(np.float64) * scale + zero)
        return found

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return (type(self).__name__, *asdict(self).values())


@dataclass(frozen=True)
class Hdu:
    """One header-data unit: its name in capitals, header, data offset in bytes, numpy shape."""

    name: str
    header: fits.Header
    offset: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class FitsFile:
    """All headers of a FITS file, and its arrays on demand."""

    source: Source
    hdus: tuple[Hdu, ...]

    @property
    def path(self) -> str:
        """Absolute path."""
        return self.source.path

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
            self.source, hdu.offset, _STORED[header["BITPIX"]], hdu.shape, np.dtype(dtype),
            float(header.get("BSCALE", 1.0)), float(header.get("BZERO", 0.0)), blank,
        )  # fmt: skip

    def dask(
        self, name: str, chunks: tuple[Any, ...], *, dtype: DTypeLike = np.float32
    ) -> da.Array:
        """Dask array of one image HDU; nothing is read."""
        array = self.array(name, dtype=dtype)
        token = f"read-{name.lower()}-{tokenize(array, chunks)}"
        meta = np.empty((0,) * array.ndim, dtype=array.dtype)
        lazy: da.Array = da.from_array(
            array, chunks=chunks, name=token, meta=meta, inline_array=True
        )
        return lazy

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
            self.source, hdu.offset, int(hdu.header["NAXIS1"]), int(hdu.header["NAXIS2"]),
            tuple((column, *fields[column]) for column in columns),
        )  # fmt: skip

    def values(self, name: str) -> NDArray[np.float64]:
        """Pixels of a small image HDU, now, in float64."""
        return self.array(name, dtype=np.float64)[...]


def open_fits(path: str | os.PathLike[str]) -> FitsFile:
    """Read the headers of all HDUs of a FITS file, ``.gz`` or not (told by content).

    Raises
    ------
    InputError
        If the file is not there, not FITS, or truncated.
    """
    source = Source.of(path)
    with source.open() as stream:
        if stream.read(9) != b"SIMPLE  =":
            raise InputError(
                str(path), expected="a FITS file",
                found="something else (it does not begin with SIMPLE)", remedy="check the path",
            )  # fmt: skip
        end = stream.seek(0, 2)
        stream.seek(0)
        try:
            hdus = _scan(stream)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _truncated(path, str(error)) from error
    for hdu in hdus:
        axes = _axes(hdu.header)
        size = abs(hdu.header["BITPIX"]) // 8 * int(np.prod(axes))
        if axes and hdu.offset + size > end:
            raise _truncated(path, f"{hdu.name} ends beyond the file's {end} bytes")
    return FitsFile(source, hdus)


def headers(path: str | os.PathLike[str]) -> Mapping[str, fits.Header]:
    """Headers of a FITS file by HDU name in capitals."""
    return open_fits(path).headers


def _scan(stream: Any) -> tuple[Hdu, ...]:
    found = []
    with warnings.catch_warnings():
        # archive headers break the standard in small ways that do not touch the pixels;
        # truncation, which astropy also only warns of, is checked against the file's size
        warnings.simplefilter("ignore")
        with fits.open(stream, disable_image_compression=True, lazy_load_hdus=False) as file:
            for i, hdu in enumerate(file):
                name = str(hdu.header.get("EXTNAME", "PRIMARY" if i == 0 else f"HDU{i}"))
                shape = tuple(reversed(_axes(hdu.header))) if hdu.is_image else ()
                offset = int(hdu.fileinfo()["datLoc"])
                found.append(Hdu(name.strip().upper(), hdu.header.copy(), offset, shape))
    return tuple(found)


def _axes(header: fits.Header) -> list[int]:
    return [int(header[f"NAXIS{k}"]) for k in range(1, int(header["NAXIS"]) + 1)]


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


def _truncated(path: str | os.PathLike[str], why: str) -> InputError:
    return InputError(
        str(path), expected="a whole FITS file", found=f"a truncated or damaged one ({why})",
        remedy="download or copy it again",
    )  # fmt: skip


def plane_chunks(shape: tuple[int, ...], chunks: Chunks = "auto") -> tuple[Any, ...]:
    """Dask chunks of a cube ``(n_wave, n_y, n_x)``: whole planes, split in wave.

    Parameters
    ----------
    shape
        Shape of the cube.
    chunks
        'auto': about eight chunks, none above 64 MB of float32; an int: channels per chunk; or a
        dict of 'wave', 'y', 'x' (what is missing is not split, -1 neither).

    Raises
    ------
    InputError
        For anything else.
    """
    if chunks == "auto":
        room = int(_CHUNK_BYTES // (4 * shape[1] * shape[2]))
        wave = max(1, min(room, -(-shape[0] // _CHUNK_COUNT)))
        return (wave, *shape[1:])
    if isinstance(chunks, int) and (chunks > 0 or chunks == -1):
        return (shape[0] if chunks == -1 else min(chunks, shape[0]), *shape[1:])
    if isinstance(chunks, dict) and set(chunks) <= {"wave", "y", "x"}:
        given = tuple(chunks.get(dim, -1) for dim in ("wave", "y", "x"))
        return tuple(normalize_chunks(given, shape=shape))
    raise InputError(
        "chunks", expected="'auto', a number of channels, or a dict of wave, y and x",
        found=repr(chunks), remedy="leave the option out if in doubt",
    )  # fmt: skip
