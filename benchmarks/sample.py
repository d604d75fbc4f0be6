"""How well many galaxies keep many workers busy, and what that takes of the driver.

``python benchmarks/sample.py [--write]`` runs the sample engine from its file to its summary, in
four parts (about seven minutes on two cores). In the first two a stand-in takes the place of the
function that matches a galaxy, and everything else is what ``specphoto run`` does:

- 2000 galaxies that sleep for 10 s, on 4 processes of 50 threads, against the ideal schedule;
- 10 000 galaxies that take no time: rate, and peak memory of the driver;
- the message that a galaxy is to the scheduler and the worker;
- simulated galaxies, matched for real by one worker process and by two.

With ``--write`` the table goes into ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import cloudpickle
import distributed
import readme
from distributed import get_worker

import specphoto
from specphoto import cluster
from specphoto.sample import Sample, Target, engine, run_sample
from specphoto.sample.galaxy import run_galaxy
from specphoto.sample.journal import Journal
from specphoto.simulate import PixelGrid, simulate_galaxy

if TYPE_CHECKING:
    from collections.abc import Callable

Row = tuple[str, str, str]


def stand_in(target: Target, _: Any, folder: str, *__: Any, **___: Any) -> dict[str, Any]:
    """A galaxy that only takes its time."""
    get_worker().log_event(folder, target.name)
    time.sleep(target.redshift or 0.0)
    return {"state": "done", "seconds": target.redshift}


def sample_of(number: int, folder: Path, seconds: float) -> Sample:
    targets = tuple(
        Target(f"galaxy-{i}", f"{folder}/sky/{i}.fits.gz", f"{folder}/images/{i}.fits", seconds)
        for i in range(number)
    )
    return Sample(targets, folder / "out", galaxy_memory="1MB")


def peak_memory() -> float:
    """GB, of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e6 for line in lines if line.startswith("VmHWM"))


def load(number: int, seconds: float, processes: int, threads: int) -> tuple[float, float]:
    """Wall time from the first galaxy sent to the last that ended, and peak memory in GB."""
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(engine, "run_galaxy", stand_in),
        cluster.open("local", workers=processes, threads_per_worker=threads) as client,
    ):
        sample = sample_of(number, Path(folder), seconds)
        outcome = run_sample(sample, client=client)
        assert outcome.status.done == number
        return duration(sample.output), peak_memory()


def duration(folder: Path) -> float:
    """Seconds from the first galaxy sent to the last that ended."""
    events = list(Journal(folder).events())
    first = next(e["time"] for e in events if e["event"] == "sent")
    return float(events[-1]["time"] - first)


def message_size() -> int:
    """Bytes of one galaxy as it is sent."""
    with tempfile.TemporaryDirectory() as folder:
        sample = sample_of(1, Path(folder), 0.1)
        (work,), _ = engine.plan(sample, {}, "refuse")
    assert work.function is run_galaxy
    return len(cloudpickle.dumps((work.function, work.arguments, work.options)))


def matched(workers: int, number: int) -> float:
    """Galaxies a minute of so many worker processes, the same galaxy again and again."""
    with tempfile.TemporaryDirectory() as folder:
        galaxy = simulate_galaxy(
            Path(folder), seed=3, size=19, cube_options={"wave_range": (5000.0, 8600.0)},
            photometry_options={"pixels": PixelGrid((31, 31), 1.5)},
        )  # fmt: skip
        files = galaxy.cube.path, galaxy.photometry.path
        # one more for each worker before the clock starts: what a process reads once
        first = tuple(Target(f"first-{i}", *files) for i in range(workers))
        targets = tuple(Target(f"galaxy-{i}", *files) for i in range(number))
        warm = Sample(first, Path(folder) / "first", galaxy_memory="1GB")
        with cluster.open("local", workers=workers) as client:
            run_sample(warm, client=client)
            sample = warm.changed(targets=targets, output=Path(folder) / "out")
            assert run_sample(sample, client=client).status.done == number
            return 60.0 * number / duration(sample.output)


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call in a process of its own, so that its memory is its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def rows() -> list[Row]:
    took, memory = alone(load, 2000, 10.0, 4, 50)
    out = [
        ("2000 galaxies of 10 s on 4 x 50 threads: wall time", f"{took:.1f} s", "ideal 100 s"),
        ("the same, efficiency", f"{100.0 / took:.1%}", "at least 90%"),
        ("the same, peak memory of the driver, scheduler included", f"{memory:.2f} GB", ""),
    ]
    took, memory = alone(load, 10_000, 0.0, 2, 50)
    out += [
        ("10 000 galaxies of no time: galaxies a second", f"{10_000 / took:.0f}",
         "100 workers of 1 s would need 100"),
        ("the same, peak memory of the driver, scheduler included", f"{memory:.2f} GB",
         "at most 2 GB"),
        ("a galaxy's graph", f"1 task, {message_size()} bytes", ""),
    ]  # fmt: skip
    one, two = alone(matched, 1, 8), alone(matched, 2, 16)
    return [
        *out,
        ("galaxies matched a minute, 1 worker process", f"{one:.1f}", ""),
        ("the same, 2 worker processes", f"{two:.1f}", f"{two / one:.2f} times; at least 1.7"),
    ]


def table(made: list[Row]) -> str:
    """Markdown."""
    command = f"`python benchmarks/sample.py --write`, {datetime.now(UTC):%Y-%m-%d}"
    machine = (
        f"{len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}, distributed "
        f"{distributed.__version__}, specphoto {specphoto.__version__}, load "
        f"{os.getloadavg()[1]:.1f} at the end"
    )
    lines = [f"{command}, {machine}:", "", "| what | found | |", "|---|---:|---|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in made])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    made = table(rows())
    sys.stdout.write(f"{made}\n")
    if options.write:
        readme.put("sample", made)


if __name__ == "__main__":
    main()
