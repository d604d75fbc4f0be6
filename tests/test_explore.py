"""Samples to look at: the table, selections, galaxies, functions over them, joins."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import survey_files
import xarray as xr
from factories import specphoto_dataset
from lazy import raise_if_computes

import specphoto
from specphoto.errors import InputError
from specphoto.explore import GalaxySample, open_sample

if TYPE_CHECKING:
    from pathlib import Path

    from distributed import Client

NAMES = ["8485-1901", "8485-1902", "8485-3701", "8486-1901"]


def cube(folder: Path, name: str, z: float | None, **cards: Any) -> Path:
    """A MaNGA cube of a name, in its usual file name."""
    primary = {"PLATEIFU": name, "NSA_Z": z, **cards}
    return survey_files.manga(folder / f"manga-{name}-LOGCUBE.fits", primary=primary)


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of four cubes, one critically bad, one without a redshift."""
    folder = tmp_path_factory.mktemp("sky")
    for name, z, quality in zip(NAMES, (0.01, 0.02, 0.03, None), (0, 2**30, 1, 1), strict=True):
        cube(folder, name, z, DRP3QUAL=quality)
    return folder


@pytest.fixture(scope="module")
def sample(sky: Path) -> GalaxySample:
    return open_sample(sky)


def test_open_sample__one_row_a_galaxy(sample: GalaxySample, sky: Path) -> None:
    with raise_if_computes():
        table = open_sample(sky).table
    assert list(table.index) == NAMES == list(sample)
    first = table.loc["8485-1901"]
    shape = survey_files.SHAPE
    assert (first["n_wave"], first["n_y"], first["n_x"]) == shape
    assert first["plateifu"] == "8485-1901"
    assert (first["z"], first["kind"], first["survey"]) == (0.01, "ifs", "manga")
    assert first["ra"] == pytest.approx(232.544704)
    assert first["path"] == str(sky / "manga-8485-1901-LOGCUBE.fits")
    assert table["critical"].tolist() == [False, True, False, False]
    assert table["z"].isna().tolist() == [False, False, False, True]
    assert table["error"].isna().all()
    assert len(sample) == 4
    assert "4 galaxies" in repr(sample)
    assert "8486-1901" in sample._repr_html_()


def test_open_sample__pattern(sky: Path) -> None:
    assert list(open_sample(sky / "manga-8485-*")) == NAMES[:3]
    with pytest.raises(InputError, match=r"expected a folder, a table, or a pattern.*nothing"):
        open_sample(sky / "califa-*")


def test_select__keeps_what_fulfils_the_condition(sample: GalaxySample) -> None:
    assert list(sample.select("z < 0.03 and not critical")) == ["8485-1901"]
    assert list(sample.select("z.isna()")) == ["8486-1901"]
    assert list(sample.select("plateifu.str.startswith('8485') and n_wave > 5")) == NAMES[:3]
    with pytest.raises(InputError, match=r"select 'redshift < 1': expected a condition .* columns"):
        sample.select("redshift < 1")


def test_getitem__is_lazy_and_what_open_ifs_opens(sample: GalaxySample, sky: Path) -> None:
    with raise_if_computes():
        ds = sample["8485-1901"]
    with pytest.warns(UserWarning, match="CRITICAL"):
        sample["8485-1902"]
    expected = specphoto.open_ifs(sky / "manga-8485-1901-LOGCUBE.fits")
    xr.testing.assert_identical(ds.load(), expected.load())
    with pytest.raises(InputError, match=r"found '8485-1991'; did you mean 8485-1901"):
        sample["8485-1991"]


@pytest.mark.filterwarnings("ignore:.*CRITICAL")
def test_map__numbers_and_failures_are_rows(
    sample: GalaxySample, two_workers: Client, sky: Path
) -> None:
    def mean(ds: xr.Dataset) -> dict[str, Any]:
        if ds.attrs["name"] == "8485-3701":
            raise ArithmeticError("no light")
        # a function may compute as it likes
        return {"mean": ds["spec_flux"].mean().compute(), "name_of": ds.attrs["name"]}

    here = sample.map(mean)
    there = sample.map(mean, client=two_workers)
    pd.testing.assert_frame_equal(here, there)
    assert list(here.index) == NAMES
    good = here["error"].isna()
    assert good.tolist() == [True, True, False, True]
    assert here.loc["8485-3701", "error"] == "ArithmeticError: no light"
    assert here.loc[good, "name_of"].tolist() == [NAMES[0], NAMES[1], NAMES[3]]
    expected = specphoto.open_ifs(sky / "manga-8485-1901-LOGCUBE.fits")["spec_flux"].mean()
    assert here.loc["8485-1901", "mean"] == pytest.approx(float(expected))


