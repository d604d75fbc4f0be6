"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Return the folder of observed data, or skip with the reason."""
    folder = os.environ.get("SPECPHOTO_DATA")
    if not folder:
        pytest.skip("SPECPHOTO_DATA is not set: the observed data are not here")
    path = Path(folder)
    if not path.is_dir():
        pytest.skip(f"SPECPHOTO_DATA={folder} is not a folder")
    return path
