"""Survey files into a store: one task a file, whole or not at all, and never twice."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specphoto.cluster.sending import Task, outcomes, reason
from specphoto.errors import InputError
from specphoto.explore.apply import open_client
from specphoto.explore.sources import find_files, open_sample, outline_rows
from specphoto.explore.store import create_store, stored_rows, write_rows
from specphoto.io.address import address_of, exists, is_remote
from specphoto.io.cache import Source
from specphoto.io.fits_group import describe_group, write_fits_group
from specphoto.io.fitsfile import open_fits
from specphoto.sample.journal import locked
from specphoto.terminal import bar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from distributed import Client

    from specphoto.explore.sample import GalaxySample

__all__ = ["ingest"]

_PENDING = "not ingested yet: the run ended before it, start it again"
_PERIOD = 5.0


def ingest(
    files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    store: str | os.PathLike[str],
    *,
    client: Client | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> GalaxySample:
    """Copy survey files into a store that is quick to read in any direction.

    Every header and every bit of the data is kept: :func:`specphoto.open_ifs` and the other
    readers open a galaxy of the store as they open the file. What is whole from an earlier run
    is kept; a file that cannot be used is a row with an error, and stops nothing else.

    Parameters
    ----------
    files
        FITS files, folders or patterns.
    store
        Folder (``sky.zarr``), which is made where there is none, or address
        (``s3://bucket/sky.zarr``). On a cluster, one that all workers can reach.
    client
        Dask client whose workers do it, a file per worker at a time; by default the one that is
        open (:func:`specphoto.cluster.open`), else this process, one by one. A worker needs
        about 1 GB.
    overwrite
        Whether galaxies that were ingested from other files are replaced.
    progress
        Whether to show a bar.

    Returns
    -------
    GalaxySample
        The store, opened.

    Raises
    ------
    InputError
        If there are no files, two of them are of one name, the store has one of the name from
        another file, or another run works on it.
    """
    address = address_of(store)
    rows = _rows(files)
    create_store(address)
    with _held(address):
        known = stored_rows(address)
        done = {name for name, row in rows.items() if _is_whole(address, row, known.get(name))}
        if not overwrite:
            _refuse_others(address, rows, known, done)
        pending = [row for name, row in rows.items() if name not in done and row["error"] is None]
        for row in pending:
            row["error"] = _PENDING
        known |= rows
        write_rows(address, known)
        tasks = [
            Task(row["name"], _ingest_file, (row["path"], address, row["name"])) for row in pending
        ]
        try:
            _run(tasks, address, known, client, progress=progress)
        finally:
            write_rows(address, known)
    return open_sample(address)


def _run(
    tasks: list[Task], address: str, rows: dict[str, dict[str, Any]], client: Client | None,
    *, progress: bool,
) -> None:  # fmt: skip
    """Ingest, and write down how each ended, every few seconds and at the end."""
    written = time.monotonic()
    with bar("ingest", len(tasks), shown=progress) as advance:
        for task, result in outcomes(tasks, client=client or open_client(), group="ingest"):
            failed = isinstance(result, BaseException)
            rows[task.name]["error"] = reason(result) if failed else None
            advance()
            if time.monotonic() - written > _PERIOD:
                write_rows(address, rows)
                written = time.monotonic()


def _rows(
    files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
) -> dict[str, dict[str, Any]]:
    """Rows of the files by the name of their galaxy."""
    given = [files] if isinstance(files, str | os.PathLike) else list(files)
    paths = list(dict.fromkeys(path.absolute() for one in given for path in find_files(one)))
    rows: dict[str, dict[str, Any]] = {}
    for path, row in zip(paths, outline_rows(paths), strict=True):
        name = str(row["name"])
        if name in rows:
            raise InputError(
                "files", expected="a name of its own for each galaxy",
                found=f"two named {name!r} ({rows[name]['path']}, {path})",
                remedy="ingest one of them, or the two into stores of their own",
            )  # fmt: skip
        state = path.stat()
        rows[name] = {
            **row, "file": path.name, "bytes": state.st_size, "mtime_ns": state.st_mtime_ns
        }  # fmt: skip
        rows[name]["error"] = row["error"] or _unfit(name, path)
    return rows


def _unfit(name: str, path: Path) -> str | None:
    """Why a file cannot be a group of the store; None where it can."""
    if path.is_dir():
        return f"{path} is a folder: only FITS files are ingested"
    if "/" in name or name.startswith(("__", ".")) or name == "zarr.json":
        return f"the object's name {name!r} is none that a group can have: correct its card OBJECT"
    return None


def _identity(row: dict[str, Any]) -> tuple[Any, ...]:
    return (row.get("file"), row.get("bytes"), row.get("mtime_ns"))


def _is_whole(address: str, row: dict[str, Any], known: dict[str, Any] | None) -> bool:
    """Whether the store has this very file; after a run that was killed, its group tells."""
    if known is None or row["error"] is not None:
        return False
    place = address_of(address, row["name"])
    if known["error"] is None:
        return _identity(known) == _identity(row) and exists(address_of(place, "zarr.json"))
    group = describe_group(place) if known["error"] == _PENDING else None
    return group is not None and tuple(group["identity"]) == _identity(row)


def _refuse_others(
    address: str, rows: dict[str, dict[str, Any]], known: dict[str, dict[str, Any]], done: set[str]
) -> None:
    """Refuse to replace galaxies that came from other files."""
    others = [
        name for name, row in rows.items()
        if name in known and name not in done and row["error"] is None
        and known[name]["error"] is None and _identity(known[name]) != _identity(row)
    ]  # fmt: skip
    if others:
        raise InputError(
            address, expected="galaxies of the same files as before",
            found=f"{len(others)} of others ({others[0]}: {known[others[0]]['file']}, "
            f"now {rows[others[0]]['file']})",
            remedy="say overwrite=True (--overwrite) to replace them, or choose another store",
        )  # fmt: skip


@contextmanager
def _held(address: str) -> Iterator[None]:
    """Hold the store for this run; an address of another machine's has no locks."""
    if is_remote(address):
        yield
        return
    with locked(Path(address)):
        yield


def _ingest_file(path: str, address: str, name: str) -> None:
    source = Source.of(path)
    file = open_fits(path)
    about = {"identity": [file.name, source.size, source.mtime_ns]}
    try:
        # whatever is there is half of a galaxy, or one that may be replaced
        write_fits_group(file, address_of(address, name), about=about, overwrite=True)
    finally:
        source.forget()
