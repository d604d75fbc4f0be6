"""Where samples come from: folders, patterns, results of runs, stores, tables."""

from __future__ import annotations

import glob
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any

import pandas as pd

from specphoto.errors import InputError
from specphoto.explore.columns import named, table_of
from specphoto.explore.sample import GalaxySample
from specphoto.explore.store import is_store, read_store
from specphoto.explore.tables import read_table
from specphoto.io.address import is_remote
from specphoto.io.outline import outline
from specphoto.io.registry import readers

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from specphoto.io.registry import Reader

__all__ = ["find_files", "open_sample", "outline_rows"]

_TABLES = (".csv", ".fits", ".parquet")
_ENDINGS = (".fits", ".fits.gz", ".fit", ".fit.gz", ".zarr")
_SUMMARY = "summary.parquet"
_READING = 8


def open_sample(source: str | os.PathLike[str], *, files: str | None = None) -> GalaxySample:
    """Open many galaxies as one table; of the files only headers are read.

    Parameters
    ----------
    source
        A folder of cubes, of photometric cubes or of products; the results of
        :func:`specphoto.run_sample`; a pattern (``"sky/manga-*-LOGCUBE.fits.gz"``); a store of
        :func:`specphoto.ingest`, here or at an address (``"s3://bucket/sky.zarr"``); or a table
        of galaxies (CSV, FITS or Parquet) with a column ``path`` or ``cube``, relative to the
        table's folder.
    files
        For a table without such a column, where the files are, with columns of the table in
        braces: ``"sky/manga-{plateifu}-LOGCUBE.fits.gz"``, relative to the table's folder.

    Returns
    -------
    GalaxySample
        A file that cannot be used is a row with an ``error``, and so is a row of a table
        without a file.

    Raises
    ------
    InputError
        If there is nothing there, or two galaxies have one name.
    """
    path = Path(source).expanduser()
    if is_remote(source) or path.is_dir():
        rows = read_store(source) if is_store(source) else _of_folder(source)
    elif path.is_file():
        rows = _of_table(path, files)
    else:
        rows = outline_rows(find_files(path))
    return GalaxySample(table_of(rows))


def _of_folder(source: str | os.PathLike[str]) -> list[dict[str, Any]]:
    if is_remote(source):
        raise InputError(
            str(source), expected="a store (specphoto ingest)", found="none",
            remedy="check the address",
        )  # fmt: skip
    folder = Path(source).expanduser()
    return _of_results(folder) if (folder / _SUMMARY).exists() else outline_rows(find_files(folder))


def find_files(source: str | os.PathLike[str]) -> list[Path]:
    """Files of a folder, that fit a pattern, or the one that is named.

    Raises
    ------
    InputError
        If there are none.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return [path]
    return _in_folder(path) if path.is_dir() else _of_pattern(str(path))


def _in_folder(folder: Path) -> list[Path]:
    found = _readable(folder)
    if not found:
        raise InputError(
            str(folder), expected=f"files ending in {', '.join(_ENDINGS)}", found="none",
            remedy="give the folder that the files are in",
        )  # fmt: skip
    return found


def _readable(folder: Path) -> list[Path]:
    """Files of a folder that end as ours do; of a product in both formats the one in Zarr."""
    found = [
        p for p in sorted(folder.iterdir())
        if p.name.endswith(_ENDINGS) and not p.name.startswith(".")
    ]  # fmt: skip
    stores = {_stem(p) for p in found if p.suffix == ".zarr"}
    return [p for p in found if p.suffix == ".zarr" or _stem(p) not in stores]


def _of_pattern(pattern: str) -> list[Path]:
    found = [Path(p) for p in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207
    if not found:
        raise InputError(
            pattern, expected="a folder, a table, or a pattern that files fit", found="nothing",
            remedy="check the path",
        )  # fmt: skip
    return found


def outline_rows(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Row of each file: its name, its outline, its path, and the error where it has one."""
    with ThreadPoolExecutor(_READING) as pool:
        return list(pool.map(partial(_row, known=readers()), paths))


def _row(path: Path, known: Mapping[str, Reader]) -> dict[str, Any]:
    place = str(path.absolute())
    try:
        found = outline(path, known)
    except Exception as error:  # one bad file is a bad row
        return {"name": _stem(path), "path": place, "error": _said(error)}
    return {"name": found.name, **found.row(), "path": place, "error": None}


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"


def _stem(path: Path) -> str:
    name = path.name
    for ending in (".gz", ".fits", ".fit", ".zarr"):
        name = name.removesuffix(ending)
    return name


def _of_results(folder: Path) -> list[dict[str, Any]]:
    """Rows of a sample run: its summary, and the outlines of all products."""
    summary = read_table(folder / _SUMMARY).rename(columns={"redshift": "z"})
    known = readers()
    products = {_stem(path): path for path in _readable(folder)}
    rows = []
    for record in summary.to_dict("records"):
        name = str(record["name"])
        product = products.pop(name, None)
        own = {k: v for k, v in record.items() if k not in ("name", "reason")}
        if record["state"] == "done" and product is not None:
            rows.append({**_row(product, known), **own, "name": name})
            continue
        told = record["state"] != "done" and pd.notna(record.get("reason"))
        why = str(record["reason"]) if told else "its product is not in the folder"
        rows.append({"name": name, **own, "path": None, "error": why})
    # products that no run of the summary made
    return rows + [{**_row(path, known), "name": name} for name, path in products.items()]


def _of_table(path: Path, files: str | None) -> list[dict[str, Any]]:
    table = named(read_table(path))
    column = next((c for c in ("path", "cube") if c in table.columns), None)
    if column is None and files is None:
        raise InputError(
            str(path), expected="a column 'path' (or 'cube') of the galaxies' files",
            found=", ".join(map(str, table.columns)),
            remedy="say where they are: files='manga-{plateifu}-LOGCUBE.fits.gz'",
        )  # fmt: skip
    if files is not None:
        _check_places(files, table, path)
    known = readers()
    home = path.absolute().parent
    records: list[dict[str, Any]] = table.to_dict("records")
    places = [files.format_map(r) if files is not None else r[str(column)] for r in records]
    return [
        _of_record(record, _in(home, place), known, i)
        for i, (record, place) in enumerate(zip(records, places, strict=True), 1)
    ]


def _check_places(files: str, table: pd.DataFrame, path: Path) -> None:
    names = [name for _, name, _, _ in Formatter().parse(files) if name is not None]
    if not names or not set(names) <= set(table.columns):
        raise InputError(
            "files", expected=f"columns of {path.name} in braces, out of "
            + ", ".join(map(str, table.columns)),
            found=repr(files), remedy="such as manga-{plateifu}-LOGCUBE.fits.gz",
        )  # fmt: skip


def _in(home: Path, place: Any) -> Path | None:
    return None if pd.isna(place) or not str(place).strip() else home / str(place).strip()


def _of_record(
    record: Mapping[str, Any], path: Path | None, known: Mapping[str, Reader], number: int
) -> dict[str, Any]:
    """Row of a table, with what its file adds; a row without a file is one with an error."""
    own = {k: v for k, v in record.items() if k not in ("path", "cube", "error") and pd.notna(v)}
    if path is None or not path.exists():
        why = "the table names no file" if path is None else f"no file {path}"
        found = {"name": f"row {number}", "path": None, "error": why}
    else:
        found = _row(path, known)
    name = own.get("name", own.get("plateifu", found["name"]))
    return {**found, **own, "name": str(name)}
