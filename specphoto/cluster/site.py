"""A site: how jobs are asked for on one SLURM cluster, in one checked YAML file."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from dask.utils import parse_bytes

from specphoto.errors import InputError
from specphoto.keys import require_kinds, require_known

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from specphoto.keys import Kind

__all__ = ["Driver", "Site", "bytes_of", "read_site"]

# Of values in a site file and of its driver. Sizes and walltimes are read by functions of theirs.
_KINDS: dict[str, Kind] = {
    "workers": "a whole number", "cores": "a whole number", "margin": "a whole number",
    "job_cpu": "a whole number", "processes": "a whole number",
    "memory_margin": "a number", "retire": "a number", "wait": "a number",
    "death_timeout": "a number",
    "open_dashboard": "true or false", "nanny": "true or false",
    "adaptive": "keys and values", "scheduler_options": "keys and values",
    "queue": "a text", "account": "a text", "interface": "a text", "job_name": "a text",
    "shared_directory": "a text", "local_directory": "a text", "log_directory": "a text",
    "python": "a text", "shebang": "a text", "worker_command": "a text", "silence_logs": "a text",
    "worker_extra_args": "a list of texts", "job_extra_directives": "a list of texts",
    "job_directives_skip": "a list of texts", "job_script_prologue": "a list of texts",
    "extra": "a list of texts", "job_extra": "a list of texts", "env_extra": "a list of texts",
    "header_skip": "a list of texts",
}  # fmt: skip


@dataclass(frozen=True)
class Driver:
    """The job of a driver that is submitted itself.

    Parameters
    ----------
    walltime
        Of one turn, ``HH:MM:SS`` or ``D-HH:MM:SS``; the job queues again as often as it needs.
    memory, cores
        Of its job: it computes nothing.
    margin
        Seconds before the walltime at which it ends in order. SLURM may be a minute early.
    queue, account
        Where they are not those of the workers.
    """

    walltime: str = "1-00:00:00"
    memory: str | float = "4GB"
    cores: int = 1
    margin: int = 120
    queue: str | None = None
    account: str | None = None

    def __post_init__(self) -> None:
        require_kinds(_given(self, "queue", "account"), _KINDS)
        _ = self.memory_bytes
        if not 0 < self.margin < _seconds(self.walltime) or self.cores < 1:
            raise InputError(
                "driver", expected="a margin above 0 and below the walltime, cores of at least 1",
                found=f"{self.margin} s of {self.walltime}, {self.cores}", remedy="correct them",
            )  # fmt: skip

    @property
    def memory_bytes(self) -> int:
        """Bytes that the job asks for."""
        return bytes_of(self.memory)


@dataclass(frozen=True)
class Site:
    """Jobs on a SLURM cluster. One job is one worker, so that a lost one can be replaced.

    Parameters
    ----------
    workers
        Jobs that are kept running.
    adaptive
        ``{"minimum": m, "maximum": n}`` jobs, as the work asks, instead of ``workers``; one
        starts at the beginning even where the minimum is 0.
    cores
        Threads of a worker, and CPUs of its job.
    memory
        That a worker may use.
    memory_margin
        What the job asks for beyond that, as a share of it: a worker at its limit is restarted
        by Dask, which tells, and not killed by SLURM, which does not.
    walltime
        Of a job, ``HH:MM:SS`` or ``D-HH:MM:SS``.
    retire
        Seconds before the walltime at which a worker leaves; by default a tenth of it, at most
        300 and at least 30, or a third of it where that is shorter. None: never.
    shared_directory
        Folder that all nodes see; a private folder in it holds the TLS key while the cluster is
        up. By default ``~/.specphoto``.
    wait
        Seconds to wait for the first worker, in the queue too.
    open_dashboard
        Whether the dashboard listens on all addresses, where anybody may look.
    driver
        What ``specphoto submit`` asks for.
    jobqueue
        All other keys, as :class:`dask_jobqueue.SLURMCluster` has them.
    """

    workers: int = 1
    adaptive: Mapping[str, int] | None = None
    cores: int = 1
    memory: str | float = "4GB"
    memory_margin: float = 0.15
    walltime: str = "04:00:00"
    retire: float | None = -1.0
    shared_directory: str = "~/.specphoto"
    wait: float = 3600.0
    open_dashboard: bool = False
    driver: Driver = field(default_factory=Driver)
    jobqueue: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_known(self.jobqueue, _JOBQUEUE, "SLURM options")
        # null is as if the key were not there
        jobqueue = {k: v for k, v in self.jobqueue.items() if v is not None}
        require_kinds({**_given(self, "adaptive", "retire"), **jobqueue}, _KINDS)
        if "log_directory" in jobqueue:  # SLURM does not know what ~ is
            jobqueue["log_directory"] = str(Path(jobqueue["log_directory"]).expanduser())
        object.__setattr__(self, "jobqueue", jobqueue)
        if self.jobqueue.get("processes", 1) != 1:
            raise InputError(
                "processes", expected="1: lost workers of a job of several are not replaced",
                found=str(self.jobqueue["processes"]), remedy="ask for more jobs (workers)",
            )  # fmt: skip
        if self.adaptive is not None:
            require_known(self.adaptive, ("minimum", "maximum"), "adaptive")
            low, high = self.adaptive.get("minimum", 0), self.adaptive.get("maximum", 0)
            whole = isinstance(low, int) and isinstance(high, int)
            if not whole or not 0 <= low <= high or high < 1:
                raise InputError(
                    "adaptive",
                    expected="whole numbers 0 <= minimum <= maximum, and maximum at least 1",
                    found=f"{low} and {high}", remedy="correct them",
                )  # fmt: skip
        self._check_numbers()

    def _check_numbers(self) -> None:
        _ = self.job_memory
        _ = self.walltime_seconds
        lifetime = self.lifetime
        if lifetime is not None and lifetime <= 0:
            raise InputError(
                "retire", expected="fewer seconds than the walltime has", found=f"{self.retire:g}",
                remedy="correct it, or leave it out",
            )  # fmt: skip
        if self.workers < 1 or self.cores < 1 or self.memory_margin < 0:
            raise InputError(
                "site", expected="workers and cores of at least 1, memory_margin of at least 0",
                found=f"{self.workers}, {self.cores}, {self.memory_margin}", remedy="correct them",
            )  # fmt: skip

    @property
    def jobs(self) -> tuple[int, int]:
        """Jobs to keep at least, and at most."""
        if self.adaptive is None:
            return self.workers, self.workers
        return self.adaptive.get("minimum", 0), self.adaptive["maximum"]

    @property
    def walltime_seconds(self) -> float:
        """Walltime of a job."""
        return _seconds(self.walltime)

    @property
    def lifetime(self) -> float | None:
        """Seconds after which a worker leaves on its own."""
        if self.retire is None:
            return None
        total = self.walltime_seconds
        if self.retire >= 0:
            return total - self.retire
        # a worker counts from when it has started, and waits up to 30 s for what it is at
        return total - min(300.0, max(0.1 * total, min(30.0, total / 3)))

    @property
    def job_memory(self) -> int:
        """Bytes that the job asks for."""
        return int(bytes_of(self.memory) * (1.0 + self.memory_margin))

    def changed(self, **given: Any) -> Site:
        """Return the site with other values; keys of both kinds together.

        A number of workers takes the place of an adaptive one.

        Raises
        ------
        InputError
            If a key is unknown; the nearest known one is named.
        """
        require_known(given, _OURS | _JOBQUEUE, "SLURM options")
        ours = {k: v for k, v in given.items() if k in _OURS}
        if not isinstance(ours.get("driver", self.driver), Driver):
            require_kinds({"driver": ours["driver"]}, {"driver": "keys and values"})
            require_known(ours["driver"], [f.name for f in fields(Driver)], "driver")
            ours["driver"] = replace(self.driver, **ours["driver"])
        if "workers" in ours:
            ours.setdefault("adaptive", None)
        theirs = {k: v for k, v in given.items() if k not in _OURS}
        return replace(self, **ours, jobqueue={**self.jobqueue, **theirs})


def bytes_of(memory: str | float, what: str = "memory") -> int:
    """Read an amount of memory.

    Raises
    ------
    InputError
        If it is none.
    """
    try:
        found = 0 if isinstance(memory, bool) else int(parse_bytes(memory))
    except (TypeError, ValueError, OverflowError, AttributeError):
        found = 0
    if found <= 0:
        raise InputError(
            what, expected="bytes, or a size such as '4GB'", found=repr(memory),
            remedy="correct it",
        )  # fmt: skip
    return found


def _seconds(walltime: str) -> float:
    days, _, clock = str(walltime).rpartition("-")
    try:
        hours, minutes, seconds = (int(p) for p in clock.split(":"))
        return int(days or 0) * 86400.0 + hours * 3600.0 + minutes * 60.0 + seconds
    except ValueError as error:
        raise InputError(
            "walltime", expected='"HH:MM:SS" or "D-HH:MM:SS", in quotes', found=repr(walltime),
            remedy="correct it",
        ) from error  # fmt: skip


def _given(described: Site | Driver, *open_fields: str) -> dict[str, Any]:
    """Fields and their values, without those of `open_fields` that are None."""
    values = {f.name: getattr(described, f.name) for f in fields(described)}
    return {k: v for k, v in values.items() if v is not None or k not in open_fields}


_OURS = frozenset(f.name for f in fields(Site)) - {"jobqueue"}


def _jobqueue_keys() -> frozenset[str]:
    from dask_jobqueue import SLURMCluster
    from dask_jobqueue.core import Job, JobQueueCluster
    from dask_jobqueue.slurm import SLURMJob

    makers = (SLURMCluster, JobQueueCluster, Job, SLURMJob)
    keys = {k for maker in makers for k in signature(maker.__init__).parameters}
    return frozenset(keys) - {"self", "kwargs", "base_class_kwargs", "job_kwargs", "job_cls",
                              "scheduler", "name", "n_workers", "loop", "config_name", "project",
                              "job_mem", "security", "asynchronous", "shared_temp_directory",
                              "protocol", "command_template", "host", "dashboard_address",
                              "scheduler_cls"}  # fmt: skip


_JOBQUEUE = _jobqueue_keys()


def read_site(path: str | PathLike[str]) -> Site:
    """Read a site file.

    Raises
    ------
    InputError
        If it cannot be read, or a key or value is wrong.
    """
    try:
        given = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise InputError(
            str(path), expected="a site file in YAML", found=str(error).replace("\n", " "),
            remedy="see deploy/slurm for examples",
        ) from error  # fmt: skip
    if not isinstance(given, dict):
        raise InputError(
            str(path), expected="keys and values", found=type(given).__name__,
            remedy="see deploy/slurm for examples",
        )  # fmt: skip
    try:
        return Site().changed(**given)
    except (InputError, TypeError) as error:
        if isinstance(error, InputError):
            raise error.within(str(path)) from error
        raise InputError(
            str(path), expected="values of the right kind", found=str(error),
            remedy="see deploy/slurm for examples",
        ) from error  # fmt: skip
