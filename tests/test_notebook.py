"""The notebooks run from a clean kernel, and the viewer works in JupyterLab."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from shutil import copy
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from browser import shoot, window
from nbclient import NotebookClient

import specphoto

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
NOTEBOOK = NOTEBOOKS / "view.ipynb"
PLACE = """([x, y]) => {
  const view = Bokeh.index.find_one(Bokeh.documents.at(-1).get_model_by_name("map"));
  const box = view.canvas_view.el.getBoundingClientRect();
  return [box.left + view.frame.x_scale.compute(x), box.top + view.frame.y_scale.compute(y)];
}"""

# Twice the same place: the notebook has stopped to scroll.
STILL = f"""(at) => {{
  const now = String(({PLACE})(at)), same = window.placed === now;
  window.placed = now;
  return same;
}}"""
GROUND = "() => Bokeh.documents.at(-1).get_model_by_name('sed').background_fill_color"


def executed(name: str, folder: Path) -> list[dict[str, Any]]:
    """Outputs of a notebook, run in a folder of its own; warnings of its cells are errors."""
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    strict = nbformat.v4.new_code_cell("import warnings\n\nwarnings.simplefilter('error')")
    notebook.cells.insert(0, strict)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    return [out for cell in notebook.cells for out in cell.get("outputs", [])]


def figures(outputs: list[dict[str, Any]]) -> int:
    return sum("image/png" in out.get("data", {}) for out in outputs)


def printed(outputs: list[dict[str, Any]]) -> str:
    return "".join(out["text"] for out in outputs if out["output_type"] == "stream")


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda p: p.name)
def test_notebook__has_no_outputs_in_git(path: Path) -> None:
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    assert cells
    assert all(c.outputs == [] and c.execution_count is None for c in cells)


def test_view__shows_the_viewer(tmp_path: Path) -> None:
    outputs = executed("view.ipynb", tmp_path)
    kinds = {kind for out in outputs for kind in out.get("data", {})}
    assert "application/vnd.jupyter.widget-view+json" in kinds
    assert figures(outputs) >= 1


def test_match_one_galaxy__draws_and_finds_the_factor(tmp_path: Path) -> None:
    outputs = executed("01_match_one_galaxy.ipynb", tmp_path)
    assert figures(outputs) == 6
    times = re.search(r"of \d+ pixels: ([\d.]+) times that of independent", printed(outputs))
    assert times is not None
    assert float(times[1]) > 2.0
    for made, survey in (("manga", "manga"), ("califa", "califa")):
        cube = specphoto.open_cube(tmp_path / "sky" / f"{made}.zarr")
        assert cube.attrs["survey"] == survey
        closure = cube.where(cube.spec_region)[["closure_before", "closure_after"]].compute()
        worst = {n: float(abs(c.median(("y", "x"))).max()) for n, c in closure.items()}
        assert worst["closure_after"] < 0.02 < worst["closure_before"]


def test_dashboard__reads_the_task_stream(tmp_path: Path) -> None:
    outputs = executed("02_dashboard.ipynb", tmp_path)
    texts = " ".join(str(out.get("data", {}).get("text/plain")) for out in outputs)
    assert "/status" in texts
    assert "fit-prepare-library" in texts
    assert "{'spatial-planes': True, 'fit-pixels': False, 'fit-prepare-library': False}" in texts
    assert figures(outputs) == 1


def test_sample__has_a_number_of_every_galaxy(tmp_path: Path) -> None:
    outputs = executed("03_sample.ipynb", tmp_path)
    assert any("GalaxySample of 52 galaxies" in str(out.get("data")) for out in outputs)
    assert figures(outputs) == 3


@pytest.mark.realdata
def test_real_muse_hst__finds_the_offset(
    tmp_path: Path, realdata: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (realdata / "muse_a478" / "minicube.fits").exists():
        pytest.skip(f"no muse_a478/minicube.fits in SPECPHOTO_DATA={realdata}")
    monkeypatch.setenv("SPECPHOTO_DATA", str(realdata.resolve()))
    outputs = executed("04_real_muse_hst.ipynb", tmp_path)
    assert figures(outputs) == 3
    east, north = (
        float(v)
        for v in re.findall(r"([+-][\d.]+) ± [\d.]+ arcsec (?:east|north)", printed(outputs))
    )
    # by eye and with other code: 0.80 west and 0.97 south
    assert (east, north) == pytest.approx((-0.80, -0.97), abs=0.03)
    assert "correlate by 0.99" in printed(outputs)


@pytest.mark.slow
@pytest.mark.browser
def test_jupyterlab__a_click_shows_the_pixel(browser: Browser, tmp_path: Path) -> None:
    copy(NOTEBOOK, tmp_path)
    with _jupyterlab(tmp_path) as address, window(browser, 1500) as (page, _):
        page.set_default_timeout(60_000)
        page.goto(address)
        page.locator(".jp-Notebook").wait_for()
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
        page.get_by_text("Run", exact=True).first.click()
        page.get_by_text("Run All Cells", exact=True).click()
        page.get_by_text("pixel x = 15, y = 15").wait_for()
        page.wait_for_function("() => window.Bokeh && Bokeh.documents.length > 0")
        _click(page, 14, 16)
        assert page.evaluate(GROUND) == "#ffffff"
        shoot(page, "jupyterlab-light")
        # the other theme, while the viewer is there
        page.get_by_text("Settings", exact=True).first.click()
        page.get_by_text("Theme", exact=True).hover()
        page.get_by_text("JupyterLab Dark", exact=True).click()
        page.wait_for_function(f"({GROUND})() === '#15171a'")
        _click(page, 16, 14)
        shoot(page, "jupyterlab-dark")


@contextmanager
def _jupyterlab(folder: Path) -> Iterator[str]:
    """Where a JupyterLab of its own shows the notebook."""
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
        "--port=0", f"--ServerApp.root_dir={folder}",
        f"--LabApp.user_settings_dir={folder / 'settings'}",
        f"--LabApp.workspaces_dir={folder / 'workspaces'}",
    ]  # fmt: skip
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=log, text=True)
    try:
        assert server.stderr is not None
        found = None
        for line in server.stderr:
            found = re.search(r"(http://127\.0\.0\.1:\d+/lab)\?token=(\w+)", line)
            if found:
                break
        assert found is not None
        yield f"{found[1]}/tree/view.ipynb?token={found[2]}"
    finally:
        server.terminate()
        server.wait(60)
        server.stderr.close()  # type: ignore[union-attr]


def _click(page: Page, x: int, y: int) -> None:
    page.locator(".bk-Figure").first.scroll_into_view_if_needed()
    page.wait_for_function(STILL, arg=[x, y], polling=1000)
    page.mouse.click(*page.evaluate(PLACE, [x, y]))
    page.get_by_text(f"pixel x = {x}, y = {y}").wait_for()
