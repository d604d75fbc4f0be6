"""Tables of galaxies from files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from specphoto.sample.targets import table_rows

if TYPE_CHECKING:
    import os

__all__ = ["read_table"]


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a table: CSV, FITS (the first table of the file, columns of one value) or Parquet.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    return pd.DataFrame.from_records(table_rows(Path(path).expanduser()))
