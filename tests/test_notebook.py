"""The notebook runs, and the viewer works in JupyterLab."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from shutil import copy
from typing import TYPE_CHECKING

import nbformat
import pytest
from browser import shoot, window
from nbclient import NotebookClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "view.ipynb"
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


def test_notebook__runs_and_shows_the_viewer(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    kinds = {kind for out in shown for kind in out.get("data", {})}
    assert "application/vnd.jupyter.widget-view+json" in kinds
    assert "image/png" in kinds


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
