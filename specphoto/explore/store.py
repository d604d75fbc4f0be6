"""A store of a sample: a Zarr folder, or address, of one group a galaxy and one table of them all.

``table.parquet`` has a row of every file that was ever to be ingested. It is written before the
first galaxy is, and again as they end: a galaxy that is not in the store has a row that says why.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import zarr

import specphoto
from specphoto.errors import InputError
from specphoto.explore.columns import table_of
from specphoto.io.address import address_of, is_remote, read_bytes, write_bytes, zarr_store
from specphoto.io.fits_group import describe_group

if TYPE_CHECKING:
    import os

__all__ = ["create_store", "is_store", "read_store", "stored_rows", "write_rows"]

SCHEMA = 1
_KEY = "specphoto_store"
_TABLE = "table.parquet"
_UNKNOWN = "not in the table of the store: ingest its file again"
_HALF = "half-written in the store: ingest its file again"


def is_store(path: str | os.PathLike[str]) -> bool:
    """Whether a folder or an address is a store.

    Raises
    ------
    InputError
        If it is one of a newer schema, or its metadata are damaged.
    """
    address = address_of(path)
    text = read_bytes(address_of(address, "zarr.json"))
    if text is None:
        return False
    try:
        version = json.loads(text).get("attributes", {}).get(_KEY)
    except ValueError as error:
        raise InputError(
            address, expected="a Zarr folder (format 3)", found=f"damaged metadata ({error})",
            remedy="copy it again",
        ) from error  # fmt: skip
    if version is not None and version > SCHEMA:
        raise InputError(
            address, expected=f"a store of schema {SCHEMA} or before", found=f"schema {version}",
            remedy="open it with the version that wrote it, or a later one",
        )  # fmt: skip
    return version is not None


def create_store(address: str) -> None:
    """Make a store where there is none yet.

    Raises
    ------
    InputError
        If something else is there, or the folder cannot be made.
    """
    if is_store(address):
        return
    if read_bytes(address_of(address, "zarr.json")) is not None or _occupied(address):
        raise InputError(
            address, expected="a store, or a name not taken", found="something else",
            remedy="choose another name",
        )  # fmt: skip
    try:
        zarr.create_group(
            zarr_store(address, read_only=False),
            attributes={_KEY: SCHEMA, "version": specphoto.__version__},
        )
    except OSError as error:
        raise InputError(
            address, expected="a folder that can be made",
            found=(error.strerror or str(error)).lower(), remedy="choose another name",
        ) from error  # fmt: skip


def _occupied(address: str) -> bool:
    path = Path(address)
    return not is_remote(address) and path.exists() and (path.is_file() or any(path.iterdir()))


def stored_rows(address: str) -> dict[str, dict[str, Any]]:
    """Rows of the store's table by name; none where it has no table yet."""
    content = read_bytes(address_of(address, _TABLE))
    if content is None:
        return {}
    try:
        table = pd.read_parquet(io.BytesIO(content))
    except (OSError, ValueError) as error:
        raise InputError(
            address_of(address, _TABLE), expected="the table of the store",
            found=f"a damaged one ({error})", remedy="remove it and ingest the files again",
        ) from error  # fmt: skip
    records: list[dict[str, Any]] = (
        table.astype(object).where(table.notna(), None).to_dict("records")
    )
    return {str(record["name"]): record for record in records}


def write_rows(address: str, rows: dict[str, dict[str, Any]]) -> None:
    """Write the store's table, whole."""
    table = table_of([rows[name] for name in sorted(rows)])
    content = io.BytesIO()
    table.reset_index().to_parquet(content, index=False)
    write_bytes(address_of(address, _TABLE), content.getvalue())


def read_store(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Rows of the galaxies of a store; one that is not whole has an ``error``.

    Raises
    ------
    InputError
        If it has no table.
    """
    address = address_of(path)
    rows = stored_rows(address)
    if not rows:
        raise InputError(
            address, expected=f"a store with its {_TABLE}", found="none",
            remedy="ingest files into it (specphoto ingest)",
        )  # fmt: skip
    for name, row in rows.items():
        row["path"] = address_of(address, name) if row["error"] is None else None
    if not is_remote(address):
        _look(Path(address), rows)
    return list(rows.values())


def _look(folder: Path, rows: dict[str, dict[str, Any]]) -> None:
    """Mark rows whose galaxy is not whole, and add what the table does not have."""
    there = {p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")}
    for name, row in rows.items():
        if row["error"] is None and not (folder / name / "zarr.json").is_file():
            row |= {"path": None, "error": _HALF if name in there else "no longer in the store"}
    for name in sorted(there - set(rows)):
        whole = describe_group(folder / name) is not None
        rows[name] = {"name": name, "path": None, "error": _UNKNOWN if whole else _HALF}
