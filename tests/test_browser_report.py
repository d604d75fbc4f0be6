"""The report's pages in a real browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from browser import chromium, listened, shoot
from factories import disc_dataset

from specphoto.io import write_zarr
from specphoto.report import write_page
from specphoto.report.sample import write_table

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.browser


def sample_rows(n: int) -> list[dict[str, object]]:
    rng = np.random.default_rng(1)
    verdicts = rng.choice(["pass", "warn", "fail"], n, p=[0.9, 0.08, 0.02])
    return [
        {
            "name": f"galaxy-{i}", "verdict": str(verdicts[i]), "reasons": [], "survey": "manga",
            "redshift": float(rng.uniform(0.01, 0.15)), "n_pixel": int(rng.integers(20, 900)),
            "chi2": None if i == 0 else float(rng.chisquare(8)), "page": f"galaxy-{i}.html",
            "thumbnail": None,
        }
        for i in range(n)
    ]  # fmt: skip


def test_index__sorts_and_filters_ten_thousandsample_rows(tmp_path: Path) -> None:
    rows = sample_rows(10_000)
    write_table(rows, tmp_path / "index.html", title="sample")
    with chromium(viewport={"width": 1200, "height": 800}) as context:
        page, said = listened(context)
        page.goto((tmp_path / "index.html").as_uri())
        names = page.locator("#galaxies tbody th")
        assert names.count() == 50
        assert page.locator("#state").inner_text() == "1 to 50 of 10000"

        page.get_by_role("button", name="redshift").click()
        page.wait_for_selector("th[data-key=redshift][aria-sort=ascending]")
        nearest = min(rows, key=lambda row: row["redshift"])  # type: ignore[arg-type,return-value]
        assert names.first.inner_text() == nearest["name"]
        # by the keyboard
        page.get_by_role("button", name="redshift").press("Enter")
        page.wait_for_selector("th[data-key=redshift][aria-sort=descending]")
        furthest = max(rows, key=lambda row: row["redshift"])  # type: ignore[arg-type,return-value]
        assert names.first.inner_text() == furthest["name"]

        page.get_by_label("Verdict").select_option("fail")
        failed = sum(row["verdict"] == "fail" for row in rows)
        assert page.locator("#state").inner_text().endswith(f"of {failed}")
        page.get_by_label("Verdict").select_option("")
        page.get_by_label("Search").fill("galaxy-777")
        found = [row for row in rows if str(row["name"]).startswith("galaxy-777")]
        assert names.count() == len(found) == 11
        page.get_by_label("Search").fill("nothing like it")
        assert page.locator("#state").inner_text() == "no galaxy fits these filters"
        page.get_by_label("Search").fill("")
        page.get_by_role("button", name="Next").click()
        assert page.locator("#state").inner_text() == "51 to 100 of 10000"
        shoot(page, "index-wide")
        assert said == []


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    write_zarr(disc_dataset(), folder / "corr_specphoto_disc.zarr")
    write_page(folder / "corr_specphoto_disc.zarr", folder / "disc.html")
    return folder / "disc.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [380, 1280])
def test_page__fits_its_window(page_file: Path, scheme: str, width: int) -> None:
    with chromium(viewport={"width": width, "height": 800}, color_scheme=scheme) as context:
        page, said = listened(context)
        page.goto(page_file.as_uri())
        assert page.locator("h2 .verdict").inner_text().lower() == "pass"
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("[...document.images].every((i) => i.complete && i.naturalWidth > 0)")
        shoot(page, f"page-{scheme}-{width}")
        assert said == []
