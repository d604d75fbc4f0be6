"""Targets of a sample: rows of a table (CSV, FITS, Parquet), or files that fit a pattern."""

from __future__ import annotations

import logging
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specphoto.errors import InputError
from specphoto.keys import require_kinds, require_known

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["read_rows", "rows_of_pattern", "table_rows"]

logger = logging.getLogger(__name__)

_RENAMED = ("cube", "photometry", "name", "redshift")
# Columns that hold no numbers, whatever they look like: 007 is a name.
_TEXTS = ("cube", "photometry", "name", "library")


def read_rows(
    path: Path, columns: Mapping[str, str], known: Collection[str]
) -> list[dict[str, Any]]:
    """Read a table; each row becomes a dictionary of what it holds, without empty cells.

    Parameters
    ----------
    path
        ``.csv``, ``.fits`` or ``.parquet``.
    columns
        Our name (cube, photometry, name, redshift) to the table's.
    known
        Columns that mean something; others are left out, and named in a note.

    Raises
    ------
    InputError
        If the table cannot be read or lacks a column.
    """
    require_known(columns, _RENAMED, f"{path}: columns")
    require_kinds(columns, dict.fromkeys(_RENAMED, "a text"), f"{path}: columns")
    rows = table_rows(path, [columns.get(ours, ours) for ours in _TEXTS])
    there = set(rows[0]) if rows else set()
    renamed = {theirs: ours for ours, theirs in columns.items()}
    missing = (set(renamed) | ({"cube", "photometry"} - set(columns))) - there
    if rows and missing:
        raise InputError(
            str(path), expected=f"a column {sorted(missing)[0]!r}", found=", ".join(there),
            remedy="rename a column, or name it under [targets.columns]",
        )  # fmt: skip
    unused = {renamed.get(c, c) for c in there} - set(known)
    if unused:
        logger.info("%s: columns not used: %s", path, ", ".join(sorted(unused)))
    return [
        {renamed.get(k, k): v for k, v in row.items() if not _empty(v)
         and renamed.get(k, k) in known}
        for row in rows
    ]  # fmt: skip


def table_rows(path: Path, texts: Collection[str] = ()) -> list[dict[str, Any]]:
    """Rows of a table as they are: ``.csv``, ``.fits`` (the first table) or ``.parquet``.

    Parameters
    ----------
    path
        The table.
    texts
        Columns that are texts; the others of a CSV are what they look like.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    try:
        if path.suffix == ".csv":
            return _csv(path, texts)
        if path.suffix == ".fits":
            return _fits(path)
        if path.suffix == ".parquet":
            return _parquet(path)
    except (OSError, ValueError) as error:
        raise InputError(
            str(path), expected="a table that can be read", found=str(error).splitlines()[0],
            remedy="check the path and the file",
        ) from error  # fmt: skip
    raise InputError(
        str(path), expected="a table ending in .csv, .fits or .parquet",
        found=repr(path.suffix), remedy="convert it to one of them",
    )  # fmt: skip


def _csv(path: Path, texts: Collection[str]) -> list[dict[str, Any]]:
    from pyarrow import csv, string

    options = csv.ConvertOptions(
        strings_can_be_null=True, column_types=dict.fromkeys(texts, string())
    )
    rows: list[dict[str, Any]] = csv.read_csv(path, convert_options=options).to_pylist()
    return rows


def _parquet(path: Path) -> list[dict[str, Any]]:
    from pyarrow import parquet

    rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    return rows


def _fits(path: Path) -> list[dict[str, Any]]:
    from astropy.table import Table

    table = Table.read(path, format="fits", hdu=1)
    table.convert_bytestring_to_unicode()
    names = [n for n in table.colnames if table[n].ndim == 1]
    lists = [table[n].tolist() for n in names]
    return [dict(zip(names, values, strict=True)) for values in zip(*lists, strict=True)]


def _empty(value: Any) -> bool:
    return (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or (isinstance(value, str) and not value.strip())
    )


def rows_of_pattern(cube: str, photometry: str, home: Path) -> list[dict[str, Any]]:
    """Pair files whose names differ in one part, written ``{id}`` in both patterns.

    Parameters
    ----------
    cube, photometry
        Paths with ``{id}`` once in the last part of each; other ``*`` and ``?`` are not special.
    home
        Folder that they are relative to.

    Raises
    ------
    InputError
        If a pattern has no ``{id}`` or no cube fits.
    """
    for what, pattern in (("cube", cube), ("photometry", photometry)):
        if Path(pattern).name.count("{id}") != 1:
            raise InputError(
                f"pattern {what}", expected="{id} once, in the file's name", found=repr(pattern),
                remedy="such as manga-{id}-LOGCUBE.fits.gz",
            )  # fmt: skip
    name = Path(cube).name
    head, tail = name.split("{id}")
    form = re.compile(re.escape(head) + "(.+)" + re.escape(tail))
    folder = (home / cube).parent
    found = [form.fullmatch(p.name) for p in sorted(folder.iterdir())] if folder.is_dir() else []
    ids = [match[1] for match in found if match]
    if not ids:
        raise InputError(
            "pattern cube", expected=f"files named {name} in {folder}", found="none",
            remedy="correct the pattern",
        )  # fmt: skip
    return [
        {"name": i, "cube": cube.replace("{id}", i), "photometry": photometry.replace("{id}", i)}
        for i in ids
    ]
