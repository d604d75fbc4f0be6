"""One BLAS thread inside a task.

Dask's parallelism comes from chunks, and a product summed by one thread gives the same bits
under every scheduler. The limit is global to the process, so tasks that run side by side in
threads share it: the first one in sets it, the last one out lifts it.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import threadpoolctl
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["single_thread"]

_lock = threading.Lock()
_inside = 0
_limits: threadpool_limits | None = None


@contextmanager
def single_thread() -> Iterator[None]:
    """Hold BLAS at one thread while inside; safe to enter from many threads at once."""
    global _inside, _limits  # the limit itself is process-wide
    with _lock:
        if _inside == 0:
            _take_control()
            _limits = threadpool_limits(limits=1, user_api="blas")
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0 and _limits is not None:
                _take_control()
                _limits.restore_original_limits()
                _limits = None
                _take_control()


def _take_control() -> None:
    """Let this thread set the limit.

    Recent versions of threadpoolctl obey only the first thread that ever set one and ignore all
    others in silence; the tasks here come and go in many threads, and the lock keeps them in order.
    """
    openblas = getattr(threadpoolctl, "OpenBLASController", None)
    if openblas is not None and hasattr(openblas, "clear_controlling_thread"):
        openblas.clear_controlling_thread(force=True)
