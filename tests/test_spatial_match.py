"""The lazy face of the spatial match: graphs, dimensions, annotations, schedulers, bad input."""

from __future__ import annotations

import functools
import threading

import dask
import numpy as np
import pytest
import threadpoolctl
import xarray as xr
from lazy import graph_size, raise_if_computes
from spatial_cases import cube, gaussian_sky, hexagon, images, tan_wcs

import specphoto
from specphoto.blas import single_thread
from specphoto.cube import FLUX_UNIT, Grid, celestial_wcs
from specphoto.errors import InputError
from specphoto.photometry.galactic import Extinction, band_factors, channel_factors
from specphoto.spatial.match import match_spatial
from specphoto.spatial.psf import PSF

SHAPE, SHAPE_OUT, N_WAVE = (36, 34), (22, 24), 45
WCS_IN, WCS_OUT = tan_wcs(SHAPE, 0.5), tan_wcs(SHAPE_OUT, 1.0)
CUBES = ["spec_flux", "spec_err", "spec_mask"]
MAPS = ["coverage", "edge_factor", "edge_bias", "spec_region"]


@functools.cache
def galaxy():
    """Flux (wave, y, x), variance, mask of a small galaxy in a hexagon, and its images."""
    rng = np.random.default_rng(4)
    colour = np.linspace(1.0, 1.6, N_WAVE)[:, None, None]
    flux = colour * gaussian_sky(WCS_IN, SHAPE, 7.0, at=(0.5, -0.8))
    variance = rng.uniform(0.5, 1.5, flux.shape) * 1e-4
    outside = hexagon(WCS_IN, SHAPE, 7.5) > 1.0
    mask = outside | (rng.random(flux.shape) < 0.02)
    flux = np.where(rng.random(flux.shape) < 0.005, np.nan, flux + 0.01 * rng.normal(size=(36, 34)))
    # broader by the kernel, and four spaxels to a pixel
    wide = 4.0 * gaussian_sky(WCS_OUT, SHAPE_OUT, 7.8, at=(0.5, -0.8)) * (7.0 / 7.8) ** 2
    return flux, variance, mask, np.stack([1.1 * wide, 1.25 * wide, 1.4 * wide])


def observation(*, chunks=16, **attrs):
    flux, variance, mask, _ = galaxy()
    return cube(flux, WCS_IN, variance=variance, mask=mask, chunks=chunks, **attrs)


def photometry(**attrs):
    return images(galaxy()[3], WCS_OUT, fwhm=4.3, **attrs)


def computed(ds, names=(*CUBES, *MAPS)):
    with dask.config.set(scheduler="synchronous"):
        return ds[list(names)].compute()


@functools.cache
def reference():
    return computed(match_spatial(observation(), photometry()))


def assert_same_bits(a, b):
    for name in a.data_vars:
        np.testing.assert_array_equal(a[name].values, b[name].values, err_msg=name)


# -- what comes out


def test_match_spatial__computes_nothing():
    ifs, target = observation(ebv=0.05, ebv_scale="SF11"), photometry(ebv=0.05)
    with raise_if_computes():
        for options in ({}, {"coverage": "cube"}, {"compensate": False}):
            match_spatial(ifs, target, **options)
        match_spatial(ifs, Grid(WCS_OUT, SHAPE_OUT, 4.3))


def test_match_spatial__is_what_the_package_exports():
    assert specphoto.match_spatial is match_spatial


def test_match_spatial__dims_dtypes_units():
    out = match_spatial(observation(), photometry())
    for name, dtype in (("spec_flux", "f4"), ("spec_err", "f4"), ("spec_mask", "?")):
        assert out[name].dims == ("wave", "y", "x")
        assert out[name].shape == (N_WAVE, *SHAPE_OUT)
        assert out[name].dtype == dtype
        assert out[name].data._meta.dtype == dtype
    for name in MAPS:
        assert out[name].dims == ("y", "x")
    assert out["spec_region"].dtype == bool
    assert out["coverage"].dtype == np.float32
    assert out["spec_flux"].attrs["units"] == FLUX_UNIT
    assert out["spec_err"].attrs["long_name"].startswith("1-sigma error")
    assert set(out["photo_flux"].dims) == {"band", "y", "x"}
    assert out["photo_flux"].dtype == np.float32
    specphoto.cube.validate(out, *CUBES, *MAPS, "photo_flux", "wave", verb="test")


