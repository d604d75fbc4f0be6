"""A sample run from beginning to end: what is not whole is planned, computed and summed up."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from distributed import performance_report

from specphoto import cluster
from specphoto.errors import InputError
from specphoto.io.staging import sweep
from specphoto.sample.drive import Work, drive
from specphoto.sample.galaxy import product_paths, run_galaxy
from specphoto.sample.identity import differences, digest, identity_of
from specphoto.sample.journal import Journal, Status, locked, read_status
from specphoto.sample.plan import Sample
from specphoto.sample.summary import write_summary

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from pathlib import Path

    from distributed import Client

    from specphoto.sample.plan import Target

__all__ = ["Outcome", "plan", "run_sample"]


@dataclass(frozen=True)
class Outcome:
    """How a sample run ended.

    Parameters
    ----------
    status
        Galaxies by state.
    computed, kept
        Galaxies that this run sent out, and those that were whole before.
    parquet, csv
        The summary of all galaxies.
    """

    status: Status
    computed: int
    kept: int
    parquet: Path
    csv: Path


def run_sample(
    sample: Sample | str | os.PathLike[str],
    *,
    client: Client | None = None,
    changed: Literal["refuse", "recompute"] = "refuse",
    progress: Callable[[Status], None] | None = None,
    opened: Callable[[Client], None] | None = None,
    report: str | os.PathLike[str] | None = None,
) -> Outcome:
    """Match all galaxies of a sample; what is whole from an earlier run is kept.

    Each galaxy ends as whole products, or as a failure whose reason stands in the summary.
    Galaxies that failed before are tried again.

    Parameters
    ----------
    sample
        The sample, or the file that describes it.
    client
        Computes; by default the cluster of the sample is opened for as long as it is needed.
    changed
        What happens to products that other options, files or versions made: the run is refused,
        or they are computed anew and replaced. Damaged ones are replaced with 'recompute', too.
    progress
        Called with the status about once a second.
    opened
        Called with the client before the first galaxy, to say where its dashboard is.
    report
        HTML file for Dask's performance report.

    Returns
    -------
    Outcome
        Counts, and the summary files.

    Raises
    ------
    InputError
        If the sample cannot be run, another run works on the folder, products of other options
        are there (with ``changed='refuse'``), or the scheduler goes away.
    """
    sample = sample if isinstance(sample, Sample) else Sample.read(sample)
    folder = _folder(sample.output)
    with locked(folder):
        sweep(folder)
        journal = Journal(folder)
        for event in journal.events():
            journal.tally.add(event)
        work, kept = plan(sample, journal.records(), changed)
        names = [target.name for target in sample.targets]
        journal.append("start", total=len(names), whole=kept, names=names)
        # on a client of the caller's, galaxies go on when this ends early; ours ends with it
        running = client is not None
        try:
            if work:
                with ExitStack() as stack:
                    if client is None:
                        client = stack.enter_context(cluster.open(**sample.cluster))
                    if opened is not None:
                        opened(client)
                    if report is not None:
                        stack.enter_context(client.as_current())
                        stack.enter_context(performance_report(filename=str(report)))
                    drive(client, work, journal, sample.galaxy_memory, progress)
            running = False
        finally:
            if not running:
                # what killed workers left aside is nobody's
                sweep(folder)
            parquet, csv = write_summary(folder)
        return Outcome(read_status(folder), len(work), kept, parquet, csv)


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            str(path), expected="an output folder that can be made",
            found=(error.strerror or str(error)).lower(), remedy="choose another",
        ) from error  # fmt: skip
    return path


def plan(
    sample: Sample, records: dict[str, dict[str, Any]], changed: str
) -> tuple[list[Work], int]:
    """Find the galaxies that are not whole.

    Parameters
    ----------
    sample
        The sample.
    records
        What the journal tells of each galaxy, by name.
    changed
        As for :func:`run_sample`.

    Returns
    -------
    list of Work, int
        What is to be sent, and the number of galaxies that are whole.

    Raises
    ------
    InputError
        If there are products of other options, files or versions, and ``changed`` is 'refuse'.
    """
    work: list[Work] = []
    libraries: dict[str, str] = {}
    other: list[tuple[str, list[str]]] = []
    for target in sample.targets:
        identity = identity_of(sample, target, libraries)
        record = records.get(target.name, {})
        paths = product_paths(sample.output, target.name, sample.formats).values()
        there = [record.get("event") == "done" and p.exists() for p in paths]
        same = record.get("identity") == identity
        if same and all(there):
            continue
        # one is enough: another format may have been asked for since
        if any(there) and not same:
            other.append((target.name, differences(record.get("identity", {}), identity)))
        work.append(_work(sample, target, identity, replace=changed == "recompute"))
    if other and changed == "refuse":
        name, what = other[0]
        raise InputError(
            str(sample.output), expected="products of the same options, files and version",
            found=f"{len(other)} of others ({name}: {'; '.join(what)})",
            remedy="say changed='recompute' (--changed recompute) to replace them, or choose "
            "another output folder",
        )  # fmt: skip
    return work, len(sample.targets) - len(work)


def _work(sample: Sample, target: Target, identity: dict[str, Any], *, replace: bool) -> Work:
    arguments = (
        target, sample.options_of(target), str(sample.output.absolute()), sample.formats,
        digest(identity),
    )  # fmt: skip
    options = {
        "galaxy_memory": sample.galaxy_memory, "accept_critical": sample.accept_critical,
        "replace": replace,
    }  # fmt: skip
    return Work(target.name, run_galaxy, arguments, identity, options)
