"""Workers in SLURM jobs, through dask-jobqueue."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
from distributed import Adaptive, Client, Security
from distributed.utils import get_ip_interface

from specphoto.cluster.local import LOOPBACK, MALLOC
from specphoto.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from specphoto.cluster.site import Site

__all__ = ["job_script", "require_accepted", "require_slurm", "sbatch", "start"]

logger = logging.getLogger(__name__)

_DASK = {
    # Dask waits this long before it believes that a lost worker does not come back
    "distributed.deploy.lost-worker-timeout": "5s",
    # and asks for jobs by the time that work takes: until a first galaxy has ended, half a second
    # would be its guess, for which no job more is worth its while
    "distributed.scheduler.default-task-durations.galaxy": "1 minute",
}
# States of a job that is over.
_ENDED = "BF,CA,CD,DL,F,NF,OOM,PR,TO"
# Seconds between looks for jobs that ended before their workers came.
_LOOK_EVERY = 30.0
# Seconds to wait for an answer of SLURM.
_TIMEOUT = 60.0


def start(stack: ExitStack, site: Site, *, dashboard: bool) -> Client:
    """Start a scheduler here and jobs of workers; return when the first worker is there.

    Raises
    ------
    InputError
        If SLURM is not there or refuses the job, or no worker comes in time.
    """
    require_slurm()
    stack.enter_context(dask.config.set(_DASK))
    cluster, security = stack.enter_context(_cluster(site, dashboard=dashboard))
    require_accepted(cluster.job_script())
    least, most = site.jobs
    # a fixed number is an adaptive one without room: only that replaces jobs that are lost
    options = {"maximum": most, "interval": "2s", "wait_count": 10}
    # where none is kept without work, one still shows that workers can come
    cluster.adapt(_Replacing, minimum=max(1, least), **options)
    client = Client(cluster, security=security)
    try:
        client.wait_for_workers(1, timeout=site.wait)
    except TimeoutError as error:
        jobs = [str(job.job_id) for job in cluster.workers.values() if job.job_id]
        states = _states(jobs) if jobs else ""
        client.close()
        raise InputError(
            "cluster slurm", expected=f"a worker within {site.wait:.0f} s",
            found=f"none ({states})" if states else "none",
            remedy="see squeue where the job waits, and its log (log_directory) where it ran; a "
            "longer wait may do",
        ) from error  # fmt: skip
    if least < 1:
        cluster.adapt(_Replacing, minimum=least, **options)
    return client


class _Replacing(Adaptive):  # type: ignore[misc]  # distributed has no types
    """Also replaces jobs that ended before their workers came; Dask waits for those for ever."""

    _looked = -math.inf

    async def recommendations(self, target: int) -> Any:
        """Say what to start and to end, when ended jobs are forgotten."""
        if time.monotonic() - self._looked >= _LOOK_EVERY:
            self._looked = time.monotonic()
            await _forget_ended(self.cluster)
        return await super().recommendations(target)


async def _forget_ended(cluster: Any) -> None:
    """Forget jobs whose workers are awaited, and that SLURM says have ended."""
    if not set(cluster.workers) - cluster.observed:
        return
    ended = await asyncio.to_thread(_ended)
    for name, job in list(cluster.workers.items()):
        if job.job_id in ended and name not in cluster.observed:
            logger.warning(
                "job %s ended before its worker came: another is asked for; its log "
                "(log_directory) tells why", job.job_id,
            )  # fmt: skip
            del cluster.workers[name]


def _ended() -> set[str]:
    """Numbers of this user's jobs that SLURM remembers (for five minutes, usually) as ended."""
    # what is not told of may be in a hidden partition: only what is told to have ended counts
    command = ["squeue", "--me", "--all", "--noheader", "--format=%A", f"--states={_ENDED}"]
    try:
        asked = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT, check=True
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):  # SLURM is asked again later
        return set()
    return set(asked.stdout.split())


def _states(jobs: list[str]) -> str:
    """Say in what states jobs are, and why, as SLURM tells; empty where it does not."""
    command = ["squeue", "--noheader", "--states=all", "--format=job %A: %T, %r",
               f"--jobs={','.join(jobs)}"]  # fmt: skip
    try:
        asked = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT, check=True
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return "; ".join(asked.stdout.split("\n")).strip("; ")


def job_script(site: Site) -> str:
    """Return the script of a worker's job, as it would be given to sbatch."""
    with _cluster(site, dashboard=False) as (cluster, _):
        script: str = cluster.job_script()
        return script


def require_slurm() -> None:
    """Refuse a machine that cannot submit.

    Raises
    ------
    InputError
        If there is no sbatch.
    """
    if shutil.which("sbatch") is None:
        raise InputError(
            "cluster slurm", expected="the command sbatch", found="none on the path",
            remedy="run on a machine that submits to SLURM, or use the cluster 'local'",
        )  # fmt: skip


