"""Figures look as they did: images compared without their texts, which fonts change.

``pytest tests/test_plot_images.py --mpl-generate-path=tests/data/figures`` draws them anew; look
at them before you commit them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from factories import disc_dataset
from matplotlib.figure import Figure
from test_spatial_registration import observed

import specphoto
from specphoto import plot
from specphoto.spatial.kernel import kernel_report, matching_kernel
from specphoto.spatial.psf import PSF

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

same = pytest.mark.mpl_image_compare(
    baseline_dir="data/figures", remove_text=True, tolerance=8, style="default",
    savefig_kwargs={"dpi": 60},
)  # fmt: skip


@pytest.fixture(scope="module")
def ds() -> xr.Dataset:
    return disc_dataset()


def _axes(width: float = 5.0, height: float = 4.0) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots()


@same
def test_image__rgb(ds: xr.Dataset) -> Figure:
    figure, ax = _axes(4.0, 4.0)
    plot.rgb_image(ds, ax, pixels=[(10, 10), (12, 6)])
    return figure


@same
def test_image__pixel_sed_and_residuals(ds: xr.Dataset) -> Figure:
    figure = Figure(figsize=(5.0, 5.0))
    upper, lower = figure.subplots(2, 1, sharex=True)
    plot.pixel_sed(ds, upper, pixel=(10, 10))
    plot.pixel_residuals(ds, lower, pixel=(10, 10))
    return figure


@same
def test_image__aperture_sed(ds: xr.Dataset) -> Figure:
    figure, ax = _axes()
    inside = np.zeros((21, 21), bool)
    inside[8:13, 8:13] = True
    plot.pixel_sed(ds, ax, aperture=inside)
    return figure


@same
def test_image__correction_factors(ds: xr.Dataset) -> Figure:
    figure, ax = _axes()
    plot.correction_factors(ds, ax, pixels=[(10, 10), (12, 6)], truth=np.ones(ds.sizes["wave"]))
    return figure


@same
def test_image__map_on_the_sky(ds: xr.Dataset) -> Figure:
    figure = Figure(figsize=(5.0, 4.0))
    plot.pixel_map(ds, plot.sky_axes(ds, figure), "corr_factor", wave=4000.0)
    return figure


@same
def test_image__map_on_offsets(ds: xr.Dataset) -> Figure:
    figure, ax = _axes()
    plot.pixel_map(ds, ax, "chi2")
    return figure


@same
def test_image__closure(ds: xr.Dataset) -> Figure:
    figure, ax = _axes()
    plot.closure(ds, ax)
    return figure


@same
def test_image__kernel() -> Figure:
    source, target = PSF("gaussian", 2.5), PSF("moffat", 5.0, 3.0)
    made = matching_kernel(source, target, 0.5)
    figure = Figure(figsize=(8.0, 3.6))
    plot.kernel(kernel_report(source, target, made, 0.5), list(figure.subplots(1, 2)))
    return figure


@same
def test_image__registration() -> Figure:
    out = specphoto.register(*observed(), bands=["sdss_r"])
    figure = Figure(figsize=(10.0, 3.2))
    plot.registration(out, list(figure.subplots(1, 3)))
    return figure
