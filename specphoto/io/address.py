"""Where a store lies: a folder of this machine, or an address that fsspec knows (``s3://...``).

Keys and endpoints are no part of an address. They come from where fsspec and the packages behind
it look for them (``AWS_ENDPOINT_URL``, ``~/.aws``, ``FSSPEC_S3_...``), on every machine that reads
or writes, so that they stand in no graph, table or product.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from specphoto.errors import InputError

if TYPE_CHECKING:
    import os

    from zarr.abc.store import Store

__all__ = ["address_of", "exists", "is_remote", "read_bytes", "remove", "write_bytes", "zarr_store"]


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether it is an address of another machine's, and no path."""
    return "://" in str(path)


def address_of(path: str | os.PathLike[str], *parts: str) -> str:
    """Absolute path or address, with further parts below it."""
    if is_remote(path):
        return "/".join([str(path).rstrip("/"), *parts])
    return str(Path(path).expanduser().absolute().joinpath(*parts))


def read_bytes(address: str) -> bytes | None:
    """Content of a file; None where there is none.

    Raises
    ------
    InputError
        If it is there and cannot be read, or the package that reads such addresses is missing.
    """
    fs, path = _file_system(address)
    try:
        content: bytes = fs.cat_file(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # each kind of address has errors of its own
        raise _cannot(address, "read", error) from error
    return content


def write_bytes(address: str, content: bytes) -> None:
    """Write a file whole; on this machine aside and renamed, elsewhere in one message.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    try:
        if is_remote(address):
            fs, path = _file_system(address)
            fs.pipe_file(path, content)
            return
        final = Path(address)
        aside = final.with_name(f".{final.name}.part")
        aside.write_bytes(content)
        aside.replace(final)
    except Exception as error:  # each kind of address has errors of its own
        raise _cannot(address, "written", error) from error


def exists(address: str) -> bool:
    """Whether there is a file of that name."""
    fs, path = _file_system(address)
    return bool(fs.exists(path))


def remove(address: str) -> None:
    """Remove a folder and all below it, where there is one."""
    fs, path = _file_system(address)
    if fs.exists(path):
        fs.rm(path, recursive=True)


def zarr_store(address: str, *, read_only: bool) -> Store:
    """Zarr's view of a folder or an address."""
    from zarr.storage import FsspecStore, LocalStore

    if not is_remote(address):
        return LocalStore(address, read_only=read_only)
    _file_system(address)  # which says what is missing
    return FsspecStore.from_url(address, read_only=read_only)


def _file_system(address: str) -> tuple[Any, str]:
    import fsspec

    try:
        fs, path = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise InputError(
            address, expected="an address of a kind that fsspec reads", found=str(error),
            remedy="install what reads it, for s3:// with pip install 'specphoto[cloud]'",
        ) from error  # fmt: skip
    return fs, str(path)


def _cannot(address: str, what: str, error: Exception) -> InputError:
    return InputError(
        address, expected=f"a file that can be {what}", found=str(error) or type(error).__name__,
        remedy="check the address, and the keys and the endpoint in the environment",
    )  # fmt: skip
