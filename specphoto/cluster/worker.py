"""How a worker computes a task that is a whole galaxy."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dask
from distributed import get_worker

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["alone"]

_lock = threading.Lock()


@contextmanager
def alone() -> Iterator[None]:
    """Let no other galaxy compute in this process, and give this one all threads of the worker.

    A worker's threads work on one galaxy together: memory is that of one, and what libraries
    keep for a whole process (Dask's settings, tables read once) is not shared by two.
    """
    try:
        threads = get_worker().state.nthreads
    except ValueError:  # no worker: this process has no cluster
        threads = None
    with _lock, dask.config.set(scheduler="threads", num_workers=threads):
        yield
