"""Opening products: piXedfit's files, and what cannot be opened."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from factories import specphoto_dataset
from lazy import raise_if_computes

from specphoto.cube import band_scale
from specphoto.errors import InputError
from specphoto.io.cube_reader import open_cube
from specphoto.io.fits_writer import write_fits
from specphoto.io.zarr_store import write_zarr
from specphoto.photometry.filters import pixedfit_scale
from specphoto.spectral.wavelength import air_to_vacuum

PEER = Path(__file__).parent / "data" / "peer"
SPATIAL, CORRECTED = PEER / "peer_specphoto.fits.gz", PEER / "peer_corr_6pixels.fits.gz"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECPHOTO_CACHE", str(tmp_path / "cache"))


# --- piXedfit's files -----------------------------------------------------------------------


@pytest.mark.parametrize("path", [SPATIAL, CORRECTED], ids=["spatial", "corrected"])
def test_open_cube__pixedfit_values(path: Path) -> None:
    with raise_if_computes():
        ds = open_cube(path, chunks={"wave": 70, "x": 7}, compat="pixedfit")
    with fits.open(path) as peer:
        inside = {r: peer[r].data == 1 for r in ("PHOTO_REGION", "SPEC_REGION")}
        assert np.array_equal(ds["wave"], peer["WAVE"].data)
        assert np.array_equal(ds["photo_region"], inside["PHOTO_REGION"])
        assert np.array_equal(ds["spec_region"], inside["SPEC_REGION"])
        for name, hdu, region in (
            ("photo_flux", "PHOTO_FLUX", "PHOTO_REGION"),
            ("photo_err", "PHOTO_FLUXERR", "PHOTO_REGION"),
            ("spec_flux", "SPEC_FLUX", "SPEC_REGION"),
            ("spec_err", "SPEC_FLUXERR", "SPEC_REGION"),
        ):
            values = ds[name].values
            assert np.allclose(values[:, inside[region]], peer[hdu].data[:, inside[region]])
            assert np.isnan(values[:, ~inside[region]]).all()
    assert not ds["spec_mask"].values[:, inside["SPEC_REGION"]].any()
    assert ds["spec_mask"].values[:, ~inside["SPEC_REGION"]].all()
    assert ds["spec_flux"].dtype == np.float32


def test_open_cube__pixedfit_attributes() -> None:
    attrs = open_cube(SPATIAL).attrs
    expected = {
        "kind": "specphoto", "survey": "manga", "corrected": False, "redshift": 0.03,
        "ra": 205.4384, "dec": 27.0048, "ebv": 0.032, "ebv_scale": "SF11", "ebv_corrected": True,
        "ebv_law": "pixedfit", "fsamp": "galex_fuv", "psf_band": "wise_w2",
        "name": "peer_specphoto",
    }  # fmt: skip
    assert {key: attrs[key] for key in expected} == expected
    assert attrs["psf"]["fwhm"] == [6.37]
    assert attrs["pixel_scale"] == pytest.approx(1.5)
    assert attrs["spectral_axis"]["ctype"] == "WAVE-LOG"
    assert attrs["provenance"][-1]["step"] == "open_cube"


def test_open_cube__pixedfit_model_goes_on_all_channels() -> None:
    ds = open_cube(CORRECTED)
    assert ds.attrs["corrected"] is True
    assert "wcs" not in ds.attrs
    with fits.open(CORRECTED) as peer:
        clean = np.isin(peer["WAVE"].data, peer["MOD_WAVE"].data)
        inside = peer["SPEC_REGION"].data == 1
        model = ds["mod_flux"].values
        assert np.allclose(model[clean][:, inside], peer["MOD_FLUX"].data[:, inside])
        assert np.isnan(model[~clean]).all()
        assert np.isnan(model[:, ~inside]).all()
        factor = ds["corr_factor"].values
        assert np.allclose(factor[:, inside], peer["CORR_FACTOR"].data[:, inside])
    assert np.array_equal(ds["mod_clean"], clean)


def test_open_cube__pixedfit_photometry_becomes_photon_weighted() -> None:
    plain, scaled = open_cube(SPATIAL, compat="pixedfit"), open_cube(SPATIAL)
    factor = pixedfit_scale(scaled["band"].values)
    assert np.allclose(band_scale(scaled), factor)
    expected = plain["photo_flux"] * xr.DataArray(factor, dims="band")
    assert np.allclose(scaled["photo_flux"], expected, equal_nan=True)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("path", [SPATIAL, CORRECTED], ids=["spatial", "corrected"])
def test_write_fits__compat_gives_pixedfit_s_own_file(
    tmp_path: Path, path: Path, scaled: bool
) -> None:
    ds = open_cube(path, compat=None if scaled else "pixedfit", chunks={"wave": 33, "y": 8})
    write_fits(ds, tmp_path / "back.fits", compat="pixedfit")
    with fits.open(path) as peer, fits.open(tmp_path / "back.fits") as back:
        back.verify("exception")
        assert [hdu.name for hdu in back] == [hdu.name for hdu in peer]
        for ours, theirs in zip(back, peer, strict=True):
            assert list(ours.header.items()) == list(theirs.header.items()), ours.name
            assert ours.data.dtype == theirs.data.dtype
            assert np.allclose(ours.data, theirs.data, rtol=1e-7, atol=0.0), ours.name


@pytest.mark.parametrize("kind", ["fits", "zarr"])
@pytest.mark.parametrize("path", [SPATIAL, CORRECTED], ids=["spatial", "corrected"])
def test_open_cube__pixedfit_file_survives_our_formats(
    tmp_path: Path, path: Path, kind: str
) -> None:
    ds = open_cube(path)
    (write_fits if kind == "fits" else write_zarr)(ds, tmp_path / f"a.{kind}")
    xr.testing.assert_identical(open_cube(tmp_path / f"a.{kind}"), ds)


def test_write_fits__compat_finds_the_clean_channels_itself(tmp_path: Path) -> None:
    ds = open_cube(CORRECTED, compat="pixedfit").drop_vars("mod_clean")
    write_fits(ds, tmp_path / "back.fits", compat="pixedfit")
    with fits.open(CORRECTED) as peer, fits.open(tmp_path / "back.fits") as back:
        assert np.array_equal(peer["MOD_WAVE"].data, back["MOD_WAVE"].data)


def test_write_fits__compat_of_our_products(tmp_path: Path) -> None:
    ds = specphoto_dataset(12, corrected=True)
    write_fits(ds, tmp_path / "a.fits", compat="pixedfit")
    with fits.open(tmp_path / "a.fits") as cube:
        assert [hdu.name for hdu in cube] == [hdu.name for hdu in _headers(CORRECTED)]
        assert all(np.isfinite(hdu.data).all() for hdu in cube)
        assert cube["PHOTO_FLUX"].data.min() == -99.0 / 1e-17
        assert cube["SPEC_FLUX"].data.dtype == ">f8"


def _headers(path: Path) -> list[Any]:
    with fits.open(path) as file:
        return list(file)


def test_write_fits__compat_needs_what_pixedfit_has(tmp_path: Path) -> None:
    ds = specphoto_dataset().drop_vars("photo_err")
    with pytest.raises(InputError, match=r'compat="pixedfit": expected .* found no photo_err'):
        write_fits(ds, tmp_path / "a.fits", compat="pixedfit")
    assert list(tmp_path.iterdir()) == []


def _changed(path: Path, change: Any) -> Path:
    """The spatial product of the peer's with something changed."""
    with fits.open(SPATIAL) as peer:
        hdus = fits.HDUList([hdu.copy() for hdu in peer])
        change(hdus)
        hdus.writeto(path)
    return path


