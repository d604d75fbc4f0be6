"""Figures: each function draws one on axes that it is given, and returns them.

Lazy data are computed as far as the figure needs them. Colours are those of Okabe and Ito, which
colour-blind readers tell apart. A figure without data says why.
"""

from __future__ import annotations

from specphoto.plot.checks import closure, kernel, registration
from specphoto.plot.images import rgb_image
from specphoto.plot.maps import pixel_map, sky_axes
from specphoto.plot.spectra import (
    correction_factors,
    draw_residuals,
    draw_sed,
    pixel_residuals,
    pixel_sed,
    spread_pixels,
)
from specphoto.plot.style import STYLE

__all__ = [
    "STYLE",
    "closure",
    "correction_factors",
    "draw_residuals",
    "draw_sed",
    "kernel",
    "pixel_map",
    "pixel_residuals",
    "pixel_sed",
    "registration",
    "rgb_image",
    "sky_axes",
    "spread_pixels",
]
