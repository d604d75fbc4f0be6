"""The report's pages in a real browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from browser import FOCUS, focused, require_contrast, shoot, window
from factories import disc_dataset

from specphoto.report.page import draw_thumbnail
from specphoto.report.sample import write_table

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser

DRAWN = "() => [...document.images].every((i) => i.complete && i.naturalWidth > 0)"


def sample_rows(n: int) -> list[dict[str, object]]:
    rng = np.random.default_rng(1)
    verdicts = rng.choice(["pass", "warn", "fail"], n, p=[0.9, 0.08, 0.02])
    return [
        {
            "name": f"galaxy-{i}", "verdict": str(verdicts[i]), "reasons": [], "survey": "manga",
            "redshift": float(rng.uniform(0.01, 0.15)), "n_pixel": int(rng.integers(20, 900)),
            "chi2": None if i == 0 else float(rng.chisquare(8)), "page": f"galaxy-{i}.html",
            "thumbnail": "one.png",
        }
        for i in range(n)
    ]  # fmt: skip


def test_index__sorts_and_filters_ten_thousand_rows(browser: Browser, tmp_path: Path) -> None:
    rows = sample_rows(10_000)
    write_table(rows, tmp_path / "index.html", title="sample")
    draw_thumbnail(disc_dataset(), tmp_path / "one.png")
    with window(browser, 1200) as (page, said):
        page.goto((tmp_path / "index.html").as_uri())
        names = page.locator("#galaxies tbody th")
        assert names.count() == 50
        assert page.locator("#state").inner_text() == "1 to 50 of 10000"
        page.wait_for_function("() => document.images[0].naturalWidth > 0")

        # controls, the table itself, and the columns' names
        assert {"Search", "Verdict", "Next", "Galaxies", "galaxy"} <= set(focused(page, 20))
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
        require_contrast(page, 200)
        shoot(page, "index-wide")
        assert said == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [380, 1280])
def test_page__fits_its_window(browser: Browser, reported: Path, scheme: str, width: int) -> None:
    with window(browser, width, color_scheme=scheme) as (page, said):
        page.goto((reported / "report" / "index.html").as_uri())
        require_contrast(page, 30)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        shoot(page, f"index-{scheme}-{width}")
        page.get_by_role("link", name="alert(1)").click()
        assert page.locator("h2 .verdict").inner_text().lower() == "pass"
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.wait_for_function(DRAWN)
        require_contrast(page, 60)
        page.keyboard.press("Tab")  # the provenance, which is all that can be opened here
        assert page.evaluate(FOCUS)["name"] == "All steps and options"
        assert page.evaluate(FOCUS)["seen"]
        page.keyboard.press("Enter")
        page.locator("pre").wait_for()  # which was hidden
        shoot(page, f"page-{scheme}-{width}")
        assert said == []


@pytest.mark.parametrize("stem", ["masked", "specphoto_plain", "untrusted"])
def test_page__says_why_there_is_nothing(browser: Browser, reported: Path, stem: str) -> None:
    with window(browser) as (page, said):
        page.goto((reported / "report" / f"{stem}.html").as_uri())
        page.wait_for_function(DRAWN)
        shoot(page, f"page-{stem}")
        assert said == []
