"""The figures draw what they say, on the axes they are given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from factories import specphoto_dataset
from matplotlib.figure import Figure

from specphoto import plot
from specphoto.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes


@pytest.fixture(scope="module")
def ds() -> xr.Dataset:
    return specphoto_dataset(n_band=9, n_wave=120, corrected=True)


@pytest.fixture
def ax() -> Axes:
    return Figure().subplots()


def _pixel(ds: xr.Dataset) -> tuple[int, int]:
    return plot.spread_pixels(ds, 1)[0]


def test_rgb_image__region_outlined_along_pixels(ds: xr.Dataset, ax: Axes) -> None:
    ds = ds.assign(coverage=ds["coverage"].where(ds["coverage"] > 0.1, 0.0))
    assert plot.rgb_image(ds, ax, pixels=[_pixel(ds)]) is ax
    outline, footprint = ax.collections
    region = np.pad(ds["spec_region"].values, 1)
    edges = (region[1:] != region[:-1]).sum() + (region[:, 1:] != region[:, :-1]).sum()
    assert len(outline.get_segments()) == edges
    assert len(footprint.get_segments()) > 0
    assert ax.get_title().endswith("solid: spec_region; dashed: IFS")
    assert "arcsec" in ax.get_xlabel()
    ax.figure.draw_without_rendering()


def test_rgb_image__unknown_band(ds: xr.Dataset, ax: Axes) -> None:
    with pytest.raises(InputError, match=r"three out of galex_fuv.*found hst, sdss_r, sdss_g"):
        plot.rgb_image(ds, ax, bands=["hst", "sdss_r", "sdss_g"])


def test_rgb_image__other_bands_where_gri_are_missing(ax: Axes) -> None:
    plot.rgb_image(specphoto_dataset(n_band=3, n_wave=12), ax)
    assert ax.get_title().startswith("sdss u, galex nuv, galex fuv")


def test_pixel_sed__spectrum_before_after_model_images(ds: xr.Dataset, ax: Axes) -> None:
    y, x = _pixel(ds)
    assert plot.pixel_sed(ds, ax, pixel=(y, x)) is ax
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == [
        "spectrum, as observed", "spectrum, corrected", "reference model", "images",
    ]  # fmt: skip
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert "erg s" in ax.get_ylabel()
    model = ax.get_lines()[2]
    first = ds["mod_flux"].isel(y=y, x=x, wave=slice(0, 12)).values
    assert model.get_ydata()[0] == pytest.approx(np.nanmean(first), rel=1e-6)


def test_pixel_residuals__in_percent(ds: xr.Dataset, ax: Axes) -> None:
    assert plot.pixel_residuals(ds, ax, pixel=_pixel(ds)) is ax
    assert ax.get_ylabel() == "residual (%)"


def test_correction_factors__band_of_one_sigma(ds: xr.Dataset, ax: Axes) -> None:
    y, x = _pixel(ds)
    truth = np.ones(ds.sizes["wave"])
    assert plot.correction_factors(ds, ax, pixels=[(y, x)], truth=truth) is ax
    at = ds.isel(y=y, x=x)
    upper = np.nanmax((at["corr_factor"] + at["corr_factor_err"]).values)
    assert ax.collections[0].get_paths()[0].vertices[:, 1].max() == pytest.approx(upper, rel=1e-5)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [f"x = {x}, y = {y}", "injected"]


def test_closure__bands_chosen(ds: xr.Dataset, ax: Axes) -> None:
    assert plot.closure(ds, ax, bands=["sdss_g", "sdss_r"]) is ax
    assert [t.get_text() for t in ax.get_xticklabels()] == ["sdss g", "sdss r"]
    assert "mag" in ax.get_ylabel()


def test_spread_pixels__from_bright_to_faint(ds: xr.Dataset) -> None:
    pixels = plot.spread_pixels(ds, 4)
    light = [float(ds["photo_flux"].isel(band=4, y=y, x=x)) for y, x in pixels]
    assert len(set(pixels)) == 4
    assert light == sorted(light, reverse=True)
    assert all(bool(ds["spec_region"].isel(y=y, x=x)) for y, x in pixels)


def test_spread_pixels__nothing_trusted(ds: xr.Dataset) -> None:
    with pytest.raises(InputError, match="expected pixels in spec_region, found none"):
        plot.spread_pixels(ds.assign(spec_region=ds["spec_region"] & False), 2)
