"""Pixels and apertures hold the numbers of the dataset, and say why there are none."""

from __future__ import annotations

import numpy as np
import pytest
from factories import disc_dataset, specphoto_dataset
from matplotlib.figure import Figure

from specphoto import plot
from specphoto.errors import InputError
from specphoto.extract import aperture_extract, pixel_extract
from specphoto.maps import channel_at, known_quantities, quantity_map

DS = disc_dataset()


def test_pixel_extract__numbers_of_the_pixel() -> None:
    one, at = pixel_extract(DS, (9, 12)), DS.isel(y=9, x=12).compute()
    np.testing.assert_array_equal(one.spec_flux, at["spec_flux"])
    np.testing.assert_allclose(one.factor, at["corr_factor"], rtol=1e-6)
    np.testing.assert_allclose(one.factor_err, at["corr_factor_err"], rtol=1e-6)
    np.testing.assert_allclose(one.observed, at["spec_flux"] / at["corr_factor"], rtol=1e-6)
    np.testing.assert_array_equal(one.photo_flux, at["photo_flux"])
    assert one.note == ""


def test_pixel_extract__outside_the_region_and_the_cube() -> None:
    assert pixel_extract(DS, (0, 0)).note == "outside spec_region: no spectrum here"
    with pytest.raises(InputError, match=r"x = 21, y = 3: expected x from 0 to 20.*outside the"):
        pixel_extract(DS, (3, 21))


def test_pixel_extract__masked_and_without_spectral_stage() -> None:
    masked = DS.assign(spec_mask=DS["spec_mask"] | True)
    assert pixel_extract(masked, (10, 10)).note == "every channel is masked"
    before = specphoto_dataset(9, 60)
    one = pixel_extract(before, (5, 4))
    assert one.note == "no spectral stage: neither factor nor model"
    assert one.factor is None
    np.testing.assert_array_equal(one.observed, one.spec_flux)


def test_aperture_extract__sums_of_independent_pixels() -> None:
    inside = np.zeros((21, 21), bool)
    inside[8:13, 9:12] = True
    one, part = aperture_extract(DS, inside), DS.isel(y=slice(8, 13), x=slice(9, 12)).compute()
    total = part["spec_flux"].sum(["y", "x"])
    np.testing.assert_allclose(one.spec_flux, total, rtol=1e-5)
    np.testing.assert_allclose(
        one.spec_err, np.sqrt((part["spec_err"] ** 2).sum(["y", "x"])), rtol=1e-4
    )
    before = (part["spec_flux"] / part["corr_factor"]).sum(["y", "x"])
    np.testing.assert_allclose(one.observed, before, rtol=1e-5)
    np.testing.assert_allclose(one.model, part["mod_flux"].sum(["y", "x"]), rtol=1e-5)
    lowest, highest = (float(f(part["corr_factor_err"][0])) for f in (np.min, np.max))
    assert lowest * (1 - 1e-6) <= one.factor_err[0] <= highest * (1 + 1e-6)
    assert one.where == "aperture of 15 pixels"


def test_aperture_extract__nothing_in_the_region() -> None:
    inside = np.zeros((21, 21), bool)
    inside[0, :3] = True
    with pytest.raises(InputError, match="expected pixels in spec_region, found none among 3"):
        aperture_extract(DS, inside)


@pytest.mark.parametrize("quantity", [q.name for q in known_quantities(DS)])
def test_quantity_map__as_the_variables(quantity: str) -> None:
    found = quantity_map(DS, quantity, wave=5000.0, band="sdss_r")
    at = DS.isel(wave=channel_at(DS, 5000.0)).sel(band="sdss_r")
    ratios = {"spec_sn": ("spec_flux", "spec_err"), "photo_sn": ("photo_flux", "photo_err")}
    expected = at[quantity] if quantity in at else at[ratios[quantity][0]] / at[ratios[quantity][1]]
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-6)
    assert found.attrs["label"]


def test_quantity_map__unknown_names() -> None:
    with pytest.raises(InputError, match=r"map: expected one of spec_flux.*found 'age'"):
        quantity_map(DS, "age")
    with pytest.raises(InputError, match=r"band: expected one of galex_fuv.*found 'hst'"):
        quantity_map(DS, "photo_flux", band="hst")


def _said(ax: object) -> str:
    return " ".join(text.get_text() for text in ax.texts)  # type: ignore[attr-defined]


def test_figures__say_why_they_are_empty() -> None:
    before = specphoto_dataset(9, 60)
    masked = DS.assign(spec_mask=DS["spec_mask"] | True)
    axes = Figure().subplots(6)
    assert "no spectral stage" in _said(plot.closure(before, axes[0]))
    assert "no spectral stage" in _said(plot.correction_factors(before, axes[1], pixels=[(5, 4)]))
    assert "every channel is masked" in _said(plot.pixel_residuals(masked.drop_vars(
        ["photo_flux", "photo_err"]), axes[2], pixel=(10, 10)))  # fmt: skip
    nowhere = DS.assign(spec_region=DS["spec_region"] & False)
    assert "no trusted pixel" in _said(plot.closure(nowhere, axes[3]))
    assert "unknown in every pixel" in _said(plot.pixel_map(nowhere, axes[4], "chi2"))
    dark = DS.assign(photo_flux=DS["photo_flux"] * np.nan)
    assert "no image has a known pixel" in _said(plot.rgb_image(dark, axes[5]))
