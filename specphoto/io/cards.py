"""Headers of a FITS file read in a millisecond, for tables of thousands of files.

Cards are parsed when they are asked for, and nothing is read beyond what is: the headers before
the first pixels tell most of what a table of galaxies needs, and a gzipped file need not be
decompressed for them.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from astropy.io import fits
from isal import igzip

from specphoto.errors import InputError
from specphoto.io.cache import DAMAGE, GZIP_MAGIC

if TYPE_CHECKING:
    import os

__all__ = ["Cards", "read_cards"]

_BLOCK = 2880
_CARD = 80
_MOST_BLOCKS = 1000


class Cards(Mapping[str, Any]):
    """Values of the cards of one header, by keyword; the first of several counts.

    Parameters
    ----------
    text
        The header as it stands in the file.
    """

    def __init__(self, text: bytes) -> None:
        self._raw: dict[str, bytes] = {}
        for start in range(0, len(text), _CARD):
            card = text[start : start + _CARD]
            self._raw.setdefault(card[:8].decode("latin-1").rstrip(), card)

    def __getitem__(self, keyword: str) -> Any:
        return fits.Card.fromstring(self._raw[keyword]).value

    def __iter__(self) -> Iterator[str]:
        return iter(self._raw)

    def __len__(self) -> int:
        return len(self._raw)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array as numpy has it; empty where there is none."""
        return tuple(int(self[f"NAXIS{k}"]) for k in range(int(self["NAXIS"]), 0, -1))

    @property
    def data_bytes(self) -> int:
        """Length of what follows the header, without the padding."""
        if not self.shape:
            return 0
        groups = int(self.get("GCOUNT", 1))
        items = int(self.get("PCOUNT", 0)) + prod(self.shape)
        return abs(int(self["BITPIX"])) // 8 * groups * items


def read_cards(path: str | os.PathLike[str], *, leading: bool = False) -> dict[str, Cards]:
    """Read the headers of a FITS file by HDU name in capitals, the first also as 'PRIMARY'.

    Parameters
    ----------
    path
        FITS file, gzipped or not.
    leading
        Whether to stop at the first pixels.

    Raises
    ------
    InputError
        If it cannot be read or is no FITS file.
    """
    try:
        with Path(path).open("rb") as file:
            packed = file.read(2) == GZIP_MAGIC
            file.seek(0)
            # gzip reads a few kB ahead, igzip half a megabyte
            unpack: Any = gzip.open if leading else igzip.open
            stream: BinaryIO = unpack(file, "rb") if packed else file
            return _headers(stream, str(path), leading=leading)
    except InputError:
        raise
    except (*DAMAGE, KeyError, ValueError, fits.VerifyError) as error:
        raise InputError(
            str(path), expected="a whole FITS file", found=f"a damaged one ({error})",
            remedy="download or copy it again",
        ) from error  # fmt: skip
    except OSError as error:
        raise InputError(
            str(path), expected="a file that can be read",
            found=(error.strerror or str(error)).lower(), remedy="check the path",
        ) from error  # fmt: skip


def _headers(stream: BinaryIO, path: str, *, leading: bool) -> dict[str, Cards]:
    found: dict[str, Cards] = {}
    number = -1
    while text := _header(stream):
        if not found and not text.startswith(b"SIMPLE  ="):
            raise InputError(
                path, expected="a FITS file",
                found="something else (it does not begin with SIMPLE)", remedy="check the path",
            )  # fmt: skip
        cards = Cards(text)
        number += 1
        if not found:
            found["PRIMARY"] = cards
        name = cards.get("EXTNAME", f"HDU{number}" if number else "PRIMARY")
        found.setdefault(str(name).strip().upper(), cards)
        if cards.data_bytes:
            if leading:
                break
            stream.seek(-(-cards.data_bytes // _BLOCK) * _BLOCK, 1)
    return found


def _header(stream: BinaryIO) -> bytes:
    """Cards of the next header, up to END; empty at the end of the file."""
    text = b""
    for _ in range(_MOST_BLOCKS):
        block = stream.read(_BLOCK)
        text += block
        if b"END     " in block:
            for start in range(len(text) - len(block), len(text), _CARD):
                if text[start : start + 8] == b"END     ":
                    return text[:start]
        if len(block) < _BLOCK:
            break
    return text