def test_map__what_is_no_number_is_an_error(sample: GalaxySample) -> None:
    sample = sample.select("not critical")
    found = sample.map(lambda ds: ds["spec_flux"])
    assert found["error"].str.contains("returns a number, a text, or a mapping").all()
    assert sample.map(lambda ds: ds.sizes["wave"])["value"].tolist() == [12] * 3


def test_map_datasets__a_node_for_each_galaxy(sample: GalaxySample, two_workers: Client) -> None:
    def spectrum(ds: xr.Dataset) -> xr.DataArray:
        if ds.attrs["name"] == "8485-1902":
            raise ArithmeticError("no light")
        return ds["spec_flux"].isel(x=3, y=3)

    tree = sample.map_datasets(spectrum, client=two_workers)
    assert set(tree.children) == set(NAMES) - {"8485-1902"}
    assert tree.attrs["errors"] == {"8485-1902": "ArithmeticError: no light"}
    expected = sample["8485-1901"]["spec_flux"].isel(x=3, y=3).compute()
    xr.testing.assert_identical(tree["8485-1901/spec_flux"], expected)


def test_join__tables_of_other_spellings(sample: GalaxySample, tmp_path: Path) -> None:
    drp = pd.DataFrame(
        {"PLATE": [8485, 8486, 9999], "IFUDESIGN": [1901, 1901, 101], "Z": [0.5, 0.6, 0.7],
         "MODES": [3, 4, 5]}
    )  # fmt: skip
    joined = sample.join(drp).table
    assert list(joined.index) == NAMES
    assert joined["joined"].tolist() == [True, False, False, True]
    assert joined["MODES"].tolist() == [3, pd.NA, pd.NA, 4]
    assert joined["z_joined"].tolist()[::3] == [0.5, 0.6]
    assert joined["z"].tolist()[:2] == [0.01, 0.02]
    dap = tmp_path / "dapall.csv"
    dap.write_text("PLATEIFU,DAPTYPE,SNR\n8485-1901,SPX,5\n8485-1901,HYB10,6\n8485-1902,SPX,7\n")
    with pytest.raises(InputError, match=r"join on plateifu: .*found 2 for 8485-1901; keep one"):
        sample.join(dap)
    spaxels = pd.read_csv(dap).query("DAPTYPE == 'SPX'")
    assert sample.join(spaxels).select("SNR > 6").table.index.tolist() == ["8485-1902"]
    with pytest.raises(InputError, match=r"table: expected a column plateifu or name, found SNR"):
        sample.join(spaxels[["SNR"]])
    named = spaxels.rename(columns={"PLATEIFU": "galaxy"})
    assert sample.join(named, on="galaxy").table["joined"].tolist() == [True, True, False, False]


@pytest.mark.realdata
def test_join__drpcomplete(sample: GalaxySample, realdata: Path) -> None:
    joined = sample.join(realdata / "manga" / "drpcomplete_v2_7_1.fits")
    table = joined.table
    assert table.loc["8485-1901", "joined"]
    assert table.loc["8485-1901", "ra_joined"] == pytest.approx(table.loc["8485-1901", "ra"], 1e-6)
    assert table.loc["8485-1901", "ELL"] == pytest.approx(0.12546, abs=1e-5)
    assert list(joined.select("ELL < 0.2 and z < 0.02")) == ["8485-1901"]


def test_open_sample__table_whose_rows_lack_files(sky: Path, tmp_path: Path) -> None:
    table = tmp_path / "sample.csv"
    relative = os.path.relpath(sky, tmp_path)
    table.write_text(
        "plate-ifu,Redshift,cube,note\n"
        f"8485-1901,0.5,{relative}/manga-8485-1901-LOGCUBE.fits,first\n"
        "8485-1902,,nowhere.fits,second\n"
        "8485-3701,,,third\n"
        f"8486-1901,0.25,{relative}/manga-8486-1901-LOGCUBE.fits,\n"
    )
    sample = open_sample(table)
    found = sample.table
    assert list(found.index) == NAMES
    assert found["note"].tolist()[:3] == ["first", "second", "third"]
    assert found.loc["8485-1901", "z"] == 0.5
    assert found["n_wave"].tolist() == [12, pd.NA, pd.NA, 12]
    assert "no file" in found.loc["8485-1902", "error"]
    assert found.loc["8485-3701", "error"] == "the table names no file"
    # the header has none: the table's stands in
    assert sample["8486-1901"].attrs["redshift"] == 0.25
    assert sample["8485-1901"].attrs["redshift"] == 0.01
    with pytest.raises(InputError, match=r"galaxy 8485-1902: expected a file .*nowhere.fits"):
        sample["8485-1902"]
    errors = sample.map(lambda ds: 1)["error"]
    assert errors.isna().tolist() == [True, False, False, True]
    assert "2 of them with an error" in repr(sample)


