"""First paint and click latency of the viewer, and the sample index, as a browser measures them.

``python benchmarks/viewer.py [PRODUCT] [--write]`` serves a full-size MaNGA product (simulated and
matched first if none is given, about two minutes), opens it in headless Chromium and clicks. With
``--write`` the table goes into ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import readme

import specphoto
from specphoto.pipeline import run
from specphoto.report.page import draw_thumbnail
from specphoto.report.sample import write_table
from specphoto.simulate import simulate_galaxy
from specphoto.viewer.blocks import BLOCK

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from browser import chromium, window
from factories import disc_dataset
from test_browser_report import sample_rows
from test_browser_viewer import PLACE, READY

if TYPE_CHECKING:
    from playwright.sync_api import Page

# Milliseconds until an action shows in the document and the frame after it is drawn.
# The clock starts in the page, when the button of the mouse comes up.
CLICK = """(text) => {
  const said = Bokeh.documents[0].get_model_by_name("said");
  let start = 0;
  const begin = () => { start = performance.now(); };
  addEventListener("pointerup", begin, { capture: true, once: true });
  window.clicked = new Promise((done, fail) => {
    setTimeout(() => fail(new Error("no answer to a click")), 30000);
    const seen = () => {
      if (!said.text.includes(text)) return;
      said.properties.text.change.disconnect(seen);
      requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start)));
    };
    said.properties.text.change.connect(seen);
  });
}"""
SLIDE = """(wave) => new Promise((done, fail) => {
  setTimeout(() => fail(new Error("no answer to the slider")), 30000);
  const doc = Bokeh.documents[0], map = doc.get_model_by_name("map").title;
  const start = performance.now(), before = map.text;
  const seen = () => {
    if (map.text === before) return;
    map.properties.text.change.disconnect(seen);
    requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start)));
  };
  map.properties.text.change.connect(seen);
  const slider = doc.get_model_by_name("wave");
  slider.value = wave;
  slider.value_throttled = wave;
})"""
SORT = """() => {
  const button = document.querySelector("th[data-key=chi2] button");
  const start = performance.now();
  button.click();
  document.body.getBoundingClientRect();
  return performance.now() - start;
}"""
FILTER = """() => {
  const box = document.getElementById("search");
  const start = performance.now();
  box.value = "galaxy-77";
  box.dispatchEvent(new Event("input"));
  document.body.getBoundingClientRect();
  return performance.now() - start;
}"""


def full_size(folder: Path) -> Path:
    """A 127-fibre MaNGA cube matched to 12 bands; its FITS product lies beside."""
    galaxy = simulate_galaxy(folder, seed=1)
    made = run(galaxy.cube.path, galaxy.photometry.path, folder, formats=("fits", "zarr"))
    assert made.zarr is not None
    return made.zarr


def viewer_rows(product: Path) -> list[tuple[str, float]]:
    """Milliseconds by what was done with a product, in a browser with an empty cache."""
    command = [sys.executable, "-m", "specphoto", "view", str(product), "--no-browser"]
    start = time.perf_counter()
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        rows = [("command until it listens", 1e3 * (time.perf_counter() - start))]
        with chromium() as browser, window(browser, 1400) as (page, _):
            start = time.perf_counter()
            page.goto(address)
            page.wait_for_function(READY)
            rows.append(("first paint: page asked for until all is drawn, empty cache",
                         1e3 * (time.perf_counter() - start)))  # fmt: skip
            start = time.perf_counter()
            page.reload()
            page.wait_for_function(READY)
            rows.append(("the same, scripts in the browser's cache",
                         1e3 * (time.perf_counter() - start)))  # fmt: skip
            return rows + answers(page, specphoto.open_cube(product)["spec_region"].values)
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()  # type: ignore[union-attr]


def answers(page: Page, region: np.ndarray) -> list[tuple[str, float]]:
    """Milliseconds of clicks and of the slider."""
    # one pixel of each block but that of the page's own first pixel, then others of all blocks
    rows, columns = np.nonzero(region)
    blocks = rows // BLOCK * 1000 + columns // BLOCK
    x, y = (page.get_by_label(axis, exact=True).input_value() for axis in "xy")
    unread = set(blocks) - {int(y) // BLOCK * 1000 + int(x) // BLOCK}
    first = [int(np.flatnonzero(blocks == b)[0]) for b in sorted(unread)]
    rng = np.random.default_rng(1)
    later = [i for i in rng.choice(rows.size, 30, replace=False) if i not in first]

    def click(i: int) -> float:
        x, y = int(columns[i]), int(rows[i])
        page.evaluate(CLICK, f"x = {x}, y = {y}<")
        page.mouse.click(*page.evaluate(PLACE, [x, y]))
        return float(page.evaluate("window.clicked"))

    new, known = [click(i) for i in first], [click(i) for i in later]
    page.get_by_label("Map", exact=True).select_option(label="correction factor")
    page.locator(".noUi-handle").wait_for()
    slides = [float(page.evaluate(SLIDE, wave)) for wave in (4000.0, 5000.0, 8000.0, 9000.0)]
    page.get_by_label("Map", exact=True).select_option(label="flux of the spectrum")
    page.wait_for_function("() => Bokeh.documents[0].get_model_by_name('map').title.text"
                           ".startsWith('flux of the spectrum')")  # fmt: skip
    planes = [float(page.evaluate(SLIDE, wave)) for wave in (4000.0, 5000.0, 8000.0)]
    return [
        (f"click on a pixel of a block not read yet, median of {len(new)}", float(np.median(new))),
        ("the same, slowest", max(new)),
        (f"click on a pixel of a block read before, median of {len(known)}",
         float(np.median(known))),
        ("the same, slowest", max(known)),
        ("slider, map of the factor, median", float(np.median(slides))),
        ("slider, plane of the cube, median", float(np.median(planes))),
    ]  # fmt: skip


def index_rows() -> list[tuple[str, float]]:
    """Milliseconds of the sample index with 10 000 rows."""
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index.html"
        write_table(sample_rows(10_000), index, title="sample")
        draw_thumbnail(disc_dataset(), Path(folder) / "one.png")
        with chromium() as browser, window(browser, 1400) as (page, _):
            start = time.perf_counter()
            page.goto(index.as_uri())
            opened = 1e3 * (time.perf_counter() - start)
            return [
                ("index of 10 000 galaxies: open", opened),
                ("sort by chi2", float(page.evaluate(SORT))),
                ("filter by a name", float(page.evaluate(FILTER))),
            ]


def table(rows: list[tuple[str, float]]) -> str:
    """Markdown."""
    command = f"`python benchmarks/viewer.py --write`, {datetime.now(UTC):%Y-%m-%d}"
    machine = f"Python {platform.python_version()}, specphoto {specphoto.__version__}"
    machine += f", load {os.getloadavg()[0]:.1f} at the end"
    lines = [f"{command}, {machine}:", "", "| what | ms |", "|---|---:|"]
    return "\n".join(lines + [f"| {what} | {ms:.0f} |" for what, ms in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("product", nargs="?", type=Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        product = options.product or full_size(Path(folder))
        rows = viewer_rows(product)
        fits = product.with_suffix(".fits")
        if fits.is_file():
            rows += [(f"FITS: {what}", ms) for what, ms in viewer_rows(fits)]
        made = table(rows + index_rows())
    print(made)
    if options.write:
        readme.put("viewer", made)


if __name__ == "__main__":
    main()
