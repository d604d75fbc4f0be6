from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import dask
import numpy as np
import pytest
from astropy.io import fits
from survey_files import MANGA_WAVE, SHAPE, header, image, manga, manga_arrays, write

from specphoto.cube import celestial_wcs, validate
from specphoto.errors import InputError
from specphoto.io import open_ifs

if TYPE_CHECKING:
    from pathlib import Path

RELEASES = ["DR13", "DR15", "DR17"]


def refuse(*args: Any, **kwargs: Any) -> None:
    msg = "a verb computed"
    raise AssertionError(msg)


@pytest.mark.parametrize("release", RELEASES)
def test_open_ifs__computes_nothing(tmp_path: Path, release: str) -> None:
    with dask.config.set(scheduler=refuse):
        ds = open_ifs(manga(tmp_path / "a.fits", release=release))
    validate(ds, "spec_flux", "spec_var", "spec_mask", "spec_lsf", "recon_image", verb="test")
    assert ds["spec_flux"].chunks == ((2,) * 6, (6,), (7,))


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("suffix", [".fits", ".fits.gz"])
def test_open_ifs__values(
    tmp_path: Path, release: str, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECPHOTO_CACHE", str(tmp_path / "cache"))
    ds = open_ifs(manga(tmp_path / f"a{suffix}", release=release), chunks=5).compute()
    arrays = manga_arrays()
    bad = np.zeros(SHAPE, bool)
    bad[:, 0, :] = bad[3, 2, 2] = bad[4, 2, 2] = bad[6, 2, 2] = True
    np.testing.assert_array_equal(ds["spec_mask"], bad)
    np.testing.assert_array_equal(ds["spec_flux"], arrays["FLUX"])
    with np.errstate(divide="ignore"):
        var = np.where(arrays["IVAR"] > 0, 1 / arrays["IVAR"], np.nan)
    np.testing.assert_allclose(ds["spec_var"], var, rtol=1e-6)
    np.testing.assert_array_equal(ds["wave"], MANGA_WAVE)
    assert ds["spec_flux"].dtype == ds["spec_var"].dtype == ds["spec_lsf"].dtype == np.float32


def test_open_ifs__line_spread(tmp_path: Path) -> None:
    for release in ("DR15", "DR17"):
        lsf = open_ifs(manga(tmp_path / f"{release}.fits", release=release))["spec_lsf"]
        assert lsf.dims == ("wave", "y", "x")
        assert lsf.chunks is not None
        np.testing.assert_allclose(lsf[:, 1:], 1.1, rtol=1e-6)
        assert np.isnan(lsf[:, 0]).all()
    lsf = open_ifs(manga(tmp_path / "DR13.fits", release="DR13"))["spec_lsf"]
    assert lsf.dims == ("wave",)
    np.testing.assert_allclose(lsf, MANGA_WAVE / 2000 / 2.354820045, rtol=1e-6)


def test_open_ifs__attributes(tmp_path: Path) -> None:
    path = manga(tmp_path / "a.fits")
    ds = open_ifs(path, redshift=0.02)
    attrs = ds.attrs
    json.dumps(attrs, allow_nan=False)
    assert (attrs["kind"], attrs["survey"], attrs["name"]) == ("ifs", "manga", "8485-1901")
    assert (attrs["ra"], attrs["dec"]) == (232.544703894, 48.6902009334)
    assert (attrs["ebv"], attrs["ebv_scale"], attrs["ebv_corrected"]) == (0.0144335, "SFD", False)
    assert "ebv_law" not in attrs
    assert attrs["psf"] == {
        "model": "gaussian", "wave": [4702.5, 6176.6, 7496.1, 8946.7],
        "fwhm": [2.47074, 2.47547, 2.45931, 2.44198], "beta": None,
    }  # fmt: skip
    assert attrs["correlation"] == {"model": "gaussian", "scale": 1.92, "cutoff": 6.4}
    assert attrs["spectral_axis"] == {
        "ctype": "WAVE-LOG", "crval": 3621.59598486, "cdelt": 0.833903304339, "crpix": 1.0,
    }  # fmt: skip
    assert attrs["redshift"] == 0.02
    assert attrs["corrected"] is False
    assert attrs["quality"] == {"card": "DRP3QUAL", "value": 1, "critical": False}
    assert attrs["pixel_scale"] == pytest.approx(0.5, abs=1e-5)
    assert celestial_wcs(ds).pixel_to_world_values(3, 2) == pytest.approx([232.5447, 48.690201])
    (_, opened) = attrs["provenance"]
    assert (opened["input"], opened["bytes"]) == ("a.fits", path.stat().st_size)
    assert "redshift" not in open_ifs(path).attrs


def test_open_ifs__psf_of_the_option_or_the_survey(tmp_path: Path) -> None:
    none = dict.fromkeys(("GFWHM", "RFWHM", "IFWHM", "ZFWHM"))
    ds = open_ifs(manga(tmp_path / "a.fits", primary=none))
    assert ds.attrs["psf"]["fwhm"] == [2.5]
    assert "PSF of 2.5 arcsec" in ds.attrs["provenance"][0]["assumed"][0]
    given = open_ifs(manga(tmp_path / "b.fits"), psf_fwhm=2.1)
    assert given.attrs["psf"]["fwhm"] == [2.1]
    assert given.attrs["provenance"][-1]["options"]["psf_fwhm"] == 2.1


def test_open_ifs__critical_cube_warns(tmp_path: Path) -> None:
    path = manga(tmp_path / "a.fits", primary={"DRP3QUAL": (1 << 30) + 1})
    with pytest.warns(UserWarning, match=r"a\.fits: DRP3QUAL = 1073741825 has the CRITICAL bit"):
        ds = open_ifs(path)
    assert ds.attrs["quality"]["critical"] is True


def test_open_ifs__lincube(tmp_path: Path) -> None:
    wave = 3622.0 + np.arange(SHAPE[0])
    ds = open_ifs(manga(tmp_path / "a.fits", wave=wave, flux={"CTYPE3": "WAVE", "CD3_3": 1.0}))
    np.testing.assert_array_equal(ds["wave"], wave)
    assert ds.attrs["spectral_axis"]["ctype"] == "WAVE"


def test_open_ifs__without_optional_parts(tmp_path: Path) -> None:
    path = manga(tmp_path / "a.fits", release="DR13", without=("RIMG", "SPECRES", "OBSINFO"))
    ds = open_ifs(path)
    assert "recon_image" not in ds
    assert "spec_lsf" not in ds


@pytest.mark.parametrize("name", ["IVAR", "MASK", "WAVE"])
def test_open_ifs__missing_extension(tmp_path: Path, name: str) -> None:
    path = manga(tmp_path / "a.fits", without=(name,))
    with pytest.raises(InputError, match=rf"a\.fits: expected the extensions {name}, found only"):
        open_ifs(path)


def test_open_ifs__without_celestial_wcs(tmp_path: Path) -> None:
    path = manga(tmp_path / "a.fits", flux={"CTYPE1": None, "CTYPE2": None})
    with pytest.raises(InputError, match=r"a\.fits, FLUX: expected a celestial WCS .* found none"):
        open_ifs(path)


@pytest.mark.parametrize("bad", [MANGA_WAVE[::-1], np.full(SHAPE[0], 4000.0), MANGA_WAVE * np.nan])
def test_open_ifs__wavelength_that_does_not_increase(tmp_path: Path, bad: np.ndarray) -> None:
    path = manga(tmp_path / "a.fits", wave=bad)
    with pytest.raises(InputError, match=r"a\.fits: wave: expected wavelengths that increase"):
        open_ifs(path)


def test_open_ifs__changed_file_is_refused_when_computed(tmp_path: Path) -> None:
    path = manga(tmp_path / "a.fits")
    ds = open_ifs(path)
    path.write_bytes(path.read_bytes()[:-2880])
    with pytest.raises(InputError, match="open it again"):
        ds["spec_flux"].compute()


def test_open_ifs__truncated_gzip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECPHOTO_CACHE", str(tmp_path / "cache"))
    path = manga(tmp_path / "a.fits.gz")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"a\.fits\.gz: expected a whole gzip file"):
        open_ifs(path)


