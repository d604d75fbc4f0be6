"""A FITS file as a Zarr group: the same headers, the same bits, in pieces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import survey_files
import xarray as xr
from astropy.io import fits
from galaxy_files import small_galaxy

import specphoto
from specphoto.errors import InputError
from specphoto.io.fits_group import layout, open_fits_group, write_fits_group
from specphoto.io.fitsfile import open_fits

if TYPE_CHECKING:
    from collections.abc import Callable


def stored(path: Path, folder: Path) -> Path:
    """The group of a FITS file."""
    group = folder / "group"
    write_fits_group(open_fits(path), group, about={}, overwrite=False)
    return group


def odd(path: Path) -> Path:
    """A file of all kinds of data, with every value that a float can have trouble with."""
    rng = np.random.default_rng(1)
    cube = rng.integers(0, 2**32, (300, 20, 17), dtype=np.uint32).view(np.float32)
    cube[:40] = -0.0
    unsigned = fits.ImageHDU(np.arange(12, dtype=np.uint16).reshape(3, 4), name="COUNT")
    table = fits.BinTableHDU.from_columns(
        [fits.Column("A", "J", array=[1, 2, 3]), fits.Column("B", "PE()", array=[[1.0], [], [2.0]])]
    )
    same = [fits.ImageHDU(np.arange(n, dtype=np.int16), name="TWICE") for n in (3, 4)]
    empty = fits.BinTableHDU.from_columns([fits.Column("A", "D", array=[])], name="EMPTY")
    named = fits.ImageHDU(np.eye(3), name="A/B C")
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(cube, name="CUBE"), unsigned, table, *same, empty]
    return survey_files.write(path, [*hdus, named])


@pytest.mark.parametrize(
    "write", [survey_files.manga, survey_files.califa, survey_files.muse, survey_files.fluxmap, odd]
)
def test_group__has_the_headers_and_bits_of_the_file(
    tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    file = open_fits(write(tmp_path / "file.fits"))
    group = open_fits_group(stored(Path(file.path), tmp_path))
    assert (group.name, group.size) == (file.name, file.size)
    assert len(group.hdus) == len(file.hdus)
    for ours, theirs in zip(group.hdus, file.hdus, strict=True):
        assert ours.name == theirs.name
        assert ours.shape == theirs.shape
        assert ours.header.tostring() == theirs.header.tostring()
        if theirs.raw.shape and 0 not in theirs.raw.shape:
            expected = theirs.raw[...]
            found = ours.raw[...]
            assert found.astype(expected.dtype).tobytes() == expected.tobytes()
    table = next((h.name for h in file.hdus if h.header.get("TTYPE1") == "MJD"), None)
    if table:
        assert group.table(table, "MJD").columns("MJD")[0].tolist() == [57132]


def test_stored_array__slices_as_numpy_does(tmp_path: Path) -> None:
    path = odd(tmp_path / "file.fits")
    file, group = open_fits(path), open_fits_group(stored(path, tmp_path))
    whole = file.array("CUBE")[...].view(np.uint32)
    lazy = group.array("CUBE")
    keys: list[Any] = [
        (slice(None), 3, 4), 5, ..., (..., 2), (slice(9, 2, -3), slice(None), slice(4, None)),
        (slice(250, 280), slice(None, None, -1), 16), (slice(5, 5),),
    ]  # fmt: skip
    for key in keys:
        np.testing.assert_array_equal(lazy[key].view(np.uint32), whole[key], err_msg=str(key))


def test_layout__small_chunks_in_bounded_shards() -> None:
    assert layout((4563, 74, 74), 4) == ((256, 16, 16), (4608, 80, 80))
    chunk, shard = layout((3681, 320, 320), 4)
    assert shard is not None
    assert chunk == (256, 16, 16)
    assert shard[1:] == (320, 320)
    assert np.prod(shard) * 4 <= 256e6
    chunk, shard = layout((4000, 2000, 3000), 8)
    assert shard is not None
    assert np.prod(shard) * 8 <= 256e6
    assert all(s % c == 0 for s, c in zip(shard, chunk, strict=True))
    assert layout((12, 6, 7), 4) == ((12, 6, 7), (12, 6, 7))
    assert layout((4563,), 8) == ((4563,), None)


@pytest.mark.parametrize(
    ("write", "reader"),
    [(survey_files.manga, specphoto.open_ifs), (survey_files.califa, specphoto.open_ifs),
     (survey_files.muse, specphoto.open_ifs), (survey_files.fluxmap, specphoto.open_photometry)],
)  # fmt: skip
def test_readers__open_a_group_as_the_file(
    tmp_path: Path, write: Callable[[Path], Path], reader: Callable[[Path], xr.Dataset]
) -> None:
    path = write(tmp_path / "file.fits")
    group = stored(path, tmp_path)
    expected = reader(path).load()
    xr.testing.assert_identical(reader(group).load(), expected)
    xr.testing.assert_identical(xr.open_dataset(group, engine="specphoto").load(), expected)


def test_match_spatial__from_a_group_is_that_from_the_file(tmp_path: Path) -> None:
    galaxy = small_galaxy()
    images = specphoto.open_photometry(galaxy.photometry.path)
    group = stored(galaxy.cube.path, tmp_path)
    # chunks of whole spectra are the same in both
    from_file, from_group = (
        specphoto.match_spatial(specphoto.open_ifs(path, chunks=256), images)
        for path in (galaxy.cube.path, group)
    )
    xr.testing.assert_identical(from_group.compute(), from_file.compute())


def test_chunks__cut_no_plane_of_chunks(tmp_path: Path) -> None:
    path = odd(tmp_path / "file.fits")
    group = open_fits_group(stored(path, tmp_path))
    assert group.chunks("CUBE", "auto") == (256, 20, 17)
    assert open_fits(path).chunks("CUBE", "auto") == (38, 20, 17)


def test_group__newer_schema_half_written_and_damaged(tmp_path: Path) -> None:
    group = stored(survey_files.manga(tmp_path / "file.fits"), tmp_path)
    metadata = group / "zarr.json"
    document = json.loads(metadata.read_text())
    newer = {**document, "attributes": {**document["attributes"], "specphoto_fits": 2}}
    metadata.write_text(json.dumps(newer))
    with pytest.raises(InputError, match=r"expected a galaxy .* schema 1 or before, found schema"):
        specphoto.open_ifs(group)
    metadata.write_text(json.dumps({**document, "attributes": {}}))
    with pytest.raises(InputError, match=r"found none, or one half-written; .*ingest the file"):
        specphoto.open_ifs(group)
    metadata.write_text('{"attributes": ')
    with pytest.raises(InputError, match=r"found damaged metadata .*; ingest the file again"):
        specphoto.open_ifs(group)


def test_group__written_anew_is_another(tmp_path: Path) -> None:
    path = survey_files.manga(tmp_path / "file.fits")
    group = stored(path, tmp_path)
    before = specphoto.open_ifs(group)
    old = before["spec_flux"].values
    other = tmp_path / "other.fits"
    with fits.open(path) as file:
        file["FLUX"].data *= 2
        file.writeto(other)
    with pytest.raises(InputError, match=r"expected a name not taken"):
        write_fits_group(open_fits(other), group, about={}, overwrite=False)
    write_fits_group(open_fits(other), group, about={}, overwrite=True)
    after = specphoto.open_ifs(group)
    np.testing.assert_array_equal(after["spec_flux"].values, 2 * old)
    assert after["spec_flux"].data.name != before["spec_flux"].data.name
