"""A small simulated galaxy as survey files, made once, and clients of the schedulers at hand."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

import dask

from specphoto.simulate import PixelGrid, SimulatedGalaxy, simulate_galaxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client

# g is outside, r and i are covered; the whole run takes seconds
WAVE_RANGE = (5000.0, 8600.0)


@cache
def small_galaxy() -> SimulatedGalaxy:
    """A 19-fibre MaNGA cube of a third of the channels, and 31 x 31 images."""
    return simulate_galaxy(
        Path(mkdtemp(prefix="specphoto-test-")), seed=3, size=19,
        cube_options={"wave_range": WAVE_RANGE},
        photometry_options={"pixels": PixelGrid((31, 31), 1.5)},
    )  # fmt: skip


@cache
def tiny_galaxy(seed: int) -> SimulatedGalaxy:
    """The same of fewer channels and pixels, for tests of what is around a galaxy."""
    return simulate_galaxy(
        Path(mkdtemp(prefix="specphoto-test-")), seed=seed, size=19,
        cube_options={"wave_range": (5400.0, 7200.0)},
        photometry_options={"pixels": PixelGrid((17, 17), 1.5)},
    )  # fmt: skip


@contextmanager
def computing(client: Client, *_: Any, **__: Any) -> Iterator[Client]:
    """Make a client the one that computes; stands in for specphoto.cluster.open."""
    with client.as_current(), dask.config.set(scheduler=client.get):
        yield client
