"""Workers on this machine."""

from __future__ import annotations

import os
import socket
import tempfile
from typing import TYPE_CHECKING

import dask
from distributed import Client, LocalCluster, Security

if TYPE_CHECKING:
    from contextlib import ExitStack

__all__ = ["LOOPBACK", "MALLOC", "local", "local_layout"]

LOOPBACK = "127.0.0.1"
_DASHBOARD_PORT = 8787

# How workers get memory from the system (glibc). Dask's nannies have it returned at once, which
# also gives every array above 128 kB pages of its own, faulted in anew each time: that took five
# times the kernel's time, and three times the wall time, of the library's photometry. Arrays up
# to 32 MB (the most that glibc allows) come from the heap instead, which keeps up to 256 MB.
MALLOC = {
    "MALLOC_ARENA_MAX": 1,
    "MALLOC_MMAP_THRESHOLD_": 32 * 2**20,
    "MALLOC_TRIM_THRESHOLD_": 256 * 2**20,
}


def local_layout(
    cores: int, workers: int | None = None, threads: int | None = None
) -> tuple[int, int]:
    """Worker processes and threads of each that keep `cores` cores busy.

    One thread each unless told otherwise: threads of one worker wait for each other's Python, and
    where workers copy blocks to each other instead, a full MaNGA cube on two cores is no slower.
    """
    if threads is None:
        threads = 1 if workers is None else max(1, cores // workers)
    return workers or max(1, cores // threads), threads


def local(
    stack: ExitStack, workers: int | None, threads: int | None, memory_limit: str | float | None,
    *, dashboard: bool,
) -> Client:  # fmt: skip
    """Start workers on the loopback, that speak TLS; they end with the stack."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    n_workers, n_threads = local_layout(cores or 1, workers, threads)
    scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="specphoto-spill-"))
    security = Security.temporary()
    environ = {f"distributed.nanny.pre-spawn-environ.{k}": v for k, v in MALLOC.items()}
    stack.enter_context(dask.config.set(environ))
    cluster = LocalCluster(
        n_workers=n_workers, threads_per_worker=n_threads, processes=True,
        memory_limit="auto" if memory_limit is None else memory_limit, host=LOOPBACK,
        protocol="tls://", security=security, local_directory=scratch,
        dashboard_address=f"{LOOPBACK}:{_dashboard_port() if dashboard else 0}",
    )  # fmt: skip
    return Client(stack.enter_context(cluster), security=security)


def _dashboard_port() -> int:
    """Dask's usual port where it is free, so that tunnels of old still work; else any."""
    with socket.socket() as probe:
        # as the server itself does: a port that was closed a moment ago is free
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, _DASHBOARD_PORT))
        except OSError:
            return 0
    return _DASHBOARD_PORT
