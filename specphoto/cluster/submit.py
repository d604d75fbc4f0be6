"""The driver of a long run as a SLURM job, which queues itself again before its time is over."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from specphoto.cluster.slurm import require_accepted, require_slurm, sbatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from specphoto.cluster.site import Site

__all__ = ["driver_script", "submit"]

# SLURM signals the shell alone, and runs the traps of a shell that waits; a program in the
# foreground would have to end first.
_BODY = """\
{command} &
driver=$!
again() {{
  kill -TERM "$driver" 2>/dev/null || return
  wait "$driver"
  scontrol requeue "$SLURM_JOB_ID"
  exit
}}
trap again USR1
trap 'kill -TERM "$driver"; wait "$driver"; exit 143' TERM
wait "$driver"
"""


def driver_script(site: Site, command: Sequence[str]) -> str:
    """Return the script of a job that runs a command that can be stopped and started again.

    ``margin`` seconds before its walltime the command is told to end (SIGTERM), and the job
    queues again, under the same number. So it does when its node is lost.

    Parameters
    ----------
    site
        Its ``driver`` says what the job asks for; what that leaves open is as for the workers.
    command
        Program and arguments.
    """
    driver, options = site.driver, site.jobqueue
    logs = Path(options.get("log_directory", "."))
    asked = [
        "-J specphoto", f"-o {logs}/driver-%j.log", "--open-mode=append", "--requeue",
        f"--signal=B:USR1@{driver.margin}", "-n 1", f"--cpus-per-task={driver.cores}",
        f"--mem={math.ceil(driver.memory_bytes / 2**20)}M", f"-t {driver.walltime}",
    ]  # fmt: skip
    for letter, key in (("p", "queue"), ("A", "account")):
        value = getattr(driver, key) or options.get(key)
        asked += [f"-{letter} {value}"] if value else []
    skipped = options.get("job_directives_skip", ())
    asked = [line for line in asked if not any(skip in line for skip in skipped)]
    asked += options.get("job_extra_directives", ())
    lines = ["#!/usr/bin/env bash", *(f"#SBATCH {line}" for line in asked)]
    lines += options.get("job_script_prologue", ())
    return "\n".join([*lines, _BODY.format(command=shlex.join(command))])


def submit(site: Site, command: Sequence[str]) -> str:
    """Submit :func:`driver_script`, and return the number of the job.

    Raises
    ------
    InputError
        If SLURM is not there, does not answer or refuses the job.
    """
    require_slurm()
    script = driver_script(site, command)
    require_accepted(script)
    Path(site.jobqueue.get("log_directory", ".")).mkdir(parents=True, exist_ok=True)
    return sbatch(script, "--parsable").strip().split(";")[0]