def test_match_spatial__attributes_tell_of_the_result():
    ifs = observation(ebv=0.05, ebv_scale="SFD", survey="manga", redshift=None)
    target = photometry(ebv=0.043, ebv_scale="SF11", redshift=0.02, fsamp="wise_w2")
    attrs = match_spatial(ifs, target, max_bias=0.03).attrs
    assert attrs["kind"] == "specphoto"
    assert attrs["corrected"] is False
    assert attrs["survey"] == "manga"
    assert attrs["redshift"] == 0.02
    assert attrs["fsamp"] == "wise_w2"
    assert attrs["pixel_scale"] == pytest.approx(1.0)
    assert attrs["psf"]["fwhm"] == [4.3]
    assert attrs["ebv"] == pytest.approx(0.043)
    assert (attrs["ebv_scale"], attrs["ebv_law"], attrs["ebv_corrected"]) == ("SF11", "G23", True)
    assert attrs["photo_ebv"] == 0.043
    assert "correlation" not in attrs  # of the cube's spaxels
    manga = {"model": "gaussian", "scale": 1.92, "cutoff": 6.4}
    told = match_spatial(ifs, target, correlation=manga).attrs["provenance"][-1]["options"]
    assert told["correlation_clipped"] == pytest.approx(0.0013, abs=1e-4)
    assert attrs["provenance"][-1]["step"] == "match_spatial"
    options = attrs["provenance"][-1]["options"]
    assert options["max_bias"] == 0.03
    assert options["correlation_clipped"] == 0.0
    wcs = celestial_wcs(xr.Dataset(attrs=attrs))
    np.testing.assert_allclose(wcs.wcs.crpix, WCS_OUT.wcs.crpix)


@pytest.mark.parametrize(
    ("given", "psf"),
    [
        (5.0, {"model": "gaussian", "wave": [], "fwhm": [5.0], "beta": None}),
        (PSF("moffat", 5.0, 3.0), {"model": "moffat", "wave": [], "fwhm": [5.0], "beta": [3.0]}),
    ],
)
def test_match_spatial__a_given_target_psf_is_the_one_recorded(given, psf):
    out = match_spatial(observation(), photometry(), target_psf=given)
    assert out.attrs["psf"] == psf


def test_match_spatial__without_any_dust_nothing_is_said_to_be_corrected():
    out = match_spatial(observation(), photometry())
    assert not out.attrs["ebv_corrected"]
    assert out.attrs.get("ebv_law") is None


def test_match_spatial__recovers_the_sky():
    out = reference()
    wanted = 4.0 * gaussian_sky(WCS_OUT, SHAPE_OUT, np.hypot(7.0, np.sqrt(4.3**2 - 2.54**2)),
                                at=(0.5, -0.8))  # fmt: skip
    wanted *= 49.0 / (49.0 + 4.3**2 - 2.54**2)
    region = out["spec_region"].values
    assert region.sum() > 60
    ratio = (out["spec_flux"].mean("wave").values / (1.3 * wanted))[region]
    np.testing.assert_allclose(np.median(ratio), 1.0, atol=0.01)
    known = ~out["spec_mask"].values
    assert np.isfinite(out["spec_flux"].values[known]).all()
    assert (out["spec_err"].values[known] > 0).all()
    assert np.isnan(out["spec_flux"].values[~known]).all()
    assert not (~known).all(axis=0)[region].any()


def test_match_spatial__min_coverage_masks():
    out = computed(match_spatial(observation(), photometry(), min_coverage=0.6, coverage="cube"))
    covered = out["coverage"].values
    known = ~out["spec_mask"].values
    assert covered.shape == (N_WAVE, *SHAPE_OUT)
    assert covered[known].min() >= 0.6
    assert known.sum() < (~reference()["spec_mask"].values).sum()
    assert not (out["spec_region"].values & ~known.any(axis=0)).any()


def test_match_spatial__coverage_map_is_the_mean_of_the_cube():
    ifs, target = observation(), photometry()
    whole = computed(match_spatial(ifs, target, coverage="cube"), ["coverage"])["coverage"]
    mean = whole.mean("wave").values
    got = reference()["coverage"].values
    # holes of single channels count in the cube, what is usual in the map
    np.testing.assert_allclose(got[got > 0.2], mean[got > 0.2], atol=0.05)
    assert got.max() <= 1.0 + 1e-6


