"""The data of FITS files as arrays that are read slice by slice, in any process."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from specphoto.io.cache import Source

__all__ = ["FitsArray", "FitsTable", "MappedArray", "Stored"]


class Stored(Protocol):
    """Numbers as they are stored, read slice by slice, in any process."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As numpy has it."""

    @property
    def step(self) -> int:
        """How many places along the first axis are stored together."""

    def __getitem__(self, key: Any, /) -> NDArray[Any]: ...


@dataclass(frozen=True)
class MappedArray:
    """A piece of a file, mapped into memory for as long as a slice of it is read."""

    source: Source
    offset: int
    stored: str
    shape: tuple[int, ...]

    @property
    def step(self) -> int:
        """Every place stands by itself."""
        return 1

    @property
    def size(self) -> int:
        """Bytes; 0 where there are no axes."""
        return int(np.prod(self.shape)) * np.dtype(self.stored).itemsize if self.shape else 0

    def __getitem__(self, key: Any) -> NDArray[Any]:
        if 0 in self.shape:  # nothing can be mapped
            return np.asarray(np.empty(self.shape, self.stored)[key])
        with self.source.open() as stream:
            mapped = np.memmap(
                stream, dtype=self.stored, mode="r", offset=self.offset, shape=self.shape
            )
            return np.asarray(mapped[key])


@dataclass(frozen=True)
class FitsArray:
    """The pixels of one image HDU, read slice by slice.

    ``value = bscale * stored + bzero``; stored integers equal to ``blank`` are NaN. The result
    has the machine's byte order and the dtype asked for.
    """

    raw: Stored
    dtype: np.dtype[Any]
    bscale: float = 1.0
    bzero: float = 0.0
    blank: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """As numpy has it."""
        return self.raw.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of pixels."""
        return int(np.prod(self.shape))

    def __getitem__(self, key: Any) -> NDArray[Any]:
        part = self.raw[key]
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

    raw: Stored
    row_bytes: int
    n_row: int
    fields: tuple[tuple[str, str, int, float, float], ...]

    def columns(self, *names: str) -> list[NDArray[np.float64]]:
        """Columns ``(n_row,)`` by name, all in one go, as float64."""
        known = {field[0]: field[1:] for field in self.fields}
        rows = self.raw[: self.n_row * self.row_bytes].reshape(self.n_row, self.row_bytes)
        found = []
        for stored, start, scale, zero in (known[name] for name in names):
            cells = np.ascontiguousarray(rows[:, start : start + np.dtype(stored).itemsize])
            found.append(cells.view(stored)[:, 0].astype(np.float64) * scale + zero)
        return found

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return (type(self).__name__, *asdict(self).values())
