"""Input files as bytes on a local disk; gzipped ones decompressed once, into a bounded cache.

A gzip stream cannot be read in pieces. The first reader on a machine writes its content into the
cache folder (aside, then renamed, so that no reader meets half a file); everybody else on that
machine maps that copy. The folder is the environment variable ``SPECPHOTO_CACHE``, or a private
one under the system's temporary folder. Copies beyond ``SPECPHOTO_CACHE_GB`` (default 20, and
never more than half the disk) are removed, least recently used first. A copy that is being read
is safe: its reader holds it open, so that removal takes the name and not the data. A copy that is
needed again is written again.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import shutil
import stat
import tempfile
import time
import zlib
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from isal import igzip, igzip_lib

from specphoto.errors import InputError

fcntl: ModuleType | None
try:
    fcntl = import_module("fcntl")
except ImportError:  # Windows has none; there two writers may repeat each other's work
    fcntl = None

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

__all__ = ["DAMAGE", "GZIP_MAGIC", "Source", "cache_folder", "evict"]

GZIP_MAGIC = b"\x1f\x8b"
_BLOCK = 1 << 22
# isal's stub declares its error to be an instance
_ISAL_ERROR: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]
DAMAGE = (EOFError, gzip.BadGzipFile, _ISAL_ERROR, zlib.error)
_ABANDONED = 86400.0
# decompressed cubes, and the model photometry of :mod:`specphoto.io.model_cache`
_ENTRIES = ("*.fits", "models-*.npz")


@dataclass(frozen=True)
class Source:
    """A file as it was when it was opened: small, picklable, and checked at every later use."""

    path: str
    size: int
    mtime_ns: int
    gzipped: bool

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> Source:
        """Describe a file.

        Raises
        ------
        InputError
            If there is no such file, or it cannot be read.
        """
        full = Path(path).expanduser().absolute()
        try:
            with full.open("rb") as stream:
                magic = stream.read(2)
                state = os.fstat(stream.fileno())
        except OSError as error:
            raise InputError(
                str(path), expected="a file that can be read",
                found=(error.strerror or str(error)).lower(), remedy="check the path",
            ) from error  # fmt: skip
        return cls(str(full), state.st_size, state.st_mtime_ns, magic == GZIP_MAGIC)

    @property
    def key(self) -> str:
        """Name of the decompressed copy: another path, size or time is another file."""
        text = f"{self.path}\0{self.size}\0{self.mtime_ns}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def open(self) -> BinaryIO:
        """Open the (decompressed) content for reading, on whatever machine this is called.

        Raises
        ------
        InputError
            If the file changed since it was described, or its gzip stream is damaged.
        """
        now = Source.of(self.path)
        if now != self:
            raise InputError(
                self.path, expected="the file as it was when it was opened",
                found=f"another ({now.size} bytes where there were {self.size}, or a later time)",
                remedy="open it again",
            )  # fmt: skip
        if not self.gzipped:
            return Path(self.path).open("rb")
        copy = cache_folder() / f"{self.key}.fits"
        try:
            return _opened(copy)
        except FileNotFoundError:
            return _decompress(self.path, copy)

    def forget(self) -> None:
        """Remove the decompressed copy, where there is one: nobody will need it soon."""
        if self.gzipped:
            with contextlib.suppress(OSError):
                (cache_folder() / f"{self.key}.fits").unlink()


def cache_folder() -> Path:
    """Return the folder of decompressed copies, made when missing, readable by its owner only.

    Raises
    ------
    InputError
        If the folder cannot be made, or the default one belongs to somebody else.
    """
    chosen = os.environ.get("SPECPHOTO_CACHE")
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    folder = (
        Path(chosen).expanduser() if chosen else Path(tempfile.gettempdir(), f"specphoto-{user}")
    )
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            str(folder), expected="a cache folder that can be made",
            found=(error.strerror or str(error)).lower(),
            remedy="set SPECPHOTO_CACHE to a folder that you can write to",
        ) from error  # fmt: skip
    if not chosen and hasattr(os, "getuid"):
        # the temporary folder is everybody's: somebody else may have made this name first
        state = folder.lstat()
        if state.st_uid != user or not stat.S_ISDIR(state.st_mode) or state.st_mode & 0o022:
            raise InputError(
                str(folder), expected="a folder that only you can write to",
                found="one that belongs to somebody else or is open to others",
                remedy="set SPECPHOTO_CACHE to a private folder",
            )  # fmt: skip
    return folder


def _opened(copy: Path) -> BinaryIO:
    stream = copy.open("rb")
    with contextlib.suppress(OSError):
        os.utime(copy)  # the mark of use that the eviction goes by
    return stream


def _decompress(path: str, copy: Path) -> BinaryIO:
    with _locked(copy):
        with contextlib.suppress(FileNotFoundError):
            return _opened(copy)  # another thread or process was faster
        partial = Path(tempfile.mkstemp(dir=copy.parent, suffix=".part")[1])
        try:
            _gunzip(path, partial)
            stream = partial.open("rb")
            partial.replace(copy)
        finally:
            partial.unlink(missing_ok=True)
    evict(copy)
    return stream


def _gunzip(path: str, target: Path) -> None:
    try:
        with igzip.open(path, "rb") as packed, target.open("wb") as plain:
            shutil.copyfileobj(packed, plain, _BLOCK)
    except DAMAGE as error:
        raise InputError(
            path, expected="a whole gzip file",
            found=f"a truncated or damaged one ({error})", remedy="download or copy it again",
        ) from error  # fmt: skip
    except OSError as error:
        raise InputError(
            path, expected=f"room for its decompressed copy in {target.parent}",
            found=(error.strerror or str(error)).lower(),
            remedy="free some space, or set SPECPHOTO_CACHE to a folder on a larger disk",
        ) from error  # fmt: skip


@contextlib.contextmanager
def _locked(copy: Path) -> Iterator[None]:
    """One writer per copy, among threads and processes alike."""
    if fcntl is None:
        yield
        return
    lock = copy.with_suffix(".lock")
    with lock.open("wb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def evict(keep: Path) -> None:
    """Hold the folder of a new entry to its limit: the least recently used entries go first.

    Parameters
    ----------
    keep
        The new entry, which stays.
    """
    folder = keep.parent
    limit = min(
        float(os.environ.get("SPECPHOTO_CACHE_GB", "20")) * 1e9,
        0.5 * shutil.disk_usage(folder).total,
    )
    for partial in folder.glob("*.part"):
        with contextlib.suppress(OSError):  # left by a process that was killed
            if time.time() - partial.stat().st_mtime > _ABANDONED:
                partial.unlink()
    copies = []
    for copy in (c for pattern in _ENTRIES for c in folder.glob(pattern)):
        with contextlib.suppress(OSError):
            state = copy.stat()
            copies.append((state.st_mtime_ns, state.st_size, copy))
    total = sum(size for _, size, _ in copies)
    for _, size, copy in sorted(copies, key=lambda item: item[0]):
        if total <= limit:
            break
        if copy != keep:
            with contextlib.suppress(OSError):
                copy.unlink()
                total -= size
