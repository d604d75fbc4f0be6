"""QA pages say what is wrong, need nothing but themselves, and an index goes on where it ended."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
from factories import disc_dataset
from report_files import NAME
from typer.testing import CliRunner

from specphoto.cli import app
from specphoto.errors import InputError
from specphoto.pipeline import Products
from specphoto.report import write_index
from specphoto.report.numbers import checks, quality_numbers, worst
from specphoto.report.page import page_row
from specphoto.report.run import run_rows
from specphoto.report.sample import find_products
from specphoto.stages import Stage
from specphoto.timings import read_timings, write_timings

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
        ({"closure_worst": 0.05}, "closure after (worst band)", "warn"),
        ({"closure_worst": None}, "closure after (worst band)", "fail"),
        ({"closure_after": 0.3}, "closure (rms)", "warn"),
        ({"shift": 2.0}, "shift against the images", "warn"),
    ],
)
def test_checks__limits(changed: dict[str, object], what: str, status: str) -> None:
    assert _verdicts(**changed)[what] == status


def _page(reported: Path, stem: str) -> str:
    return (reported / "report" / f"{stem}.html").read_text()


def test_page__is_one_file_that_needs_nothing_else(reported: Path) -> None:
    text = _page(reported, "corr_specphoto_disc")
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", text)
    assert "http" not in re.sub(r'base64,[^"]*', "", text)
    images = re.findall(r"<img alt=\"([^\"]*)\"", text)
    assert len(images) >= 6
    assert all(len(alt) > 30 for alt in images)
    for words in ("Every check passed.", "match_spatial", "does not say which PSFs"):
        assert words in text
    row = page_row(reported / "report" / "corr_specphoto_disc.html")
    assert (row["verdict"], row["name"]) == ("pass", NAME)
    assert row["n_pixel"] == DS["spec_region"].sum()
    assert list((reported / "report").glob(".*")) == []


def test_page__texts_are_escaped(reported: Path) -> None:
    text = _page(reported, "corr_specphoto_disc")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_page__timings_of_the_run(reported: Path) -> None:
    text = _page(reported, "corr_specphoto_disc")
    assert '<th scope="row">check (s)</th><td>12.5</td>' in text
    assert "41.5" in _page(reported, "masked")  # of the sample's table
    assert "No timings are known" in _page(reported, "specphoto_plain")


def test_page__without_spectral_stage(reported: Path) -> None:
    row = page_row(reported / "report" / "specphoto_plain.html")
    assert row["verdict"] == "warn"
    assert "spectral stage: not done: there is no factor" in row["reasons"]


def test_page__all_masked(reported: Path) -> None:
    row = page_row(reported / "report" / "masked.html")
    assert row["verdict"] == "fail"
    assert "masked channels in spec_region: 100.0%" in row["reasons"]


def test_page__no_trusted_pixel(reported: Path) -> None:
    row = page_row(reported / "report" / "untrusted.html")
    assert "pixels in spec_region: 0" in row["reasons"]


def test_index__has_every_galaxy(reported: Path) -> None:
    text = _page(reported, "index")
    rows = json.loads(text.split('id="rows">')[1].split("</script>")[0])
    assert [row["name"] for row in rows] == [
        "corr_specphoto_bad", NAME, "disc", "toy", "disc", "gone",
    ]  # fmt: skip
    by_page = {row.get("page"): row for row in rows}
    assert by_page["masked.html"]["run_seconds"] == 41.5
    missing = [row for row in rows if row["name"] in ("gone", "corr_specphoto_bad")]
    assert [row["verdict"] for row in missing] == ["fail", "fail"]
    assert missing[0]["reasons"][0].startswith("corr_specphoto_bad.fits: expected")
    assert missing[1]["reasons"] == ["no product: gone.fits: no such file"]
    thumbnails = [row["thumbnail"] for row in rows if row.get("thumbnail")]
    assert len(thumbnails) == 4
    assert all((reported / "report" / path).stat().st_size > 100 for path in thumbnails)


def test_write_index__goes_on_where_it_ended(reported: Path) -> None:
    page = reported / "report" / "corr_specphoto_disc.html"
    before = page.stat().st_mtime_ns
    made: list[tuple[int, int]] = []
    write_index(reported, progress=lambda *now: made.append(now))
    assert page.stat().st_mtime_ns == before
    assert made == [(5, 5)]  # the bad one again


def test_find_products__zarr_before_fits(tmp_path: Path) -> None:
    for name in ("specphoto_a.fits", "specphoto_a.zarr", "b.fits", "c.fits", "d.zarr", "e.zarr"):
        (tmp_path / name).mkdir() if name.endswith("zarr") else (tmp_path / name).touch()
    for name in ("specphoto_a", "d"):
        (tmp_path / f"{name}.zarr" / "zarr.json").touch()
    found = find_products(tmp_path, ["b", "gone"])
    assert [path.name for path in found.values()] == ["b.fits", "d.zarr", "specphoto_a.zarr"]


def test_run_rows__of_a_csv_where_there_is_no_parquet(tmp_path: Path) -> None:
    assert run_rows(tmp_path) == {}
    (tmp_path / "summary.csv").write_text("name,seconds,reason\ng0,41.5,\n,1.0,x\n")
    assert run_rows(tmp_path) == {"g0": {"name": "g0", "seconds": 41.5}}


def test_timings__of_an_older_product_are_not_shown(tmp_path: Path) -> None:
    product = tmp_path / "specphoto_a.fits"
    product.touch()
    write_timings(Products(product, None, [Stage("spectral match", 3, 3, 9.5)], {"open": 1.25}))
    stage = "spectral match, 3 tasks, summed over workers"
    assert read_timings(product) == {"open": 1.25, stage: 9.5}
    os.utime(product, (2e9, 2e9))
    assert read_timings(product) == {}


def test_write_index__nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a folder with products.*found none"):
        write_index(tmp_path)


def test_report__command_for_one_galaxy(reported: Path, tmp_path: Path) -> None:
    made = CliRunner().invoke(
        app, ["report", str(reported / "untrusted.zarr"), "-o", str(tmp_path / "page.html")]
    )
    assert made.exit_code == 0
    assert page_row(tmp_path / "page.html")["verdict"] == "fail"
    missing = CliRunner().invoke(app, ["report", str(tmp_path / "no")])
    assert "found nothing there" in str(missing.exception)
