"""One place that makes a Dask client: this machine, SLURM, or a scheduler that runs already.

A Dask scheduler and its workers run whatever a client sends them, so who can reach their ports
can run programs as you. Those of :func:`connect` speak TLS with a key made for the occasion; on
this machine they and the dashboard listen on the loopback alone.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
from distributed import Client, LocalCluster, Security

from specphoto.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["connect", "local_layout"]

_LOOPBACK = "127.0.0.1"
_DASHBOARD_PORT = 8787
_WAIT = 600.0

# How workers get memory from the system (glibc). Dask's nannies have it returned at once, which
# also gives every array above 128 kB pages of its own, faulted in anew each time: that took five
# times the kernel's time, and three times the wall time, of the library's photometry. Arrays up
# to 32 MB (the most that glibc allows) come from the heap instead, which keeps up to 256 MB.
_MALLOC = {
    "MALLOC_ARENA_MAX": 1,
    "MALLOC_MMAP_THRESHOLD_": 32 * 2**20,
    "MALLOC_TRIM_THRESHOLD_": 256 * 2**20,
}


@contextmanager
def connect(
    kind: str = "local",
    *,
    workers: int | None = None,
    threads_per_worker: int | None = None,
    memory_limit: str | float | None = None,
    dashboard: bool = True,
    **slurm: Any,
) -> Iterator[Client]:
    """Give a Dask client, and make it the one that computes; all is closed at the end.

    Parameters
    ----------
    kind
        'local', 'slurm', or the address of a running scheduler ('tcp://...', 'tls://...').
    workers
        Worker processes, on SLURM jobs; by default as many as the cores ask for, on SLURM 1.
    threads_per_worker
        Threads of each; each computes one task at a time, with one BLAS thread.
    memory_limit
        Of one worker, in bytes or as '4GB'; by default the machine's memory in equal shares.
    dashboard
        Whether to serve the dashboard (``client.dashboard_link``).
    **slurm
        Further options of :class:`dask_jobqueue.SLURMCluster`: queue, walltime, interface, ...

    Raises
    ------
    InputError
        If the kind is unknown, SLURM is not there, or the address does not answer.
    """
    with ExitStack() as stack:
        if "://" in kind:
            client = _running(kind)
        elif kind == "local":
            _no_options(kind, slurm)
            client = _local(stack, workers, threads_per_worker, memory_limit, dashboard=dashboard)
        elif kind == "slurm":
            client = _slurm(
                stack, workers or 1, threads_per_worker or 1, memory_limit or "4GB",
                dashboard=dashboard, options=slurm,
            )  # fmt: skip
        else:
            raise InputError(
                "cluster", expected="'local', 'slurm' or the address of a scheduler (tcp://...)",
                found=repr(kind), remedy="choose one of them",
            )  # fmt: skip
        yield stack.enter_context(client)


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


def _local(
    stack: ExitStack, workers: int | None, threads: int | None, memory_limit: str | float | None,
    *, dashboard: bool,
) -> Client:  # fmt: skip
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    n_workers, n_threads = local_layout(cores or 1, workers, threads)
    scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="specphoto-spill-"))
    security = Security.temporary()
    environ = {f"distributed.nanny.pre-spawn-environ.{k}": v for k, v in _MALLOC.items()}
    stack.enter_context(dask.config.set(environ))
    cluster = LocalCluster(
        n_workers=n_workers, threads_per_worker=n_threads, processes=True,
        memory_limit="auto" if memory_limit is None else memory_limit, host=_LOOPBACK,
        protocol="tls://", security=security, local_directory=scratch,
        dashboard_address=f"{_LOOPBACK}:{_dashboard_port()}" if dashboard else None,
    )  # fmt: skip
    return Client(stack.enter_context(cluster), security=security)


def _dashboard_port() -> int:
    """Dask's usual port where it is free, so that tunnels of old still work; else any."""
    with socket.socket() as probe:
        # as the server itself does: a port that was closed a moment ago is free
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_LOOPBACK, _DASHBOARD_PORT))
        except OSError:
            return 0
    return _DASHBOARD_PORT


def _slurm(
    stack: ExitStack, jobs: int, cores: int, memory: str | float, *, dashboard: bool,
    options: dict[str, Any],
) -> Client:  # fmt: skip
    if shutil.which("sbatch") is None:
        raise InputError(
            "cluster slurm", expected="the command sbatch", found="none on the path",
            remedy="run on a machine that submits to SLURM, or use the cluster 'local'",
        )  # fmt: skip
    from dask_jobqueue import SLURMCluster

    chosen: dict[str, Any] = {
        "cores": cores, "memory": str(memory), "processes": 1, "protocol": "tls://",
        # the certificate travels by this folder, which all nodes must see
        "shared_temp_directory": str(Path.cwd()),
        "security": Security.temporary(),
        "scheduler_options": {"dashboard_address": f"{_LOOPBACK}:0" if dashboard else None},
        "job_script_prologue": [
            f"export DASK_DISTRIBUTED__NANNY__PRE_SPAWN_ENVIRON__{name}={value}"
            for name, value in _MALLOC.items()
        ],
        **options,
    }  # fmt: skip
    cluster = stack.enter_context(SLURMCluster(**chosen))
    cluster.scale(jobs=jobs)
    client = Client(cluster, security=chosen["security"])
    try:
        client.wait_for_workers(1, timeout=_WAIT)
    except TimeoutError as error:
        client.close()
        raise InputError(
            "cluster slurm", expected=f"a worker within {_WAIT:.0f} s", found="none",
            remedy="look at squeue and at the job's log, and check queue and walltime",
        ) from error  # fmt: skip
    return client


def _running(address: str) -> Client:
    try:
        return Client(address, timeout=dask.config.get("distributed.comm.timeouts.connect"))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"cluster {address}", expected="a Dask scheduler that answers",
            found=f"none ({error})", remedy="check the address and that the scheduler runs",
        ) from error  # fmt: skip


def _no_options(kind: str, options: dict[str, Any]) -> None:
    if options:
        raise InputError(
            f"cluster {kind}", expected="options of this kind of cluster",
            found=", ".join(options), remedy="leave them out, or use the cluster 'slurm'",
        )  # fmt: skip
