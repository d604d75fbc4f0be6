"""FITS and Zarr products: layout, lossless round trips, one streaming pass, whole or not there."""

from __future__ import annotations

import errno
import pickle
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from astropy import units as u
from astropy.io import fits
from astropy.wcs import WCS
from factories import celestial, counted, manga_wave, specphoto_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from lazy import raise_if_computes

from specphoto.cube import celestial_wcs
from specphoto.errors import InputError
from specphoto.io.blocks import plan_chunks
from specphoto.io.cube_reader import open_cube
from specphoto.io.fits_header import spectral_axis
from specphoto.io.fits_writer import FitsTarget, write_fits
from specphoto.io.products import write_products
from specphoto.io.zarr_store import write_zarr
from specphoto.spectral.wavelength import air_to_vacuum

WRITERS = {"fits": write_fits, "zarr": write_zarr}


def _left(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# --- layout ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    folder = tmp_path_factory.mktemp("products")
    paths = {c: folder / f"product_{c}.fits" for c in (False, True)}
    for corrected, path in paths.items():
        write_fits(specphoto_dataset(12, corrected=corrected), path)
    return paths


def test_write_fits__hdus_of_the_spatial_match(files: dict[bool, Path]) -> None:
    with fits.open(files[False]) as cube:
        names = [hdu.name for hdu in cube]
    assert names[:8] == [
        "PHOTO_FLUX", "PHOTO_FLUXERR", "WAVE", "SPEC_FLUX", "SPEC_FLUXERR", "SPEC_REGION",
        "PHOTO_REGION", "STAMP_IMAGE",
    ]  # fmt: skip
    assert {"SPEC_MASK", "COVERAGE", "SPEC_LSF", "EDGE_FACTOR", "EDGE_BIAS"} <= set(names)


def test_write_fits__hdus_of_the_spectral_match(files: dict[bool, Path]) -> None:
    with fits.open(files[True]) as cube:
        names = [hdu.name for hdu in cube]
        assert np.array_equal(cube["MOD_WAVE"].data, cube["WAVE"].data)
        assert cube["MOD_FLUX"].shape == cube["SPEC_FLUX"].shape
    assert names[:11] == [
        "PHOTO_FLUX", "PHOTO_FLUXERR", "WAVE", "SPEC_FLUX", "SPEC_FLUXERR", "PHOTO_REGION",
        "SPEC_REGION", "MOD_WAVE", "MOD_FLUX", "CORR_FACTOR", "STAMP_IMAGE",
    ]  # fmt: skip
    assert {"CORR_COEF", "CORR_COV", "CORR_FACTORERR", "CHI2"} <= set(names)


@pytest.mark.parametrize("corrected", [False, True])
def test_write_fits__conforms_to_the_standard(files: dict[bool, Path], corrected: bool) -> None:
    with fits.open(files[corrected]) as cube:
        cube.verify("exception")
        for hdu in cube:
            hdu.data  # noqa: B018  # reading is the test
            assert (
                hdu.data.dtype.kind != "f"
                or hdu.name in ("WAVE", "MOD_WAVE", "BAND_WAVE")
                or (hdu.data.dtype.itemsize == 4)
            )
    assert files[corrected].stat().st_size % 2880 == 0


def test_write_fits__primary_keys(files: dict[bool, Path]) -> None:
    header = fits.getheader(files[False])
    expected = {
        "NFILTERS": 12, "Z": 0.03, "RA": 205.4384, "DEC": 27.0048, "GALEBV": 0.032, "UNIT": 1e-17,
        "STRUCTPH": "(band,y,x)", "STRUCTSP": "(wavelength,y,x)", "FSAMP": "galex_fuv",
        "PIXSIZE": 1.5, "FPSFMTCH": "wise_w2", "PSFFWHM": 6.37, "SPECPHOT": 1,
        "IFSSURVE": "manga", "FIL0": "galex_fuv", "FIL11": "wise_w2",
    }  # fmt: skip
    assert {key: header[key] for key in expected} == expected
    assert isinstance(header["UNIT"], float)
    assert u.Unit(header["BUNIT"]) == 1e-17 * u.erg / u.s / u.cm**2 / u.AA


def test_write_fits__unknown_keys_are_absent(tmp_path: Path) -> None:
    ds = specphoto_dataset()
    for name in ("redshift", "ebv", "psf", "psf_band", "fsamp"):
        del ds.attrs[name]
    write_fits(ds, tmp_path / "a.fits")
    header = fits.getheader(tmp_path / "a.fits")
    assert not {"Z", "GALEBV", "PSFFWHM", "FPSFMTCH", "FSAMP"} & set(header)


def test_write_fits__unknown_is_zero_outside_the_regions(files: dict[bool, Path]) -> None:
    with fits.open(files[True]) as cube:
        for region, names in (
            ("PHOTO_REGION", ("PHOTO_FLUX", "PHOTO_FLUXERR")),
            ("SPEC_REGION", ("SPEC_FLUX", "SPEC_FLUXERR", "MOD_FLUX", "CORR_FACTOR")),
        ):
            outside = cube[region].data != 1
            assert outside.any()
            assert np.all(np.isin(cube[region].data, (0, 1)))
            for name in names:
                assert np.isfinite(cube[name].data[:, outside]).all()
                assert (cube[name].data[:, outside] == 0).any()
        assert np.isnan(cube["SPEC_FLUX"].data[:, cube["SPEC_REGION"].data == 1]).any()


def test_write_fits__without_photometry_the_primary_is_bare(tmp_path: Path) -> None:
    ds = specphoto_dataset()
    ds = ds.drop_dims("band").drop_vars(["photo_region", "stamp_image"])
    write_fits(ds, tmp_path / "grid.fits")
    with fits.open(tmp_path / "grid.fits") as cube:
        cube.verify("exception")
        assert cube[0].data is None
        assert cube[0].header["NFILTERS"] == 0
    xr.testing.assert_identical(open_cube(tmp_path / "grid.fits"), ds)


# --- world coordinates ----------------------------------------------------------------------


def test_write_fits__wcs_of_cubes_and_images(files: dict[bool, Path]) -> None:
    sky = celestial(11, 9)
    with fits.open(files[True]) as cube:
        for name in ("SPEC_FLUX", "SPEC_FLUXERR", "SPEC_MASK", "MOD_FLUX", "CORR_FACTOR"):
            wcs = WCS(cube[name].header)
            assert wcs.naxis == 3
            assert wcs.wcs.ctype[2] == "WAVE-LOG"
            ra, dec, wave = wcs.wcs_pix2world([[3.0, 7.0, 0.0], [3.0, 7.0, 36.0]], 0).T
            assert np.allclose(np.stack([ra, dec], -1), sky.wcs_pix2world([[3.0, 7.0]], 0))
            assert np.allclose(wave * 1e10, cube["WAVE"].data[[0, 36]], rtol=1e-7)
        for name in ("PHOTO_FLUX", "PHOTO_FLUXERR", "STAMP_IMAGE", "COVERAGE", "CORR_COEF"):
            assert WCS(cube[name].header).has_celestial
            assert np.allclose(
                WCS(cube[name].header).celestial.wcs_pix2world([[3.0, 7.0]], 0),
                sky.wcs_pix2world([[3.0, 7.0]], 0),
            )


def test_write_fits__wave_log_is_manga_s(tmp_path: Path) -> None:
    write_fits(specphoto_dataset(1, 4563, 2, 2), tmp_path / "a.fits")
    with fits.open(tmp_path / "a.fits") as cube:
        header = cube["SPEC_FLUX"].header
        assert (header["CTYPE3"], header["CRVAL3"]) == ("WAVE-LOG", 3621.59598486)
        assert header["CD3_3"] == 0.833903304339
        pixels = np.stack([np.zeros(4563), np.zeros(4563), np.arange(4563)], -1)
        wave = WCS(header).wcs_pix2world(pixels, 0)[:, 2] * 1e10
        # the survey's own cards are that far from its WAVE: 1.5e-8, or 6e-5 of a channel
        assert np.allclose(wave, cube["WAVE"].data, rtol=2e-8, atol=0.0)


def test_write_fits__slice_keeps_its_sky_and_wavelengths(tmp_path: Path) -> None:
    whole = specphoto_dataset()
    ds = whole.isel(y=slice(2, 9), x=slice(3, 8), wave=slice(5, 30, 2))
    write_fits(ds, tmp_path / "a.fits")
    with fits.open(tmp_path / "a.fits") as cube:
        world = WCS(cube["SPEC_FLUX"].header).wcs_pix2world([[0, 0, 0], [4, 6, 12]], 0)
        assert np.allclose(world[:, 2] * 1e10, cube["WAVE"].data[[0, 12]], rtol=1e-7)
    expected = celestial_wcs(whole).wcs_pix2world([[3, 2], [7, 8]], 0)
    assert np.allclose(world[:, :2], expected)
    xr.testing.assert_identical(open_cube(tmp_path / "a.fits"), ds)


def test_write_fits__refuses_uneven_pixels(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="evenly spaced pixels in 'x', found steps of 1, 3"):
        write_fits(specphoto_dataset().isel(x=[0, 1, 4]), tmp_path / "a.fits")
    assert _left(tmp_path) == []


@pytest.mark.parametrize("ctype", ["AWAV", "LINEAR", ""])
def test_spectral_axis__air_stays_linear(ctype: str) -> None:
    axis = {"ctype": ctype, "crval": 4750.0, "cdelt": 1.25, "crpix": 1.0}
    wave = air_to_vacuum(4750.0 + 1.25 * np.arange(3681))[100:]
    found = spectral_axis(wave, axis)
    assert found == {"ctype": "AWAV", "crval": 4750.0, "cdelt": 1.25, "crpix": -99.0}


def test_spectral_axis__found_from_the_channels() -> None:
    linear = spectral_axis(4000.0 + 2.0 * np.arange(50))
    assert linear == {"ctype": "WAVE", "crval": 4000.0, "cdelt": 2.0, "crpix": 1.0}
    log = spectral_axis(manga_wave(500))
    assert log is not None
    assert (log["ctype"], round(log["cdelt"], 9)) == ("WAVE-LOG", 0.833903293)
    assert spectral_axis(np.array([4000.0, 4001.0, 4010.0, 4500.0])) is None


def test_write_fits__uneven_wavelengths_have_an_index_axis(tmp_path: Path) -> None:
    ds = specphoto_dataset().isel(wave=[0, 1, 5, 20, 36])
    write_fits(ds, tmp_path / "a.fits")
    with fits.open(tmp_path / "a.fits") as cube:
        cube.verify("exception")
        assert cube["SPEC_FLUX"].header["CTYPE3"] == "WAVE_IDX"
        assert WCS(cube["SPEC_FLUX"].header).has_celestial
    xr.testing.assert_identical(open_cube(tmp_path / "a.fits"), ds)


# --- round trips ----------------------------------------------------------------------------


def _equal(found: xr.Dataset, expected: xr.Dataset) -> None:
    xr.testing.assert_identical(found, expected)
    for name in expected.variables:
        assert found[name].dtype == expected[name].dtype, name
        assert found[name].dims == expected[name].dims, name
    assert set(found.coords) == set(expected.coords)


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("corrected", [False, True])
def test_round_trip__is_identical(tmp_path: Path, kind: str, corrected: bool) -> None:
    ds = specphoto_dataset(corrected=corrected)
    WRITERS[kind](ds, tmp_path / f"a.{kind}")
    with raise_if_computes():
        back = open_cube(tmp_path / f"a.{kind}", chunks={"wave": 7, "y": 3})
    _equal(back, ds)
    assert back["spec_flux"].chunks is not None


@pytest.mark.parametrize("kind", WRITERS)
def test_round_trip__twelve_bands_and_4563_channels(tmp_path: Path, kind: str) -> None:
    chunks = {"wave": 1000, "y": 3, "x": 2}
    ds = specphoto_dataset(12, 4563, 4, 5, corrected=True, chunks=chunks)
    WRITERS[kind](ds, tmp_path / f"a.{kind}")
    _equal(open_cube(tmp_path / f"a.{kind}"), ds)


@pytest.mark.parametrize("kind", WRITERS)
def test_round_trip__in_memory_and_again(tmp_path: Path, kind: str) -> None:
    ds = specphoto_dataset(corrected=True).compute()
    WRITERS[kind](ds, tmp_path / f"a.{kind}")
    back = open_cube(tmp_path / f"a.{kind}")
    WRITERS[kind](back, tmp_path / f"b.{kind}")
    _equal(open_cube(tmp_path / f"b.{kind}"), ds)


@pytest.mark.parametrize("kind", WRITERS)
def test_round_trip__every_dtype_other_axes_and_scalars(tmp_path: Path, kind: str) -> None:
    ds = specphoto_dataset()
    plane = np.arange(99).reshape(11, 9)
    for dtype in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "f4", "f8"):
        ds[f"map_{dtype}"] = (("y", "x"), plane.astype(dtype))
    ds["cov_3d"] = ds["spec_lsf"] * xr.DataArray(plane.astype("f4"), dims=("y", "x"))
    ds["by_pixel"] = ds["cov_3d"].transpose("y", "x", "wave").copy()
    ds = ds.assign_coords(run=7, seen=("wave", np.arange(37) % 2 == 0))
    ds["spec_flux"] = ds["spec_flux"].astype(np.float64)
    WRITERS[kind](ds, tmp_path / f"a.{kind}")
    _equal(open_cube(tmp_path / f"a.{kind}"), ds)


