"""Tasks sent to workers, a bounded number at a time; each ends by itself, however it ends."""

from __future__ import annotations

import queue
import time
import uuid
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from distributed import KilledWorker

from specphoto.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from distributed import Client, Future

__all__ = ["Task", "gone", "hoped_for", "outcomes", "reason", "send_all", "take_ended"]

_PERIOD = 1.0
_MOST_HOPED = 10_000


@dataclass(frozen=True)
class Task:
    """One thing to do: its name, the function that a worker calls, and its arguments."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


T = TypeVar("T", bound=Task)


def send_all(
    client: Client,
    tasks: Iterable[T],
    *,
    group: str,
    per_worker: int = 1,
    sent: Callable[[T], object] | None = None,
    tick: Callable[[], object] | None = None,
) -> Iterator[tuple[T, Any]]:
    """Send tasks to the workers and yield each as it ends, with its result or its exception.

    What a lost scheduler connection cancelled is sent again; what is on the way when the caller
    stops is cancelled.

    Parameters
    ----------
    client
        Of the cluster; workers may come and go.
    tasks
        What to do; names are unique.
    group
        Name that the dashboard groups and colours them by.
    per_worker
        Tasks on the way for each worker.
    sent
        Called with each task that is sent.
    tick
        Called about once a second.

    Raises
    ------
    InputError
        If the scheduler goes away.
    """
    # a key that was used before would be answered with what it was before
    run = uuid.uuid4().hex[:8]
    waiting = deque(tasks)
    ended: queue.SimpleQueue[Future] = queue.SimpleQueue()
    flying: dict[Future, T] = {}
    slots, looked = 0, -_PERIOD
    try:
        while waiting or flying:
            if time.monotonic() - looked >= _PERIOD:
                slots, looked = _slots(client, per_worker), time.monotonic()
                if tick is not None:
                    tick()
            while waiting and len(flying) < slots:
                task = waiting.popleft()
                future = _send(client, task, (group, task.name, run))
                flying[future] = task
                if sent is not None:
                    sent(task)
                future.add_done_callback(ended.put)
            for future in take_ended(ended, _PERIOD):
                task = flying.pop(future)
                if future.status in ("finished", "error"):
                    good = future.status == "finished"
                    yield task, future.result() if good else future.exception()
                elif client.status != "running":
                    gone()
                else:
                    waiting.append(task)
    finally:
        if flying and client.status == "running":
            client.cancel(list(flying))


def outcomes(
    tasks: Iterable[T], *, client: Client | None, group: str, per_worker: int = 1
) -> Iterator[tuple[T, Any]]:
    """Yield each task with its result or exception: from the workers, or one by one from here.

    Parameters
    ----------
    tasks, group, per_worker
        As for :func:`send_all`.
    client
        Of the cluster; None does all in this process.
    """
    if client is not None:
        yield from send_all(client, tasks, group=group, per_worker=per_worker)
        return
    for task in tasks:
        try:
            result = task.function(*task.arguments, **task.options)
        except Exception as error:  # one task never stops the rest
            yield task, error
        else:
            yield task, result


def reason(error: BaseException) -> str:
    """Why a task failed, in one line."""
    if isinstance(error, KilledWorker):
        return (
            "its worker died each time that it was tried, perhaps killed for memory: give workers "
            "more (memory, --memory), or longer jobs (walltime)"
        )
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"


def _send(client: Client, task: Task, key: tuple[str, ...]) -> Future:
    # the first part of the key is the name that the dashboard groups and colours by
    return client.submit(task.function, *task.arguments, **task.options, key=key, pure=False)


def _slots(client: Client, per_worker: int) -> int:
    """Tasks to have on the way: for the workers there are; what makes them more if they adapt."""
    if client.status != "running":
        gone()
    return max(per_worker * len(client.scheduler_info(n_workers=-1)["workers"]), hoped_for(client))


def hoped_for(client: Client) -> int:
    """Tasks that must be on the way for a cluster that adapts to grow as far as it may.

    Dask asks for no more workers than tasks can fill the threads of. 0 where none may come.
    """
    adaptive = getattr(client.cluster, "_adaptive", None)
    if adaptive is None or adaptive.minimum >= adaptive.maximum:
        return 0
    # all of them: some versions of Dask tell of five unless asked
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    threads = max((w["nthreads"] for w in workers), default=1)
    return int(min(adaptive.maximum, _MOST_HOPED)) * threads


def take_ended(ended: queue.SimpleQueue[Future], timeout: float) -> Iterator[Future]:
    """Yield what ended, waiting for the first, then without waiting."""
    try:
        yield ended.get(timeout=timeout)
        while True:
            yield ended.get_nowait()
    except queue.Empty:
        return


def gone() -> NoReturn:
    """Say that the scheduler went away."""
    raise InputError(
        "cluster", expected="a scheduler that answers", found="none any more",
        remedy="start the same command again: what is whole is not computed again",
    )  # fmt: skip