def test_open_sample__table_and_where_its_files_are(sky: Path, tmp_path: Path) -> None:
    for ending in ("csv", "parquet"):
        table = pd.DataFrame({"PLATE": [8485, 8486, 8487], "ifudsgn": ["1901", "1901", "1901"]})
        path = sky.parent / f"drpall.{ending}"
        table.to_csv(path, index=False) if ending == "csv" else table.to_parquet(path)
        sample = open_sample(path, files=f"{sky.name}/manga-{{plateifu}}-LOGCUBE.fits")
        assert sample.table["error"].isna().tolist() == [True, True, False]
        assert sample.table["survey"].tolist()[:2] == ["manga", "manga"]
        with pytest.raises(InputError, match=r"expected a column 'path' \(or 'cube'\)"):
            open_sample(path)
        with pytest.raises(InputError, match=r"files: expected columns of drpall.* in braces"):
            open_sample(path, files="{mangaid}.fits")


def test_open_sample__table_with_a_column_of_ours_that_is_something_else(tmp_path: Path) -> None:
    path = tmp_path / "sample.csv"
    path.write_text("name,path,quality\none,one.fits,good\n")
    with pytest.raises(InputError, match=r"column quality: expected values of the kind Int64"):
        open_sample(path)


def test_open_sample__two_galaxies_of_one_name(sky: Path, tmp_path: Path) -> None:
    cube(tmp_path, "8485-1901", 0.01)
    (tmp_path / "again.fits").write_bytes((tmp_path / "manga-8485-1901-LOGCUBE.fits").read_bytes())
    with pytest.raises(InputError, match=r"2 named '8485-1901' .*again.fits.*narrow the pattern"):
        open_sample(tmp_path)


def test_open_sample__unreadable_files_are_rows(tmp_path: Path) -> None:
    cube(tmp_path, "8485-1901", 0.01)
    (tmp_path / "torn.fits").write_text("half")
    (tmp_path / "notes.txt").write_text("no file of ours")
    (tmp_path / ".hidden.fits").write_text("a file on its way")
    table = open_sample(tmp_path).table
    assert list(table.index) == ["8485-1901", "torn"]
    assert "expected a FITS file" in table.loc["torn", "error"]
    with pytest.raises(InputError, match=r"expected files ending in .*, found none"):
        open_sample(tmp_path.joinpath("empty").mkdir() or tmp_path / "empty")


def test_open_sample__results_of_a_run(tmp_path: Path) -> None:
    specphoto.write_zarr(specphoto_dataset(corrected=True), tmp_path / "one.zarr")
    specphoto.write_fits(specphoto_dataset(corrected=True), tmp_path / "one.fits")
    pd.DataFrame(
        {"name": ["one", "two", "three"], "state": ["done", "failed", "done"],
         "reason": [None, "no light", None], "redshift": [0.04, np.nan, 0.05],
         "chi2_median": [1.5, np.nan, 2.0]}
    ).to_parquet(tmp_path / "summary.parquet")  # fmt: skip
    sample = open_sample(tmp_path)
    table = sample.table
    assert list(table.index) == ["one", "two", "three"]
    assert table["error"].tolist()[1:] == ["no light", "its product is not in the folder"]
    assert table.loc["one", "path"].endswith("one.zarr")
    assert (table.loc["one", "kind"], table.loc["one", "z"]) == ("specphoto", 0.04)
    assert list(sample.select("chi2_median < 1.8 and n_wave > 30")) == ["one"]
    assert "corr_factor" in sample["one"]
    # a product that the summary does not tell of is there all the same
    (tmp_path / "one.zarr").rename(tmp_path / "four.zarr")
    assert open_sample(tmp_path).table["path"].notna().tolist() == [True, False, False, True]
    # without a summary, a product in both formats is one galaxy
    (tmp_path / "four.zarr").rename(tmp_path / "one.zarr")
    (tmp_path / "summary.parquet").unlink()
    assert len(open_sample(tmp_path)) == 1
