"""Columns of a table of galaxies: types, names that others give them, keys to join by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from specphoto.errors import InputError
from specphoto.io.outline import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["key_column", "named", "nullable", "table_of"]

_INTEGERS = ("n_wave", "n_y", "n_x", "quality")
_NUMBERS = ("ra", "dec", "z")
_TEXTS = ("plateifu", "kind", "survey", "path", "error")
# what surveys call our columns, in lower case
_SYNONYMS = {
    "redshift": "z", "nsa_z": "z", "objra": "ra", "objdec": "dec", "plate_ifu": "plateifu",
    "plate-ifu": "plateifu",
}  # fmt: skip
_PLATE, _IFU = ("plate",), ("ifudsgn", "ifudesign", "ifu")


def table_of(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Table of galaxies, indexed by name: columns of the files first, then all others.

    Parameters
    ----------
    rows
        One mapping a galaxy, with ``name``, ``path`` (None: no file) and ``error`` (None: all is
        well) among the keys.

    Raises
    ------
    InputError
        If two galaxies have one name, or a column of ours holds something else.
    """
    table = pd.DataFrame.from_records(list(rows), index="name")
    table.index = table.index.astype("str")
    last = ["path", "error"]
    others = [c for c in table.columns if c not in (*COLUMNS, *last)]
    table = table.reindex(columns=[*COLUMNS, *others, *last])
    kinds: dict[str, str] = {
        **dict.fromkeys(_INTEGERS, "Int64"), **dict.fromkeys(_NUMBERS, "float64"),
        **dict.fromkeys(_TEXTS, "str"), "critical": "boolean",
    }  # fmt: skip
    for column, kind in kinds.items():
        try:
            table[column] = table[column].astype(kind)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"column {column}", expected=f"values of the kind {kind}", found=str(error),
                remedy="give the table's column another name",
            ) from error  # fmt: skip
    _require_unique(table)
    return table


def _require_unique(table: pd.DataFrame) -> None:
    twice = table.index[table.index.duplicated()]
    if len(twice):
        paths = table.loc[[twice[0]], "path"].fillna("no file")
        raise InputError(
            "sample", expected="a name of its own for each galaxy",
            found=f"{len(paths)} named {twice[0]!r} ({', '.join(paths)})"
            + (f", and {len(set(twice)) - 1} more such names" if len(set(twice)) > 1 else ""),
            remedy="narrow the pattern, or give the table a column 'name'",
        )  # fmt: skip


def named(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with our names for what it has of our columns, in whatever spelling.

    A column ``plateifu`` is made of MaNGA's plate and bundle where they stand apart.
    """
    ours = {*COLUMNS, "name", "path", "error", "cube"}
    renamed: dict[str, str] = {}
    for column in map(str, table.columns):
        lower = column.lower()
        new = lower if lower in ours else _SYNONYMS.get(lower)
        if new is not None and new not in table.columns and new not in renamed.values():
            renamed[column] = new
    table = table.rename(columns=renamed)
    if "plateifu" not in table.columns:
        plate, ifu = (_first(table, names) for names in (_PLATE, _IFU))
        if plate is not None and ifu is not None:
            return table.assign(plateifu=_text(table[plate]) + "-" + _text(table[ifu]))
    return table


def _first(table: pd.DataFrame, names: Iterable[str]) -> str | None:
    lower = {str(column).lower(): str(column) for column in table.columns}
    return next((lower[name] for name in names if name in lower), None)


def _text(column: pd.Series[Any]) -> pd.Series[str]:
    return column.astype("str").str.strip()


def nullable(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with integers and flags that can be unknown without becoming floats."""
    kinds = {"i": "Int64", "u": "UInt64", "b": "boolean"}
    return table.astype(
        {c: kinds[t.kind] for c, t in table.dtypes.items() if getattr(t, "kind", "O") in kinds}
    )


def key_column(table: pd.DataFrame, on: str | None) -> str:
    """Column of a table that says which galaxy a row is of.

    Parameters
    ----------
    table
        From :func:`named`.
    on
        The column, where it has another name than 'name' or 'plateifu'.

    Raises
    ------
    InputError
        If there is none.
    """
    wanted = ("plateifu", "name") if on is None else (on,)
    found = next((name for name in wanted if name in table.columns), None)
    if found is None:
        raise InputError(
            "table", expected=f"a column {' or '.join(wanted)}",
            found=", ".join(map(str, table.columns)),
            remedy="name the column that has the galaxies' names or plate-ifu (on=...)",
        )  # fmt: skip
    return found
