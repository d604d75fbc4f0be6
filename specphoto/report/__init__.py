"""QA pages: one of each galaxy, and an index of a sample."""

from __future__ import annotations

from specphoto.report.page import write_page
from specphoto.report.sample import write_index

__all__ = ["write_index", "write_page"]