def test_match_spatial__a_dead_stretch_does_not_lower_the_coverage():
    ifs = observation()
    dead = ifs["spec_mask"].values.copy()
    dead[:12] = True
    out = computed(match_spatial(ifs.assign(spec_mask=(CUBE_DIMS, dead)), photometry()))
    assert out["spec_mask"].values[:12].all()
    got, wanted = out["coverage"].values, reference()["coverage"].values
    np.testing.assert_allclose(got, wanted, atol=0.03)
    assert out["spec_region"].values.sum() == pytest.approx(
        reference()["spec_region"].values.sum(), abs=3
    )


CUBE_DIMS = ("wave", "y", "x")


def test_match_spatial__sky_that_no_image_shows_is_a_bias():
    # cut the images at the bundle's edge: what lies beyond is then made up from their border
    part = {"x": slice(8, 16), "y": slice(3, 19)}
    whole = computed(match_spatial(observation(), photometry()).isel(part))
    cut = computed(match_spatial(observation(), photometry().isel(part)))
    wrong = np.abs(cut["spec_flux"] / whole["spec_flux"] - 1.0).mean("wave").values
    before, after = (ds["spec_region"].values for ds in (whole, cut))
    assert wrong[before].max() > 0.2
    assert wrong[after].max() < 0.02
    assert after.sum() > 0.6 * before.sum()


def test_match_spatial__region_is_inside_the_images_region():
    region = np.zeros(SHAPE_OUT, bool)
    region[8:14, 9:15] = True
    target = photometry()
    target["photo_region"] = (("y", "x"), region)
    out = computed(match_spatial(observation(), target))
    assert out["spec_region"].values.sum() == 36
    assert not (out["spec_region"].values & ~region).any()


def test_match_spatial__line_spread_is_carried_along():
    ifs = observation()
    ifs["spec_lsf"] = ("wave", np.linspace(1.0, 2.0, N_WAVE))
    np.testing.assert_array_equal(match_spatial(ifs, photometry())["spec_lsf"], ifs["spec_lsf"])
    lsf = ifs["spec_lsf"].values[:, None, None] * np.ones(SHAPE)
    outside = ifs["spec_mask"].values
    ifs["spec_lsf"] = (CUBE_DIMS, np.where(outside, 0.0, lsf).astype("f4"))
    out = computed(match_spatial(ifs, photometry()), ["spec_lsf"])["spec_lsf"]
    assert out.dims == ("wave",)
    np.testing.assert_allclose(out, np.linspace(1.0, 2.0, N_WAVE), rtol=1e-5)


# -- targets and geometry


def test_match_spatial__grid_target():
    out = match_spatial(observation(), Grid(WCS_OUT, SHAPE_OUT, 4.3))
    assert "photo_flux" not in out
    assert out["spec_flux"].shape == (N_WAVE, *SHAPE_OUT)
    got = computed(out)
    plain = computed(match_spatial(observation(), photometry(), compensate=False), CUBES)
    assert_same_bits(plain, got[CUBES])
    # nothing tells of what lies beyond: only what is covered is trusted
    np.testing.assert_array_equal(got["spec_region"], got["coverage"] >= 0.98)
    assert got["spec_region"].values.any()


@pytest.mark.parametrize(
    ("angle", "flip"), [(0.0, True), (90.0, False), (37.0, False), (211.0, True)]
)
def test_match_spatial__rotated_and_flipped_cubes_see_the_same_sky(angle, flip):
    # one sky on two cubes; the matched fluxes on one grid agree but for the spaxels' own size
    shape = (100, 100)

    def sky(wcs):
        blobs = gaussian_sky(wcs, shape, 6.0, at=(1.5, -1.0))
        blobs += gaussian_sky(wcs, shape, 5.0, at=(-4.0, 3.0))
        return np.repeat(blobs[None], 3, axis=0)

    grid = Grid(tan_wcs((16, 15), 1.2), (16, 15), 5.0)
    flux = []
    for options in ({}, {"angle": angle, "flip": flip, "shift": (0.4, -0.3)}):
        wcs = tan_wcs(shape, 0.3, **options)
        out = computed(match_spatial(cube(sky(wcs), wcs), grid), ["spec_flux", "coverage"])
        flux.append(out["spec_flux"].values[0])
        inside = out["coverage"].values > 0.99
    assert inside.sum() > 100
    np.testing.assert_allclose(flux[1][inside], flux[0][inside], atol=3e-3 * np.nanmax(flux[0]))


