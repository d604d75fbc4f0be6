"""Galaxies to the workers, a bounded number at a time, and back as records of how each ended."""

from __future__ import annotations

import logging
import queue
import time
import uuid
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dask.utils import format_bytes, parse_bytes
from distributed import KilledWorker

from specphoto.cluster.sending import gone, hoped_for, reason, take_ended
from specphoto.cluster.threads import room

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from distributed import Client, Future

    from specphoto.sample.journal import Journal, Status

__all__ = ["Work", "drive"]

logger = logging.getLogger(__name__)

_PERIOD = 1.0
# A galaxy that was begun so often and never ended will not end.
_MOST_STARTS = 5


@dataclass(frozen=True, eq=False)
class Work:
    """One galaxy to be sent: its name, the function that a worker calls, and its arguments.

    The function tells Dask's event topic ``topic`` the name when it begins.
    """

    name: str
    function: Callable[..., dict[str, Any]]
    arguments: tuple[Any, ...]
    identity: dict[str, Any]
    options: dict[str, Any]


def drive(
    client: Client, work: Sequence[Work], journal: Journal, galaxy_memory: str | float,
    progress: Callable[[Status], None] | None = None,
) -> None:  # fmt: skip
    """Send galaxies to the workers, no more at a time than they hold, and write down their ends.

    A galaxy whose workers died may have been beside the one that killed them. It is tried once
    more when all others have ended, alone.

    Parameters
    ----------
    client
        Of the cluster; workers may come and go.
    work
        The galaxies.
    journal
        Where each is written down as it ends.
    galaxy_memory
        What one needs of a worker's memory; a warning says where there is less.
    progress
        Called with the status about once a second.

    Raises
    ------
    InputError
        If the scheduler goes away, or the journal cannot be written.
    """
    _warn_of_memory(client, galaxy_memory)
    flight = _Flight(client, work, journal, galaxy_memory)
    topic = str(journal.path.parent.absolute())
    client.subscribe_topic(topic, flight.begun)
    try:
        looked = -_PERIOD
        while flight.left:
            if time.monotonic() - looked >= _PERIOD:
                looked = time.monotonic()
                flight.look()
                _show(journal, progress)
            flight.send()
            ended = flight.ended()
            # others take their places before their results are fetched
            flight.send()
            flight.land(ended)
    finally:
        if client.status == "running":
            flight.cancel()
            client.unsubscribe_topic(topic)
    _show(journal, progress)


class _Flight:
    """Galaxies that wait, those on their way, and those that are tried again alone."""

    def __init__(
        self, client: Client, work: Sequence[Work], journal: Journal, galaxy_memory: str | float
    ) -> None:
        self._client, self._journal, self._galaxy_memory = client, journal, galaxy_memory
        self._waiting = deque(work)
        self._flying: dict[Future, Work] = {}
        self._suspects: deque[Work] = deque()
        self._alone: set[str] = set()
        self._ended: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._starts: Counter[str] = Counter()
        self._slots = 0
        # a key that an interrupted run still holds would be answered with what that one computes
        self._run = uuid.uuid4().hex[:8]

    @property
    def left(self) -> bool:
        """Whether a galaxy has not ended."""
        return bool(self._waiting or self._flying or self._suspects)

    def begun(self, event: tuple[float, str]) -> None:
        """Count that a worker began a galaxy; called from a thread of the client."""
        self._starts[event[1]] += 1

    def look(self) -> None:
        """See how many galaxies the workers take, and give up on those that never end."""
        self._slots = _slots(self._client, self._galaxy_memory)
        for future, galaxy in list(self._flying.items()):
            if self._starts[galaxy.name] > (1 if galaxy.name in self._alone else _MOST_STARTS):
                del self._flying[future]
                self._client.cancel([future], force=True, reason="begun too often")
                self._end({galaxy: _FAILED})

    def send(self) -> None:
        """Fill the workers."""
        free = max(0, self._slots - len(self._flying))
        batch = [self._waiting.popleft() for _ in range(min(free, len(self._waiting)))]
        if free and self._suspects and not batch and not self._flying:
            batch = [self._suspects.popleft()]
            self._alone.add(batch[0].name)
            self._starts[batch[0].name] = 0
        # told before it is so: what it told of a galaxy until now holds no longer
        self._journal.extend({"event": "sent", "name": galaxy.name} for galaxy in batch)
        for galaxy in batch:
            self._submit(galaxy)

    def ended(self) -> dict[Future, Work]:
        """Take what ended, and wait a little where nothing did."""
        ended = [future for future in take_ended(self._ended, _PERIOD) if future in self._flying]
        return {future: self._flying.pop(future) for future in ended}

    def land(self, ended: dict[Future, Work]) -> None:
        """Write down how galaxies ended."""
        finished = [future for future in ended if future.status == "finished"]
        # one message for all of them; None where a result was lost with its worker
        found = self._client.gather(dict(enumerate(finished)), errors="skip")
        records = dict(zip(finished, found.values(), strict=True))
        self._end({ended[future]: record for future, record in records.items() if record})
        for future, galaxy in ended.items():
            if not records.get(future):
                self._lost(future, galaxy)

    def cancel(self) -> None:
        """Call back what is on its way; what a worker is at, it ends."""
        if self._flying:
            self._client.cancel(list(self._flying))

    def _lost(self, future: Future, galaxy: Work) -> None:
        if future.status == "error":
            self._fail(galaxy, future.exception())
        elif self._client.status != "running":
            gone()
        else:
            self._waiting.append(galaxy)

    def _submit(self, galaxy: Work) -> None:
        # the first part of the key is the name that the dashboard groups and colours by
        future = self._client.submit(
            galaxy.function, *galaxy.arguments, **galaxy.options, pure=False,
            key=("galaxy", galaxy.name, self._run),
        )  # fmt: skip
        self._flying[future] = galaxy
        future.add_done_callback(self._ended.put)

    def _fail(self, galaxy: Work, error: BaseException) -> None:
        if not isinstance(error, KilledWorker):
            self._end({galaxy: {"state": "failed", "reason": reason(error)}})
        elif galaxy.name in self._alone:
            self._end({galaxy: _FAILED})
        else:
            self._suspects.append(galaxy)

    def _end(self, records: Mapping[Work, Mapping[str, Any]]) -> None:
        self._journal.extend(
            {"event": record["state"], "name": galaxy.name, "identity": galaxy.identity,
             **{k: v for k, v in record.items() if k != "state"}}
            for galaxy, record in records.items()
        )  # fmt: skip


_FAILED = {
    "state": "failed",
    "reason": "its worker died or left each time that it was tried, perhaps killed for memory: "
    "give workers more (memory, --memory), or longer jobs (walltime)",
}


def _show(journal: Journal, progress: Callable[[Status], None] | None) -> None:
    if progress is not None:
        progress(journal.tally.status(active=True))


def _slots(client: Client, galaxy_memory: str | float) -> int:
    """Galaxies to have on the way: what the workers hold; what makes them more where they adapt."""
    if client.status != "running":
        gone()
    # all of them: some versions of Dask tell of five unless asked
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    held = [room(w["nthreads"], w["memory_limit"], galaxy_memory) for w in workers]
    return max(sum(held), hoped_for(client))


def _warn_of_memory(client: Client, galaxy_memory: str | float) -> None:
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    least = min(filter(None, (w["memory_limit"] for w in workers)), default=0)
    need = parse_bytes(galaxy_memory)
    if 0 < least < need:
        logger.warning(
            "a worker may use %s, a galaxy needs about %s: give workers more (memory, --memory)",
            format_bytes(int(least)), format_bytes(need),
        )  # fmt: skip
