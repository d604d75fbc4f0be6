"""Commands for many galaxies and for clusters: parse, call, print."""

# no postponed annotations here: typer reads them when the commands are made
import math
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from specphoto.terminal import line, results, table

if TYPE_CHECKING:
    from specphoto.sample import Status

__all__ = ["clusters", "run", "status", "submit"]

clusters = typer.Typer(no_args_is_help=True, help="Look at a SLURM site before a long run.")

Site = Annotated[Path | None, typer.Option("--site", help="Site file (see deploy/slurm).")]

# Seconds that 'cluster check' waits for a worker.
_CHECK_WAIT = 300.0


class Changed(StrEnum):
    """What happens to products of other options."""

    refuse = "refuse"
    recompute = "recompute"


def run(
    sample: Annotated[Path, typer.Argument(help="Sample file in TOML (see deploy/sample.toml).")],
    cluster: Annotated[
        str | None,
        typer.Option("--cluster", help="'local', 'slurm' or an address, over the sample file's."),
    ] = None,
    site: Site = None,
    workers: Annotated[
        int | None, typer.Option("--workers", "-j", min=1, help="Worker processes, or jobs.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", help="Of one worker, such as 4GB.")
    ] = None,
    changed: Annotated[
        Changed, typer.Option("--changed", help="Products of other options: refuse or recompute.")
    ] = Changed.refuse,
    report: Annotated[
        Path | None, typer.Option("--report", help="HTML file for Dask's performance report.")
    ] = None,
) -> None:
    """Match all galaxies of a sample; started again, it computes only what is not whole.

    Ends with exit code 0 when all galaxies are whole, and 1 when some failed.

    Example: [bold]specphoto run sample.toml --cluster local -j 4[/bold]
    """
    from specphoto.sample import Sample, run_sample

    # SLURM ends a job so: the cluster is to be given back, as after Ctrl-C
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    asked = Sample.read(sample)
    given: dict[str, Any] = {
        "kind": cluster, "site": site and str(site), "workers": workers, "memory_limit": memory,
    }  # fmt: skip
    options = {**asked.cluster, **{k: v for k, v in given.items() if v is not None}}
    outcome = run_sample(
        asked.changed(cluster=options), changed=changed.value, progress=_shown(), report=report,
        opened=lambda client: line(f"dashboard: {client.dashboard_link}"),
    )  # fmt: skip
    _show(outcome.status)
    line(f"computed {outcome.computed}, whole before {outcome.kept}")
    results.print(str(outcome.csv), highlight=False, soft_wrap=True)
    if outcome.status.failed:
        raise typer.Exit(1)


def submit(
    sample: Annotated[Path, typer.Argument(help="Sample file in TOML (see deploy/sample.toml).")],
    site: Annotated[Path, typer.Option("--site", help="Site file (see deploy/slurm).")],
    changed: Annotated[
        Changed, typer.Option("--changed", help="Products of other options: refuse or recompute.")
    ] = Changed.refuse,
    script_only: Annotated[
        bool, typer.Option("--script", help="Print the job script, and submit nothing.")
    ] = False,
) -> None:
    """Submit the run itself as a SLURM job, which queues again before its walltime and continues.

    Prints the number of the job; 'specphoto status' tells how far it is.

    Example: [bold]specphoto submit sample.toml --site deploy/slurm/small.yaml[/bold]
    """
    import specphoto.cluster as here
    from specphoto.sample import Sample

    described = here.read_site(site)
    Sample.read(sample)  # what is wrong with it is said now and not when the job starts
    command = [
        sys.executable, "-m", "specphoto", "run", str(sample.absolute()), "--cluster", "slurm",
        "--site", str(site.absolute()), "--changed", changed.value,
    ]  # fmt: skip
    if script_only:
        results.print(
            here.driver_script(described, command), markup=False, highlight=False, soft_wrap=True
        )
    else:
        results.print(here.submit(described, command), highlight=False)


def status(
    folder: Annotated[Path, typer.Argument(help="Output folder of a sample run.")],
) -> None:
    """Show how far a sample is: done, running, failed and why, rate, time left.

    Example: [bold]specphoto status results[/bold]
    """
    from specphoto.sample import read_status

    _show(read_status(folder))


@clusters.command()
def script(site: Site = None) -> None:
    """Print the job script of a worker.

    Example: [bold]specphoto cluster script --site deploy/slurm/small.yaml[/bold]
    """
    from specphoto.cluster import Site as Described
    from specphoto.cluster import job_script, read_site

    results.print(
        job_script(read_site(site) if site else Described()), markup=False, highlight=False,
        soft_wrap=True,
    )  # fmt: skip


@clusters.command()
def check(
    site: Site = None,
    cluster: Annotated[str | None, typer.Option("--cluster", help="'local', 'slurm'.")] = None,
) -> None:
    """Start one worker, test it, and say in words what is wrong. Exit code 1 if something is.

    On SLURM it waits five minutes at most for the worker, whatever the site file says.

    Example: [bold]specphoto cluster check --site deploy/slurm/small.yaml[/bold]
    """
    import specphoto.cluster as here

    kind = cluster or ("local" if site is None else "slurm")
    described = here.read_site(site) if site else here.Site()
    # who looks does not wait as long as a run of the night does
    wait = min(described.wait, _CHECK_WAIT)
    slurm: dict[str, Any] = {"wait": wait} if kind == "slurm" else {}
    with here.open(kind, site=site, workers=1, **slurm) as client:
        found = here.check(client)
    rows = [(f.what, "good" if f.good else "BAD", f.words) for f in found]
    results.print(table("cluster check", rows, columns=("test", "", "seen")))
    if not all(f.good for f in found):
        raise typer.Exit(1)


def _shown() -> Any:
    """Print one line that changes in place on a terminal, and one every minute elsewhere."""
    import time

    last = [0.0]

    def show(now: "Status") -> None:
        if sys.stderr.isatty():
            print(f"\r{_words(now)}\x1b[K", end="", file=sys.stderr, flush=True)  # noqa: T201
        elif time.monotonic() - last[0] > 60.0:
            last[0] = time.monotonic()
            line(_words(now))

    return show


def _words(now: "Status") -> str:
    rate = "-" if math.isnan(now.rate) else f"{3600 * now.rate:.1f} an hour"
    left = "-" if math.isnan(now.seconds_left) else f"{now.seconds_left / 60:.0f} min"
    return (
        f"{now.done} done, {now.running} running, {now.failed} failed of {now.total}; "
        f"{rate}, {left} left"
    )


def _show(now: "Status") -> None:
    results.print(_words(now), highlight=False)
    for name, reason in now.failures.items():
        line(f"failed: {name}: {reason}", style="red")
