from __future__ import annotations

import json
from typing import TYPE_CHECKING

import dask
import numpy as np
import pytest
from astropy.io import fits
from survey_files import SHAPE, califa
from test_io_manga import refuse

from specphoto.errors import InputError
from specphoto.io import open_ifs
from specphoto.spectral.wavelength import vacuum_to_air

if TYPE_CHECKING:
    from pathlib import Path


def test_open_ifs__computes_nothing(tmp_path: Path) -> None:
    with dask.config.set(scheduler=refuse):
        ds = open_ifs(califa(tmp_path / "a.fits"))
    assert ds.attrs["survey"] == "califa"


def test_open_ifs__values(tmp_path: Path) -> None:
    path = califa(tmp_path / "a.fits")
    ds = open_ifs(path, chunks={"wave": 5, "y": 4})
    bad = np.zeros(SHAPE, bool)
    bad[2:5, 1, 1] = True  # an error of 1e10, a bad pixel, no fibre
    np.testing.assert_array_equal(ds["spec_mask"], bad)
    with fits.open(path) as file:  # 1e-16 in the file
        np.testing.assert_allclose(ds["spec_flux"], 10 * file[0].data, rtol=1e-6)
    var = ds["spec_var"].values
    np.testing.assert_allclose(var[~bad], 4.0, rtol=1e-6)
    assert np.isnan(var[2, 1, 1])
    assert ds["spec_flux"].dtype == ds["spec_var"].dtype == np.float32


def test_open_ifs__air_becomes_vacuum(tmp_path: Path) -> None:
    ds = open_ifs(califa(tmp_path / "a.fits"))
    np.testing.assert_allclose(vacuum_to_air(ds["wave"]), 3701 + 2 * np.arange(12), rtol=1e-12)
    assert ds.attrs["spectral_axis"] == {
        "ctype": "AWAV", "crval": 3701.0, "cdelt": 2.0, "crpix": 1.0,
    }  # fmt: skip
    assert ds.attrs["provenance"][0]["air_to_vacuum"] == "Ciddor 1996"


@pytest.mark.parametrize(
    ("start", "step", "setup", "fwhm"),
    [(3701, 2, "COMB", 6.0), (3749, 2, "V500", 6.0), (3650, 0.7, "V1200", 2.3)],
)
def test_open_ifs__setups(
    tmp_path: Path, start: float, step: float, setup: str, fwhm: float
) -> None:
    ds = open_ifs(califa(tmp_path / "a.fits", CRVAL3=start, CDELT3=step))
    assert ds.attrs["setup"] == setup
    np.testing.assert_allclose(ds["spec_lsf"], fwhm / 2.354820045, rtol=1e-6)


def test_open_ifs__attributes(tmp_path: Path) -> None:
    ds = open_ifs(califa(tmp_path / "a.fits"))
    attrs = ds.attrs
    json.dumps(attrs, allow_nan=False)
    assert attrs["name"] == "NGC5947"
    assert (attrs["ebv"], attrs["ebv_corrected"], attrs["ebv_law"]) == (0.03, True, "CCM89")
    assert attrs["redshift"] == pytest.approx(5900 / 299792.458)
    assert attrs["psf"]["model"] == "moffat"
    assert (attrs["psf"]["fwhm"], attrs["psf"]["beta"]) == ([2.5], [1.73])
    assert attrs["correlation"]["model"] == "gaussian"
    assert attrs["pixel_scale"] == pytest.approx(1.0)
    # what the file does not say is on record
    assumed = " ".join(attrs["provenance"][0]["assumed"])
    assert all(word in assumed for word in ("correlation", "PSF", "line-spread"))
    bare = open_ifs(califa(tmp_path / "b.fits", EBV=None, MED_VEL=None))
    assert "ebv" not in bare.attrs
    assert bare.attrs["ebv_corrected"] is True
    assert "redshift" not in bare.attrs
    assert open_ifs(tmp_path / "a.fits", redshift=-0.001).attrs["redshift"] == -0.001


def test_open_ifs__no_wavelength_axis(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.fits: expected a wavelength axis .* found none"):
        open_ifs(califa(tmp_path / "a.fits", CDELT3=None))
    with pytest.raises(InputError, match=r"b\.fits, card CUNIT3: expected Angstrom"):
        open_ifs(califa(tmp_path / "b.fits", CUNIT3="Hz"))
    with pytest.raises(InputError, match=r"c\.fits: wave: expected wavelengths that increase"):
        open_ifs(califa(tmp_path / "c.fits", CDELT3=-2.0))


def test_open_ifs__no_celestial_wcs(tmp_path: Path) -> None:
    path = califa(tmp_path / "a.fits", CTYPE1="LINEAR", CTYPE2="LINEAR")
    with pytest.raises(InputError, match=r"a\.fits: expected a celestial WCS"):
        open_ifs(path)


def test_open_ifs__which_flags_are_fatal(tmp_path: Path) -> None:
    path = califa(tmp_path / "a.fits")
    with fits.open(path, mode="update") as file:
        file["BADPIX"].data[5, 1, 1] = 2  # a value that the survey has no name for
    for option, bad in ((None, [2, 3, 4, 5]), (["BAD"], [2, 3, 4]), ([1], [2, 4, 5]), ([], [2, 4])):
        mask = open_ifs(path, mask_bits=option)["spec_mask"]
        assert np.flatnonzero(mask[:, 1, 1]).tolist() == bad
    with pytest.raises(InputError, match=r"mask_bits: expected bits of BADPIX.* BAD \(0\)"):
        open_ifs(path, mask_bits=["FORESTAR"])
