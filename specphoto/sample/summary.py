"""One table of all galaxies of a sample: how each ended, what it took, how well it closes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from specphoto.errors import InputError
from specphoto.io.staging import staged
from specphoto.sample.journal import Journal

if TYPE_CHECKING:
    import os

__all__ = ["write_summary"]

_FIRST = ("name", "state", "reason", "flags", "seconds", "host", "redshift")
_HIDDEN = ("event", "identity")


def write_summary(folder: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write ``summary.parquet`` and ``summary.csv`` from the journal of a sample.

    They have the galaxies that the last run was asked for.

    Parameters
    ----------
    folder
        Output folder of the sample.

    Returns
    -------
    tuple of Path
        The two files.

    Raises
    ------
    InputError
        If they cannot be written.
    """
    import pyarrow as pa
    from pyarrow import csv, parquet

    home = Path(folder)
    journal = Journal(home)
    records, names = journal.records(), journal.names()
    rows = [_row(records[n]) for n in sorted(records) if names is None or n in names]
    keys = list(_FIRST) + sorted({key for row in rows for key in row} - set(_FIRST))
    columns = {key: _column([row.get(key) for row in rows]) for key in keys}
    table = pa.table(columns)
    made = home / "summary.parquet", home / "summary.csv"
    for path, write in zip(made, (parquet.write_table, csv.write_csv), strict=True):
        try:
            with staged(path, overwrite=True) as aside:
                write(table, aside)
        except OSError as error:
            raise InputError(
                str(path), expected="a summary that can be written", found=str(error).lower(),
                remedy="make room, then start again: what is whole is not computed again",
            ) from error  # fmt: skip
    return made


def _row(record: dict[str, Any]) -> dict[str, Any]:
    row = {k.replace(" ", "_"): v for k, v in record.items() if k not in _HIDDEN}
    return {**row, "state": record["event"]}


def _column(values: list[Any]) -> Any:
    """Numbers as float64, unless all of them are integers; all else as text."""
    import pyarrow as pa

    there = [v for v in values if v is not None]
    if there and all(isinstance(v, int) for v in there):
        return pa.array(values, pa.int64())
    if there and all(isinstance(v, int | float) for v in there):
        return pa.array(values, pa.float64())
    return pa.array([None if v is None else str(v) for v in values], pa.string())