def test_match_spatial__slices_keep_their_sky():
    ifs, target = observation(), photometry()
    whole = reference()
    # what is cut off the images lies beyond the reach of everything that is compared
    few = target.isel(y=slice(3, 20), x=slice(2, 22))
    out = computed(match_spatial(ifs, few, compensate=False), CUBES)
    plain = computed(match_spatial(ifs, target, compensate=False), CUBES)
    assert_same_bits(out, plain.isel(y=slice(3, 20), x=slice(2, 22)))
    np.testing.assert_array_equal(out["x"], np.arange(2, 22))
    # a cube cut where it is all masked anyway
    masked = galaxy()[2]
    used = ~masked.all(axis=0)
    y, x = np.flatnonzero(used.any(axis=1)), np.flatnonzero(used.any(axis=0))
    cut = ifs.isel(y=slice(y[0], y[-1] + 1), x=slice(x[0], x[-1] + 1))
    assert cut.sizes["y"] < SHAPE[0]
    got = computed(match_spatial(cut, target), ["spec_flux", "spec_region"])
    known = np.isfinite(whole["spec_flux"].values) & whole["spec_region"].values
    np.testing.assert_allclose(
        got["spec_flux"].values[known], whole["spec_flux"].values[known], rtol=1e-3
    )


# -- Galactic extinction


def test_match_spatial__corrects_cube_and_images_for_one_dust():
    target_attrs = {"ebv": 0.12, "ebv_scale": "SF11"}
    ifs = observation(ebv=0.12 / 0.86, ebv_scale="SFD")
    target = photometry(**target_attrs)
    names = [*CUBES, "photo_flux", "photo_err"]
    plain = computed(match_spatial(ifs, target, ebv=0.0, compensate=False), names)
    dusty = computed(match_spatial(ifs, target, compensate=False), names)
    with dask.config.set(scheduler="synchronous"):
        original = target["photo_flux"].compute()
    known = ~plain["spec_mask"].values.any(axis=0)
    factor = channel_factors(ifs.attrs, ifs["wave"].values, Extinction(0.12))
    assert factor.min() > 1.1
    for name in ("spec_flux", "spec_err"):
        ratio = (dusty[name] / plain[name]).values[:, known]
        np.testing.assert_allclose(ratio, factor[:, None] * np.ones(ratio.shape), rtol=1e-5)
    per_band = band_factors(target.attrs, list(target["band"].values), Extinction(0.12))
    ratio = (dusty["photo_flux"] / original).mean(("y", "x"))
    np.testing.assert_allclose(ratio, per_band, rtol=1e-5)
    np.testing.assert_allclose((dusty["photo_err"] / dusty["photo_flux"]).max(), 0.01, rtol=1e-4)


def test_match_spatial__warns_of_disagreeing_dust():
    ifs = observation(ebv=0.10, ebv_scale="SF11")
    with pytest.warns(UserWarning, match=r"E\(B-V\) of the cube and of the photometry differ"):
        match_spatial(ifs, photometry(ebv=0.084, ebv_scale="SF11"))


def test_match_spatial__brings_either_to_the_dust_of_the_other():
    ifs, target = observation(ebv=0.10, ebv_scale="SF11"), photometry(ebv=0.084, ebv_scale="SF11")
    for whose, ebv in (("cube", 0.10), ("images", 0.084)):
        with pytest.warns(UserWarning, match=f"that of the {whose} is used for both"):
            out = match_spatial(ifs, target, ebv=whose, ebv_law="F99")
        assert (out.attrs["ebv"], out.attrs["ebv_law"]) == (ebv, "F99")
        options = out.attrs["provenance"][-1]["options"]
        assert (options["ebv"], options["law"]) == (ebv, "F99")


# -- bad input


def test_match_spatial__no_overlap_is_refused():
    away = tan_wcs(SHAPE_OUT, 1.0, shift=(300.0, 0.0))
    with pytest.raises(
        InputError,
        match=r"cube.fits: expected a cube and images of the same sky, found no overlap, "
        r"centres 299.7 arcsec apart; check",
    ):
        match_spatial(observation(), Grid(away, SHAPE_OUT, 4.3))


def test_match_spatial__the_other_side_of_the_sky_is_no_overlap():
    wcs = tan_wcs(SHAPE_OUT, 1.0)
    wcs.wcs.crval = [330.0, -2.0]
    with pytest.raises(InputError, match="no overlap"):
        match_spatial(observation(), Grid(wcs, SHAPE_OUT, 4.3))


