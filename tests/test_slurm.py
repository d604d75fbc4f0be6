"""Sample runs on a real SLURM of one machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import xarray as xr
from test_sample import products, wait_for, write_sample

from specphoto.cluster import Site, open, read_site  # noqa: A004
from specphoto.cluster.slurm import require_accepted
from specphoto.errors import InputError
from specphoto.sample import read_status, run_sample
from specphoto.sample.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client

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


def squeue() -> list[str]:
    asked = subprocess.run(
        ["squeue", "-h", "-t", "running", "-o", "%i"], capture_output=True, text=True, timeout=30,
        check=True,
    )  # fmt: skip
    return asked.stdout.split()


@pytest.mark.slow
def test_run__a_cancelled_worker_and_results_as_local(
    tmp_path: Path, slurm: None, two_workers: Client
) -> None:
    (tmp_path / "local").mkdir()
    run_sample(write_sample(tmp_path / "local", 8), client=two_workers)
    file = write_sample(tmp_path, 8)
    driver = subprocess.Popen(
        [sys.executable, "-m", "specphoto", "run", str(file), "--cluster", "slurm",
         "--site", str(site_file(tmp_path))],
    )  # fmt: skip
    try:
        journal = Journal(tmp_path / "out")
        wait_for(lambda: bool(journal.records()) or driver.poll() is not None)
        jobs = squeue()
        assert jobs
        subprocess.run(["scancel", jobs[0]], timeout=30, check=True)
        assert driver.wait(timeout=240) == 0
    finally:
        if driver.poll() is None:
            driver.kill()
            driver.wait(timeout=30)
    assert read_status(tmp_path / "out").done == 8
    assert not list((tmp_path / "keys").iterdir())
    pairs = zip(products(tmp_path / "out", 8), products(tmp_path / "local" / "out", 8),
                strict=True)  # fmt: skip
    for found, expected in pairs:
        xr.testing.assert_identical(found, expected)


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
