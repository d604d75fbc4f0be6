"""What the run of a sample says of each of its galaxies: its own table, beside the products."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["run_columns", "run_rows"]


def run_rows(folder: Path) -> dict[str, dict[str, Any]]:
    """Rows of ``summary.parquet``, or else of ``summary.csv``, by the stem of their products.

    Parameters
    ----------
    folder
        Holds the products. The column ``name`` is taken for the stem; values that are unknown
        are left out, and without a table there are no rows.
    """
    from pyarrow import csv, parquet

    for table, read in (("summary.parquet", parquet.read_table), ("summary.csv", csv.read_csv)):
        if (folder / table).is_file():
            rows = read(folder / table).to_pylist()
            return {str(row["name"]): _known(row) for row in rows if row.get("name")}
    return {}


def _known(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if value is not None and value != ""}


def run_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row under names of its own, for the table of the sample: ``run_seconds``, ..."""
    return {f"run_{key}": value for key, value in row.items() if key != "name"}
