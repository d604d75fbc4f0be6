"""Ingest: whole galaxies, once, in parallel, here or on S3; stores that something happened to."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import fsspec
import pytest
import survey_files
import xarray as xr
from test_explore import NAMES, cube
from typer.testing import CliRunner

import specphoto
from specphoto.cli import app
from specphoto.errors import InputError
from specphoto.explore import ingesting, open_sample

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from distributed import Client


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of three cubes, one of them gzipped, and a torn one."""
    folder = tmp_path_factory.mktemp("sky")
    for name in NAMES[:2]:
        cube(folder, name, 0.01)
    survey_files.manga(folder / f"manga-{NAMES[2]}-LOGCUBE.fits.gz", primary={"PLATEIFU": NAMES[2]})
    whole = cube(folder, NAMES[3], 0.02)
    whole.with_name("torn.fits").write_bytes(whole.read_bytes()[:30_000])
    whole.unlink()
    return folder


@pytest.fixture(scope="module")
def made(sky: Path) -> Path:
    """Return a store of that folder."""
    store = sky.parent / "made.zarr"
    specphoto.ingest(sky, store)
    return store


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    """Return a copy of the store, to be harmed."""
    return shutil.copytree(made, tmp_path / "sky.zarr")


def test_ingest__every_file_is_a_galaxy_or_a_row_with_an_error(sky: Path, made: Path) -> None:
    sample = open_sample(made)
    table = sample.table
    assert list(table.index) == [*NAMES[:3], NAMES[3]]
    assert table["error"].isna().tolist() == [True, True, True, False]
    assert "truncated or damaged" in table.loc[NAMES[3], "error"]
    expected = open_sample(sky / "manga-*").table
    common = [c for c in expected.columns if c != "path"]
    assert table.loc[NAMES[:3], common].equals(expected[common])
    assert table["path"].tolist()[:3] == [str(made / name) for name in NAMES[:3]]
    for path in sky.glob("manga-*"):
        name = specphoto.open_ifs(path).attrs["name"]
        xr.testing.assert_identical(sample[name].load(), specphoto.open_ifs(path).load())
    assert not list(made.glob(".*.part"))


def test_ingest__what_is_whole_is_kept(sky: Path, store: Path) -> None:
    metadata = {name: store / name / "zarr.json" for name in NAMES[:3]}
    before = {name: path.read_bytes() for name, path in metadata.items()}
    shutil.rmtree(store / NAMES[0])
    (store / NAMES[1] / "zarr.json").write_text("{}")
    # as a run leaves them that was killed: galaxies whole, the table not yet told
    rows = ingesting.stored_rows(str(store))
    for name in NAMES[1:3]:
        rows[name]["error"] = ingesting._PENDING
    ingesting.write_rows(str(store), rows)
    sample = specphoto.ingest(sky, store)
    assert sample.table["error"].isna().tolist() == [True, True, True, False]
    assert metadata[NAMES[0]].read_bytes() != before[NAMES[0]]
    assert metadata[NAMES[1]].read_bytes() != before[NAMES[1]]
    assert metadata[NAMES[2]].read_bytes() == before[NAMES[2]]


