"""What a user may bring by mistake: one sentence that names the file, exit code 2, no product."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from astropy.io import fits
from galaxy_files import small_galaxy

from specphoto import cli

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def no_wcs(hdus: fits.HDUList) -> None:
    for hdu in hdus:
        for card in ("CTYPE1", "CTYPE2"):
            hdu.header.pop(card, None)


def no_variance(hdus: fits.HDUList) -> None:
    del hdus["IVAR"]


def all_masked(hdus: fits.HDUList) -> None:
    hdus["MASK"].data[:] = 1 << 10


def all_nan(hdus: fits.HDUList) -> None:
    hdus["FLUX"].data[:] = np.nan


def zero_ivar(hdus: fits.HDUList) -> None:
    hdus["IVAR"].data[:] = 0.0


def elsewhere(hdus: fits.HDUList) -> None:
    for hdu in hdus:
        if "CRVAL2" in hdu.header:
            hdu.header["CRVAL2"] -= 1.0


def wave_turns_back(hdus: fits.HDUList) -> None:
    hdus["WAVE"].data[7] = hdus["WAVE"].data[3]


def unknown_filter(hdus: fits.HDUList) -> None:
    hdus[0].header["FIL3"] = "sdss_q"


def no_redshift(hdus: fits.HDUList) -> None:
    hdus[0].header.pop("Z")


@pytest.mark.parametrize(
    ("which", "spoil", "found"),
    [
        ("cube", no_wcs, "WCS"),
        ("cube", no_variance, "IVAR"),
        ("cube", all_masked, "every one of them masked"),
        ("cube", all_nan, "no finite flux"),
        ("cube", zero_ivar, "no finite variance"),
        ("cube", elsewhere, "no overlap"),
        ("cube", wave_turns_back, "increas"),
        ("images", unknown_filter, "sdss_q"),
        ("images", no_redshift, "redshift"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_bad_input__is_refused_in_one_sentence(
    which: str, spoil: Callable[[fits.HDUList], None], found: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    galaxy = small_galaxy()
    files = {"cube": galaxy.cube.path, "images": galaxy.photometry.path}
    spoilt = tmp_path / f"spoilt-{which}.fits"
    with fits.open(files[which]) as hdus:
        spoil(hdus)
        hdus.writeto(spoilt)
    files[which] = spoilt
    command = ["specphoto", "match", files["cube"], files["images"], "-o", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", [str(word) for word in command])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    said = capsys.readouterr()
    assert stop.value.code == 2
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert found in said.err
    assert spoilt.name.removesuffix(".fits") in said.err
    assert not (tmp_path / "out").exists()


def test_bad_input__a_correlation_that_is_none_leaves_no_product(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    galaxy = small_galaxy()
    spoilt = tmp_path / "spoilt-cube.fits"
    with fits.open(galaxy.cube.path) as hdus:
        for name in ("GCORREL", "RCORREL", "ICORREL", "ZCORREL"):
            table = hdus[name].data
            other = (table["INDXI_C1"] != table["INDXJ_C1"]) | (
                table["INDXI_C2"] != table["INDXJ_C2"]
            )
            # neighbours that are all opposite to each other
            table["RHOIJ"][other] = -0.5
        hdus.writeto(spoilt)
    out = tmp_path / "matched.fits"
    command = ["specphoto", "spatial", spoilt, galaxy.photometry.path, "-o", out]
    monkeypatch.setattr(sys, "argv", [str(word) for word in command])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert "expected a correlation by which every variance is positive" in said
    assert "spoilt-cube.fits" in said
    assert [path.name for path in tmp_path.iterdir()] == ["spoilt-cube.fits"]


def star(at: tuple[float, float] = (20.0, 20.0)) -> np.ndarray:
    y, x = np.indices((41, 41))
    return np.exp(-0.5 * ((y - at[0]) ** 2 + (x - at[1]) ** 2) / 2.5**2)


@pytest.mark.parametrize(
    ("image", "scale", "found"),
    [
        (star((20.0, 30.0)), 0.4, "+10.0 (x) and +0.0 (y) pixels off"),
        (np.where(star() > 0.9, np.nan, star()), 0.4, "pixels that are not finite"),
        (np.zeros((41, 41)), 0.4, "expected light"),
        (star(), None, "expected the pixel side of the PSF image"),
        (star(), -0.4, "expected the pixel side of the PSF image"),
    ],
    ids=["off the middle", "not finite", "zero", "no scale", "negative scale"],
)
def test_bad_input__an_image_that_is_no_psf(
    image: np.ndarray, scale: float | None, found: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    galaxy = small_galaxy()
    picture, psf = tmp_path / "image.fits", tmp_path / "bad-psf.fits"
    with fits.open(galaxy.photometry.path) as hdus:
        fits.PrimaryHDU(hdus["STAMP_IMAGE"].data, hdus["STAMP_IMAGE"].header).writeto(picture)
    hdu = fits.PrimaryHDU(image)
    if scale is not None:
        hdu.header["PIXSCALE"] = scale
    hdu.writeto(psf)
    described = f"{picture},band=sdss_r,unit=nanomaggy,psf={psf}"
    command = ["specphoto", "images", described, "--on", galaxy.cube.path, "-o",
               tmp_path / "made.fits"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", [str(word) for word in command])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert "bad-psf.fits, PRIMARY: " in said
    assert found in said
    assert {path.name for path in tmp_path.iterdir()} == {"image.fits", "bad-psf.fits"}


@pytest.mark.parametrize("psf", ["1.3", "sdss_r"])
def test_bad_input__two_that_cannot_be_matched(
    tmp_path: Path, psf: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    galaxy = small_galaxy()
    image = tmp_path / "image.fits"
    with fits.open(galaxy.photometry.path) as hdus:
        fits.PrimaryHDU(hdus["STAMP_IMAGE"].data, hdus["STAMP_IMAGE"].header).writeto(image)
    command = ["specphoto", "spatial", galaxy.cube.path, "--grid", image, "--psf", psf, "-o",
               tmp_path / "matched.zarr"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", [str(word) for word in command])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert "PSF match: expected a target PSF no sharper than the" in said
    assert galaxy.cube.path.name in said
    assert [path.name for path in tmp_path.iterdir()] == ["image.fits"]
