"""The journal of a sample run: one line per event, appended, so that nothing told is lost.

``sample.jsonl`` in the output folder is the only state that a run keeps beside its products. The
last line that tells of a galaxy counts; half a line, left by a full disk or a killed process, is
skipped. ``sample.lock`` is held by the one driver that may write there: the system itself lets
it go when that process ends, however it ends.
"""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specphoto.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["Journal", "Status", "locked", "read_status"]

_JOURNAL, _LOCK = "sample.jsonl", "sample.lock"
# Two seconds for a lock, by looking again.
_TRIES, _PAUSE = 21, 0.1


class Journal:
    """Events of the runs on one folder.

    Parameters
    ----------
    folder
        Output folder of the sample.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / _JOURNAL
        self.tally = Tally()

    def append(self, event: str, **fields: Any) -> None:
        """Add one event; see :meth:`extend`."""
        self.extend([{"event": event, **fields}])

    def extend(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Add events, a line each, on disk before this returns.

        Raises
        ------
        InputError
            If they cannot be written.
        """
        lines = [{"time": time.time(), **event} for event in events]
        for line in lines:
            self.tally.add(line)
        if not lines:
            return
        text = "".join(json.dumps(line) + "\n" for line in lines)
        try:
            # a torn line of an earlier run must not swallow this one
            with self.path.open("ab+") as file:
                if file.tell() and not self._whole(file):
                    text = "\n" + text
                file.write(text.encode())
                file.flush()
                if any(
                    line["event"] != "sent" for line in lines
                ):  # those go down with their driver
                    os.fsync(file.fileno())
        except OSError as error:
            raise InputError(
                str(self.path), expected="a journal that can be written",
                found=(error.strerror or str(error)).lower(),
                remedy="make room, then start again: what is whole is not computed again",
            ) from error  # fmt: skip

    @staticmethod
    def _whole(file: Any) -> bool:
        file.seek(-1, os.SEEK_END)
        return bool(file.read(1) == b"\n")

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield all whole lines, oldest first."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            for line in file:
                try:
                    event = json.loads(line)
                except ValueError:
                    continue
                if isinstance(event, dict) and "event" in event:
                    yield event

    def records(self) -> dict[str, dict[str, Any]]:
        """Return the last record of each galaxy that ended, by name.

        One that was sent again and did not end has none: its product may be the old or the new.
        """
        found = {}
        for event in self.events():
            if event["event"] in ("done", "failed"):
                found[event["name"]] = event
            elif event["event"] == "sent":
                found.pop(event["name"], None)
        return found

    def names(self) -> frozenset[str] | None:
        """Return the galaxies that the last run was asked for; None where it did not tell."""
        starts = [event for event in self.events() if event["event"] == "start"]
        return _names(starts[-1]) if starts else None


def _names(start: Mapping[str, Any]) -> frozenset[str] | None:
    # journals of earlier versions told only how many
    return frozenset(start["names"]) if "names" in start else None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process alone.

    Raises
    ------
    InputError
        If another process holds it, or the file system has no locks.
    """
    try:
        fcntl = import_module("fcntl")
    except ImportError:  # Windows: no second driver is kept out there
        yield
        return
    with (folder / _LOCK).open("ab+", buffering=0) as file:
        try:
            _take(fcntl, file)
        except BlockingIOError:
            file.seek(0)
            raise InputError(
                str(folder), expected="a folder that no other run works on",
                found=f"one ({file.read().decode().strip() or 'just started'})",
                remedy="wait until it ends, or stop it",
            ) from None  # fmt: skip
        except OSError as error:
            raise InputError(
                str(folder), expected="a file system with locks", found=str(error),
                remedy="write to another file system",
            ) from error  # fmt: skip
        with suppress(OSError):  # who holds it is only told where the disk has room
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield


def _take(fcntl: Any, file: Any) -> None:
    """Lock a file for this process alone; who only asks for the status has it for a moment."""
    for _ in range(_TRIES - 1):
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_PAUSE)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@dataclass(frozen=True)
class Status:
    """How far a sample is.

    Parameters
    ----------
    total, done, failed, running
        Galaxies.
    rate
        Galaxies that ended per second, over the last run; NaN before the first.
    active
        Whether a driver is at work.
    failures
        Name and reason of those that failed.
    """

    total: int
    done: int
    failed: int
    running: int
    rate: float
    active: bool
    failures: dict[str, str]

    @property
    def left(self) -> int:
        """Galaxies that have not ended."""
        return max(0, self.total - self.done - self.failed)

    @property
    def seconds_left(self) -> float:
        """Time left at this rate; NaN where nothing ended yet."""
        return self.left / self.rate if self.rate > 0 else float("nan")


class Tally:
    """Counts of the events of a journal, kept up to date line by line.

    Galaxies count that the last run was asked for: others are no longer of the sample, though
    what is told of them may be of use to a later run.
    """

    def __init__(self) -> None:
        self._last: dict[str, str] = {}
        self._failures: dict[str, str] = {}
        self._sent: set[str] = set()
        self._names: frozenset[str] | None = None
        self._total = self._ended = 0
        self._start = self._latest = float("nan")

    def add(self, event: dict[str, Any]) -> None:
        """Count one more event."""
        kind = event["event"]
        if kind == "start":
            # what was on its way in an earlier run is so no more
            self._sent.clear()
            self._names = _names(event)
            self._total, self._ended, self._start = event["total"], 0, event["time"]
            self._latest = float("nan")
        elif kind == "sent":
            self._sent.add(event["name"])
            self._last.pop(event["name"], None)
            self._failures.pop(event["name"], None)
        elif kind in ("done", "failed"):
            self._end(event)

    def _end(self, event: dict[str, Any]) -> None:
        name = event["name"]
        self._sent.discard(name)
        self._last[name] = event["event"]
        self._failures.pop(name, None)
        if event["event"] == "failed":
            self._failures[name] = event.get("reason", "")
        self._ended, self._latest = self._ended + 1, event["time"]

    def status(self, *, active: bool) -> Status:
        """Return the counts as they are."""
        took = self._latest - self._start
        ended = [n for n in self._last if self._names is None or n in self._names]
        failures = {n: self._failures[n] for n in ended if n in self._failures}
        return Status(
            self._total, len(ended) - len(failures), len(failures),
            len(self._sent) if active else 0, self._ended / took if took > 0 else float("nan"),
            active, failures,
        )  # fmt: skip


def read_status(folder: str | os.PathLike[str]) -> Status:
    """Read how far the sample in a folder is.

    Raises
    ------
    InputError
        If no sample was ever run there.
    """
    journal = Journal(Path(folder))
    for event in journal.events():
        journal.tally.add(event)
    status = journal.tally.status(active=_held(Path(folder)))
    if not status.total:
        raise InputError(
            str(folder), expected="the output folder of a sample run", found="no sample.jsonl",
            remedy="give the folder that the sample file calls output",
        )  # fmt: skip
    return status


def _held(folder: Path) -> bool:
    """Whether a driver has the folder; a shared lock for a moment tells."""
    try:
        fcntl = import_module("fcntl")
        with (folder / _LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return False
    return False