@pytest.mark.parametrize("kind", WRITERS)
def test_round_trip__fixed_width_band_names(tmp_path: Path, kind: str) -> None:
    ds = specphoto_dataset()
    fixed = ds.assign_coords(band=ds["band"].astype(str))
    WRITERS[kind](fixed, tmp_path / f"a.{kind}")
    back = open_cube(tmp_path / f"a.{kind}")
    assert back["band"].dtype == object
    assert list(back["band"].values) == list(ds["band"].values)


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_round_trip__unknown_comes_back_where_it_was(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("nan")
    shape = data.draw(st.tuples(*[st.integers(1, n) for n in (3, 9, 6, 5)]), "sizes")
    chunks = {dim: data.draw(st.integers(1, 4), dim) for dim in ("wave", "y", "x")}
    seed = data.draw(st.integers(0, 1000))
    rng = np.random.default_rng(seed)
    ds = specphoto_dataset(*shape, chunks=chunks, seed=seed)
    share = data.draw(st.sampled_from([0.0, 0.5, 1.0]))
    for name in ("spec_flux", "spec_err", "photo_flux", "photo_err"):
        special = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-45], dtype=np.float32)
        values = rng.choice(special, ds[name].shape)
        ds[name] = ds[name].where(rng.random(ds[name].shape) < share, values)
    for name in ("spec_region", "photo_region"):
        ds[name] = (("y", "x"), rng.random(shape[2:]) < 0.5)
    write_products(ds, fits=folder / "a.fits", zarr=folder / "a.zarr")
    for path in ("a.fits", "a.zarr"):
        _equal(open_cube(folder / path), ds)
    shutil.rmtree(folder)


