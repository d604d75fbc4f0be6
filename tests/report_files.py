"""A folder of products as a run of a sample leaves it, with the pages that the command draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
from factories import disc_dataset, specphoto_dataset
from pyarrow import parquet
from typer.testing import CliRunner

if TYPE_CHECKING:
    from pathlib import Path

#: A name that would be a script if it were not escaped.
NAME = "<script>alert(1)</script>"


def make_reported(folder: Path) -> Path:
    """Write products and the table of their run, and draw the pages with two processes."""
    # heavy, and every test session reads this file
    from specphoto.cli import app
    from specphoto.io import write_fits, write_zarr
    from specphoto.pipeline import Products
    from specphoto.timings import write_timings

    disc, small = disc_dataset().assign_attrs(name=NAME), disc_dataset(9, 60)
    write_zarr(disc, folder / "corr_specphoto_disc.zarr")
    write_timings(Products(None, folder / "corr_specphoto_disc.zarr", seconds={"check": 12.5}))
    write_zarr(specphoto_dataset(9, 60), folder / "specphoto_plain.zarr")
    write_fits(small.assign(spec_mask=small["spec_mask"] | True), folder / "masked.fits")
    nowhere = small["spec_region"] & False
    write_zarr(small.assign(spec_region=nowhere), folder / "untrusted.zarr")
    (folder / "corr_specphoto_bad.fits").write_bytes(b"SIMPLE")
    (folder / "input.fits").write_bytes(b"SIMPLE")
    rows = [
        {"name": "masked", "state": "done", "reason": None, "seconds": 41.5},
        {"name": "gone", "state": "failed", "reason": "gone.fits: no such file", "seconds": 0.1},
    ]
    parquet.write_table(pa.Table.from_pylist(rows), folder / "summary.parquet")
    made = CliRunner().invoke(app, ["report", str(folder), "--workers", "2"])
    assert made.exit_code == 0, made.output
    return folder
