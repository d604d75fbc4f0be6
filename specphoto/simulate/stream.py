"""FITS files written HDU by HDU and block by block, plain or gzipped, whole or not at all."""

from __future__ import annotations

import os
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from astropy.io import fits
from isal import igzip

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

__all__ = ["FitsStream", "open_stream"]

_BLOCK = 2880
_BITPIX = {"f4": -32, "f8": -64, "i4": 32, "i2": 16, "u1": 8}


class FitsStream:
    """Appends HDUs to an open binary file.

    A cube goes to disk plane by plane and is never held whole; a gzipped file needs no plain
    one beside it.
    """

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        self._first = True

    def header_only(self, header: fits.Header) -> None:
        """Write a primary HDU without data."""
        self._header(header, None, (), "u1")

    def image(
        self,
        name: str | None,
        blocks: NDArray[Any] | Iterable[NDArray[Any]],
        *,
        shape: tuple[int, ...],
        dtype: str,
        header: fits.Header | None = None,
    ) -> None:
        """Write an image HDU of `shape` (FITS order reversed) from blocks in C order.

        Parameters
        ----------
        name
            EXTNAME; None for none.
        blocks
            An array, or arrays that follow each other along the first axis.
        shape, dtype
            Of the whole; dtype one of f4, f8, i4, i2, u1.
        header
            Further cards.
        """
        self._header(header or fits.Header(), name, shape, dtype)
        written = 0
        for block in [blocks] if isinstance(blocks, np.ndarray) else blocks:
            data = np.ascontiguousarray(block, dtype=f">{dtype}")
            self._handle.write(data.tobytes())
            written += data.nbytes
        if written != int(np.prod(shape)) * int(dtype[1]):
            msg = f"{name}: blocks of {written} bytes do not make shape {shape} of {dtype}"
            raise ValueError(msg)
        self._handle.write(b"\0" * (-written % _BLOCK))

    def table(self, hdu: fits.BinTableHDU) -> None:
        """Write a small binary table."""
        buffer = BytesIO()
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(buffer)
        # the table alone: an empty primary HDU is one block
        self._handle.write(buffer.getbuffer()[_BLOCK:])

    def _header(
        self, header: fits.Header, name: str | None, shape: tuple[int, ...], dtype: str
    ) -> None:
        cards: list[tuple[str, Any, str]] = [
            ("SIMPLE", True, "conforms to FITS standard")
            if self._first
            else ("XTENSION", "IMAGE", "IMAGE extension"),
            ("BITPIX", _BITPIX[dtype], "array data type"),
            ("NAXIS", len(shape), "number of array dimensions"),
        ]
        cards += [(f"NAXIS{i + 1}", n, "") for i, n in enumerate(reversed(shape))]
        if self._first:
            cards.append(("EXTEND", True, ""))
        else:
            cards += [("PCOUNT", 0, "number of parameters"), ("GCOUNT", 1, "number of groups")]
        out = fits.Header(cards)
        out.extend(header, strip=False, update=True)
        if name is not None:
            out["EXTNAME"] = (name, "extension name")
        self._handle.write(out.tostring().encode("ascii"))
        self._first = False


@contextmanager
def open_stream(path: Path) -> Iterator[FitsStream]:
    """Open `path` (``.fits`` or ``.fits.gz``) for writing; it appears when all is written."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if path.suffix == ".gz":
            with igzip.open(aside, "wb", compresslevel=1) as handle:
                yield FitsStream(cast("BinaryIO", handle))
        else:
            with aside.open("wb") as handle:
                yield FitsStream(handle)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
