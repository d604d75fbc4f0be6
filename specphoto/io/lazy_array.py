"""Arrays that are numbers only where they are sliced.

Everything between the bytes of a file and a dataset is one of these: what a slice of the dataset
costs is then what the slice of the file costs, whatever chunks Dask has over it, because Dask
hands a slice down to the array that it was made of, and no further.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import dask.array as da
import numpy as np
from dask.base import tokenize

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import DTypeLike, NDArray

__all__ = ["Counted", "Elementwise", "LazyArray", "as_dask", "elementwise"]

# values that are counted at a time: 16 MB of what a mask is stored in
_COUNTED = 1 << 22


class LazyArray(Protocol):
    """An array that is read when it is sliced, in any process: small, and can be pickled."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As numpy has it."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of what a slice gives."""

    def __getitem__(self, key: Any, /) -> NDArray[Any]: ...


@dataclass(frozen=True)
class Elementwise:
    """A function of arrays of one shape, element by element; made by :func:`elementwise`."""

    function: Callable[..., NDArray[Any]]
    sources: tuple[LazyArray, ...]
    dtype: np.dtype[Any]
    options: tuple[tuple[str, Any], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the sources."""
        return self.sources[0].shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        return self.function(*(source[key] for source in self.sources), **dict(self.options))

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return (type(self).__name__, self.function, self.sources, str(self.dtype), self.options)


def elementwise(
    function: Callable[..., NDArray[Any]], *arrays: LazyArray, dtype: DTypeLike, **options: Any
) -> Elementwise:
    """Apply a numpy function to arrays of one shape, where they are sliced.

    Parameters
    ----------
    function
        Of as many arrays, and of `options`; a function of a module, that processes can share.
    *arrays
        Of one shape.
    dtype
        Of what the function returns.
    """
    return Elementwise(function, arrays, np.dtype(dtype), tuple(options.items()))


@dataclass(frozen=True)
class Counted:
    """Map ``(n_y, n_x)``: where at least this share of a bool cube ``(n, n_y, n_x)`` is True."""

    source: LazyArray
    share: float

    @property
    def shape(self) -> tuple[int, ...]:
        """That of a plane of the source."""
        return self.source.shape[1:]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Always bool."""
        return np.dtype(bool)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        key = key if isinstance(key, tuple) else (key,)
        length = self.source.shape[0]
        step = max(1, _COUNTED // max(1, int(np.prod(self.shape))))
        parts = (slice(start, start + step) for start in range(0, length, step))
        count = sum(np.count_nonzero(self.source[(part, *key)], axis=0) for part in parts)
        return np.asarray(count >= self.share * length)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return (type(self).__name__, self.source, self.share)


def as_dask(array: LazyArray, chunks: tuple[Any, ...], name: str) -> da.Array:
    """Dask array of a lazy one; nothing is read.

    Parameters
    ----------
    array
        What to read from.
    chunks
        Along each axis.
    name
        Of its tasks, as the dashboard shows it.
    """
    meta = np.empty((0,) * len(array.shape), dtype=array.dtype)
    # Dask takes words of letters alone for a name
    token = f"read-{name.lower().replace('_', '-')}-{tokenize(array, chunks)}"
    lazy: da.Array = da.from_array(array, chunks=chunks, name=token, meta=meta, inline_array=True)
    return lazy