def test_open_ifs__scheduler_makes_no_difference(tmp_path: Path) -> None:
    ds = open_ifs(manga(tmp_path / "a.fits"))
    results = [ds.compute(scheduler=name) for name in ("synchronous", "threads", "processes")]
    for other in results[1:]:
        assert results[0].identical(other)


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"True": True, "False": False}.get(text, text)


@pytest.mark.realdata
@pytest.mark.parametrize("release", ["DR13", "DR14", "DR15", "DR16", "DR17"])
def test_open_ifs__real_cards_of_every_release(
    tmp_path: Path, realdata: Path, release: str
) -> None:
    model = realdata / "header_skeletons" / "sdss_datamodel" / "mangaCube.json"
    described = json.loads(model.read_text())["releases"][release]["hdus"].values()
    structural = ("SIMPLE", "BITPIX", "NAXIS", "EXTEND", "XTENSION", "PCOUNT", "GCOUNT", "EXTNAME",
                  "DATASUM", "CHECKSUM", "BSCALE", "BZERO")  # fmt: skip
    arrays = {**manga_arrays(), "WAVE": MANGA_WAVE}
    hdus: list[Any] = []
    for hdu in described:
        cards = header({
            card["key"]: _value(card["value"]) for card in hdu["header"]
            if not card["key"].startswith(structural) and card["key"].strip() and card["value"]
        })  # fmt: skip
        name = hdu["name"]
        if name == "PRIMARY":
            hdus.append(fits.PrimaryHDU(header=cards))
        elif "RES" in name:
            hdus.append(image(name, np.full(SHAPE[0], 1900.0)))
        elif name.endswith(("IMG", "PSF")):
            hdus.append(image(name, np.ones(SHAPE[1:], np.float32), dict(cards)))
        elif name not in ("OBSINFO",) and "CORREL" not in name:
            data = arrays.get(name, np.ones(SHAPE, np.float32))
            hdus.append(fits.ImageHDU(data, cards, name=name))
    ds = open_ifs(write(tmp_path / "a.fits", hdus))
    assert ds.attrs["name"] == "8485-1901"
    assert ds.attrs["survey"] == "manga"
    assert ds.attrs["ebv"] == 0.0144335
    assert len(ds.attrs["psf"]["fwhm"]) == 4
    assert ds["spec_lsf"].ndim == (1 if release in ("DR13", "DR14") else 3)
    assert ds.attrs["ra"] == pytest.approx(232.5447, abs=1e-4)


@pytest.mark.realdata
def test_open_ifs__real_headers_with_faked_arrays(realdata: Path) -> None:
    path = realdata / "header_skeletons" / "manga-7495-12704-LOGCUBE.fits"
    with pytest.raises(
        InputError, match=r"LOGCUBE\.fits: wave: expected wavelengths that increase"
    ):
        open_ifs(path)


@pytest.mark.realdata
def test_open_ifs__peer_cube(
    tmp_path: Path, realdata: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECPHOTO_CACHE", str(tmp_path))
    path = realdata / "peer" / "manga_cropped_LOGCUBE.fits.gz"
    ds = open_ifs(path)
    with fits.open(path) as file:
        good = file["IVAR"].data > 0
        np.testing.assert_array_equal(ds["spec_flux"], file["FLUX"].data)
    assert float(ds["spec_mask"].mean()) == pytest.approx(0.647, abs=1e-3)
    assert not (~ds["spec_mask"].values & ~good).any()
    assert np.isfinite(ds["spec_var"].values[~ds["spec_mask"].values]).all()