def test_open_cube__pixedfit_califa_goes_to_vacuum(tmp_path: Path) -> None:
    stored = 3701.0 + 2.0 * np.arange(305)

    def califa(hdus: fits.HDUList) -> None:
        hdus[0].header["IFSSURVE"] = "califa"
        hdus["WAVE"].data[:] = stored

    ds = open_cube(_changed(tmp_path / "califa.fits", califa))
    assert np.allclose(ds["wave"], air_to_vacuum(stored), rtol=1e-12)
    axis = {"ctype": "AWAV", "crval": 3701.0, "cdelt": 2.0, "crpix": 1.0}
    assert ds.attrs["spectral_axis"] == axis
    assert "converted to vacuum" in ds.attrs["provenance"][-1]["assumed"][0]


def test_open_cube__pixedfit_channels_without_error_are_unknown(tmp_path: Path) -> None:
    def dead(hdus: fits.HDUList) -> None:
        hdus["SPEC_FLUXERR"].data[7] = 0.0

    path = _changed(tmp_path / "dead.fits", dead)
    ds = open_cube(path)
    assert ds["spec_mask"].values[7].all()
    assert np.isnan(ds["spec_flux"].values[7]).all()
    assert np.isnan(ds["spec_err"].values[7]).all()
    kept = open_cube(path, compat="pixedfit")
    assert np.isfinite(kept["spec_flux"].values[7]).any()


def test_open_cube__pixedfit_names_in_any_case_and_no_primary_name(tmp_path: Path) -> None:
    def lower(hdus: fits.HDUList) -> None:
        for hdu in hdus[1:]:
            hdu.header["EXTNAME"] = hdu.header["EXTNAME"].lower()

    xr.testing.assert_equal(open_cube(_changed(tmp_path / "lower.fits", lower)), open_cube(SPATIAL))


