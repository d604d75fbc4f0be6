"""The sample object: a table, and behind each of its rows a galaxy that is opened when asked."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import pandas as pd

from specphoto.errors import InputError
from specphoto.explore.apply import apply, apply_datasets, open_galaxy
from specphoto.explore.columns import key_column, named, nullable
from specphoto.explore.tables import read_table

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    import xarray as xr
    from distributed import Client

__all__ = ["GalaxySample"]


class GalaxySample:
    """Many galaxies to look at; made by :func:`specphoto.open_sample`.

    Parameters
    ----------
    table
        One row a galaxy, indexed by its name; see :attr:`table`.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        self._table = table

    @property
    def table(self) -> pd.DataFrame:
        """One row a galaxy, indexed by its name.

        ``plateifu``; ``ra``, ``dec`` (degrees); ``z``; ``kind`` and ``survey``; the shape
        ``n_wave`` (bands, of photometry), ``n_y``, ``n_x``; ``quality``, the survey's flag, and
        ``critical``, whether it advises against any use; columns of the table that the sample
        was opened from or joined with; ``path``; and ``error``, why a galaxy cannot be opened.
        """
        return self._table.copy()

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[str]:
        return iter(self._table.index.tolist())

    def __contains__(self, name: object) -> bool:
        return name in self._table.index

    def __repr__(self) -> str:
        return f"<GalaxySample of {self._count()}>\n{self._table!r}"

    def _repr_html_(self) -> str:
        return f"<p>GalaxySample of {self._count()}</p>{self._table.to_html(max_rows=10)}"

    def _count(self) -> str:
        bad = int(self._table["error"].notna().sum())
        return f"{len(self)} galaxies" + (f", {bad} of them with an error" if bad else "")

    def __getitem__(self, name: str) -> xr.Dataset:
        """Open one galaxy lazily.

        Raises
        ------
        InputError
            If there is none of the name, or its row has an error.
        """
        if name not in self:
            near = difflib.get_close_matches(str(name), list(self), 3)
            raise InputError(
                "sample", expected="the name of one of its galaxies", found=repr(name),
                remedy=f"did you mean {', '.join(near)}" if near else "look at sample.table",
            )  # fmt: skip
        path, z, error = self._table.loc[name, ["path", "z", "error"]]
        if pd.notna(error):
            raise InputError(
                f"sample, galaxy {name}", expected="a file that can be opened",
                found=str(error).removesuffix("."), remedy="see the column error of sample.table",
            )  # fmt: skip
        return open_galaxy(path, None if pd.isna(z) else float(z))

    def select(self, expression: str) -> GalaxySample:
        """Keep the galaxies that a condition holds for.

        Parameters
        ----------
        expression
            On the columns of the table, as :meth:`pandas.DataFrame.query` has it:
            ``"z < 0.03 and not critical"``. What is unknown fulfils no condition.

        Raises
        ------
        InputError
            If it is no condition on columns of the table.
        """
        # what is unknown (NA) can be in no mask: a flag that was not set advises against nothing
        known = self._table.fillna({"critical": False})
        try:
            kept = known.query(expression)
        except Exception as error:  # pandas and numexpr raise many kinds
            raise InputError(
                f"select {expression!r}", expected="a condition on columns of the table",
                found=f"{type(error).__name__}: {error}",
                remedy=f"use the columns {', '.join(map(str, self._table.columns))}",
            ) from error  # fmt: skip
        return GalaxySample(self._table.loc[kept.index])

    def join(
        self,
        table: pd.DataFrame | str | os.PathLike[str],
        *,
        on: str | None = None,
        suffix: str = "_joined",
    ) -> GalaxySample:
        """Add the columns of another table, such as MaNGA's drpall, dapall or drpcomplete.

        Every galaxy stays; what the table does not know of it is empty, and the column
        ``joined`` says whether it knew it at all.

        Parameters
        ----------
        table
            Table, or a file: CSV, FITS (the first table) or Parquet.
        on
            Its column of the galaxies' plate-ifu or names; by default 'plateifu' in any
            spelling, plate and bundle side by side, or 'name'.
        suffix
            For columns whose names are taken.

        Raises
        ------
        InputError
            If there is no such column, or it has two rows of one galaxy of the sample.
        """
        other = named(table if isinstance(table, pd.DataFrame) else read_table(table))
        column = key_column(other, on)
        other = other.set_index(other[column].astype("str").str.strip()).drop(columns=column)
        keys = self._table["plateifu"].where(
            self._table["plateifu"].notna() & (column != "name"), self._table.index.to_series()
        )
        other = nullable(other[other.index.isin(keys)])
        twice = other.index[other.index.duplicated()]
        if len(twice):
            raise InputError(
                f"join on {column}", expected="one row for each galaxy",
                found=f"{int((other.index == twice[0]).sum())} for {twice[0]}",
                remedy="keep one of them first, such as those of one DAPTYPE",
            )  # fmt: skip
        taken = {c: f"{c}{suffix}" for c in other.columns if c in self._table.columns}
        found = other.rename(columns=taken).reindex(keys)
        found.index = self._table.index
        joined = keys.isin(other.index)
        first = self._table.drop(columns=["path", "error", "joined"], errors="ignore")
        last = self._table[["path", "error"]]
        return GalaxySample(pd.concat([first, found, joined.rename("joined"), last], axis=1))

    def map(
        self,
        function: Callable[[xr.Dataset], Any],
        *,
        client: Client | None = None,
        progress: bool = True,
    ) -> pd.DataFrame:
        """Apply a function to every galaxy and gather what it returns in a table.

        Each galaxy is opened lazily where the function runs, so that memory is that of a
        galaxy or two per worker, and a failure is a row and stops nothing else.

        Parameters
        ----------
        function
            Of a lazy Dataset; returns a number or text (column ``value``) or a mapping of
            columns to numbers and texts. It runs in two threads of a worker that has them.
        client
            Dask client whose workers do it, two galaxies per worker at a time where it has
            threads and memory for both; by default the one that is open
            (:func:`specphoto.cluster.open`), else this process, one by one.
        progress
            Whether to show a bar.

        Returns
        -------
        pandas.DataFrame
            In the order of the sample: the function's columns, and ``error``.
        """
        return apply(self._table, function, client=client, progress=progress)

    def map_datasets(
        self,
        function: Callable[[xr.Dataset], xr.Dataset | xr.DataArray],
        *,
        client: Client | None = None,
        progress: bool = True,
    ) -> xr.DataTree:
        """Apply a function that returns a dataset to every galaxy.

        Parameters
        ----------
        function
            Of a lazy Dataset; what it returns is computed where it runs, and must be small.
        client, progress
            As for :meth:`map`.

        Returns
        -------
        xarray.DataTree
            One node a galaxy, in memory; the attribute ``errors`` has the failures by name.
        """
        return apply_datasets(self._table, function, client=client, progress=progress)
