"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import dask
import pytest
from browser import chromium
from report_files import make_reported

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client
    from playwright.sync_api import Browser


@pytest.fixture(scope="session", autouse=True)
def no_model_cache() -> Iterator[None]:
    """Compute model photometry anew: no test may pass by what an earlier run left on disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECPHOTO_MODEL_CACHE", "0")
        yield


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Return the folder of observed data, or skip with the reason."""
    folder = os.environ.get("SPECPHOTO_DATA")
    if not folder:
        pytest.skip("SPECPHOTO_DATA is not set: the observed data are not here")
    path = Path(folder)
    if not path.is_dir():
        pytest.skip(f"SPECPHOTO_DATA={folder} is not a folder")
    return path


def _client(n_workers: int) -> Iterator[Client]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=n_workers, threads_per_worker=1, processes=True, host="127.0.0.1",
            dashboard_address=":0",  # any free port: other clusters may run here
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):  # fmt: skip
        yield client


@pytest.fixture(scope="session")
def one_worker() -> Iterator[Client]:
    """Return a client of one worker process, on the loopback, without a dashboard."""
    yield from _client(1)


@pytest.fixture(scope="session")
def two_workers() -> Iterator[Client]:
    """Return a client of two worker processes, on the loopback, without a dashboard."""
    yield from _client(2)


@pytest.fixture(scope="session")
def two_threads() -> Iterator[Client]:
    """Return a client of one worker of two threads in this process."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0",
            memory_limit=0,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):  # fmt: skip
        yield client


@pytest.fixture(params=["synchronous", "threads", "one_worker", "two_workers"])
def scheduler(request: pytest.FixtureRequest) -> Iterator[str]:
    """Make each scheduler in turn the one that computes; yields its name."""
    name: str = request.param
    if name in ("synchronous", "threads"):
        with dask.config.set(scheduler=name):
            yield name
        return
    client: Client = request.getfixturevalue(name)
    with client.as_current(), dask.config.set(scheduler=client.get):
        yield name


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Return a Chromium: one for a module, as it keeps an event loop that others would meet."""
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of products, good and bad, that ``specphoto report`` has drawn pages of."""
    return make_reported(tmp_path_factory.mktemp("reported"))
