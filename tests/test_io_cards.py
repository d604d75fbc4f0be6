"""Headers in a hurry: the same facts as the opened file gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import survey_files
from astropy.io import fits
from factories import specphoto_dataset

import specphoto
from specphoto.errors import InputError
from specphoto.io.cards import read_cards
from specphoto.io.opening import open_any
from specphoto.io.outline import outline, outline_of
from specphoto.io.registry import readers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize("ending", [".fits", ".fits.gz"])
def test_read_cards__are_astropys(tmp_path: Path, ending: str) -> None:
    path = survey_files.manga(tmp_path / f"cube{ending}")
    found = read_cards(path)
    with fits.open(path) as file:
        assert list(found) == ["PRIMARY", *(hdu.name for hdu in file[1:])]
        for hdu in file:
            cards = found[hdu.name]
            assert {k: v for k, v in cards.items() if k} == dict(hdu.header)
            if hdu.is_image:
                assert cards.shape == hdu.shape
    assert list(read_cards(path, leading=True)) == ["PRIMARY", "FLUX"]


@pytest.mark.parametrize(
    "write", [survey_files.manga, survey_files.califa, survey_files.muse, survey_files.fluxmap]
)
@pytest.mark.parametrize("ending", [".fits", ".fits.gz"])
def test_outline__is_that_of_the_opened_file(
    tmp_path: Path, write: Callable[[Path], Path], ending: str
) -> None:
    path = write(tmp_path / f"file{ending}")
    assert outline(path, readers()) == outline_of(open_any(path))


@pytest.mark.parametrize("ending", ["zarr", "fits"])
def test_outline__of_products(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"product.{ending}"
    ds = specphoto_dataset()
    (specphoto.write_zarr if ending == "zarr" else specphoto.write_fits)(ds, path)
    found = outline(path, readers())
    assert found == outline_of(specphoto.open_cube(path))
    assert found.shape == (37, 11, 9)
    assert found.position == (205.4384, 27.0048)


def test_outline__critical_quality_is_told_without_a_warning(tmp_path: Path) -> None:
    path = survey_files.manga(tmp_path / "cube.fits", primary={"DRP3QUAL": 2**30 + 1})
    found = outline(path, readers())
    assert found.critical
    assert found.quality == 2**30 + 1


def test_read_cards__bad_files(tmp_path: Path) -> None:
    text = tmp_path / "text.fits"
    text.write_text("no FITS file")
    with pytest.raises(InputError, match=r"text.fits: expected a FITS file, found something else"):
        read_cards(text)
    with pytest.raises(InputError, match=r"none.fits: expected a file .*, found no such file"):
        read_cards(tmp_path / "none.fits")
    packed = survey_files.manga(tmp_path / "cube.fits.gz")
    packed.write_bytes(packed.read_bytes()[:100])
    with pytest.raises(InputError, match=r"cube.fits.gz: expected a whole FITS file"):
        read_cards(packed)
