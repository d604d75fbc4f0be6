from __future__ import annotations

import json
from typing import TYPE_CHECKING

import dask
import numpy as np
import pytest
from astropy.io import fits
from survey_files import SHAPE, muse
from test_io_manga import refuse

from specphoto.cube import celestial_wcs
from specphoto.errors import InputError
from specphoto.io import open_ifs
from specphoto.spectral.wavelength import vacuum_to_air

if TYPE_CHECKING:
    from pathlib import Path


def test_open_ifs__computes_nothing(tmp_path: Path) -> None:
    with dask.config.set(scheduler=refuse):
        ds = open_ifs(muse(tmp_path / "a.fits"))
    assert ds.attrs["survey"] == "muse"


def test_open_ifs__values(tmp_path: Path) -> None:
    path = muse(tmp_path / "a.fits")
    ds = open_ifs(path, chunks=5)
    bad = np.zeros(SHAPE, bool)
    bad[1:5, 1, 1] = True  # NaN, zero and infinite variance, flagged
    np.testing.assert_array_equal(ds["spec_mask"], bad)
    with fits.open(path) as file:
        np.testing.assert_allclose(ds["spec_flux"], 1e-3 * file["DATA"].data, rtol=1e-6)
    np.testing.assert_allclose(ds["spec_var"].values[~bad], 400e-6, rtol=1e-6)
    assert np.isnan(ds["spec_var"].values[2:4, 1, 1]).all()
    air = 4749.890625 + 1.25 * np.arange(SHAPE[0])
    np.testing.assert_allclose(vacuum_to_air(ds["wave"]), air, rtol=1e-12)
    fwhm = 5.835e-8 * air**2 - 9.080e-4 * air + 5.983
    np.testing.assert_allclose(ds["spec_lsf"], fwhm / 2.354820045, rtol=1e-6)


def test_open_ifs__attributes(tmp_path: Path) -> None:
    attrs = open_ifs(muse(tmp_path / "a.fits")).attrs
    json.dumps(attrs, allow_nan=False)
    assert attrs["name"] == "Abell 478"
    assert (attrs["ra"], attrs["dec"]) == (63.355417, 10.46556)
    assert attrs["ebv_corrected"] is False
    assert attrs["correlation"] == {"model": "gaussian", "scale": 0.5, "cutoff": 2.0}
    assert "psf" not in attrs
    assert open_ifs(tmp_path / "a.fits", psf_fwhm=1.05).attrs["psf"]["fwhm"] == [1.05]


def test_open_ifs__units_and_axes_of_other_writers(tmp_path: Path) -> None:
    default = open_ifs(muse(tmp_path / "a.fits"))
    for i, unit in enumerate(["1e-20 erg/s/cm2/Angstrom", "10^(-20) erg s-1 cm-2", None]):
        ds = open_ifs(muse(tmp_path / f"u{i}.fits", BUNIT=unit))
        np.testing.assert_array_equal(ds["spec_flux"], default["spec_flux"])
    scaled = open_ifs(muse(tmp_path / "f.fits", BUNIT="10**(-16)*erg/s/cm**2", FSCALE=1e-4))
    np.testing.assert_allclose(scaled["spec_flux"], default["spec_flux"], rtol=1e-6)
    metres = {"CUNIT3": "m", "CRVAL3": 4749.890625e-10, "CD3_3": 1.25e-10}
    ds = open_ifs(muse(tmp_path / "m.fits", **metres))
    np.testing.assert_allclose(ds["wave"], default["wave"], rtol=1e-12)
    matrix = {"CD3_3": None, "CDELT3": 1.0, "PC3_3": 1.25}
    ds = open_ifs(muse(tmp_path / "p.fits", **matrix))
    np.testing.assert_array_equal(ds["wave"], default["wave"])
    vacuum = open_ifs(muse(tmp_path / "v.fits", CTYPE3="WAVE"))
    assert float(vacuum["wave"][0]) == 4749.890625
    assert vacuum.attrs["provenance"][0]["air_to_vacuum"] is None
    log = open_ifs(muse(tmp_path / "l.fits", CTYPE3="AWAV-LOG"))
    np.testing.assert_allclose(np.diff(np.log(vacuum_to_air(log["wave"]))), 1.25 / 4749.890625)


def test_open_ifs__psf_of_fsf_model_1(tmp_path: Path) -> None:
    cards = {"FSFMODE": "MOFFAT1", "FSF00FWA": 0.8, "FSF00FWB": -3e-5, "FSF00BET": 2.8}
    psf = open_ifs(muse(tmp_path / "a.fits", primary=cards)).attrs["psf"]
    assert psf["model"] == "moffat"
    np.testing.assert_allclose(psf["fwhm"], 0.8 - 3e-5 * np.array(psf["wave"]))
    assert psf["beta"] == [2.8] * len(psf["wave"])


