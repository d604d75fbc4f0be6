from __future__ import annotations

import json
from typing import TYPE_CHECKING

import dask
import numpy as np
import pytest
from astropy.io import fits
from survey_files import fluxmap, manga, write
from test_io_manga import refuse

from specphoto.compat.common import pixedfit_photometry
from specphoto.cube import band_scale, celestial_wcs, validate
from specphoto.errors import InputError
from specphoto.io import open_photometry
from specphoto.photometry.filters import load_filters, pixedfit_scale
from specphoto.spatial.psf import PSF

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["sdss_u", "sdss_r", "wise_w2"]


@pytest.mark.parametrize("older", [False, True])
def test_open_photometry__both_layouts(tmp_path: Path, older: bool) -> None:
    path = fluxmap(tmp_path / "a.fits", older=older)
    with dask.config.set(scheduler=refuse):
        ds = open_photometry(path, compat="pixedfit")
    validate(ds, "photo_flux", "photo_err", "photo_region", "stamp_image", verb="test")
    region = ds["photo_region"].values
    assert region.sum() == 12
    flux, error = ds["photo_flux"].values, ds["photo_err"].values
    assert np.isnan(flux[:, ~region]).all()
    assert np.isnan(error[:, ~region]).all()
    expected = np.arange(1.0, 91.0).reshape(3, 5, 6)
    expected[1, 2, 2], expected[2, 2, 2] = np.nan, -0.5  # negative fluxes are data
    np.testing.assert_allclose(flux[:, region], expected[:, region])
    assert np.isnan(error[1, 2, 2])
    assert np.isnan(error[2, 2, 3])  # an error of zero is none
    assert np.isfinite(error[0, 2, 2])


def test_open_photometry__photon_weighted_means(tmp_path: Path) -> None:
    path = fluxmap(tmp_path / "a.fits")
    peer = open_photometry(path, compat="pixedfit")
    ours = open_photometry(path)
    scale = pixedfit_scale(NAMES)
    assert scale[0] == pytest.approx(1 / 1.126, abs=1e-3)
    for name in ("photo_flux", "photo_err"):
        np.testing.assert_allclose(ours[name], peer[name] * scale[:, None, None])
    np.testing.assert_allclose(band_scale(ours), scale)
    np.testing.assert_array_equal(band_scale(peer), 1.0)


def test_open_photometry__the_scale_follows_its_band(tmp_path: Path) -> None:
    ours = open_photometry(fluxmap(tmp_path / "a.fits"))
    stored = open_photometry(tmp_path / "a.fits", compat="pixedfit")
    some = ours.isel(band=[2, 0])
    np.testing.assert_array_equal(band_scale(some), pixedfit_scale(NAMES)[[2, 0]])
    # what piXedfit's recipe and layout start from is what piXedfit wrote, whatever was selected
    back = pixedfit_photometry(some)
    np.testing.assert_allclose(back["photo_flux"], stored["photo_flux"].isel(band=[2, 0]))
    np.testing.assert_array_equal(band_scale(back), 1.0)


def test_open_photometry__attributes(tmp_path: Path) -> None:
    path = fluxmap(tmp_path / "fluxmap_a.fits")
    ds = open_photometry(path)
    attrs = ds.attrs
    json.dumps(attrs, allow_nan=False)
    assert (attrs["kind"], attrs["survey"], attrs["name"]) == (
        "photometry", "pixedfit", "fluxmap_a",
    )  # fmt: skip
    assert (attrs["ebv"], attrs["ebv_scale"], attrs["ebv_corrected"], attrs["ebv_law"]) == (
        0.032, "SF11", True, "pixedfit",
    )  # fmt: skip
    assert (attrs["fsamp"], attrs["psf_band"], attrs["redshift"]) == ("galex_fuv", "wise_w2", 0.03)
    assert attrs["psf"]["fwhm"] == [6.37]
    assert (attrs["ra"], attrs["dec"]) == (205.4384, 27.0048)
    assert attrs["pixel_scale"] == pytest.approx(1.5)
    assert celestial_wcs(ds).has_celestial
    assert ds["band"].dtype == object
    assert list(ds["band"].values) == NAMES
    np.testing.assert_allclose(ds["band_wave"], [f.pivot for f in load_filters(NAMES)])
    assert attrs["provenance"][0]["input"] == "fluxmap_a.fits"


def test_open_photometry__absent_cards(tmp_path: Path) -> None:
    gone = dict.fromkeys(
        ("GALEBV", "PSFFWHM", "FPSFMTCH", "FSAMP", "UNIT", "PIXSIZE", "RA", "DEC", "NFILTERS")
    )
    attrs = open_photometry(fluxmap(tmp_path / "a.fits", **gone, Z=-99.0)).attrs
    assert not {"ebv", "psf", "psf_band", "fsamp", "redshift"} & attrs.keys()
    assert attrs["ra"] == pytest.approx(232.5447)  # the reference of the WCS
    assert "no card UNIT" in attrs["provenance"][0]["assumed"][0]


