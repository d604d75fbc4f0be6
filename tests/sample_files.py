"""Samples of the tiny galaxy, and what their runs leave."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from galaxy_files import tiny_galaxy

import specphoto

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import xarray as xr

# a library of a few models: the fit is not what these tests are about
LIBRARY = Path(__file__).parent / "data" / "peer" / "library_reduced.hdf5"


def write_sample(
    folder: Path, number: int, *, options: str = "", rows: str = "",
    formats: tuple[str, ...] = ("zarr",), seeds: Sequence[int] = (3,),
) -> Path:  # fmt: skip
    """A sample file of `number` tiny galaxies of these seeds in turn, and further rows.

    Columns are name, cube, photometry and library, where empty that of the sample.
    """
    galaxies = [tiny_galaxy(seeds[i % len(seeds)]) for i in range(number)]
    lines = [f"g{i},{g.cube.path},{g.photometry.path}," for i, g in enumerate(galaxies)]
    folder.mkdir(exist_ok=True)
    table = ["name,cube,photometry,library", *lines, rows]
    (folder / "targets.csv").write_text("\n".join(table))
    file = folder / "sample.toml"
    file.write_text(
        f'output = "out"\nformats = {list(formats)}\ngalaxy_memory = "500MB"\n'
        f'[targets]\ntable = "targets.csv"\n[options]\nlibrary = "{LIBRARY}"\n{options}\n'
    )
    return file


def contents(folder: Path) -> list[str]:
    """Names in an output folder, hidden ones too, without the journal and its lock."""
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("sample."))


def product(folder: Path, name: str) -> xr.Dataset:
    """A product, in memory."""
    return specphoto.open_cube(folder / f"{name}.zarr").load(scheduler="threads")


def wait_for(condition: Callable[[], bool], timeout: float = 120.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)