def test_round_trip__gzipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gzip

    monkeypatch.setenv("SPECPHOTO_CACHE", str(tmp_path / "cache"))
    ds = specphoto_dataset(corrected=True)
    write_fits(ds, tmp_path / "a.fits")
    with gzip.open(tmp_path / "a.fits.gz", "wb") as packed:
        packed.write((tmp_path / "a.fits").read_bytes())
    _equal(open_cube(tmp_path / "a.fits.gz"), ds)


@pytest.mark.parametrize("kind", WRITERS)
def test_round_trip__every_scheduler(tmp_path: Path, kind: str, scheduler: str) -> None:
    ds = specphoto_dataset(corrected=True, chunks={"wave": 20, "y": 6, "x": 5})
    WRITERS[kind](ds, tmp_path / f"a.{kind}")
    _equal(open_cube(tmp_path / f"a.{kind}"), ds)


def test_write_fits__bytes_do_not_depend_on_chunks(tmp_path: Path) -> None:
    ds = specphoto_dataset(corrected=True)
    for i, chunks in enumerate([{"wave": 37}, {"wave": 5, "y": 2, "x": 7}, {"y": 3, "wave": -1}]):
        cubes = {n: ds[n].chunk({d: chunks.get(str(d), -1) for d in ds[n].dims}) for n in ds}
        write_fits(ds.assign(cubes), tmp_path / f"{i}.fits")
    first, *others = ((tmp_path / f"{i}.fits").read_bytes() for i in range(3))
    assert all(other == first for other in others)


