"""The viewer: a galaxy in the browser or in Jupyter, pixel by pixel."""

from __future__ import annotations

from specphoto.viewer.page import serve
from specphoto.viewer.viewer import Viewer, view

__all__ = ["Viewer", "serve", "view"]