def test_open_cube__pixedfit_without_a_wcs(tmp_path: Path) -> None:
    def bare(hdus: fits.HDUList) -> None:
        del hdus["STAMP_IMAGE"]

    ds = open_cube(_changed(tmp_path / "bare.fits", bare))
    assert "wcs" not in ds.attrs
    assert (ds.attrs["ra"], ds.attrs["pixel_scale"]) == (205.4384, 1.5)
    write_fits(ds, tmp_path / "again.fits")
    with fits.open(tmp_path / "again.fits") as cube:
        cube.verify("exception")
        assert cube["SPEC_FLUX"].header["CTYPE3"] == "WAVE-LOG"
    xr.testing.assert_identical(open_cube(tmp_path / "again.fits"), ds)


# --- what cannot be opened ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SPEC_FLUXERR", "SPEC_REGION", "PHOTO_REGION", "PHOTO_FLUXERR"])
def test_open_cube__names_the_missing_hdu(tmp_path: Path, name: str) -> None:
    path = _changed(tmp_path / "a.fits", lambda hdus: hdus.pop(name))
    with pytest.raises(InputError, match=rf"a\.fits: expected the extensions .*{name}"):
        open_cube(path)


def test_open_cube__refuses_a_model_on_other_wavelengths(tmp_path: Path) -> None:
    with fits.open(CORRECTED) as peer:
        hdus = fits.HDUList([hdu.copy() for hdu in peer])
        hdus["MOD_WAVE"].data[:] += 1.0
        hdus.writeto(tmp_path / "a.fits")
    with pytest.raises(InputError, match=r"MOD_WAVE: expected wavelengths of WAVE, found others"):
        open_cube(tmp_path / "a.fits")


def test_open_cube__refuses_other_fits(tmp_path: Path) -> None:
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros((3, 3)), name="FLUX")]).writeto(
        tmp_path / "cube.fits"
    )
    match = (
        r"cube\.fits: expected a spectrophotometric product .* found the HDUs PRIMARY, FLUX; open"
    )
    with pytest.raises(InputError, match=match):
        open_cube(tmp_path / "cube.fits")


def test_open_cube__refuses_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.fits: expected a file that can be read"):
        open_cube(tmp_path / "a.fits")


def test_open_cube__refuses_other_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a Zarr folder .* found a folder without"):
        open_cube(tmp_path)


def test_open_cube__refuses_other_zarr(tmp_path: Path) -> None:
    xr.Dataset({"t": ("n", [1.0])}).to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False)
    with pytest.raises(InputError, match="expected a product with spec_flux, found t"):
        open_cube(tmp_path / "a.zarr")


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.8, 0.9])
def test_open_cube__refuses_truncated_fits(tmp_path: Path, keep: float) -> None:
    write_fits(specphoto_dataset(), tmp_path / "a.fits")
    whole = (tmp_path / "a.fits").read_bytes()
    (tmp_path / "a.fits").write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(InputError, match=r"a\.fits: expected"):
        open_cube(tmp_path / "a.fits")


def test_open_cube__refuses_truncated_gzip(tmp_path: Path) -> None:
    path = tmp_path / "a.fits.gz"
    path.write_bytes(SPATIAL.read_bytes()[:50_000])
    with pytest.raises(InputError, match=r"a\.fits\.gz: expected a whole gzip file"):
        open_cube(path)


@pytest.mark.parametrize("kind", ["fits", "zarr"])
def test_open_cube__refuses_a_later_schema(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "fits":
        write_fits(specphoto_dataset(), path)
        data = path.read_bytes()
        path.write_bytes(data.replace(b'{"specphoto_schema": 1', b'{"specphoto_schema": 9'))
    else:
        write_zarr(specphoto_dataset(), path)
        meta = json.loads((path / "zarr.json").read_text())
        meta["attributes"]["specphoto_schema"] = 9
        (path / "zarr.json").write_text(json.dumps(meta))
    with pytest.raises(
        InputError, match="expected a product of schema 1 or before, found schema 9"
    ):
        open_cube(path)


def test_open_cube__refuses_damaged_attributes(tmp_path: Path) -> None:
    write_fits(specphoto_dataset(), tmp_path / "a.fits")
    data = (tmp_path / "a.fits").read_bytes()
    (tmp_path / "a.fits").write_bytes(data.replace(b'{"specphoto_schema"', b'["specphoto_schema"'))
    with pytest.raises(InputError, match="ATTRIBUTES: expected the JSON text written with"):
        open_cube(tmp_path / "a.fits")


def test_open_cube__coefficients_need_their_range(tmp_path: Path) -> None:
    ds = specphoto_dataset(corrected=True)
    del ds.attrs["corr_range"]
    write_zarr(ds, tmp_path / "a.zarr")
    with pytest.raises(InputError, match="expected the attribute corr_range beside corr_coef"):
        open_cube(tmp_path / "a.zarr")


def test_open_cube__gzipped_pixedfit_equals_plain(tmp_path: Path) -> None:
    with gzip.open(SPATIAL) as packed, (tmp_path / "peer_specphoto.fits").open("wb") as plain:
        shutil.copyfileobj(packed, plain)
    xr.testing.assert_equal(open_cube(tmp_path / "peer_specphoto.fits"), open_cube(SPATIAL))
