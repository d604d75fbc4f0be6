"""QA pages say what is wrong, need nothing but themselves, and an index goes on where it ended."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
from factories import disc_dataset, specphoto_dataset
from typer.testing import CliRunner

from specphoto.cli import app
from specphoto.errors import InputError
from specphoto.io import write_zarr
from specphoto.report import write_index, write_page
from specphoto.report.numbers import checks, quality_numbers, worst
from specphoto.report.page import page_row
from specphoto.report.sample import find_products, run_rows

if TYPE_CHECKING:
    from pathlib import Path

DS = disc_dataset()


def test_quality_numbers__of_the_maps() -> None:
    numbers, region = quality_numbers(DS), DS["spec_region"].values
    after = DS["closure_after"].values[3:7][:, region]
    assert numbers["n_pixel"] == region.sum()
    assert numbers["closure_after"] == pytest.approx(np.sqrt(np.mean(after**2)), rel=1e-5)
    assert numbers["chi2"] == pytest.approx(np.median(DS["chi2"].values[region]))
    assert numbers["with_factor"] == 1.0
    lowest = DS["corr_factor"].values[:, region].min()
    assert numbers["factor_min"] == pytest.approx(lowest, rel=1e-5)
    assert numbers["masked"] == 0.0
    assert worst(checks(numbers)) == "pass"


def _verdicts(**changed: object) -> dict[str, str]:
    return {c.what: c.status for c in checks(quality_numbers(DS) | changed)}


@pytest.mark.parametrize(
    ("changed", "what", "status"),
    [
        ({"quality_flag": True}, "survey's own quality flag", "fail"),
        ({"n_pixel": 0}, "pixels in spec_region", "fail"),
        ({"n_pixel": 19}, "pixels in spec_region", "warn"),
        ({"masked": 0.95}, "masked channels in spec_region", "fail"),
        ({"corrected": False}, "spectral stage", "warn"),
        ({"with_factor": 0.9}, "trusted pixels with a factor", "warn"),
        ({"factor_min": -0.1}, "smallest factor", "fail"),
        ({"closure_worst": 0.05}, "closure after, worst band", "warn"),
        ({"closure_worst": None}, "closure after, worst band", "fail"),
        ({"closure_after": 0.3}, "closure, rms", "warn"),
        ({"shift": 2.0}, "shift against the images", "warn"),
    ],
)
def test_checks__limits(changed: dict[str, object], what: str, status: str) -> None:
    assert _verdicts(**changed)[what] == status


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("products") / "corr_specphoto_disc.zarr"
    write_zarr(DS, path)
    return path


def test_write_page__one_file_that_needs_nothing_else(product: Path, tmp_path: Path) -> None:
    numbers = write_page(product, tmp_path / "disc.html", run={"seconds": "12.5"})
    text = (tmp_path / "disc.html").read_text()
    assert numbers["verdict"] == "pass"
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", text)
    assert "http" not in re.sub(r'base64,[^"]*', "", text)
    images = re.findall(r"<img alt=\"([^\"]*)\"", text)
    assert len(images) >= 6
    assert all(len(alt) > 30 for alt in images)
    for words in ("Every check passed.", "match_spatial", "12.5", "does not say which PSFs"):
        assert words in text
    assert page_row(tmp_path / "disc.html") == numbers
    assert list(tmp_path.glob(".*")) == []


def test_write_page__texts_are_escaped(tmp_path: Path) -> None:
    write_zarr(DS.assign_attrs(name="<script>alert(1)</script>"), tmp_path / "specphoto_x.zarr")
    write_page(tmp_path / "specphoto_x.zarr", tmp_path / "x.html")
    assert "<script>alert" not in (tmp_path / "x.html").read_text()


def test_write_page__without_spectral_stage(tmp_path: Path) -> None:
    write_zarr(specphoto_dataset(9, 60), tmp_path / "specphoto_toy.zarr")
    numbers = write_page(tmp_path / "specphoto_toy.zarr", tmp_path / "toy.html")
    assert numbers["verdict"] == "warn"
    assert "spectral stage: not done: there is no factor" in numbers["reasons"]


def test_write_page__all_masked(tmp_path: Path) -> None:
    write_zarr(DS.assign(spec_mask=DS["spec_mask"] | True), tmp_path / "specphoto_m.zarr")
    numbers = write_page(tmp_path / "specphoto_m.zarr", tmp_path / "m.html")
    assert numbers["verdict"] == "fail"
    assert "masked channels in spec_region: 100.0%" in numbers["reasons"]


def test_write_page__no_trusted_pixel(tmp_path: Path) -> None:
    write_zarr(DS.assign(spec_region=DS["spec_region"] & False), tmp_path / "specphoto_n.zarr")
    numbers = write_page(tmp_path / "specphoto_n.zarr", tmp_path / "n.html")
    assert "pixels in spec_region: 0" in numbers["reasons"]


def test_write_index__goes_on_and_says_what_cannot_be_read(product: Path, tmp_path: Path) -> None:
    write_zarr(DS.assign_attrs(name="one"), tmp_path / "corr_specphoto_one.zarr")
    (tmp_path / "corr_specphoto_bad.fits").write_bytes(b"SIMPLE")
    (tmp_path / "summary.csv").write_text("name,seconds\ncorr_specphoto_one,41.5\n")
    index = write_index(tmp_path)
    text = index.read_text()
    assert '"verdict": "fail"' in text
    assert "corr_specphoto_bad.fits: expected" in text
    assert '"run_seconds": 41.5' in text
    page = index.parent / "corr_specphoto_one.html"
    assert "41.5" in page.read_text()
    assert (index.parent / "thumbnails" / "corr_specphoto_one.png").stat().st_size > 100
    before = page.stat().st_mtime_ns
    made: list[tuple[int, int]] = []
    write_index(tmp_path, progress=lambda *now: made.append(now))
    assert page.stat().st_mtime_ns == before
    assert made == [(2, 2)]  # the bad one again


def test_find_products__zarr_before_fits(tmp_path: Path) -> None:
    for name in ("specphoto_a.fits", "specphoto_a.zarr", "summary.csv", "specphoto_b.zarr"):
        (tmp_path / name).mkdir() if name.endswith("zarr") else (tmp_path / name).touch()
    (tmp_path / "specphoto_a.zarr" / "zarr.json").touch()
    assert find_products(tmp_path) == {"specphoto_a": tmp_path / "specphoto_a.zarr"}


def test_run_rows__none_without_a_table(tmp_path: Path) -> None:
    assert run_rows(tmp_path) == {}


def test_write_index__nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a folder with products.*found none"):
        write_index(tmp_path)


def test_report__command(product: Path, tmp_path: Path) -> None:
    made = CliRunner().invoke(app, ["report", str(product), "-o", str(tmp_path / "page.html")])
    assert made.exit_code == 0
    assert (tmp_path / "page.html").is_file()
    missing = CliRunner().invoke(app, ["report", str(tmp_path / "no")])
    assert "found nothing there" in str(missing.exception)
