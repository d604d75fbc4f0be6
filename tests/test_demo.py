"""The demo tells the truth about the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from factories import specphoto_dataset
from galaxy_files import computing

from specphoto.demo import recovery, run_demo

if TYPE_CHECKING:
    from pathlib import Path

    from distributed import Client


def test_recovery__error_and_bias_of_covered_pixels() -> None:
    ds = specphoto_dataset(corrected=True)
    injected = np.linspace(0.9, 1.1, ds.sizes["wave"])
    off = 1.0 + 0.01 * np.where(np.arange(ds.sizes["x"]) % 2, 3.0, -1.0)
    factor = ds["corr_factor"].copy(data=np.broadcast_to(
        injected[:, None, None] * off, ds["corr_factor"].shape).astype(np.float32)
    )  # fmt: skip
    region = ds["spec_region"].copy(data=np.ones(ds["spec_region"].shape, bool))
    region[:, 6:] = False  # three columns at -1%, three at +3%
    coverage = ds["coverage"].copy(data=np.full(region.shape, 0.99, np.float32))
    coverage[:, 5] = 0.98  # and one of the latter not covered
    found = recovery(ds.assign(corr_factor=factor, spec_region=region, coverage=coverage), injected)
    assert found.n_pixel == 5 * ds.sizes["y"]
    assert found.median_error == pytest.approx(0.01, rel=1e-3)
    assert found.bias == pytest.approx((3 * -0.01 + 2 * 0.03) / 5, rel=1e-3)
    assert found.before == pytest.approx(np.median(np.abs(1 / injected - 1)))


def test_recovery__small_bundles_cover_no_pixel_whole() -> None:
    ds = specphoto_dataset(corrected=True)
    found = recovery(ds.assign(coverage=ds["coverage"] * 0), np.ones(ds.sizes["wave"]))
    assert found.n_pixel == 0
    assert np.isnan(found.median_error)


def test_run_demo__products_figures_and_tables(
    tmp_path: Path, two_workers: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    with computing(two_workers) as client:
        made = run_demo(tmp_path, client, size=19)
    assert made.fits is not None
    assert made.fits.exists()
    for name in ("image", "pixel_sed", "correction_factors", "closure"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out
    for text in ("Injected against recovered", "sdss g", "compute and write", "spatial"):
        assert text in said
