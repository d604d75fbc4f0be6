"""One place that makes a Dask client: this machine, SLURM, or a scheduler that runs already.

A Dask scheduler and its workers run whatever a client sends them, so who can reach their ports
can run programs as you. Those of :func:`open` speak TLS with a key made for the occasion; on
this machine they and the dashboard listen on the loopback alone.
"""

from __future__ import annotations

from specphoto.cluster.check import Finding, check
from specphoto.cluster.local import local_layout
from specphoto.cluster.opening import open  # noqa: A004  read as specphoto.cluster.open
from specphoto.cluster.site import Driver, Site, read_site
from specphoto.cluster.slurm import job_script
from specphoto.cluster.submit import driver_script, submit

__all__ = [
    "Driver",
    "Finding",
    "Site",
    "check",
    "driver_script",
    "job_script",
    "local_layout",
    "open",
    "read_site",
    "submit",
]
