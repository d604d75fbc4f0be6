"""Galaxies beside each other in one worker process: the threads of each, and its times by stage.

A task that is a whole galaxy computes within its worker, with that worker's threads.

Dask's settings hold for a whole process. So the first galaxy in makes them, the last one out
takes them back, and what belongs to one galaxy alone follows the context of its thread.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

import dask
from dask import threaded
from dask.system import CPU_COUNT
from dask.utils import parse_bytes
from distributed import get_worker

from specphoto.shared import Shared
from specphoto.stages import StageTimes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

__all__ = ["GALAXY_MEMORY", "own_threads", "room"]

# What a galaxy needs of a worker's memory, unless told otherwise.
GALAXY_MEMORY = "3GB"

_times: ContextVar[StageTimes | None] = ContextVar("times", default=None)
_shared = Shared()
_gates: dict[int, threading.BoundedSemaphore] = {}


def room(threads: int, memory: float | None, galaxy_memory: str | float) -> int:
    """Galaxies that a worker takes at a time: one per thread, as far as its memory goes.

    Parameters
    ----------
    threads, memory
        Of the worker; memory in bytes, None or 0 where it is not limited.
    galaxy_memory
        What one needs, in bytes or as '3GB'.

    Examples
    --------
    >>> room(8, 16e9, "3GB"), room(8, 1e9, "3GB"), room(2, None, "3GB")
    (5, 1, 2)
    """
    if not memory:
        return threads
    return max(1, min(threads, int(memory // parse_bytes(galaxy_memory))))


@contextmanager
def own_threads(
    galaxy_memory: str | float = GALAXY_MEMORY, most: int | None = None
) -> Iterator[StageTimes]:
    """Wait for a place among the galaxies of this worker, then compute with a share of its threads.

    Where there is no worker, this process takes one at a time, with all its cores.

    Parameters
    ----------
    galaxy_memory
        What one needs, in bytes or as '3GB'; see :func:`room`.
    most
        Galaxies to take at a time, however many the worker holds.

    Yields
    ------
    StageTimes
        Of what this galaxy computes.
    """
    number, threads = _places(galaxy_memory)
    number = number if most is None else min(number, most)
    # whatever the scheduler sent here, memory is for so many
    with _gates.setdefault(number, threading.BoundedSemaphore(number)):
        times = StageTimes()
        token = _times.set(times)
        try:
            with _shared.held(partial(_settings, max(1, threads // number))):
                yield times
        finally:
            _times.reset(token)


def _places(galaxy_memory: str | float) -> tuple[int, int]:
    """Galaxies that this process holds, and threads that they share."""
    try:
        worker = get_worker()
    except ValueError:  # no cluster
        return 1, CPU_COUNT
    threads = worker.state.nthreads
    return room(threads, worker.memory_manager.memory_limit, galaxy_memory), threads


def _settings(threads: int) -> AbstractContextManager[object]:
    settings: AbstractContextManager[object] = dask.config.set(scheduler=_get, num_workers=threads)
    return settings


def _get(dsk: Any, keys: Any, **options: Any) -> Any:
    """Dask's threaded scheduler, which tells the galaxy that computes what it took."""
    times = _times.get()
    callbacks = None if times is None else [times.callback]
    return threaded.get(dsk, keys, callbacks=callbacks, **options)