@pytest.mark.parametrize("psf", [None, float("nan"), -1.0])
def test_match_spatial__an_unknown_psf_is_refused(psf):
    ifs = observation()
    ifs.attrs["psf"] = psf
    with pytest.raises(InputError, match=r"cube.fits: PSF: expected a FWHM in arcsec.*source_psf"):
        match_spatial(ifs, photometry())
    with pytest.raises(InputError, match=r"grid: PSF: expected a FWHM in arcsec"):
        match_spatial(observation(), Grid(WCS_OUT, SHAPE_OUT, psf))


def test_match_spatial__missing_variable_and_bad_axis_are_refused():
    with pytest.raises(InputError, match=r"match_spatial: expected .* found no spec_var"):
        match_spatial(observation().drop_vars("spec_var"), photometry())
    with pytest.raises(InputError, match=r"cube.fits: x: expected consecutive pixel numbers"):
        match_spatial(observation().isel(x=slice(None, None, 2)), photometry())
    backwards = observation().isel(wave=slice(None, None, -1))
    with pytest.raises(InputError, match=r"wave: expected wavelengths that increase"):
        match_spatial(backwards, photometry())
    ifs = observation()
    del ifs.attrs["wcs"]
    with pytest.raises(InputError, match=r"cube.fits: expected a celestial WCS"):
        match_spatial(ifs, photometry())


def test_match_spatial__unknown_correlation_model_is_refused():
    with pytest.raises(InputError, match=r"correlation: expected model 'gaussian' or 'none'"):
        match_spatial(observation(), photometry(), correlation={"model": "matern"})


def test_match_spatial__a_correlation_needs_its_scale():
    with pytest.raises(InputError, match=r"correlation: expected a scale in spaxels .* found None"):
        match_spatial(observation(), photometry(), correlation={"model": "gaussian"})


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"compat": "pixdfit"}, r"compat: expected None or 'pixedfit', found 'pixdfit'"),
        ({"coverage": "cubes"}, r"coverage: expected 'map' or 'cube', found 'cubes'"),
    ],
)
def test_match_spatial__unknown_choices_are_refused(option, message):
    with pytest.raises(InputError, match=message):
        match_spatial(observation(), photometry(), **option)


def test_match_spatial__flux_that_is_no_number_is_masked_whatever_the_mask_says():
    flux, variance, mask, _ = galaxy()
    hole = np.zeros(flux.shape, bool)
    hole[:, 20:26, 20:26] = True
    said = cube(flux, WCS_IN, variance=variance, mask=mask | hole)
    unsaid = cube(np.where(hole, np.nan, flux), WCS_IN, variance=variance, mask=mask)
    said, unsaid = (computed(match_spatial(ifs, photometry())) for ifs in (said, unsaid))
    assert (said["coverage"] < reference()["coverage"] - 0.01).any()
    assert_same_bits(said, unsaid)


@pytest.mark.parametrize("case", ["nan", "masked", "no variance", "infinite variance"])
def test_match_spatial__a_cube_that_knows_nothing_gives_nothing(case):
    flux, variance, mask, _ = galaxy()
    options = {"variance": variance, "mask": mask}
    options |= {
        "nan": {"variance": np.nan},
        "masked": {"mask": True},
        "no variance": {"variance": 0.0},
        "infinite variance": {"variance": np.inf},
    }[case]
    ifs = cube(np.full_like(flux, np.nan) if case == "nan" else flux, WCS_IN, **options)
    ifs["spec_lsf"] = (CUBE_DIMS, np.full(flux.shape, np.nan if case == "nan" else 1.5, "f4"))
    # warnings are errors here
    out = computed(match_spatial(ifs, photometry()), [*CUBES, *MAPS, "spec_lsf"])
    assert out["spec_mask"].values.all()
    assert np.isnan(out["spec_flux"].values).all()
    assert np.isnan(out["spec_err"].values).all()
    assert not out["spec_region"].values.any()
    np.testing.assert_array_equal(out["coverage"], 0.0)


# -- Dask


def test_match_spatial__same_bits_from_every_scheduler(scheduler):
    out = match_spatial(observation(), photometry())[[*CUBES, *MAPS]].compute()
    assert_same_bits(out, reference())


