"""Debian's Chromium, driven headless, for tests that need a real browser."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import BrowserContext, Page

# Every wait ends by then; a loaded machine is slow, a broken page never gets there.
PATIENCE_MS = 30_000
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
#: Where screenshots go, to be looked at.
SHOTS = Path(os.environ.get("SPECPHOTO_SHOTS", Path(__file__).parent.parent / ".screenshots"))


@contextmanager
def chromium(**options: object) -> Iterator[BrowserContext]:
    """A window of a new Chromium with a new profile; skips loudly where there is no Chromium."""
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("NO BROWSER: install Debian's chromium; the pages are NOT tested")
    from playwright.sync_api import sync_playwright

    with TemporaryDirectory(prefix="specphoto-profile-") as profile, sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            profile, executable_path=executable, headless=True, args=FLAGS,
            timeout=PATIENCE_MS, **options,  # type: ignore[arg-type]
        )  # fmt: skip
        context.set_default_timeout(PATIENCE_MS)
        try:
            yield context
        finally:
            context.close()


def listened(context: BrowserContext) -> tuple[Page, list[str]]:
    """A new page, and the list that its errors and warnings go to."""
    page = context.new_page()
    said: list[str] = []
    page.on(
        "console",
        lambda message: said.append(message.text) if message.type in ("error", "warning") else None,
    )
    page.on("pageerror", lambda error: said.append(str(error)))
    return page, said


def shoot(page: Page, name: str) -> None:
    """Save a screenshot of the whole page."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", full_page=True)
