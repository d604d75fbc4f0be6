"""One worker is started and looked at: what would go wrong in the night is said now."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
from dask.utils import format_bytes, parse_bytes
from distributed.versions import error_message

from specphoto.cluster.threads import GALAXY_MEMORY
from specphoto.errors import InputError

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Finding", "check"]

_PROBE = 16 * 2**20


@dataclass(frozen=True)
class Finding:
    """One thing that was tested.

    Parameters
    ----------
    what
        Name of the test.
    good
        Whether it passed.
    words
        What was seen, and what to do about it.
    """

    what: str
    good: bool
    words: str


def check(client: Client, *, galaxy_memory: str | float = GALAXY_MEMORY) -> list[Finding]:
    """Test interface, versions, scratch, memory and a small computation on the first worker.

    Parameters
    ----------
    client
        From :func:`specphoto.cluster.open`.
    galaxy_memory
        What one galaxy needs.

    Returns
    -------
    list of Finding
        In the order of the tests.

    Raises
    ------
    InputError
        If there is no worker.
    """
    workers = client.scheduler_info(n_workers=-1)["workers"]
    if not workers:
        raise InputError(
            f"cluster {client.scheduler.address}", expected="a worker to look at", found="none",
            remedy="start one, and see that it reaches the scheduler",
        )  # fmt: skip
    address, worker = next(iter(workers.items()))
    seen: dict[str, Any] = client.run(_look, workers=[address])[address]
    return [
        _interface(client, address, seen["host"]),
        _versions(client),
        _scratch(worker["local_directory"], seen),
        _memory(worker["memory_limit"], galaxy_memory),
        _computation(client, address),
    ]


def _look(dask_worker: Any) -> dict[str, Any]:
    """On the worker: its host, and how its scratch folder takes a few megabytes."""
    folder = Path(dask_worker.local_directory)
    start = time.perf_counter()
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(os.urandom(_PROBE))
            file.flush()
            os.fsync(file.fileno())
        state = os.statvfs(folder)
        free, error = state.f_bavail * state.f_frsize, ""
    except OSError as failure:
        free, error = 0, str(failure)
    return {"host": socket.gethostname(), "free": free, "error": error,
            "seconds": time.perf_counter() - start}  # fmt: skip


def _interface(client: Client, address: str, host: str) -> Finding:
    scheduler = client.scheduler.address
    loop = "127.0.0." in address or "::1" in address
    elsewhere = host != socket.gethostname()
    good = not (loop and elsewhere)
    words = f"worker on {host} at {address}, scheduler at {scheduler}"
    if not address.startswith("tls://"):
        good, words = False, f"{words}: not TLS, anybody who reaches it can run programs as you"
    return Finding("interface", good, words)


def _versions(client: Client) -> Finding:
    found = client.get_versions()
    ours = found["client"]["packages"]
    theirs = {k: v["packages"] for k, v in found["workers"].items()}
    message = error_message(
        {"packages": found["scheduler"]["packages"]},
        {k: {"packages": v} for k, v in theirs.items()}, {"packages": ours},
    )["warning"]  # fmt: skip
    if message:
        return Finding("versions", False, f"{message}\nuse one environment on both sides")
    return Finding("versions", True, f"the same on both sides (dask {ours['dask']})")


def _scratch(folder: str, seen: dict[str, Any]) -> Finding:
    if seen["error"]:
        return Finding("scratch", False, f"{folder}: {seen['error']}; set local_directory")
    rate = _PROBE / seen["seconds"]
    words = f"{folder}: {format_bytes(seen['free'])} free, {format_bytes(int(rate))}/s"
    if seen["free"] < 10e9:
        return Finding("scratch", False, f"{words}; spilling needs more: set local_directory")
    return Finding("scratch", True, words)


def _memory(limit: float, galaxy_memory: str | float) -> Finding:
    need = parse_bytes(galaxy_memory)
    words = f"a worker may use {format_bytes(int(limit))}, a galaxy needs {format_bytes(need)}"
    return Finding("memory", not limit or limit >= need, words)


def _computation(client: Client, address: str) -> Finding:
    total = da.ones((2000, 2000), chunks=500).sum()
    with client.as_current():
        found = client.compute(total, workers=[address], sync=False).result(timeout=60)
    return Finding("computation", found == 4e6, f"the sum of 4 million ones is {found:.0f}")
