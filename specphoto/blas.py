"""One BLAS thread inside a task.

Dask's parallelism comes from chunks, and a product summed by one thread gives the same bits
under every scheduler. The limit is global to the process, so tasks that run side by side in
threads share it: the first one in sets it, the last one out lifts it.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import threadpoolctl
from threadpoolctl import threadpool_limits

from specphoto.shared import Shared

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["single_thread"]

_shared = Shared()


@contextmanager
def single_thread() -> Iterator[None]:
    """Hold BLAS at one thread while inside; safe to enter from many threads at once."""
    with _shared.held(_limit):
        yield


@contextmanager
def _limit() -> Iterator[None]:
    _take_control()
    limits = threadpool_limits(limits=1, user_api="blas")
    try:
        yield
    finally:
        _take_control()
        limits.restore_original_limits()
        _take_control()


def _take_control() -> None:
    """Let this thread set the limit.

    Recent versions of threadpoolctl obey only the first thread that ever set one and ignore all
    others in silence; the tasks here come and go in many threads, and the lock keeps them in order.
    """
    openblas = getattr(threadpoolctl, "OpenBLASController", None)
    if openblas is not None and hasattr(openblas, "clear_controlling_thread"):
        openblas.clear_controlling_thread(force=True)