def test_open_photometry__psf_of_the_band_alone(tmp_path: Path) -> None:
    ds = open_photometry(fluxmap(tmp_path / "a.fits", PSFFWHM=None))
    psf, known = ds.attrs["psf"], PSF.named("wise_w2")
    json.dumps(psf, allow_nan=False)
    assert (psf["model"], psf["fwhm"]) == (known.model, [known.fwhm])
    assert PSF.from_attrs(psf, 46000.0) == known
    assert psf["wave"] == [load_filters(["wise_w2"])[0].pivot]
    assert "no card PSFFWHM: Moffat of 6.37 arcsec" in ds.attrs["provenance"][0]["assumed"][0]
    # a band that is not among the images, and one of no known PSF
    ds = open_photometry(fluxmap(tmp_path / "b.fits", PSFFWHM=None, FPSFMTCH="wise_w4"))
    assert ds.attrs["psf"]["fwhm"] == [PSF.named("wise_w4").fwhm]
    ds = open_photometry(fluxmap(tmp_path / "c.fits", PSFFWHM=None, FPSFMTCH="my_band"))
    assert "psf" not in ds.attrs
    assert "PSF unknown" in ds.attrs["provenance"][0]["assumed"][0]


def test_open_photometry__other_unit(tmp_path: Path) -> None:
    ds = open_photometry(fluxmap(tmp_path / "a.fits", UNIT=1e-16), compat="pixedfit")
    assert float(ds["photo_flux"][0, 1, 1]) == pytest.approx(80.0)
    assert np.isnan(ds["photo_flux"][0, 0, 0])
    for i, wrong in enumerate((0.0, -1e-17, "erg/s")):
        path = fluxmap(tmp_path / f"{i}.fits", UNIT=wrong)
        with pytest.raises(InputError, match=r"card UNIT: expected the flux unit as a number"):
            open_photometry(path)


def test_open_photometry__error_scale(tmp_path: Path) -> None:
    path = fluxmap(tmp_path / "a.fits")
    plain = open_photometry(path)["photo_err"]
    by_name = open_photometry(path, err_scale={"sdss_r": 6.3})["photo_err"]
    in_order = open_photometry(path, err_scale=[1, 6.3, 1])
    np.testing.assert_allclose(by_name, plain / np.array([1, 6.3, 1])[:, None, None])
    np.testing.assert_allclose(in_order["photo_err"], by_name)
    assert in_order.attrs["provenance"][0]["options"]["err_scale"] == [1.0, 6.3, 1.0]
    with pytest.raises(
        InputError, match=r"err_scale: expected names out of sdss_u, .* found sdss_x"
    ):
        open_photometry(path, err_scale={"sdss_x": 1.0})
    for wrong in ([1, 2], [1, 2, 0], [1, 2, np.nan]):
        with pytest.raises(InputError, match="err_scale: expected 3 positive numbers"):
            open_photometry(path, err_scale=wrong)


def test_open_photometry__unknown_filter(tmp_path: Path) -> None:
    path = fluxmap(tmp_path / "a.fits", FIL1="sdss_rr")
    with pytest.raises(InputError, match=r"a\.fits, card FIL1: .* found 'sdss_rr' .*sdss_r"):
        open_photometry(path)


def test_open_photometry__filters_and_images_disagree(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"a\.fits: expected cards NFILTERS = 3 .* found NFILTERS = 4"
    ):
        open_photometry(fluxmap(tmp_path / "a.fits", NFILTERS=4))
    with pytest.raises(InputError, match="found NFILTERS = 3 and FIL0 = sdss_u, FIL1 = sdss_r"):
        open_photometry(fluxmap(tmp_path / "b.fits", FIL2=None))
    with pytest.raises(InputError, match="every filter once, found sdss_u more than once"):
        open_photometry(fluxmap(tmp_path / "c.fits", FIL1="sdss_u"))


@pytest.mark.parametrize("name", ["FLUX", "FLUX_ERR", "GALAXY_REGION", "STAMP_IMAGE"])
def test_open_photometry__missing_extension(tmp_path: Path, name: str) -> None:
    path = fluxmap(tmp_path / "a.fits", without=(name,))
    with pytest.raises(InputError, match=rf"a\.fits: expected the extensions .*{name}.*found only"):
        open_photometry(path)


def test_open_photometry__other_kinds_of_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected the extensions FLUX_ERR, found only PRIMARY"):
        open_photometry(manga(tmp_path / "m.fits"))
    cube = np.zeros((2, 3, 4))
    hdus = [fits.PrimaryHDU(cube), fits.ImageHDU(cube, name="SPEC_FLUX")]
    hdus[0].header["EXTNAME"] = "PHOTO_FLUX"
    with pytest.raises(InputError, match=r"a spectrophotometric one .* open it with open_cube"):
        open_photometry(write(tmp_path / "s.fits", hdus))


def test_open_photometry__no_celestial_wcs(tmp_path: Path) -> None:
    path = fluxmap(tmp_path / "a.fits")
    with fits.open(path) as file:
        del file["STAMP_IMAGE"].header["CTYPE*"]
        file.writeto(tmp_path / "b.fits")
    with pytest.raises(InputError, match=r"b\.fits, STAMP_IMAGE: expected a celestial WCS"):
        open_photometry(tmp_path / "b.fits")


@pytest.mark.realdata
def test_open_photometry__reference(
    tmp_path: Path, realdata: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECPHOTO_CACHE", str(tmp_path))
    path = realdata / "peer" / "fluxmap_reference.fits.gz"
    ds = open_photometry(path, compat="pixedfit")
    with fits.open(path) as file:
        region = file["GALAXY_REGION"].data == 1
        np.testing.assert_array_equal(ds["photo_region"], region)
        np.testing.assert_allclose(ds["photo_flux"].values[:, region], file["FLUX"].data[:, region])
    assert np.isnan(ds["photo_flux"].values[:, ~region]).all()
    assert ds.attrs["pixel_scale"] == pytest.approx(1.5)