def test_open_ifs__psf_of_fsf_model_2(tmp_path: Path) -> None:
    cards = {
        "FSFMODE": 2, "FSFLB1": 5000.0, "FSFLB2": 9000.0, "FSF00FNC": 2, "FSF00F00": -0.2,
        "FSF00F01": 0.7, "FSF00BNC": 1, "FSF00B00": 2.2,
    }  # fmt: skip
    psf = open_ifs(muse(tmp_path / "a.fits", primary=cards)).attrs["psf"]
    x = (np.array(psf["wave"]) - 5000) / 4000 - 0.5
    np.testing.assert_allclose(psf["fwhm"], 0.7 - 0.2 * x)
    assert psf["beta"] == [2.2] * len(psf["wave"])
    del cards["FSF00F01"]
    path = muse(tmp_path / "b.fits", primary=cards)
    with pytest.raises(InputError, match=r"b\.fits, cards FSF00\*: expected a whole PSF model"):
        open_ifs(path)
    assert open_ifs(path, psf_fwhm=1.0).attrs["psf"]["fwhm"] == [1.0]


def test_open_ifs__missing_variance(tmp_path: Path) -> None:
    path = muse(tmp_path / "a.fits")
    with fits.open(path) as file:
        del file["STAT"]
        file.writeto(tmp_path / "b.fits")
    with pytest.raises(InputError, match=r"b\.fits: expected the extensions STAT, found only PRIM"):
        open_ifs(tmp_path / "b.fits")


@pytest.mark.realdata
def test_open_ifs__real_minicube(realdata: Path) -> None:
    path = realdata / "muse_a478" / "minicube.fits"
    with dask.config.set(scheduler=refuse):
        ds = open_ifs(path, psf_fwhm=1.05, redshift=0.086)
    assert ds.sizes == {"wave": 3681, "y": 40, "x": 40}
    wave = ds["wave"].values
    np.testing.assert_allclose(vacuum_to_air(wave[[0, -1]]), [4749.890625, 9349.890625], rtol=1e-9)
    assert wave[0] - 4749.890625 == pytest.approx(1.33, abs=0.02)
    with fits.open(path) as file:
        data, stat, flags = (file[name].data for name in ("DATA", "STAT", "DQ"))
        bad = ~np.isfinite(data) | ~(stat > 0) | ~np.isfinite(stat) | (flags != 0)
        np.testing.assert_array_equal(ds["spec_mask"], bad)
        np.testing.assert_allclose(ds["spec_flux"], data * 1e-3, rtol=1e-6)
        np.testing.assert_allclose(ds["spec_var"].values[~bad], stat[~bad] * 1e-6, rtol=1e-6)
    assert ds.attrs["pixel_scale"] == pytest.approx(0.2, rel=1e-6)
    sky = celestial_wcs(ds).pixel_to_world_values(23.827710087038, 17.598827759223)
    assert sky == pytest.approx([63.355417, 10.46556])
    json.dumps(ds.attrs, allow_nan=False)


def test_open_ifs__which_flags_are_fatal(tmp_path: Path) -> None:
    path = muse(tmp_path / "a.fits")
    flags = np.zeros(SHAPE, np.int32)
    flags[4, 1, 1], flags[5, 1, 1], flags[6, 1, 1] = 1 << 5, -(1 << 31), 1 << 1
    with fits.open(path) as file:
        file["DQ"] = fits.ImageHDU(flags, name="DQ")
        file.writeto(tmp_path / "b.fits")
    for option, bad in (
        (None, [1, 2, 3, 4, 5, 6]), (["COSMICRAY", "OUTSDRANGE"], [1, 2, 3, 4, 5]),
        ([31], [1, 2, 3, 5]), ([], [1, 2, 3]),
    ):  # fmt: skip
        mask = open_ifs(tmp_path / "b.fits", mask_bits=option)["spec_mask"]
        assert np.flatnonzero(mask[:, 1, 1]).tolist() == bad
    with pytest.raises(InputError, match=r"mask_bits: expected bits of DQ.* MISSDATA \(30\)"):
        open_ifs(path, mask_bits=["BADPIX"])


def test_open_ifs__mask_bits_without_flags(tmp_path: Path) -> None:
    with fits.open(muse(tmp_path / "a.fits")) as file:
        del file["DQ"]
        file.writeto(tmp_path / "b.fits")
    ds = open_ifs(tmp_path / "b.fits", mask_bits=["COSMICRAY"])
    assert "no DQ: mask_bits changes nothing" in ds.attrs["provenance"][0]["assumed"]
    assert "foreground" not in ds