# --- Zarr -----------------------------------------------------------------------------------


def test_write_zarr__format_and_contents(tmp_path: Path) -> None:
    write_zarr(specphoto_dataset(corrected=True), tmp_path / "a.zarr")
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    assert group.metadata.zarr_format == 3
    assert group.metadata.consolidated_metadata is None
    assert group.attrs["specphoto_schema"] == 1
    assert "corr_coef" in group
    assert "corr_factor" not in group
    assert "corr_factor_err" not in group
    assert "zstd" in str(group["spec_flux"].compressors)


def test_write_zarr__keeps_a_factor_that_has_no_coefficients(tmp_path: Path) -> None:
    ds = specphoto_dataset(corrected=True).drop_vars(["corr_coef", "corr_cov"])
    write_zarr(ds, tmp_path / "a.zarr")
    _equal(open_cube(tmp_path / "a.zarr"), ds)


@given(
    size=st.integers(1, 5000),
    block=st.integers(1, 5000),
    irregular=st.lists(st.integers(1, 700), min_size=1, max_size=8),
    regular=st.booleans(),
    dim=st.sampled_from(["wave", "y", "order"]),
)
def test_plan_chunks__no_chunk_is_shared_between_blocks(
    size: int, block: int, irregular: list[int], regular: bool, dim: str
) -> None:
    blocks = da.core.normalize_chunks((block,), (size,))[0] if regular else tuple(irregular)
    # what has a wave axis is a cube, and cut
    blocks_by_dim = {"wave": (1,), "y": (1,), "x": (1,), dim: blocks}
    found = plan_chunks(blocks_by_dim, {d: sum(b) for d, b in blocks_by_dim.items()})
    axis = list(blocks_by_dim).index(dim)
    planned, chunk = found[0][axis], found[1][axis]
    assert sum(planned) == sum(blocks)
    assert all(b % chunk == 0 for b in planned[:-1])
    assert len(planned) <= max(len(blocks), 2 * sum(blocks) // chunk + 1)
    assert chunk <= sum(blocks)
    again = dict(zip(blocks_by_dim, found[0], strict=True))
    assert plan_chunks(again, {d: sum(b) for d, b in again.items()}) == found


# --- one streaming pass ---------------------------------------------------------------------


def test_write_products__computes_each_block_once(tmp_path: Path) -> None:
    count: list[int] = []
    ds = counted(specphoto_dataset(corrected=True), "spec_flux", count)
    blocks = ds["spec_flux"].data.npartitions
    with dask.config.set(scheduler="synchronous"):
        write_products(ds, fits=tmp_path / "a.fits", zarr=tmp_path / "a.zarr")
    assert len(count) == blocks
    _equal(open_cube(tmp_path / "a.fits"), open_cube(tmp_path / "a.zarr"))


@pytest.mark.parametrize("chunks", [(40, 80, 80), (400, 10, 20)])
def test_write_products__memory_is_a_few_blocks(tmp_path: Path, chunks: tuple[int, ...]) -> None:
    shape = (400, 80, 80)

    def block(block_info: Any = None) -> np.ndarray:
        place = block_info[None]["array-location"]
        return np.full([b - a for a, b in place], 1.5, dtype=np.float32)

    cubes = {
        name: (
            ("wave", "y", "x"),
            da.map_blocks(
                block, chunks=da.core.normalize_chunks(chunks, shape), dtype=np.float32,
                name=name, meta=np.empty((0, 0, 0), np.float32),
            ),
        )
        for name in ("spec_flux", "spec_err", "mod_flux", "spec_var")
    }  # fmt: skip
    ds = xr.Dataset(cubes, coords={"wave": manga_wave(400)})
    ds["spec_region"] = (("y", "x"), np.ones(shape[1:], dtype=bool))
    write_products(specphoto_dataset(), fits=tmp_path / "warm.fits", zarr=tmp_path / "warm.zarr")
    with dask.config.set(scheduler="synchronous"):
        tracemalloc.start()
        write_products(ds, fits=tmp_path / "a.fits", zarr=tmp_path / "a.zarr")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    cube = 4 * np.prod(shape)
    assert (tmp_path / "a.fits").stat().st_size > 4 * cube
    assert peak < 1.5 * cube


def test_fits_target__pickles_and_writes_any_region(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(7 + 4 * 60))
    target = pickle.loads(pickle.dumps(FitsTarget(str(path), 7, (3, 4, 5), ">f4")))
    expected = np.zeros((3, 4, 5), dtype=np.float32)
    for region in (np.s_[0:2, 1:3, 2:4], np.s_[1:3, 0:4, 0:5], np.s_[2:3, 3:4, 0:5]):
        block = np.random.default_rng(0).random(expected[region].shape, dtype=np.float32)
        expected[region] = block
        target[region] = block
    assert np.array_equal(np.fromfile(path, ">f4", offset=7).reshape(3, 4, 5), expected)


# --- whole or not there ---------------------------------------------------------------------


def _broken(ds: xr.Dataset, error: Exception) -> xr.Dataset:
    def fail(block: np.ndarray, block_info: Any = None) -> np.ndarray:
        if block_info[0]["chunk-location"] == (2, 1, 1):
            raise error
        return block

    flux = ds["spec_flux"]
    meta = np.empty((0, 0, 0), np.float32)
    return ds.assign(spec_flux=flux.copy(data=flux.data.map_blocks(fail, dtype="f4", meta=meta)))


@pytest.mark.parametrize("name", ["synchronous", "threads"])
def test_write_products__a_failed_task_leaves_nothing(tmp_path: Path, name: str) -> None:
    ds = _broken(specphoto_dataset(), ZeroDivisionError("on purpose"))
    with dask.config.set(scheduler=name), pytest.raises(ZeroDivisionError, match="on purpose"):
        write_products(ds, fits=tmp_path / "a.fits", zarr=tmp_path / "a.zarr")
    assert _left(tmp_path) == []


@pytest.mark.parametrize("kind", WRITERS)
def test_writers__a_failed_overwrite_keeps_the_old_product(tmp_path: Path, kind: str) -> None:
    ds = specphoto_dataset()
    WRITERS[kind](ds, tmp_path / f"a.{kind}")
    with pytest.raises(ZeroDivisionError):
        WRITERS[kind](_broken(ds, ZeroDivisionError()), tmp_path / f"a.{kind}", overwrite=True)
    assert _left(tmp_path) == [f"a.{kind}"]
    _equal(open_cube(tmp_path / f"a.{kind}"), ds)


def test_write_fits__full_disk_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: FitsTarget, region: object, block: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(FitsTarget, "__setitem__", full)
    with pytest.raises(OSError, match="No space left"):
        write_fits(specphoto_dataset(), tmp_path / "a.fits")
    assert _left(tmp_path) == []


def test_write_fits__too_small_a_disk_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match=r"a\.fits: expected 0\.00 GB free in .*, found 0\.00 GB"):
        write_fits(specphoto_dataset(), tmp_path / "a.fits")
    assert _left(tmp_path) == []