def require_accepted(script: str) -> None:
    """Ask SLURM whether it would take a job, with ``sbatch --test-only``.

    Raises
    ------
    InputError
        With SLURM's own words, where it would not.
    """
    sbatch(script, "--test-only")


def sbatch(script: str, option: str) -> str:
    """Give a script to sbatch, and return what that prints.

    Raises
    ------
    InputError
        With SLURM's own words, where it refuses; if it does not answer.
    """
    try:
        asked = subprocess.run(
            ["sbatch", option], input=script, capture_output=True, text=True, timeout=_TIMEOUT,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise InputError(
            "sbatch", expected=f"an answer within {_TIMEOUT:.0f} s", found="none",
            remedy="see with sinfo whether SLURM is up",
        ) from error  # fmt: skip
    if asked.returncode != 0:
        raise InputError(
            "sbatch", expected="a job that SLURM accepts",
            found=" ".join((asked.stderr or asked.stdout).split()),
            remedy="correct the site file; 'specphoto cluster script' shows the job",
        )  # fmt: skip
    return asked.stdout


@contextmanager
def _cluster(site: Site, *, dashboard: bool) -> Iterator[tuple[Any, Security]]:
    """Make the scheduler; its key lies in a private folder, removed at the end."""
    from dask_jobqueue import SLURMCluster

    with ExitStack() as stack:
        keys = stack.enter_context(_private_folder(Path(site.shared_directory).expanduser()))
        security = _security(Path(keys))
        options = {
            **site.jobqueue, "cores": site.cores, "memory": str(site.memory), "processes": 1,
            "job_mem": f"{math.ceil(site.job_memory / 2**20)}M", "walltime": str(site.walltime),
            "protocol": "tls://", "security": security, "shared_temp_directory": keys,
            "scheduler_options": {
                "dashboard_address": _dashboard(site, dashboard=dashboard),
                **site.jobqueue.get("scheduler_options", {}),
            },
            "worker_extra_args": [
                *_worker_arguments(site), *site.jobqueue.get("worker_extra_args", ())
            ],
            "job_script_prologue": [
                *(f"export DASK_DISTRIBUTED__NANNY__PRE_SPAWN_ENVIRON__{name}={value}"
                  for name, value in MALLOC.items()),
                *site.jobqueue.get("job_script_prologue", ()),
            ],
        }  # fmt: skip
        if "log_directory" in options:
            Path(options["log_directory"]).mkdir(parents=True, exist_ok=True)
        _require_interface(options)
        yield stack.enter_context(SLURMCluster(**options)), security


def _require_interface(options: dict[str, Any]) -> None:
    """Refuse a scheduler on an interface that is not there; Dask would leave half of one behind."""
    scheduler = options["scheduler_options"]
    # where a host is given, interface is that of the nodes alone
    name = scheduler.get("interface", None if "host" in scheduler else options.get("interface"))
    if name is None:
        return
    try:
        get_ip_interface(name)
    except ValueError as error:
        raise InputError(
            "interface", expected="a network interface of this machine, with an address",
            found=repr(name),
            remedy=f"choose among {', '.join(name for _, name in socket.if_nameindex())}",
        ) from error  # fmt: skip


def _dashboard(site: Site, *, dashboard: bool) -> str | None:
    if not dashboard:
        return f"{LOOPBACK}:0"
    return ":0" if site.open_dashboard else f"{LOOPBACK}:0"


def _worker_arguments(site: Site) -> list[str]:
    # workers have a page of their own, which would listen everywhere
    quiet = ["--no-dashboard", "--dashboard-address", f"{LOOPBACK}:0"]
    if site.lifetime is None:
        return quiet
    stagger = 0.05 * site.lifetime
    return [
        *quiet, "--lifetime", f"{site.lifetime - stagger:.0f}s", "--lifetime-stagger",
        f"{stagger:.0f}s",
    ]  # fmt: skip


def _security(folder: Path) -> Security:
    """Make a key and a certificate for this cluster alone, as files that its jobs can read."""
    made = Security.temporary()
    texts = {"ca": made.tls_ca_file, "key": made.tls_client_key, "cert": made.tls_client_cert}
    for name, text in texts.items():
        path = folder / f"{name}.pem"
        path.touch(mode=0o600)
        path.write_text(text)
    files = {name: str(folder / f"{name}.pem") for name in texts}
    roles = {
        f"tls_{role}_{what}": files[what]
        for role in ("scheduler", "worker", "client")
        for what in ("key", "cert")
    }
    return Security(require_encryption=True, tls_ca_file=files["ca"], **roles)


@contextmanager
def _private_folder(home: Path) -> Iterator[str]:
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        # made for this user alone
        folder = tempfile.mkdtemp(prefix=f"keys-{os.getpid()}-", dir=home)
    except OSError as error:
        raise InputError(
            str(home), expected="a folder to keep the TLS key in",
            found=(error.strerror or str(error)).lower(),
            remedy="name another that all nodes see (shared_directory)",
        ) from error  # fmt: skip
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
