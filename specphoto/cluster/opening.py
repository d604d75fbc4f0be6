"""One place that makes a Dask client."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import dask
from distributed import Client

from specphoto.cluster import local as here
from specphoto.cluster.site import Site, read_site
from specphoto.cluster.slurm import start
from specphoto.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

__all__ = ["open"]


@contextmanager
def open(  # noqa: A001  read as specphoto.cluster.open
    kind: str | None = None,
    *,
    site: str | PathLike[str] | None = None,
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
        'local', 'slurm', or the address of a running scheduler ('tcp://...', 'tls://...'); by
        default 'slurm' with a site file, else 'local'.
    site
        File that describes a SLURM cluster, see :class:`specphoto.cluster.Site`.
    workers
        Worker processes, on SLURM jobs; by default as many as the cores ask for, on SLURM 1.
    threads_per_worker
        Threads of each; each computes one task at a time, with one BLAS thread.
    memory_limit
        Of one worker, in bytes or as '4GB'; by default the machine's memory in equal shares.
    dashboard
        Whether to serve the dashboard (``client.dashboard_link``).
    **slurm
        Over the site file: its keys, which are those of :class:`dask_jobqueue.SLURMCluster`
        (queue, walltime, interface, ...) and ours.

    Raises
    ------
    InputError
        If the kind or a key is unknown, SLURM is not there or refuses the jobs, or the address
        does not answer.
    """
    kind = kind or ("slurm" if site is not None else "local")
    if kind != "slurm" and site is not None:
        slurm["site"] = site
    with ExitStack() as stack:
        if "://" in kind:
            client = _running(kind)
        elif kind == "local":
            _no_options(kind, slurm)
            client = here.local(
                stack, workers, threads_per_worker, memory_limit, dashboard=dashboard
            )
        elif kind == "slurm":
            described = read_site(site) if site is not None else Site()
            options = {"workers": workers, "cores": threads_per_worker, "memory": memory_limit}
            given = {k: v for k, v in options.items() if v is not None}
            client = start(stack, described.changed(**given, **slurm), dashboard=dashboard)
        else:
            raise InputError(
                "cluster", expected="'local', 'slurm' or the address of a scheduler (tcp://...)",
                found=repr(kind), remedy="choose one of them",
            )  # fmt: skip
        yield stack.enter_context(client)


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