@pytest.mark.parametrize("kind", WRITERS)
def test_writers__refuse_a_taken_name(tmp_path: Path, kind: str) -> None:
    first, second = specphoto_dataset(), specphoto_dataset(seed=2)
    path = tmp_path / f"a.{kind}"
    WRITERS[kind](first, path)
    with pytest.raises(InputError, match=rf"a\.{kind}: expected a name not taken.*overwrite=True"):
        WRITERS[kind](second, path)
    _equal(open_cube(path), first)
    WRITERS[kind](second, path, overwrite=True)
    _equal(open_cube(path), second)
    assert _left(tmp_path) == [path.name]


@pytest.mark.parametrize("kind", WRITERS)
def test_writers__refuse_a_missing_folder(tmp_path: Path, kind: str) -> None:
    with pytest.raises(InputError, match="expected an existing folder to write into, found no "):
        WRITERS[kind](specphoto_dataset(), tmp_path / "nowhere" / f"a.{kind}")


def test_write_fits__refuses_other_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.fits\.gz: expected a name that ends in \.fits"):
        write_fits(specphoto_dataset(), tmp_path / "a.fits.gz")


def test_write_zarr__does_not_replace_what_is_not_zarr(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").touch()
    with pytest.raises(InputError, match="expected a Zarr folder to replace, found something else"):
        write_zarr(specphoto_dataset(), tmp_path / "home", overwrite=True)
    assert _left(tmp_path) == ["home"]
    assert _left(tmp_path / "home") == ["thesis.tex"]


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize(
    ("value", "match"),
    [
        (float("nan"), "expected a value JSON has, found nan"),
        ({"scale": [1.0, np.inf]}, "attribute 'scale': expected a value JSON has, found inf"),
        (Path("/"), "found a PosixPath"),
    ],
)
def test_writers__refuse_attributes_without_json(
    tmp_path: Path, kind: str, value: object, match: str
) -> None:
    ds = specphoto_dataset().assign_attrs(odd=value)
    with pytest.raises(InputError, match=f"dataset: attribute 'odd'.*{match}"):
        WRITERS[kind](ds, tmp_path / f"a.{kind}")
    assert _left(tmp_path) == []


@pytest.mark.parametrize("kind", WRITERS)
def test_writers__numpy_attributes_become_plain(tmp_path: Path, kind: str) -> None:
    attrs = {"n": np.int64(3), "a": np.arange(3.0), "t": (1, 2), "f": np.float32(0.5)}
    WRITERS[kind](specphoto_dataset().assign_attrs(attrs), tmp_path / f"a.{kind}")
    found = open_cube(tmp_path / f"a.{kind}").attrs
    assert {k: found[k] for k in attrs} == {"n": 3, "a": [0.0, 1.0, 2.0], "t": [1, 2], "f": 0.5}


def test_write_fits__refuses_what_fits_cannot_hold(tmp_path: Path) -> None:
    ds = specphoto_dataset().assign(odd=(("y", "x"), np.zeros((11, 9), dtype=np.complex64)))
    with pytest.raises(InputError, match=r"variable odd: expected a dtype FITS can hold"):
        write_fits(ds, tmp_path / "a.fits")
