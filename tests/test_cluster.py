"""The one place that makes a client."""

from __future__ import annotations

import os
from typing import Any

import dask
import pytest

from specphoto import cluster
from specphoto.cluster import local_layout
from specphoto.errors import InputError


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


def test_open__nobody_answers() -> None:
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "300ms"}),
        pytest.raises(InputError, match=r"tcp://127\.0\.0\.1:9: expected a Dask scheduler"),
    ):
        cluster.open("tcp://127.0.0.1:9").__enter__()


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
