"""Sample runs on a real SLURM of one machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import xarray as xr
from distributed import get_worker
from sample_files import contents, product, wait_for, write_sample

from specphoto.cluster import Site, open, read_site  # noqa: A004
from specphoto.cluster.slurm import require_accepted
from specphoto.errors import InputError
from specphoto.sample import read_status, run_sample
from specphoto.sample.drive import Work, drive
from specphoto.sample.journal import Journal
from specphoto.simulate import PixelGrid, simulate_galaxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client

    from specphoto.sample import Status

pytestmark = pytest.mark.slurm

_SCRIPT = Path(__file__).parents[1] / "deploy" / "slurm" / "one_machine.sh"


@pytest.fixture(scope="module")
def slurm() -> Iterator[None]:
    """Two nodes on the loopback, or a skip that says why."""
    if os.environ.get("SLURM_CONF"):
        yield
        return
    if os.geteuid() != 0 or shutil.which("slurmctld") is None or shutil.which("munged") is None:
        pytest.skip("no SLURM: needs root, and the packages slurm-wlm and munge")
    root = tempfile.mkdtemp(prefix="slurm-", dir="/tmp")
    environ = {**os.environ, "SLURM_PORT": "17950"}
    try:
        up = subprocess.run(
            [str(_SCRIPT), "up", root], capture_output=True, text=True, timeout=90, env=environ,
            check=True,
        )  # fmt: skip
        os.environ["SLURM_CONF"] = up.stdout.split()[-1]
        yield
    finally:
        os.environ.pop("SLURM_CONF", None)
        subprocess.run([str(_SCRIPT), "down", root], timeout=90, check=False)
        shutil.rmtree(root, ignore_errors=True)


def site_file(folder: Path, **changes: str) -> Path:
    lines = {
        "queue": "main", "cores": "1", "memory": "1500MB", "walltime": '"00:05:00"',
        "interface": "lo", "local_directory": str(folder / "scratch"),
        "log_directory": str(folder / "logs"), "shared_directory": str(folder / "keys"),
        "wait": "120", "death_timeout": "60",
        "scheduler_options": "{host: 127.0.0.1}", "workers": "2", **changes,
    }  # fmt: skip
    path = folder / "site.yaml"
    path.write_text("".join(f"{k}: {v}\n" for k, v in lines.items()))
    return path


def slurm_says(*command: str) -> str:
    asked = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    return asked.stdout


def running_jobs() -> list[str]:
    return slurm_says("squeue", "-h", "-t", "running", "-o", "%i").split()


@contextmanager
def driver(file: Path, site: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """``specphoto run`` on SLURM, ended with the block."""
    command = [sys.executable, "-m", "specphoto", "run", str(file), "--cluster", "slurm",
               "--site", str(site)]  # fmt: skip
    process = subprocess.Popen(command, env={**os.environ, **environment})
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(timeout=30)


def test_run__a_cancelled_worker_and_results_as_local(
    tmp_path: Path, slurm: None, two_threads: Client
) -> None:
    # two galaxies in turn: one in the place of the other would be seen
    seeds = (3, 4)
    run_sample(write_sample(tmp_path / "local", 2, seeds=seeds), client=two_threads)
    local = [product(tmp_path / "local" / "out", f"g{i}") for i in range(2)]
    assert not local[0].equals(local[1])
    file = write_sample(tmp_path, 8, seeds=seeds)
    with driver(file, site_file(tmp_path)) as process:
        journal = Journal(tmp_path / "out")
        wait_for(lambda: bool(journal.records()) or process.poll() is not None)
        jobs = running_jobs()
        assert jobs
        slurm_says("scancel", jobs[0])
        assert process.wait(timeout=240) == 0
    assert read_status(tmp_path / "out").done == 8
    assert contents(tmp_path / "out") == [
        *(f"g{i}.zarr" for i in range(8)), "summary.csv", "summary.parquet",
    ]  # fmt: skip
    assert not list((tmp_path / "keys").iterdir())
    for i in range(8):
        xr.testing.assert_identical(product(tmp_path / "out", f"g{i}"), local[i % 2])


def test_run_sample__adaptive_jobs_come_and_go(
    tmp_path: Path, slurm: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("specphoto.cluster.slurm._LOOK_EVERY", 2.0)
    jobs: set[str] = set()
    workers: list[int] = []
    done: list[int] = []

    def look(status: Status) -> None:
        running = running_jobs()
        if len(jobs | set(running)) == 2 and len(jobs) < 2:
            # the second is there, and its worker is not yet
            slurm_says("scancel", max(running, key=int))
            done.append(status.done)
        jobs.update(running)
        workers.append(len(client.scheduler_info()["workers"]))

    site = site_file(tmp_path, adaptive="{minimum: 0, maximum: 2}")
    with open(site=site) as client:
        assert len(running_jobs()) == 1
        outcome = run_sample(write_sample(tmp_path, 8), client=client, progress=look)
        assert done == [0]
        # one was cancelled, and another came in its place
        assert len(jobs) == 3
        assert (workers[0], max(workers)) == (1, 2)
        client.cluster.adapt(wait_count=2)
        wait_for(lambda: not slurm_says("squeue", "-h"), timeout=60)
        assert not client.scheduler_info()["workers"]
    assert outcome.status.done == 8
    assert contents(tmp_path / "out") == [
        *(f"g{i}.zarr" for i in range(8)), "summary.csv", "summary.parquet",
    ]  # fmt: skip


def test_run__the_only_worker_killed_for_memory(tmp_path: Path, slurm: None) -> None:
    large = simulate_galaxy(
        tmp_path, seed=3, size=19, photometry_options={"pixels": PixelGrid((61, 61), 1.5)}
    )
    # more pixels and models: twice the memory of a tiny galaxy
    rows = f"large,{large.cube.path},{large.photometry.path},default\n"
    rows += f"gone,{tmp_path}/gone.fits,{large.photometry.path},\n"
    file = write_sample(tmp_path, 2, rows=rows)
    site = site_file(tmp_path, memory="520MB", workers="1")
    with driver(file, site, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0") as process:
        assert process.wait(timeout=300) == 1
    status = read_status(tmp_path / "out")
    assert (status.done, sorted(status.failures)) == (2, ["gone", "large"])
    assert "perhaps killed for memory" in status.failures["large"]
    assert contents(tmp_path / "out") == ["g0.zarr", "g1.zarr", "summary.csv", "summary.parquet"]


def test_drive__workers_leave_before_a_walltime_of_a_minute(tmp_path: Path, slurm: None) -> None:
    def galaxy(name: str, folder: str) -> dict[str, str]:
        get_worker().log_event(folder, name)
        time.sleep(5.0)
        return {"state": "done", "job": os.environ["SLURM_JOB_ID"]}

    # more than a minute, on one worker
    work = [Work(f"g{i}", galaxy, (f"g{i}", str(tmp_path)), {}, {}) for i in range(14)]
    journal = Journal(tmp_path)
    with open(site=site_file(tmp_path, walltime='"00:01:00"', workers="1")) as client:
        drive(client, work, journal, "1GB")
    records = journal.records().values()
    assert [r["event"] for r in records] == ["done"] * 14
    jobs = {r["job"] for r in records}
    assert len(jobs) > 1
    for job in jobs:
        assert "TIMEOUT" not in slurm_says("scontrol", "show", "job", job)


def test_submit__queues_again_and_goes_on(tmp_path: Path, slurm: None) -> None:
    file = write_sample(tmp_path, 3)
    site = site_file(
        tmp_path, workers="1", driver='{walltime: "00:05:00", margin: 60, memory: 1GB}'
    )
    command = [sys.executable, "-m", "specphoto", "submit", str(file), "--site", str(site)]
    assert "#SBATCH --signal=B:USR1@60" in slurm_says(*command, "--script")
    job = slurm_says(*command).strip()
    try:
        wait_for(lambda: bool(Journal(tmp_path / "out").records()))
        # what SLURM does so many seconds before the walltime
        slurm_says("scancel", "--batch", "--signal=USR1", job)
        wait_for(lambda: not slurm_says("squeue", "-h", "-o", "%i").split(), timeout=240)
        shown = slurm_says("scontrol", "show", "job", job)
    finally:
        subprocess.run(["scancel", job], timeout=30, check=False)
    assert "Restarts=1" in shown
    assert "JobState=COMPLETED" in shown
    assert read_status(tmp_path / "out").done == 3
    starts = [e["whole"] for e in Journal(tmp_path / "out").events() if e["event"] == "start"]
    assert starts[0] == 0
    assert 0 < starts[1] < 3
    assert not list((tmp_path / "keys").iterdir())


def test_open__check_is_good_and_a_client_without_the_key_is_refused(
    tmp_path: Path, slurm: None
) -> None:
    from distributed import Client as Bare
    from distributed import Security

    from specphoto.cluster import check

    with open(site=site_file(tmp_path), workers=1) as client:
        found = {f.what: f for f in check(client, galaxy_memory="1GB")}
        assert set(found) == {"interface", "versions", "scratch", "memory", "computation"}
        assert all(found[w].good for w in ("interface", "versions", "memory", "computation"))
        address = client.scheduler.address
        assert address.startswith("tls://127.0.0.1:")
        for stranger in (None, Security.temporary()):
            with pytest.raises((OSError, TypeError, ValueError)):
                Bare(address, security=stranger, timeout="3s")
        assert client.submit(max, 1, 2).result(timeout=60) == 2
    assert not list((tmp_path / "keys").iterdir())


def test_require_accepted__slurms_own_words(tmp_path: Path, slurm: None) -> None:
    with pytest.raises(InputError, match="invalid partition"):
        require_accepted("#!/bin/sh\n#SBATCH -p nowhere\ntrue\n")
    start = time.monotonic()
    with pytest.raises(InputError, match="invalid partition"):
        open(site=site_file(tmp_path, queue="nowhere")).__enter__()
    assert time.monotonic() - start < 90.0  # refused, and not waited for


def test_read_site__numbers_of_the_job(tmp_path: Path) -> None:
    site = read_site(site_file(tmp_path))
    assert isinstance(site, Site)
    assert (site.walltime_seconds, site.lifetime) == (300.0, 270.0)
    assert site.job_memory == int(1.5e9 * 1.15)
