"""The xarray engine: the same datasets, slice by slice."""

from __future__ import annotations

import ctypes
import mmap
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import survey_files
import xarray as xr
from astropy.io import fits
from dask.callbacks import Callback
from factories import specphoto_dataset
from lazy import raise_if_computes

import specphoto
from specphoto.io.fits_array import MappedArray
from specphoto.io.opening import is_known

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from distributed import Client

N_WAVE, N_Y, N_X = SHAPE = survey_files.SHAPE
# slices, and how many voxels they have
PLACES: list[tuple[dict[str, Any], int]] = [
    ({"y": 2, "x": 3}, N_WAVE),
    ({"wave": 5}, N_Y * N_X),
    ({"wave": slice(2, 7, 2), "y": slice(1, 4)}, 3 * 3 * N_X),
]
FILES: dict[str, tuple[Callable[..., Path], Callable[..., xr.Dataset], str]] = {
    "manga": (survey_files.manga, specphoto.open_ifs, "manga.fits"),
    "manga gzipped": (survey_files.manga, specphoto.open_ifs, "manga.fits.gz"),
    "califa": (survey_files.califa, specphoto.open_ifs, "califa.fits"),
    "muse": (survey_files.muse, specphoto.open_ifs, "muse.fits"),
    "photometry": (survey_files.fluxmap, specphoto.open_photometry, "fluxmap.fits"),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("chunks", [None, {}])
def test_open_dataset__is_what_the_readers_open(
    tmp_path: Path, kind: str, chunks: dict[str, int] | None
) -> None:
    write, reader, name = FILES[kind]
    path = write(tmp_path / name)
    expected = reader(path)
    with raise_if_computes():
        opened = xr.open_dataset(path, engine="specphoto", chunks=chunks)
    if chunks is None:
        assert not opened.chunks
    else:
        assert opened.chunks == expected.chunks
    xr.testing.assert_identical(opened.load(), expected.load())


@pytest.mark.parametrize("ending", ["zarr", "fits"])
def test_open_dataset__products(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"product.{ending}"
    write = specphoto.write_zarr if ending == "zarr" else specphoto.write_fits
    write(specphoto_dataset(corrected=True), path)
    opened = xr.open_dataset(path, engine="specphoto")
    xr.testing.assert_identical(opened.load(), specphoto.open_cube(path).load())


def test_open_dataset__options_reach_the_reader(tmp_path: Path) -> None:
    path = survey_files.manga(tmp_path / "cube.fits")
    opened = xr.open_dataset(
        path, engine="specphoto", redshift=0.5, mask_bits=[], drop_variables="spec_lsf"
    )
    assert opened.attrs["redshift"] == 0.5
    assert "spec_lsf" not in opened
    expected = specphoto.open_ifs(path, redshift=0.5, mask_bits=[])
    np.testing.assert_array_equal(opened["spec_mask"], expected["spec_mask"])
    assert int(opened["spec_mask"].sum()) < int(specphoto.open_ifs(path)["spec_mask"].sum())


def test_open_dataset__guesses_only_what_it_reads(tmp_path: Path) -> None:
    cube = survey_files.manga(tmp_path / "cube.fits")
    other = survey_files.write(
        tmp_path / "other.fits", [fits.PrimaryHDU(), survey_files.image("SCI", np.ones((3, 4)))]
    )
    assert is_known(cube)
    assert is_known(survey_files.califa(tmp_path / "califa.fits.gz"))
    assert is_known(survey_files.fluxmap(tmp_path / "fluxmap.fits"))
    assert not is_known(other)
    assert xr.open_dataset(cube).sizes == {"wave": N_WAVE, "y": N_Y, "x": N_X}
    with pytest.raises(ValueError, match="did not find a match"):
        xr.open_dataset(other)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return sizes in bytes of what is read of files from now on, slice by slice."""
    sizes: list[int] = []
    whole = MappedArray.__getitem__

    def counted(self: MappedArray, key: Any) -> np.ndarray:
        part = whole(self, key)
        sizes.append(part.nbytes)
        return part

    monkeypatch.setattr(MappedArray, "__getitem__", counted)
    return sizes


@pytest.mark.parametrize("opener", ["engine", "open_ifs"])
def test_slices__read_their_own_bytes(tmp_path: Path, read: list[int], opener: str) -> None:
    path = survey_files.manga(tmp_path / "cube.fits")
    ds = specphoto.open_ifs(path)
    whole = ds.compute()
    if opener == "engine":
        ds = xr.open_dataset(path, engine="specphoto")
    # flux, inverse variance and mask are stored in 4 bytes; the mask looks at all three
    for name, files in [("spec_flux", 1), ("spec_var", 1), ("spec_mask", 3), ("spec_lsf", 1)]:
        for place, n in PLACES:
            read.clear()
            values = ds[name].isel(place).compute(scheduler="synchronous")
            assert sum(read) == 4 * n * files, (name, place)
            np.testing.assert_array_equal(values, whole[name].isel(place))


def test_slices__one_task_for_each_chunk_that_they_touch(tmp_path: Path) -> None:
    ds = specphoto.open_ifs(survey_files.manga(tmp_path / "cube.fits"), chunks=3)
    tasks: list[Any] = []
    with Callback(pretask=lambda key, *_: tasks.append(key)):
        ds["spec_mask"].isel(wave=4).compute(scheduler="synchronous")
        # one that reads, and one that hands over
        assert len(tasks) == 2
        tasks.clear()
        ds[["spec_flux", "spec_var"]].isel(x=3, y=3).compute(scheduler="synchronous")
    # 4 chunks of each variable: one task reads one, and one hands it over; one joins them
    assert len([key for key in tasks if str(key[0]).startswith("read-spec-")]) == 2 * 4
    assert len(tasks) == 2 * (4 + 4 + 1)


def resident(path: Path) -> int:
    """Pages of a file that are in memory."""
    libc = ctypes.CDLL(None, use_errno=True)
    size = path.stat().st_size
    with path.open("r+b") as file, mmap.mmap(file.fileno(), size) as mapped:
        pages = -(-size // mmap.PAGESIZE)
        found = (ctypes.c_ubyte * pages)()
        first = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        assert libc.mincore(ctypes.c_void_p(first), ctypes.c_size_t(size), found) == 0
        return sum(flag & 1 for flag in found)


def test_channel__touches_its_own_pages(tmp_path: Path) -> None:
    # 64 channels of 0.25 MB of each of three arrays
    shape = (64, 256, 256)
    sky = survey_files.header(survey_files.MANGA_FLUX)
    arrays = [("FLUX", np.float32), ("IVAR", np.float32), ("MASK", np.int32)]
    hdus = [fits.PrimaryHDU(header=survey_files.header(survey_files.MANGA_PRIMARY))]
    hdus += [fits.ImageHDU(np.ones(shape, dtype), sky, name=n) for n, dtype in arrays]
    wave = survey_files.image("WAVE", np.linspace(4000.0, 5000.0, shape[0]))
    path = survey_files.write(tmp_path / "cube.fits", [*hdus, wave])
    ds = specphoto.open_ifs(path)
    with path.open("r+b") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    before = resident(path)
    if before * mmap.PAGESIZE > 2**20:
        pytest.skip("this file system keeps files in memory: touched pages cannot be told")
    ds["spec_flux"].isel(wave=30).compute(scheduler="synchronous")
    touched = (resident(path) - before) * mmap.PAGESIZE
    # the plane, and what the system reads ahead and behind; the file has 50 MB
    assert 256 * 256 * 4 <= touched < path.stat().st_size / 3


def test_one_file__many_threads_and_processes(
    tmp_path: Path, two_workers: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECPHOTO_CACHE", str(tmp_path / "cache"))
    path = survey_files.manga(tmp_path / "cube.fits.gz")
    expected = specphoto.open_ifs(survey_files.manga(tmp_path / "plain.fits")).load()

    def pixel(i: int) -> np.ndarray:
        ds = xr.open_dataset(path, engine="specphoto")
        return ds["spec_mask"].isel(y=i % N_Y, x=i % N_X).values

    with ThreadPoolExecutor(16) as pool:
        for i, found in enumerate(pool.map(pixel, range(64))):
            np.testing.assert_array_equal(found, expected["spec_mask"][:, i % N_Y, i % N_X])
    futures = two_workers.map(pixel, range(24), pure=False)
    for i, found in enumerate(two_workers.gather(futures)):
        np.testing.assert_array_equal(found, expected["spec_mask"][:, i % N_Y, i % N_X])
    # and one dataset whose pieces travel
    lazy = xr.open_dataset(path, engine="specphoto", chunks={})
    with two_workers.as_current():
        found = lazy[["spec_flux", "spec_mask"]].compute(scheduler=two_workers.get)
    np.testing.assert_array_equal(found["spec_flux"], expected["spec_flux"])
    np.testing.assert_array_equal(found["spec_mask"], expected["spec_mask"])
