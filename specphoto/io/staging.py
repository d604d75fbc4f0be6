"""Products that are whole or not there: written aside, then renamed.

A product is written under a hidden name in its own folder and gets its name when it is complete,
so that what carries the name can be trusted, and a failed run leaves nothing behind.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from specphoto.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["require_space", "staged", "sweep"]


@contextmanager
def staged(path: str | os.PathLike[str], *, overwrite: bool) -> Iterator[Path]:
    """Give a hidden name beside `path`; rename it to `path` at a clean end, else remove it.

    Parameters
    ----------
    path
        The product, a file or a folder. Its folder must exist.
    overwrite
        Whether a product already there may be replaced. It stays until the new one is whole.

    Raises
    ------
    InputError
        If the product exists and `overwrite` is False, its folder does not exist, or what was
        written was taken away before it was whole.
    """
    final = Path(path)
    if not final.parent.is_dir():
        raise InputError(
            str(final), expected="an existing folder to write into", found=f"no {final.parent}",
            remedy="make the folder or correct the name",
        )  # fmt: skip
    _refuse_existing(final, overwrite)
    aside = final.parent / f".{final.name}.{os.getpid()}-{secrets.token_hex(4)}.part"
    try:
        yield aside
        _refuse_existing(final, overwrite)
        _publish(aside, final)
    except FileNotFoundError as error:
        _remove(aside)
        if error.filename is None or aside.name not in str(error.filename):
            raise
        raise InputError(
            str(final), expected="what is written to stay until it is whole",
            found="it taken away, as by another run that began on the folder",
            remedy="start again when no other run works there",
        ) from error  # fmt: skip
    except BaseException:
        _remove(aside)
        raise


def _refuse_existing(final: Path, overwrite: bool) -> None:
    if final.exists() and not overwrite:
        raise InputError(
            str(final), expected="a name not taken", found="a product already there",
            remedy="say overwrite=True (--overwrite) to replace it, or choose another name",
        )  # fmt: skip


def _publish(aside: Path, final: Path) -> None:
    # folders are Zarr groups: one that was swept, and put back by a block that came later, has
    # lost what it began with
    (aside / "zarr.json" if aside.is_dir() else aside).stat()
    for part in [aside] if aside.is_file() else aside.rglob("*"):
        # a name must not reach the disk before its data do
        if part.is_file():
            with part.open("rb") as file:
                os.fsync(file.fileno())
    if aside.is_file():
        aside.replace(final)
        return
    # a folder cannot be renamed over a full one: the old product steps aside, and comes back
    # if the new one cannot take its place
    if not final.exists():
        aside.rename(final)
        return
    old = aside.with_suffix(".old")
    final.rename(old)
    try:
        aside.rename(final)
    except OSError:
        old.rename(final)
        raise
    _remove(old)


def _remove(path: Path) -> None:
    """Remove a file or folder for good.

    When one task fails, another may be in the middle of a block and put its folder back once
    more; so look again until it stays away.
    """
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    for _ in range(50):
        shutil.rmtree(path, ignore_errors=True)
        time.sleep(0.1)
        if not path.exists():
            return


def sweep(folder: Path) -> None:
    """Remove what killed processes left aside in a folder; what is being published stays whole.

    Who writes holds no lock, so it may still be at it. A folder that is emptied can be renamed
    meanwhile, and then a product has files missing. So each is renamed first: either its product
    has its name by then and is not touched, or it is gone and publishing it fails.
    """
    for path in [*folder.glob(".*.part"), *folder.glob(".*.old")]:
        with suppress(OSError):
            # a name of its own: a block that comes late may put the folder back, to be swept again
            path.rename(path.with_name(f"{path.name}.{secrets.token_hex(4)}.swept"))
    for path in folder.glob(".*.swept"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def require_space(path: Path, size: int, name: str) -> None:
    """Refuse to start on a product of `size` bytes that the disk cannot hold.

    Raises
    ------
    InputError
        With the space needed and the space there.
    """
    free = shutil.disk_usage(path.parent).free
    if free < size:
        raise InputError(
            name, expected=f"{size / 1e9:.2f} GB free in {path.parent}",
            found=f"{free / 1e9:.2f} GB", remedy="free some space or write elsewhere",
        )  # fmt: skip
