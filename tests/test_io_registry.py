from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from astropy.io import fits
from survey_files import MANGA_FLUX, califa, fluxmap, image, manga, muse, write

from specphoto.errors import InputError
from specphoto.io import open_ifs, registry
from specphoto.io.manga import READER as MANGA
from specphoto.io.registry import GROUP, Reader, readers

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import xarray as xr


@dataclass
class SamiReader:
    """What another package would bring: here it reads MaNGA's layout under another name."""

    name: str = "sami"
    eager: bool = False

    def matches(self, headers: Mapping[str, fits.Header]) -> bool:
        return headers["PRIMARY"].get("INSTRUME") == "AAOMEGA-SAMI"

    def open(self, path: Any, **options: Any) -> xr.Dataset:
        ds = MANGA.open(path, **options).assign_attrs(survey=self.name)
        return ds.drop_vars("spec_var") if self.eager else ds


READER = SamiReader()
FAULTY = SamiReader("faulty", eager=True)


def install(monkeypatch: pytest.MonkeyPatch, *entries: tuple[str, str]) -> None:
    installed = list(registry._entries())
    extra = [EntryPoint(name, value, GROUP) for name, value in entries]
    monkeypatch.setattr(registry, "_entries", lambda: [*installed, *extra])


def sami(path: Path) -> Path:
    return manga(path, primary={"INSTRUME": "AAOMEGA-SAMI", "MANGAID": None})


def test_readers__of_the_package() -> None:
    assert {"manga", "califa", "muse"} <= readers().keys()
    assert all(isinstance(reader, Reader) for reader in readers().values())


def test_open_ifs__recognises_content_not_names(tmp_path: Path) -> None:
    assert open_ifs(muse(tmp_path / "manga-1-2-LOGCUBE.fits")).attrs["survey"] == "muse"
    assert open_ifs(manga(tmp_path / "NGC1.COMB.rscube.fits")).attrs["survey"] == "manga"
    assert open_ifs(califa(tmp_path / "DATACUBE_FINAL.fits")).attrs["survey"] == "califa"


def test_open_ifs__third_party_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sami(tmp_path / "a.fits")
    with pytest.raises(InputError, match="found the HDUs PRIMARY, FLUX, IVAR"):
        open_ifs(path)
    install(monkeypatch, ("sami", "test_io_registry:READER"))
    assert open_ifs(path).attrs["survey"] == "sami"
    ds = open_ifs(path, survey="sami", psf_fwhm=2.0, redshift=0.01)
    assert ds.attrs["provenance"][-1]["survey"] == "sami"
    assert ds.attrs["redshift"] == 0.01


def test_open_ifs__third_party_reader_is_held_to_the_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, ("faulty", "test_io_registry:FAULTY"))
    with pytest.raises(InputError, match=r"a\.fits: expected a dataset with .* found no spec_var"):
        open_ifs(sami(tmp_path / "a.fits"))


def test_open_ifs__broken_third_party_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, ("broken", "no_such_package:READER"))
    with pytest.warns(UserWarning, match="the reader 'broken' .* cannot be loaded"):
        assert open_ifs(manga(tmp_path / "a.fits")).attrs["survey"] == "manga"


def test_open_ifs__claimed_by_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, ("copy", "specphoto.io.manga:READER"))
    path = manga(tmp_path / "a.fits")
    with pytest.raises(InputError, match="the readers copy, manga all take for theirs; name the"):
        open_ifs(path)
    assert open_ifs(path, survey="manga").attrs["survey"] == "manga"


def test_open_ifs__other_kinds_of_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it is a photometric cube: open it with open_photometry"):
        open_ifs(fluxmap(tmp_path / "a.fits"))
    cube = np.zeros((2, 3, 4), np.float32)
    ours = [fits.PrimaryHDU(), image("PHOTO_FLUX", cube), image("SPEC_FLUX", cube)]
    with pytest.raises(InputError, match="open it with open_cube"):
        open_ifs(write(tmp_path / "b.fits", ours))
    with pytest.raises(InputError, match=r"c\.fits: expected a cube of a known survey"):
        open_ifs(write(tmp_path / "c.fits", [fits.PrimaryHDU()]))
    rows = image("FLUX", cube[0], {"INSTRUME": "MaNGA", **MANGA_FLUX})
    same = [image(name, cube[0]) for name in ("IVAR", "MASK")]
    path = write(tmp_path / "rss.fits", [fits.PrimaryHDU(), rows, *same])
    with pytest.raises(InputError, match=r"rss\.fits, FLUX: expected an array of 3 axes"):
        open_ifs(path)


def test_open_ifs__options(tmp_path: Path) -> None:
    path = manga(tmp_path / "a.fits")
    with pytest.raises(InputError, match="survey: expected 'auto' or one of califa, manga, muse"):
        open_ifs(path, survey="sdss")
    for wrong in (-1.0, np.nan):
        with pytest.raises(InputError, match="redshift: expected a number above -1"):
            open_ifs(path, redshift=wrong)
    for wrong in (0.0, np.inf):
        with pytest.raises(InputError, match="psf_fwhm: expected a positive FWHM"):
            open_ifs(path, psf_fwhm=wrong)
    with pytest.raises(InputError, match=r"none\.fits: expected a file that can be read"):
        open_ifs(tmp_path / "none.fits")


def test_open_ifs__wrong_survey_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected the extensions DATA, STAT, found only PRIMARY"):
        open_ifs(manga(tmp_path / "a.fits"), survey="muse")
