"""The one place that makes a client."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import dask
import dask.array as da
import pytest
from distributed import Client, LocalCluster

from specphoto import cluster
from specphoto.cli_sample import check as cli_check
from specphoto.cluster import local_layout
from specphoto.cluster.threads import own_threads
from specphoto.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


def test_open__local_is_private() -> None:
    with cluster.open("local", workers=1, threads_per_worker=2, memory_limit="1GB") as client:
        info = client.scheduler_info()
        addresses = [info["address"], *info["workers"]]
        assert all(address.startswith("tls://127.0.0.1:") for address in addresses)
        assert client.dashboard_link.startswith("http://127.0.0.1:")
        (worker,) = info["workers"].values()
        assert worker["nthreads"] == 2
        assert worker["memory_limit"] == 10**9
        environment = client.run(lambda: os.environ["OMP_NUM_THREADS"])
        assert set(environment.values()) == {"1"}
        scratch = worker["local_directory"]
        assert dask.delayed(sum)([1, 2]).compute() == 3
    assert not os.path.exists(scratch)  # noqa: PTH110  a name is all that is left of it


def test_open__unknown_kind() -> None:
    with pytest.raises(InputError, match=r"cluster: expected 'local', 'slurm'.*found 'cloud'"):
        cluster.open("cloud").__enter__()


def test_open__options_of_another_kind() -> None:
    with pytest.raises(InputError, match=r"cluster local: .*found queue"):
        cluster.open("local", queue="main").__enter__()


def test_open__no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="cluster slurm: expected the command sbatch"):
        cluster.open("slurm").__enter__()


@pytest.fixture
def patient_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that take a job, and never start it."""
    says = {"sbatch": "Submitted batch job 7", "squeue": "job 7: PENDING, Resources",
            "scancel": ""}  # fmt: skip
    for name, words in says.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\necho '{words}'\n")
        path.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")


def site_file(folder: Path, **lines: object) -> Path:
    path = folder / "site.yaml"
    given = {"shared_directory": folder / "keys", "log_directory": folder / "logs",
             "interface": "lo", "walltime": '"00:10:00"', **lines}  # fmt: skip
    path.write_text("".join(f"{key}: {value}\n" for key, value in given.items()))
    return path


def test_cli_check__a_job_that_waits_in_the_queue(
    tmp_path: Path, patient_slurm: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("specphoto.cli_sample._CHECK_WAIT", 3.0)
    with pytest.raises(
        InputError, match=r"a worker within 3 s, found none \(job 7: PENDING, Resources\)"
    ):
        cli_check(site=site_file(tmp_path, wait=3600))
    assert not list((tmp_path / "keys").iterdir())


@pytest.mark.parametrize(
    "lines", [{"interface": "nowhere0"}, {"scheduler_options": "{interface: nowhere0}"}]
)
def test_slurm__an_interface_that_is_not_there(
    tmp_path: Path, patient_slurm: None, lines: dict[str, str]
) -> None:
    path = site_file(tmp_path, **lines)
    message = r"interface: expected .* found 'nowhere0'; choose among .*\blo\b"
    with pytest.raises(InputError, match=message):
        cluster.job_script(cluster.read_site(path))
    with pytest.raises(InputError, match=message):
        cluster.open(site=path).__enter__()
    assert not list((tmp_path / "keys").iterdir())


def test_open__nobody_answers() -> None:
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "300ms"}),
        pytest.raises(InputError, match=r"tcp://127\.0\.0\.1:9: expected a Dask scheduler"),
    ):
        cluster.open("tcp://127.0.0.1:9").__enter__()


def test_check__no_worker() -> None:
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0") as empty,
        Client(empty, set_as_default=False) as client,
        pytest.raises(InputError, match="expected a worker to look at, found none"),
    ):
        cluster.check(client)


def test_open__running_scheduler(one_worker: Any) -> None:
    with cluster.open(one_worker.scheduler.address) as client:
        assert client.submit(max, 1, 2).result() == 2
    assert one_worker.submit(max, 3, 4).result() == 4


@pytest.mark.parametrize(
    ("cores", "workers", "threads", "expected"),
    [
        (2, None, None, (2, 1)),
        (8, 2, None, (2, 4)),
        (8, None, 4, (2, 4)),
        (1, None, 4, (1, 4)),
        (4, 3, 2, (3, 2)),
    ],
)
def test_local_layout__keeps_the_cores_busy(
    cores: int, workers: int | None, threads: int | None, expected: tuple[int, int]
) -> None:
    assert local_layout(cores, workers, threads) == expected


def galaxy(most: int | None = None) -> tuple[float, float, int, list[str]]:
    """When a galaxy began and ended, the threads that it was given, and the stages seen."""
    with own_threads(most=most) as times:
        begin = time.monotonic()
        assert da.ones(4, chunks=2).sum().compute() == 4
        time.sleep(0.3)
        return begin, time.monotonic(), dask.config.get("num_workers"), list(times.seconds)


def most_at_a_time(spans: list[tuple[float, float]]) -> int:
    return max(sum(begin <= at < end for begin, end in spans) for at, _ in spans)


@pytest.mark.parametrize(("most", "expected", "threads"), [(None, 2, 1), (1, 1, 2)])
def test_own_threads__no_more_galaxies_than_there_is_room_for(
    two_threads: Client, most: int | None, expected: int, threads: int
) -> None:
    before = dask.config.get("scheduler", None)
    sent = [two_threads.submit(galaxy, most, pure=False) for _ in range(4)]
    found = two_threads.gather(sent)
    assert [(given, stages) for _, _, given, stages in found] == [(threads, ["arrange"])] * 4
    assert most_at_a_time([span[:2] for span in found]) == expected
    assert dask.config.get("scheduler", None) == before


def test_own_threads__one_at_a_time_where_there_is_no_worker() -> None:
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: galaxy(), range(3)))
    assert most_at_a_time([span[:2] for span in found]) == 1
