"""What a run is doing and what it did: tasks and seconds by stage, as the scheduler counts them."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dask.utils import key_split

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from distributed import Client

__all__ = ["STAGES", "Stage", "StageTimes", "StageWatch", "stages_of"]

_ARRANGE = "arrange"
STAGES = ("read", _ARRANGE, "spatial", "fit", "correct", "write")
# Dask joins the names of tasks that it fuses: such a task counts as the last stage of them.
_LAST_FIRST = ("write", "correct", "fit", "spatial", "read")
_LEFT = ("waiting", "no-worker", "queued", "processing")


@dataclass(frozen=True)
class Stage:
    """Progress of one stage.

    Parameters
    ----------
    name
        One of :data:`STAGES`.
    done, total
        Tasks.
    seconds
        Time that tasks took, summed over the threads of all workers.
    """

    name: str
    done: int
    total: int
    seconds: float


class StageWatch:
    """Watch a client's scheduler while something computes.

    Parameters
    ----------
    client
        Whose scheduler.
    show
        Called with all stages, about twice a second and at the end, from a thread of its own.
    period
        Seconds between two looks.
    """

    def __init__(
        self,
        client: Client,
        show: Callable[[list[Stage]], None] | None = None,
        *,
        period: float = 0.5,
    ) -> None:
        self._client, self._show, self._period = client, show, period
        self._known: dict[str, int] = {}
        self._before: dict[str, tuple[int, int, float]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)
        self.stages: list[Stage] = []

    def __enter__(self) -> StageWatch:
        self._before = self._client.run_on_scheduler(_counts)
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._stop.set()
        self._thread.join()
        if failure[0] is None:
            self._look()

    def _poll(self) -> None:
        while not self._stop.wait(self._period):
            self._look()

    def _look(self) -> None:
        # the scheduler forgets tasks that nobody needs any more: those were done
        counts = {}
        for name, (left, there, seconds) in self._client.run_on_scheduler(_counts).items():
            left_before, there_before, before = self._before.get(name, (0, 0, 0.0))
            total = max(self._known.get(name, 0), there - there_before)
            self._known[name] = total
            counts[name] = (total - max(0, left - left_before), total, seconds - before)
        self.stages = stages_of(counts)
        if self._show is not None:
            self._show(self.stages)


class StageTimes:
    """Seconds by stage of what a scheduler within this process computes.

    Examples
    --------
    >>> import dask.array as da
    >>> times = StageTimes()
    >>> total = da.ones(4, chunks=2).sum()
    >>> total = total.compute(scheduler="synchronous", callbacks=[times.callback])
    >>> list(times.seconds)
    ['arrange']
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._begun: dict[Any, float] = {}

    @property
    def callback(self) -> tuple[Any, ...]:
        """For the option ``callbacks`` of Dask's schedulers: given so, it sees no other's tasks."""
        return None, None, self._begin, self._end, None

    def _begin(self, key: Any, *_: Any) -> None:
        self._begun[key] = time.perf_counter()

    def _end(self, key: Any, *_: Any) -> None:
        stage = _stage(key_split(key))
        took = time.perf_counter() - self._begun.pop(key)
        self.seconds[stage] = self.seconds.get(stage, 0.0) + took


def _counts(dask_scheduler: Any) -> dict[str, tuple[int, int, float]]:
    """Tasks left, tasks known and seconds so far, by the prefix of the tasks' names."""
    out = {}
    for name, prefix in dask_scheduler.task_prefixes.items():
        states = prefix.states
        left = sum(states.get(state, 0) for state in _LEFT)
        seconds = float(prefix.all_durations.get("compute", 0.0))
        out[name] = (left, sum(states.values()), seconds)
    return out


def stages_of(counts: Mapping[str, tuple[int, int, float]]) -> list[Stage]:
    """Sum counts ``(done, total, seconds)`` by task name up to stages, in the order of the work."""
    sums = dict.fromkeys(STAGES, (0, 0, 0.0))
    for task, (done, total, seconds) in counts.items():
        before = sums[_stage(task)]
        sums[_stage(task)] = (before[0] + done, before[1] + total, before[2] + seconds)
    return [Stage(name, *numbers) for name, numbers in sums.items() if any(numbers)]


def _stage(task: str) -> str:
    """Stage of a task by its name, see :mod:`specphoto.tasks`."""
    words = set(task.split("-"))
    return next((stage for stage in _LAST_FIRST if stage in words), _ARRANGE)