def test_ingest__killed_and_resumed(
    sky: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "sky.zarr"
    write = ingesting.write_fits_group

    def dies(file: Any, path: str, **options: Any) -> None:
        if NAMES[1] in path:
            raise KeyboardInterrupt
        write(file, path, **options)

    monkeypatch.setattr(ingesting, "write_fits_group", dies)
    with pytest.raises(KeyboardInterrupt):
        specphoto.ingest(sky, store)
    monkeypatch.undo()
    sample = open_sample(store)
    errors = sample.table["error"]
    assert errors.isna().tolist() == [True, False, False, False]
    assert errors[NAMES[1]] == "not ingested yet: the run ended before it, start it again"
    first = (store / NAMES[0] / "zarr.json").read_bytes()
    assert specphoto.ingest(sky, store).table["error"].isna().sum() == 3
    assert (store / NAMES[0] / "zarr.json").read_bytes() == first


def test_ingest__another_file_of_a_name_is_refused(store: Path, tmp_path: Path) -> None:
    other = cube(tmp_path, NAMES[0], 0.5)
    with pytest.raises(InputError, match=r"galaxies of the same files as before, found 1 of other"):
        specphoto.ingest(other, store)
    assert specphoto.ingest(other, store, overwrite=True).table.loc[NAMES[0], "z"] == 0.5
    assert open_sample(store)[NAMES[0]].attrs["redshift"] == 0.5
    assert len(open_sample(store)) == 4


def test_ingest__two_files_of_one_name(tmp_path: Path) -> None:
    cube(tmp_path, NAMES[0], 0.5)
    survey_files.manga(tmp_path / "linear.fits", primary={"PLATEIFU": NAMES[0]})
    with pytest.raises(InputError, match=r"files: expected a name of its own .* two named '8485-"):
        specphoto.ingest(tmp_path, tmp_path / "sky.zarr")
    assert not (tmp_path / "sky.zarr").exists()


def test_ingest__what_cannot_be_a_group_is_a_row(tmp_path: Path) -> None:
    survey_files.califa(tmp_path / "cube.fits", OBJECT="NGC/5947")
    errors = specphoto.ingest(tmp_path / "*.fits", tmp_path / "sky.zarr").table["error"]
    assert errors.index.tolist() == ["NGC/5947"]
    assert "is none that a group can have" in errors.iloc[0]


def test_ingest__refuses_what_is_no_store(sky: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "text").write_text("mine")
    with pytest.raises(InputError, match=r"notes: expected a store, or a name not taken"):
        specphoto.ingest(sky, tmp_path / "notes")
    with pytest.raises(InputError, match=r"expected a folder, a table, or a pattern"):
        specphoto.ingest(tmp_path / "nothing-*", tmp_path / "sky.zarr")


def test_ingest__on_workers(sky: Path, made: Path, tmp_path: Path, two_workers: Client) -> None:
    sample = specphoto.ingest(sky, tmp_path / "sky.zarr", client=two_workers)
    expected = open_sample(made).table
    assert sample.table.drop(columns="path").equals(expected.drop(columns="path"))
    for name in NAMES[:3]:
        xr.testing.assert_identical(sample[name].load(), open_sample(made)[name].load())


def test_store__half_written_lost_and_unknown_galaxies_are_rows(store: Path) -> None:
    (store / NAMES[0] / "zarr.json").unlink()
    shutil.rmtree(store / NAMES[1])
    shutil.copytree(store / NAMES[2], store / "9999-127")
    errors = open_sample(store).table["error"]
    assert errors[NAMES[0]] == "half-written in the store: ingest its file again"
    assert errors[NAMES[1]] == "no longer in the store"
    assert errors["9999-127"] == "not in the table of the store: ingest its file again"
    with pytest.raises(InputError, match=r"galaxy 8485-1901: expected a file .* half-written"):
        open_sample(store)[NAMES[0]]


def test_store__newer_schema_and_no_table(store: Path) -> None:
    (store / "table.parquet").unlink()
    with pytest.raises(InputError, match=r"expected a store with its table.parquet, found none"):
        open_sample(store)
    document = json.loads((store / "zarr.json").read_text())
    document["attributes"]["specphoto_store"] = 2
    (store / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"sky.zarr: expected a store of schema 1 or before, found "
                       r"schema 2; open it with the version that wrote it"):  # fmt: skip
        open_sample(store)


def test_command__ingest(sky: Path, tmp_path: Path) -> None:
    store = tmp_path / "sky.zarr"
    ran = CliRunner().invoke(app, ["ingest", str(sky), "-o", str(store)])
    assert ran.exit_code == 1  # one file is torn
    assert "failed: 8486-1901" in ran.stderr
    assert str(store) in ran.stdout
    ran = CliRunner().invoke(app, ["ingest", str(sky / "manga-*"), "-o", str(store)])
    assert ran.exit_code == 0
    with pytest.raises(InputError, match=r"expected one galaxy, found a store of many; name one"):
        CliRunner().invoke(app, ["info", str(store)], catch_exceptions=False)
    ran = CliRunner().invoke(app, ["info", str(store / NAMES[0])])
    assert ran.exit_code == 0
    assert "8485-1901" in ran.stdout


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """Return the address of a bucket of an S3 server on the loopback."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        files = fsspec.filesystem("s3", skip_instance_cache=True)
        files.mkdir("sky")
        yield "s3://sky"
    server.stop()


def test_ingest__to_s3_and_explored_there(sky: Path, made: Path, bucket: str) -> None:
    address = f"{bucket}/sample.zarr"
    sample = specphoto.ingest(sky, address)
    expected = open_sample(made)
    assert sample.table.drop(columns="path").equals(expected.table.drop(columns="path"))
    assert sample.table.loc[NAMES[0], "path"] == f"{address}/{NAMES[0]}"
    opened = open_sample(address).select("z < 0.02")
    xr.testing.assert_identical(opened[NAMES[0]].load(), expected[NAMES[0]].load())
    # whole from before: not copied again
    files = fsspec.filesystem("s3")
    before = files.info(f"{address}/{NAMES[0]}/zarr.json", refresh=True)
    specphoto.ingest(sky, address)
    assert files.info(f"{address}/{NAMES[0]}/zarr.json", refresh=True) == before
    # half of a galaxy is told when it is opened, and made whole by the same command
    files.rm(f"{address}/{NAMES[0]}/zarr.json")
    with pytest.raises(InputError, match=r"found none, or one half-written"):
        open_sample(address)[NAMES[0]]
    again = specphoto.ingest(sky, address)
    xr.testing.assert_identical(again[NAMES[0]].load(), expected[NAMES[0]].load())


def test_open_sample__address_without_a_store(bucket: str) -> None:
    with pytest.raises(InputError, match=r"nothing.zarr: expected a store .*, found none"):
        open_sample(f"{bucket}/nothing.zarr")
    with pytest.raises(InputError, match=r"expected an address of a kind that fsspec reads"):
        open_sample("nonsense://nothing.zarr")
