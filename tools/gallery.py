"""Draw the figures of the README: ``python tools/gallery.py [PRODUCT]``.

Without a product a galaxy is simulated and matched first, which takes about two minutes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

import specphoto
from specphoto import plot
from specphoto.pipeline import run
from specphoto.report.figures import page_figures
from specphoto.simulate import simulate_galaxy

if TYPE_CHECKING:
    import xarray as xr

FOLDER = Path(__file__).parent.parent / "docs" / "gallery"
DPI = 70


def product(folder: Path) -> Path:
    """A simulated galaxy, matched with registration."""
    galaxy = simulate_galaxy(folder, seed=1, ebv=0.03)
    made = run(
        galaxy.cube.path, galaxy.photometry.path, folder, formats=("zarr",), register="report"
    )
    assert made.zarr is not None
    return made.zarr


def draw(ds: xr.Dataset) -> None:
    """Figures of the QA page, and those that it has no room for."""
    for drawn in page_figures(ds):
        if drawn.figure is not None:
            save(drawn.figure, drawn.name.partition("-")[0])
    with mpl.rc_context(plot.STYLE):
        figure = Figure(figsize=(5.6, 4.2))
        figure.subplots_adjust(left=0.22)
        plot.pixel_map(ds, plot.sky_axes(ds, figure), "corr_factor", wave=5000.0)
        save(figure, "map")
        figure = Figure(figsize=(7.5, 5.6), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        y, x = plot.spread_pixels(ds, 1)[0]
        rows, columns = np.mgrid[: ds.sizes["y"], : ds.sizes["x"]]
        inside = np.hypot(rows - y, columns - x) < 4.0
        plot.pixel_sed(ds, upper, aperture=inside)
        plot.pixel_residuals(ds, lower, aperture=inside)
        upper.set_xlabel("")
        save(figure, "aperture")


def save(figure: Figure, name: str) -> None:
    """Write a figure, small."""
    path = FOLDER / f"{name}.png"
    with mpl.rc_context(plot.STYLE):
        figure.savefig(path, dpi=DPI)
    Image.open(path).convert("RGB").save(path, optimize=True)


def main() -> None:
    """Draw all."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(sys.argv[1]) if len(sys.argv) > 1 else product(Path(folder))
        draw(specphoto.open_cube(path))


if __name__ == "__main__":
    main()
