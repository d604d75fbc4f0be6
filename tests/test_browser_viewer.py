"""The viewer in a real browser: what is clicked is what is shown."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from astropy.table import Table
from browser import focused, require_contrast, shoot, window
from factories import disc_dataset, specphoto_dataset

import specphoto
from specphoto.maps import channel_at
from specphoto.viewer import serve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

READY = """() => window.Bokeh && Bokeh.documents.length && Bokeh.documents[0].is_idle
  && Bokeh.documents[0].get_model_by_name("map").inner_width > 0"""
# Where a pixel is in the window.
PLACE = """([x, y]) => {
  const view = Bokeh.index.find_one(Bokeh.documents[0].get_model_by_name("map"));
  const box = view.canvas_view.el.getBoundingClientRect();
  return [box.left + view.frame.x_scale.compute(x), box.top + view.frame.y_scale.compute(y)];
}"""
GET = "([source, name]) => Array.from(Bokeh.documents[0].get_model_by_name(source).get(name))"
# All that is said from now on.
HEAR = """() => {
  const said = Bokeh.documents[0].get_model_by_name("said");
  window.heard = [];
  said.properties.text.change.connect(() => window.heard.push(said.text));
}"""
IMAGE = "() => Array.from(Bokeh.documents[0].get_model_by_name('image').get('image')[0])"


# How well the texts of the plots can be read: canvases are no part of the document.
PLOTS = """() => ["map", "sed", "factor"].flatMap((name) => {
  const doc = Bokeh.documents[0], plot = doc.get_model_by_name(name), out = [];
  const text = (what, colour, ground) => out.push([`${name}, ${what}`, contrast(colour, ground)]);
  text("title", plot.title.text_color, plot.border_fill_color);
  for (const axis of [...plot.left, ...plot.below]) {
    text("axis", axis.axis_label_text_color, plot.border_fill_color);
    text("numbers", axis.major_label_text_color, plot.border_fill_color);
  }
  for (const part of [...plot.center, ...plot.right]) {
    const label = part.label_text_color ?? part.major_label_text_color;
    if (label && part.background_fill_color) text("label", label, part.background_fill_color);
  }
  return out;
})"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the command serves a galaxy, as people start it."""
    product = tmp_path_factory.mktemp("viewed") / "corr_specphoto_disc.zarr"
    specphoto.write_zarr(disc_dataset(), product)
    command = [sys.executable, "-m", "specphoto", "view", str(product), "--no-browser"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        assert address.startswith("http://localhost:")
        yield address
    finally:
        server.send_signal(signal.SIGINT)
        try:
            assert server.wait(60) == 0
        finally:
            server.kill()
            server.stdout.close()  # type: ignore[union-attr]


@contextmanager
def _served(product: Path) -> Iterator[str]:
    """Where a thread of this process serves another galaxy, which is quicker."""
    begun: Queue[Any] = Queue()

    def work() -> None:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        server, port = serve(product)
        begun.put((server, port))
        server.io_loop.start()
        server.stop()
        loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    server, port = begun.get(timeout=60)
    try:
        yield f"http://localhost:{port}/"
    finally:
        server.io_loop.add_callback(server.io_loop.stop)
        thread.join()


@contextmanager
def _opened(
    browser: Browser, address: str, width: int = 1300, **options: Any
) -> Iterator[tuple[Page, list[str]]]:
    with window(browser, width, **options) as (page, said):
        page.goto(address)
        page.wait_for_function(READY)
        yield page, said


@pytest.fixture
def viewer(browser: Browser, address: str) -> Iterator[tuple[Page, list[str]]]:
    with _opened(browser, address) as opened:
        yield opened


def _click(page: Page, x: int, y: int) -> None:
    place = page.evaluate(PLACE, [x, y])
    page.mouse.click(*place)
    page.get_by_text(f"pixel x = {x}, y = {y}").wait_for()


def _numbers(page: Page, name: str, source: str = "spectrum") -> np.ndarray:
    values: Any = page.evaluate(GET, [source, name])
    return np.array([np.nan if v is None else v for v in values], dtype=float)


def test_viewer__answers_its_own_pages_only(address: str) -> None:
    place = urlsplit(address)
    status = {}
    for origin in (f"http://{place.netloc}", "http://example.org"):
        connection = HTTPConnection("127.0.0.1", place.port or 0)
        connection.request("GET", "/ws", headers={
            "Origin": origin, "Host": place.netloc, "Connection": "Upgrade",
            "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
            "Sec-WebSocket-Protocol": "bokeh, token",
        })  # fmt: skip
        status[origin] = connection.getresponse().status
        connection.close()
    assert list(status.values()) == [101, 403]


def test_viewer__a_click_shows_the_pixel(viewer: tuple[Page, list[str]]) -> None:
    page, said = viewer
    at = disc_dataset().isel(y=12, x=7).compute()
    _click(page, 7, 12)
    np.testing.assert_allclose(_numbers(page, "corrected"), at["spec_flux"], rtol=1e-6)
    before = at["spec_flux"] / at["corr_factor"]
    np.testing.assert_allclose(_numbers(page, "observed"), before, rtol=1e-5)
    np.testing.assert_allclose(_numbers(page, "model"), at["mod_flux"], rtol=1e-6)
    factor = at["corr_factor"].sel(wave=_numbers(page, "wave", "curve")).values
    np.testing.assert_allclose(_numbers(page, "factor", "curve"), factor, rtol=1e-5)
    link = page.get_by_role("link", name="RA 205.")
    assert "legacysurvey.org/viewer?ra=205." in str(link.get_attribute("href"))
    name = page.locator(".bk-Figure[role=img]").nth(1).get_attribute("aria-label")
    assert name == "Spectrum and images of pixel x = 7, y = 12. "
    shoot(page, "viewer-clicked")
    assert said == []


def test_viewer__typed_by_the_keyboard(viewer: tuple[Page, list[str]]) -> None:
    page, said = viewer
    for axis, value in (("x", "9"), ("y", "14")):
        page.get_by_label(axis, exact=True).fill(value)
        page.get_by_label(axis, exact=True).press("Enter")
    page.get_by_text("pixel x = 9, y = 14").wait_for()
    flux = disc_dataset()["spec_flux"].isel(y=14, x=9).values
    np.testing.assert_allclose(_numbers(page, "corrected"), flux, rtol=1e-6)
    assert said == []


def test_viewer__follows_the_pointer_when_told(viewer: tuple[Page, list[str]]) -> None:
    page, said = viewer
    flux = disc_dataset()["spec_flux"].compute()
    page.get_by_label("Follow the pointer").check()
    for x, y in ((8, 8), (9, 9), (12, 11)):
        page.mouse.move(*page.evaluate(PLACE, [x, y]))
    page.get_by_text("pixel x = 12, y = 11").wait_for()
    np.testing.assert_allclose(_numbers(page, "corrected"), flux.isel(y=11, x=12), rtol=1e-6)
    page.get_by_label("Follow the pointer").uncheck()
    page.evaluate(HEAR)
    page.mouse.move(*page.evaluate(PLACE, [8, 8]))
    _click(page, 9, 10)
    heard = page.evaluate("window.heard")
    assert len(heard) == 1
    assert "x = 9, y = 10" in heard[0]
    assert said == []


def test_viewer__outside_the_region_is_said(viewer: tuple[Page, list[str]]) -> None:
    page, said = viewer
    page.get_by_label("y", exact=True).fill("0")
    page.get_by_label("y", exact=True).press("Enter")
    page.get_by_text("outside spec_region: no spectrum here").first.wait_for()
    assert said == []


def test_viewer__slider_changes_the_map(viewer: tuple[Page, list[str]]) -> None:
    page, said = viewer
    ds = disc_dataset()
    page.get_by_label("Map", exact=True).select_option(label="flux of the spectrum")
    handle = page.locator(".noUi-handle")
    handle.wait_for()
    middle = ds["spec_flux"].isel(wave=channel_at(ds, None)).values
    page.wait_for_function("() => Bokeh.documents[0].get_model_by_name('map').title.text"
                           ".startsWith('flux of the spectrum')")  # fmt: skip
    shown = [v if v is not None else np.nan for v in page.evaluate(IMAGE)]
    np.testing.assert_allclose(shown, middle.ravel(), rtol=1e-6)
    handle.press("Home")  # the keyboard moves it
    page.wait_for_function("() => Bokeh.documents[0].get_model_by_name('map').title.text"
                           ".endsWith('3700 Å')")  # fmt: skip
    shown = [v if v is not None else np.nan for v in page.evaluate(IMAGE)]
    np.testing.assert_allclose(shown, ds["spec_flux"].isel(wave=0).values.ravel(), rtol=1e-6)
    shoot(page, "viewer-map")
    assert said == []


def test_viewer__a_drag_sums_an_aperture_and_data_are_saved(
    viewer: tuple[Page, list[str]], tmp_path: Path
) -> None:
    page, said = viewer
    page.mouse.move(*page.evaluate(PLACE, [7.6, 8.6]))
    page.mouse.down()
    page.mouse.move(*page.evaluate(PLACE, [9.0, 10.0]))
    page.mouse.move(*page.evaluate(PLACE, [10.4, 11.4]))
    page.mouse.up()
    page.get_by_text("aperture of 9 pixels").wait_for()
    total = disc_dataset()["spec_flux"].isel(y=slice(9, 12), x=slice(8, 11)).sum(["y", "x"])
    np.testing.assert_allclose(_numbers(page, "corrected"), total, rtol=1e-5)
    with page.expect_download() as coming:
        page.get_by_role("button", name="Data, ECSV").click()
    coming.value.save_as(tmp_path / "data.ecsv")
    table = Table.read(tmp_path / "data.ecsv", format="ascii.ecsv")
    np.testing.assert_allclose(table["spec_flux"], total, rtol=1e-5)
    assert table.meta["where"] == "aperture of 9 pixels"
    with page.expect_download() as coming:
        page.get_by_role("button", name="Figure, PDF").click()
    assert coming.value.suggested_filename == "disc_aperture_of_9_pixels.pdf"
    assert Path(coming.value.path()).read_bytes().startswith(b"%PDF")
    shoot(page, "viewer-aperture")
    assert said == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_viewer__fits_its_window(browser: Browser, address: str, scheme: str, width: int) -> None:
    with _opened(browser, address, width, color_scheme=scheme) as (page, said):
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        ground = "() => Bokeh.documents[0].get_model_by_name('sed').background_fill_color"
        assert page.evaluate(ground) == {"light": "#ffffff", "dark": "#15171a"}[scheme]
        page.get_by_label("Map", exact=True).select_option(label="flux of the spectrum")
        page.locator(".noUi-handle").wait_for()
        require_contrast(page, 12)
        assert [text for text in page.evaluate(PLOTS) if text[1] < 4.5] == []
        names = focused(page, 40)
        assert {"Map", "x", "y", "Follow the pointer", "Figure, PDF", "Data, ECSV"} <= set(names)
        shoot(page, f"viewer-{scheme}-{width}")
        # the page changes its colours while it is open
        page.emulate_media(color_scheme="light")
        page.wait_for_function(f"({ground})() === '#ffffff'")
        assert said == []


def test_viewer__of_a_fits_file(browser: Browser, tmp_path: Path) -> None:
    specphoto.write_fits(disc_dataset(), tmp_path / "disc.fits")
    with _served(tmp_path / "disc.fits") as address, _opened(browser, address) as (page, said):
        _click(page, 7, 12)
        flux = disc_dataset()["spec_flux"].isel(y=12, x=7).values
        np.testing.assert_allclose(_numbers(page, "corrected"), flux, rtol=1e-6)
        assert said == []


def test_viewer__all_masked_and_no_spectral_stage(browser: Browser, tmp_path: Path) -> None:
    before = specphoto_dataset(9, 60)
    masked = before.assign(spec_mask=before["spec_mask"] | True)
    specphoto.write_zarr(masked, tmp_path / "specphoto_masked.zarr")
    with (
        _served(tmp_path / "specphoto_masked.zarr") as address,
        _opened(browser, address) as (page, said),
    ):
        page.get_by_text("every channel is masked").first.wait_for()
        for label in ("why", "why-factor"):
            text = f"() => Bokeh.documents[0].get_model_by_name('{label}').text"
            assert page.evaluate(text) == "every channel is masked"
        shoot(page, "viewer-masked")
        assert said == []
