"""The notebook runs, and the viewer works in JupyterLab."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from shutil import copy

import nbformat
import pytest
from browser import chromium, listened, shoot
from nbclient import NotebookClient

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


def test_notebook__runs_and_shows_the_viewer(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    kinds = {kind for out in shown for kind in out.get("data", {})}
    assert "application/vnd.jupyter.widget-view+json" in kinds
    assert "image/png" in kinds


@pytest.mark.slow
@pytest.mark.browser
def test_jupyterlab__a_click_shows_the_pixel(tmp_path: Path) -> None:
    copy(NOTEBOOK, tmp_path)
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
        "--port=0", f"--ServerApp.root_dir={tmp_path}",
    ]  # fmt: skip
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=log, text=True)
    try:
        assert server.stderr is not None
        found = None
        for line in server.stderr:
            found = re.search(r"http://127\.0\.0\.1:(\d+)/lab\?token=(\w+)", line)
            if found:
                break
        assert found is not None
        with chromium(viewport={"width": 1500, "height": 1100}) as context:
            page, _ = listened(context)
            page.set_default_timeout(60_000)
            port, token = found.groups()
            page.goto(f"http://127.0.0.1:{port}/lab/tree/view.ipynb?token={token}")
            page.locator(".jp-Notebook").wait_for()
            page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
            page.get_by_text("Run", exact=True).first.click()
            page.get_by_text("Run All Cells", exact=True).click()
            page.get_by_text("pixel x = 15, y = 15").wait_for()
            page.locator(".bk-Figure").first.scroll_into_view_if_needed()
            page.wait_for_function("() => window.Bokeh && Bokeh.documents.length > 0")
            page.wait_for_function(STILL, arg=[14, 16], polling=1000)
            page.mouse.click(*page.evaluate(PLACE, [14, 16]))
            page.get_by_text("pixel x = 14, y = 16").wait_for()
            shoot(page, "jupyterlab")
    finally:
        server.terminate()
        server.wait(60)
        server.stderr.close()  # type: ignore[union-attr]
