from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import numpy as np
import pytest
from astropy.io import fits
from dask.base import tokenize
from survey_files import image, manga, write

from specphoto.errors import InputError
from specphoto.io.fitsfile import headers, open_fits, plane_chunks

if TYPE_CHECKING:
    from pathlib import Path

CUBE = np.arange(5 * 3 * 4, dtype=np.float32).reshape(5, 3, 4)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    unsigned = image("unsigned", CUBE.astype(np.uint16))
    hdus = [fits.PrimaryHDU(), image("cube", CUBE), image("double", CUBE.astype(np.float64)),
            unsigned, fits.ImageHDU(CUBE[0])]  # fmt: skip
    return write(tmp_path / "a.fits", hdus)


def test_fits_array__equals_astropy(path: Path) -> None:
    file = open_fits(path)
    for name in ("CUBE", "DOUBLE", "UNSIGNED"):
        array = file.array(name)
        np.testing.assert_array_equal(array[...], CUBE)
        np.testing.assert_array_equal(array[1:3, :, ::2], CUBE[1:3, :, ::2])
        assert array[...].dtype == np.dtype("=f4")
        assert array[...].dtype.isnative


def test_fits_array__scaling_and_blank(tmp_path: Path) -> None:
    # written by hand: astropy would undo the cards
    hdu = fits.ImageHDU(CUBE.astype(np.int16))
    path = write(tmp_path / "s.fits", [fits.PrimaryHDU(), hdu])
    with fits.open(path, mode="update", do_not_scale_image_data=True) as file:
        file[1].header.update(BSCALE=0.5, BZERO=10.0, BLANK=7)
    expected = np.where(CUBE == 7, np.nan, CUBE * 0.5 + 10)
    np.testing.assert_array_equal(open_fits(path).array("HDU1")[...], expected)


def test_fits_array__pickles_small_and_tokenizes(path: Path) -> None:
    array = open_fits(path).array("CUBE")
    text = pickle.dumps(array)
    assert len(text) < 1000
    np.testing.assert_array_equal(pickle.loads(text)[2], CUBE[2])
    assert tokenize(array) == tokenize(open_fits(path).array("CUBE"))
    assert tokenize(array) != tokenize(open_fits(path).array("DOUBLE"))
    np.testing.assert_array_equal(np.asarray(array), CUBE)
    with pytest.raises(ValueError, match="without a copy"):
        array.__array__(copy=False)


def test_fits_file__dask_on_every_scheduler(path: Path) -> None:
    lazy = open_fits(path).dask("CUBE", (2, 3, 4))
    assert lazy.chunks == ((2, 2, 1), (3,), (4,))
    for scheduler in ("synchronous", "threads", "processes"):
        np.testing.assert_array_equal(lazy[1:4, 1].compute(scheduler=scheduler), CUBE[1:4, 1])


def test_fits_file__names(path: Path) -> None:
    file = open_fits(path)
    assert list(headers(path)) == ["PRIMARY", "CUBE", "DOUBLE", "UNSIGNED", "HDU4"]
    assert "PRIMARY" in file
    assert "NONE" not in file
    with pytest.raises(InputError, match=r"a\.fits: expected the extensions NONE, found only PRIM"):
        file.require("CUBE", "NONE")
    with pytest.raises(
        InputError, match=r"HDU4: expected an array of 3 axes, found shape \(3, 4\)"
    ):
        file.require("HDU4")
    with pytest.raises(InputError, match=r"HDU4: expected shape \(5, 3, 4\), found \(3, 4\)"):
        file.require("CUBE", "HDU4")
    with pytest.raises(InputError, match="PRIMARY: expected an image, found no pixels"):
        file.array("PRIMARY")


def test_open_fits__not_fits(tmp_path: Path) -> None:
    path = tmp_path / "notes.fits"
    path.write_text("not a cube")
    with pytest.raises(InputError, match=r"notes\.fits: expected a FITS file"):
        open_fits(path)


@pytest.mark.parametrize("share", [0.4, 0.999])
def test_open_fits__truncated(tmp_path: Path, share: float) -> None:
    rng = np.random.default_rng(1)
    path = write(tmp_path / "cut.fits", [fits.PrimaryHDU(), image("A", rng.random((40, 40, 9)))])
    content = path.read_bytes()
    # cut within the pixels, and within the padding of the last block for what astropy forgives
    path.write_bytes(content[: int(len(content) * share) - 2880])
    with pytest.raises(InputError, match=r"cut\.fits: expected a whole FITS file"):
        open_fits(path)


def test_open_fits__compressed_image(tmp_path: Path) -> None:
    path = write(tmp_path / "c.fits", [fits.PrimaryHDU(), fits.CompImageHDU(CUBE, name="FLUX")])
    with pytest.raises(InputError, match="tile-compressed one; unpack the file with funpack"):
        open_fits(path).array("FLUX")


def test_open_fits__non_standard_headers_are_quiet(tmp_path: Path) -> None:
    path = manga(tmp_path / "m.fits")
    content = path.read_bytes().replace(b"DRP3QUAL", b"drp3qual", 1)
    path.write_bytes(content)
    assert "FLUX" in open_fits(path)


def test_plane_chunks__auto_is_bounded() -> None:
    assert plane_chunks((4563, 74, 74)) == (571, 74, 74)
    n, ny, nx = plane_chunks((3681, 300, 300))
    assert (ny, nx) == (300, 300)
    assert 60e6 < 4 * n * ny * nx <= 64e6
    assert plane_chunks((3, 6000, 6000)) == (1, 6000, 6000)


def test_plane_chunks__given() -> None:
    shape = (10, 4, 6)
    assert plane_chunks(shape, 3) == (3, 4, 6)
    assert plane_chunks(shape, -1) == shape
    assert plane_chunks(shape, {"wave": 7, "x": 5}) == ((7, 3), (4,), (5, 1))
    for wrong in (0, -2, "all", {"time": 1}, None):
        with pytest.raises(InputError, match="chunks: expected 'auto', a number of channels"):
            plane_chunks(shape, wrong)  # type: ignore[arg-type]
