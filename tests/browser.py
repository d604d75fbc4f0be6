"""Debian's Chromium, driven headless, for tests that need a real browser."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

# Every wait ends by then; a loaded machine is slow, a broken page never gets there.
PATIENCE_MS = 30_000
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
#: Where screenshots go, to be looked at.
SHOTS = Path(os.environ.get("SPECPHOTO_SHOTS", Path(__file__).parent.parent / ".screenshots"))

# Texts that are harder to read than WCAG 2 asks for (4.5 to 1, large ones 3 to 1), with the ratio.
# Those of switched off controls are left out, as the standard does. Shadow roots are looked into.
PALE = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const layer = (colour, below) => {
    canvas.fillStyle = `rgb(${below})`; canvas.fillRect(0, 0, 1, 1);
    canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const above = (node) => node.assignedSlot ?? node.parentElement ?? node.getRootNode().host;
  const ground = (node) => {
    const dark = getComputedStyle(document.documentElement).colorScheme.includes("dark")
      && matchMedia("(prefers-color-scheme: dark)").matches;
    const below = above(node) ? ground(above(node)) : dark ? [18, 18, 18] : [255, 255, 255];
    return layer(getComputedStyle(node).backgroundColor, below);
  };
  const light = (colour) => colour.map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ratio = (a, b) => {
    const [low, high] = [light(a), light(b)].sort((p, q) => p - q);
    return (high + 0.05) / (low + 0.05);
  };
  window.contrast = (colour, below) => {
    const opaque = layer(below, [255, 255, 255]);
    return ratio(layer(colour, opaque), opaque);
  };
  const pale = [];
  let seen = 0;
  const look = (root) => {
    for (const node of root.querySelectorAll("*")) {
      if (node.shadowRoot) look(node.shadowRoot);
      const own = [...node.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
      if (!(own || node.matches("input, select")) || node.matches("script, style, :disabled")
        || !node.checkVisibility()) continue;
      const style = getComputedStyle(node), below = ground(node);
      const found = ratio(layer(style.color, below), below);
      const size = parseFloat(style.fontSize);
      const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
      seen += 1;
      if (found < (large ? 3 : 4.5))
        pale.push([node.tagName, (node.textContent || node.value).slice(0, 40), found]);
    }
  };
  look(document);
  return { pale, seen };
}"""
# What has the keyboard's focus, and its outline.
FOCUS = """() => {
  let node = document.activeElement;
  while (node.shadowRoot?.activeElement) node = node.shadowRoot.activeElement;
  const style = getComputedStyle(node);
  const label = [...(node.labels?.[0]?.childNodes ?? [])].filter((n) => !n.matches?.("select"));
  const name = node.ariaLabel ?? (label.map((n) => n.textContent).join("") || node.textContent);
  return { tag: node.tagName, name: name.trim(), body: node === document.body,
    seen: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1 };
}"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A new Chromium; skips loudly where there is none. Its contexts share nothing."""
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("NO BROWSER: install Debian's chromium; the pages are NOT tested")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=executable, headless=True, args=FLAGS, timeout=PATIENCE_MS
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def window(browser: Browser, width: int = 1300, **options: Any) -> Iterator[tuple[Page, list[str]]]:
    """A page in a window with an empty cache, and the list that its errors and warnings go to."""
    with browser.new_context(viewport={"width": width, "height": 900}, **options) as context:
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        said: list[str] = []
        page.on(
            "console",
            lambda heard: said.append(heard.text) if heard.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda error: said.append(str(error)))
        yield page, said


def focused(page: Page, times: int) -> list[str]:
    """Names of what the tabulator key reaches; each must be seen to have the focus."""
    names = []
    for _ in range(times):
        page.keyboard.press("Tab")
        found = page.evaluate(FOCUS)
        if found["body"]:
            break
        assert found["seen"], f"{found['tag']} {found['name']!r} does not show its focus"
        names.append(found["name"])
    return names


def require_contrast(page: Page, least: int) -> None:
    """All texts of a page, and there are at least so many, are dark or light enough."""
    found = page.evaluate(PALE)
    assert found["pale"] == [], found["pale"]
    assert found["seen"] >= least


def shoot(page: Page, name: str) -> None:
    """Save a screenshot of the whole page."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", full_page=True)