@pytest.mark.parametrize(
    "chunks", [1, 7, N_WAVE, (11, 13, -1), (-1, 5, 9)], ids=["1", "7", "all", "split y", "split"]
)
def test_match_spatial__any_chunking_gives_the_same(chunks):
    out = computed(match_spatial(observation(chunks=chunks), photometry()))
    peak = np.nanmax(np.abs(reference()["spec_flux"].values), axis=(1, 2), keepdims=True)
    for name in ("spec_flux", "spec_err"):
        difference = np.abs(out[name].values - reference()[name].values) / peak
        assert np.nanmax(difference) < 1e-5
    np.testing.assert_array_equal(out["spec_mask"], reference()["spec_mask"])
    np.testing.assert_array_equal(out["spec_region"], reference()["spec_region"])


def test_match_spatial__block_size_does_not_matter(monkeypatch):
    monkeypatch.setattr("specphoto.spatial.graph._BLOCK_BYTES", 11 * 4 * SHAPE[0] * SHAPE[1])
    out = match_spatial(observation(), photometry())
    assert out["spec_flux"].chunks[0] == (11, 11, 11, 11, 1)
    got = computed(out)
    peak = np.nanmax(np.abs(reference()["spec_flux"].values), axis=(1, 2), keepdims=True)
    difference = np.abs(got["spec_flux"].values - reference()["spec_flux"].values) / peak
    assert np.nanmax(difference) < 1e-5
    np.testing.assert_array_equal(got["spec_mask"], reference()["spec_mask"])


def test_match_spatial__graph_of_a_full_size_cube_is_small():
    shape, n_wave = (74, 74), 4563
    lazy = dask.array.zeros((n_wave, *shape), chunks=(250, -1, -1), dtype="f4")
    ifs = xr.Dataset(
        {
            "spec_flux": (CUBE_DIMS, lazy),
            "spec_var": (CUBE_DIMS, lazy + 1),
            "spec_mask": (CUBE_DIMS, lazy > 1),
        },
        coords={"wave": np.linspace(3600, 10300, n_wave), "y": np.arange(74), "x": np.arange(74)},
        attrs=cube(np.ones((1, *shape)), tan_wcs(shape, 0.5)).attrs,
    )
    target = images(np.ones((3, 101, 101)), tan_wcs((101, 101), 1.5))
    out = match_spatial(ifs, target)
    n_block = len(out["spec_flux"].chunks[0])
    assert 8 <= n_block <= 64
    # tasks for each block and its frame, none for each channel or pixel
    assert graph_size(out[CUBES]) < 100 * n_block + 400


def test_match_spatial__same_input_makes_the_same_keys():
    a, b = (match_spatial(observation(), photometry()) for _ in range(2))
    assert dask.base.tokenize(a["spec_flux"].data) == dask.base.tokenize(b["spec_flux"].data)
    other = match_spatial(observation(), photometry(), target_psf=4.5)
    assert a["spec_flux"].data.name != other["spec_flux"].data.name


def blas_threads():
    return {
        lib["num_threads"] for lib in threadpoolctl.threadpool_info() if lib["user_api"] == "blas"
    }


def test_single_thread__holds_for_all_who_are_inside_and_no_longer():
    with threadpoolctl.threadpool_limits(limits=2, user_api="blas"):
        before = blas_threads()
        inside, gate = [], threading.Barrier(3)
        first_is_out = threading.Event()

        def work(number):
            with single_thread():
                gate.wait(timeout=30)
                if number > 0:
                    first_is_out.wait(timeout=30)
                inside.append(blas_threads())
            if number == 0:
                first_is_out.set()

        threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert inside == [{1}, {1}, {1}]
        assert blas_threads() == before


def test_single_thread__is_lifted_after_an_error():
    with threadpoolctl.threadpool_limits(limits=2, user_api="blas"):
        with pytest.raises(RuntimeError, match="inside"), single_thread():
            raise RuntimeError("inside")
        assert blas_threads() == {2}


def test_match_spatial__tasks_run_blas_at_one_thread(monkeypatch):
    from specphoto.spatial import plane

    seen = []
    whole = plane.match_planes

    def watched(*args, **kwargs):
        seen.append(blas_threads())
        return whole(*args, **kwargs)

    monkeypatch.setattr(plane, "match_planes", watched)
    with (
        threadpoolctl.threadpool_limits(limits=2, user_api="blas"),
        dask.config.set(scheduler="threads", num_workers=3),
    ):
        match_spatial(observation(), photometry())["spec_flux"].compute()
    assert seen
    assert all(threads == {1} for threads in seen)
