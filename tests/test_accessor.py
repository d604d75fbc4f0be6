"""What ds.specphoto answers are the numbers of the dataset, and nothing is computed for it."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from factories import celestial, disc_dataset, specphoto_dataset
from lazy import raise_if_computes
from photutils.aperture import CircularAperture, SkyCircularAperture
from regions import CirclePixelRegion, CircleSkyRegion, PixCoord

import specphoto
from specphoto.errors import InputError
from specphoto.photometry.filters import Filter, load_filters
from specphoto.photometry.synthetic import synthetic_flux

DS = disc_dataset()


def disc(radius: float) -> np.ndarray:
    y, x = np.mgrid[:21, :21]
    return np.hypot(y - 10, x - 11) < radius


def test_sky_and_pixels__there_and_back_on_a_slice() -> None:
    cut = DS.isel(y=slice(3, 18), x=slice(5, 20)).specphoto
    x, y = np.array([6.0, 11.25]), np.array([4.0, 9.5])
    sky = cut.pixel_to_sky(x, y)
    np.testing.assert_allclose(cut.sky_to_pixel(sky.galactic), (x, y), atol=1e-6)
    expected = celestial(21, 21).pixel_to_world(x, y)
    assert sky.separation(expected).arcsec.max() < 1e-6
    assert cut.wcs.pixel_to_world(6, 4).separation(expected[0]).arcsec < 1e-6


def test_pixel__is_the_pixel_and_computes_nothing() -> None:
    cut = DS.isel(y=slice(3, 18), x=slice(5, 20))
    with raise_if_computes():
        one = cut.specphoto.pixel(9, 12)
        same = cut.specphoto.at(cut.specphoto.pixel_to_sky(9.3, 11.8))
    assert one.spec_flux.dims == ("wave",)
    for name in ("spec_flux", "spec_err", "photo_flux", "corr_factor", "corr_factor_err", "chi2"):
        np.testing.assert_allclose(one[name], DS[name].isel(y=12, x=9), rtol=1e-6)
        np.testing.assert_array_equal(one[name], same[name])
    assert isinstance(one.corr_factor.data, da.Array)


def test_pixel__outside() -> None:
    cut = DS.isel(y=slice(3, 18))
    with pytest.raises(InputError, match=r"disc: pixel x = 4, y = 2: expected y from 3 to 17"):
        cut.specphoto.pixel(4, 2)
    with pytest.raises(InputError, match="a pixel outside the cube"):
        cut.specphoto.at(SkyCoord(205.5, 27.0, unit="deg"))
    with pytest.raises(InputError, match="position: expected one on the cube's sky"):
        cut.specphoto.at(SkyCoord(25.4, -27.0, unit="deg"))  # the other side of the sky
    with pytest.raises(InputError, match="position: expected one on the cube's sky"):
        cut.specphoto.at(cut.specphoto.pixel_to_sky([9, 10], [12, 13]))
    with pytest.raises(InputError, match=r"expected a celestial WCS .attribute 'wcs'"):
        _ = cut.drop_attrs(deep=False).specphoto.wcs


def test_synthetic__as_the_photometry_of_each_spectrum() -> None:
    bad = DS["spec_mask"].values.copy()
    bad[60:63, 10, 10], bad[20:120, 9, 9] = True, True
    ds = DS.assign(spec_mask=(("wave", "y", "x"), bad))
    with raise_if_computes():
        found = ds.specphoto.synthetic("sdss_r")
    flux = np.where(bad, np.nan, ds["spec_flux"].values)
    expected = synthetic_flux(flux, ds["wave"].values, load_filters(["sdss_r"]), min_covered=0.9)
    np.testing.assert_allclose(found, expected[0], rtol=1e-5)
    assert np.isnan(found[9, 9])
    assert np.isfinite(found[10, 10])
    assert found.attrs["units"] == "1e-17 erg s-1 cm-2 Angstrom-1"
    box = Filter("box", [6000.0, 6500.0], [1.0, 1.0])
    assert str(ds.specphoto.synthetic(box).band.values) == "box"


def test_synthetic__refuses_what_it_does_not_cover() -> None:
    with pytest.raises(InputError, match=r"band 'sdss_u': expected .* covers 98%, found \d+\.\d%"):
        DS.specphoto.synthetic("sdss_u")
    # the mean over the part that is there
    wide, ramp = Filter("wide", [9300.0, 11300.0], [1.0, 1.0]), 0.0 * DS["spec_flux"] + DS["wave"]
    part = DS.assign(spec_flux=ramp).specphoto.synthetic(wide, min_covered=0.4)
    expected = (10300.0**3 - 9300.0**3) / (10300.0**2 - 9300.0**2) * 2 / 3
    assert float(part[10, 10]) == pytest.approx(expected, rel=1e-4)
    with pytest.raises(InputError, match="nearest known are sdss_r"):
        DS.specphoto.synthetic("sds_r")


@pytest.mark.parametrize("kind", ["photutils", "photutils sky", "regions", "regions sky"])
def test_aperture__shapes_are_masks(kind: str) -> None:
    centre, radius = DS.specphoto.pixel_to_sky(11, 10), DS.attrs["pixel_scale"] * 3.3
    import astropy.units as u

    region = {
        "photutils": CircularAperture((11, 10), 3.3),
        "photutils sky": SkyCircularAperture(centre, radius * u.arcsec),
        "regions": CirclePixelRegion(PixCoord(11, 10), 3.3),
        "regions sky": CircleSkyRegion(centre, radius * u.arcsec),
    }[kind]
    expected = DS.specphoto.aperture(disc(3.3)).compute()
    assert expected.n_pixel == disc(3.3).sum()
    turned = (DS.x - 11) ** 2 + (DS.y - 10) ** 2 < 3.3**2
    assert turned.dims == ("x", "y")
    np.testing.assert_array_equal(DS.specphoto.aperture(turned).spec_flux, expected.spec_flux)
    # the pixel numbers of a slice are those of the whole
    for ds in (DS, DS.isel(x=slice(4, 20), y=slice(3, None))):
        found = ds.specphoto.aperture(region).compute()
        assert found.n_pixel == expected.n_pixel
        np.testing.assert_allclose(found.spec_flux, expected.spec_flux, rtol=1e-6)
        np.testing.assert_allclose(found.photo_flux, expected.photo_flux, rtol=1e-6)


def test_aperture__errors_are_correlated_and_nothing_is_computed() -> None:
    stated = DS.assign_attrs(correlation={"model": "gaussian", "scale": 1.5, "cutoff": 5.0})
    inside = disc(2.5)
    with raise_if_computes():
        lazy = stated.specphoto.aperture(inside, trusted=False)
    sigma = DS["spec_err"].values[:, inside]
    place = np.argwhere(inside)
    apart = np.hypot(*(place[:, None] - place[None]).transpose(2, 0, 1))
    rho = np.where(apart <= 5.0, np.exp(-0.5 * (apart / 1.5) ** 2), 0.0)
    np.testing.assert_allclose(
        lazy.spec_err, np.sqrt(np.einsum("wi,ij,wj->w", sigma, rho, sigma)), rtol=1e-4
    )
    assert (lazy.spec_err > 1.5 * np.sqrt((sigma**2).sum(axis=1))).all()


def test_aperture__leaves_out_what_is_not_trusted() -> None:
    region = DS["spec_region"].values & (np.arange(21) < 9)
    ds = DS.assign(spec_region=(("y", "x"), region))
    wide = disc(4.0)
    assert ds.specphoto.aperture(wide).n_pixel == (wide & region).sum()
    assert ds.specphoto.aperture(wide, trusted=False).n_pixel == wide.sum()


def test_aperture__says_what_is_wrong() -> None:
    with pytest.raises(InputError, match=r"mask of bools of shape .* \(21, 21\), found int"):
        DS.specphoto.aperture(disc(3.0).astype(int))
    with pytest.raises(InputError, match=r"= \(21, 21\), found bool of shape \(3, 3\)"):
        DS.specphoto.aperture(np.ones((3, 3), bool))
    with pytest.raises(InputError, match="at least one pixel of the cube, found none"):
        DS.specphoto.aperture(CircularAperture((60, 60), 2.0))


def test_accessor__of_datasets_of_others() -> None:
    with pytest.raises(InputError, match="pixel: expected a dataset with spec_flux"):
        DS[["photo_flux"]].specphoto.pixel(3, 3)
    one = specphoto_dataset(3, 40).specphoto.pixel(4, 5)  # no factor yet
    assert "corr_factor" not in one
    assert specphoto.InputError is InputError
