"""The figures draw what they say, on the axes they are given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from factories import specphoto_dataset
from matplotlib.figure import Figure
from test_spatial_registration import observed

import specphoto
from specphoto import plot
from specphoto.errors import InputError
from specphoto.maps import QUANTITIES

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


@pytest.fixture(scope="module")
def unknown(ds: xr.Dataset) -> xr.Dataset:
    """The same galaxy, of which nothing is known but where it is."""
    floats = [name for name in ds.data_vars if ds[name].dtype.kind == "f"]
    empty = ds.assign({name: ds[name] * np.nan for name in floats})
    return empty.assign_attrs(correlation={"model": "none"})


FIGURES = {
    "rgb_image": (lambda ds, ax: plot.rgb_image(ds, ax), "no image has a known pixel"),
    "pixel_sed": (lambda ds, ax: plot.pixel_sed(ds, ax, pixel=(5, 4)), "every channel is masked"),
    "aperture": (
        lambda ds, ax: plot.pixel_sed(ds, ax, aperture=np.ones((11, 9), bool)),
        "every channel is masked",
    ),
    "pixel_residuals": (
        lambda ds, ax: plot.pixel_residuals(ds, ax, pixel=(5, 4)), "every channel is masked",
    ),
    "correction_factors": (
        lambda ds, ax: plot.correction_factors(ds, ax, pixels=[(5, 4)]), "no factor in these",
    ),
    "no pixels": (lambda ds, ax: plot.correction_factors(ds, ax, pixels=[]), "no pixel was named"),
    "closure": (lambda ds, ax: plot.closure(ds, ax), "no trusted pixel has a band"),
    "closure of one band": (
        lambda ds, ax: plot.closure(ds, ax, bands=["sdss_g"]), "no trusted pixel has a band",
    ),
    **{
        f"map of {name}": (
            lambda ds, ax, name=name: plot.pixel_map(ds, ax, name), "unknown in every pixel",
        )
        for name in QUANTITIES if name != "n_band"
    },
}  # fmt: skip


@pytest.mark.parametrize("name", FIGURES)
def test_figures__of_nothing_say_so(unknown: xr.Dataset, ax: Axes, name: str) -> None:
    draw, why = FIGURES[name]
    assert draw(unknown, ax) is ax
    assert why in " ".join(text.get_text() for text in ax.texts)
    ax.figure.draw_without_rendering()


@pytest.mark.parametrize("name", ["correction_factors", "closure"])
def test_figures__before_the_spectral_stage_say_so(ax: Axes, name: str) -> None:
    draw, _ = FIGURES[name]
    draw(specphoto_dataset(9, 12), ax)
    assert ax.texts[0].get_text().startswith("no spectral stage")


def test_registration__of_a_matched_cube_and_of_nothing() -> None:
    matched = specphoto.match_spatial(*observed(), register="report")
    out = matched[[name for name in matched if str(name).startswith("register_")]].compute()
    axes = Figure(figsize=(12, 4)).subplots(1, 3)
    plot.registration(out, axes)
    assert np.nanmax(axes[0].images[0].get_array()) == pytest.approx(1.0)
    empty = out.assign(register_image=out["register_image"] * np.nan)
    axes = Figure().subplots(1, 3)
    plot.registration(empty, axes)
    said = {ax.texts[0].get_text() for ax in axes}
    assert {words.rpartition(" in ")[0] for words in said} == {"no light to compare"}
