"""Sums over bins against matrices written out, and against noise that is really correlated."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from lazy import number, planned, raise_if_computes
from spatial_cases import cube, tan_wcs

from specphoto.cube import VARIABLES
from specphoto.errors import InputError
from specphoto.io import open_cube, write_fits, write_zarr
from specphoto.spatial.binning import bins_of, correlation_blocks, sum_planes
from specphoto.spatial.correlation import LagCorrelation, correlation_matrix, correlation_stencil
from specphoto.spatial.sums import sum_spectra

SHAPE = (40, 37)
MANGA = {"model": "gaussian", "scale": 1.92, "cutoff": 6.4}


def label_map(rng):
    """A giant bin, squares of 3, lone pixels, and pixels of no bin."""
    y, x = np.indices(SHAPE)
    labels = np.where(np.hypot(y - 20, x - 18) < 14, 7, 100 + y // 3 * 20 + x // 3)
    labels[rng.random(SHAPE) < 0.1] = 0
    labels[0, :5] = -1
    labels[-1, -1] = 5000
    return labels


def random_lags(rng):
    """Small correlations that differ from pair to pair."""
    lag_y, lag_x = np.array([0, 1, 1, 2, 0]), np.array([1, 0, -2, 1, 4])
    rho = rng.uniform(-0.05, 0.15, (5, *SHAPE)).astype(np.float32)
    rho[:, 3, 3] = np.nan
    return rho, lag_y, lag_x


def dense(correlation):
    if isinstance(correlation, LagCorrelation):
        clean = LagCorrelation(np.nan_to_num(correlation.rho), correlation.lag_y, correlation.lag_x)
        return correlation_matrix(clean).toarray().astype(float)
    y, x = (axis.ravel() for axis in np.indices(SHAPE))
    reach = correlation.shape[0] // 2
    dy, dx = y - y[:, None], x - x[:, None]
    inside = (np.abs(dy) <= reach) & (np.abs(dx) <= reach)
    return np.where(
        inside,
        correlation[np.clip(dy, -reach, reach) + reach, np.clip(dx, -reach, reach) + reach],
        0.0,
    )


@pytest.mark.parametrize("form", ["stencil", "lags", "none"])
def test_sum_planes__is_the_quadratic_form_written_out(form):
    rng = np.random.default_rng(0)
    labels = label_map(rng)
    given = {
        "stencil": correlation_stencil(1.92, 6.4),
        "lags": LagCorrelation(*random_lags(rng)),
        "none": np.ones((1, 1)),
    }[form]
    flux = rng.normal(1.0, 0.3, (4, *SHAPE)).astype(np.float32)
    sigma = rng.uniform(0.5, 2.0, flux.shape).astype(np.float32)
    good = np.ones(flux.shape, dtype=bool)
    bins = bins_of(labels)
    np.testing.assert_array_equal(bins.label, np.unique(labels[labels > 0]))
    assert bins.n_pixel.max() > 500
    assert bins.n_pixel.min() == 1
    got = sum_planes(
        bins, [correlation_blocks(bins, given)], np.ones((4, 1)), flux, sigma, good, flux[0],
        min_good=1.0,
    )  # fmt: skip
    rho = dense(given)
    for k, label in enumerate(bins.label):
        pixel = np.flatnonzero(labels.ravel() == label)
        s = sigma.reshape(4, -1)[:, pixel].astype(float)
        variance = np.einsum("wi,ij,wj->w", s, rho[np.ix_(pixel, pixel)], s)
        np.testing.assert_allclose(got[1, :, k], np.sqrt(variance), rtol=1e-5)
        total = flux.reshape(4, -1)[:, pixel].sum(axis=1, dtype=float)
        np.testing.assert_allclose(got[0, :, k], total, rtol=1e-5)
    assert not got[2].any()


def test_correlation_blocks__of_a_large_bin_take_room_in_proportion():
    stencil = correlation_stencil(1.92, 6.4)
    room = [
        sum(block.rho.size for block in correlation_blocks(bins_of(np.ones((n, n), int)), stencil))
        for n in (64, 128)
    ]
    # four times as many blocks, and a little: blocks at the rim have fewer neighbours
    assert room[1] < 4.8 * room[0]


def some_cube(rng, n_wave=23, **options):
    """Cube whose pixels all have the same spectrum, times a smooth image."""
    y, x = np.indices(SHAPE)
    image = np.exp(-np.hypot(y - 19, x - 18) / 9.0) + 0.05
    spectrum = 1.0 + 0.3 * np.sin(np.arange(n_wave) / 3.0)
    flux = spectrum[:, None, None] * image
    variance = rng.uniform(0.5, 2.0, flux.shape)
    return cube(flux, tan_wcs(SHAPE, 0.5), variance=variance, **{"correlation": MANGA, **options})


def test_sum_spectra__is_lazy_and_the_same_whatever_the_chunks():
    rng = np.random.default_rng(1)
    labels = label_map(rng)
    mask = rng.random((23, *SHAPE)) < 0.02
    whole = some_cube(np.random.default_rng(2), mask=mask, chunks=23)
    with raise_if_computes():
        out = sum_spectra(whole, labels)
    wanted = out.compute()
    assert wanted["spec_flux"].dims == ("label", "wave")
    assert wanted["spec_flux"].dtype == wanted["spec_err"].dtype == np.float32
    assert int(wanted["n_pixel"].sum()) == (labels > 0).sum()
    for name in out:
        assert out[name].dims in VARIABLES[name].dims
        assert out[name].dtype.kind == VARIABLES[name].kind
    for chunks in ((5, 11, 9), (1, -1, -1), (23, 40, 7)):
        got = sum_spectra(some_cube(np.random.default_rng(2), mask=mask, chunks=chunks), labels)
        for name in wanted:
            np.testing.assert_array_equal(got[name].values, wanted[name].values)


def test_sum_spectra__same_bits_from_every_scheduler(scheduler):
    labels = label_map(np.random.default_rng(1))
    out = sum_spectra(some_cube(np.random.default_rng(2), chunks=(5, 11, 9)), labels).compute()
    with dask.config.set(scheduler="synchronous"):
        wanted = sum_spectra(some_cube(np.random.default_rng(2)), labels).compute()
    xr.testing.assert_identical(out, wanted)


@pytest.mark.parametrize("error", ["spec_var", "spec_err"])
def test_sum_spectra__takes_errors_as_either(error):
    rng = np.random.default_rng(2)
    ds = some_cube(rng)
    labels = np.ones(SHAPE, dtype=np.int16)
    wanted = sum_spectra(ds, labels)["spec_err"].values
    if error == "spec_err":
        ds = ds.assign(spec_err=np.sqrt(ds["spec_var"])).drop_vars("spec_var")
    np.testing.assert_allclose(sum_spectra(ds, labels)["spec_err"].values, wanted, rtol=1e-6)
    # the correlation is in it
    alone = sum_spectra(ds, labels, correlation={"model": "none"})["spec_err"].values
    assert 4.0 < (wanted / alone).min() < (wanted / alone).max() < 5.0


def test_sum_spectra__the_cubes_own_correlation_goes_before_its_attribute():
    rng = np.random.default_rng(3)
    ds = some_cube(rng)
    rho, lag_y, lag_x = random_lags(rng)
    matched = ds.assign(spec_corr=(("lag", "y", "x"), da.from_array(np.nan_to_num(rho))))
    matched = matched.assign_coords(lag_y=("lag", lag_y), lag_x=("lag", lag_x), corr_wave=6000.0)
    labels = np.ones(SHAPE, dtype=int)
    with raise_if_computes():
        out = sum_spectra(matched, labels)
    s = np.sqrt(ds["spec_var"].values.reshape(23, -1)).astype(float)
    C = dense(LagCorrelation(rho, lag_y, lag_x))
    wanted = np.sqrt(np.einsum("wi,ij,wj->w", s, C, s))
    np.testing.assert_allclose(out["spec_err"].values[0], wanted, rtol=1e-5)
    assert out.attrs["provenance"][-1]["options"]["correlation"] == "spec_corr of the cube"
    told = sum_spectra(matched, labels, correlation={"model": "none"})
    np.testing.assert_allclose(told["spec_err"].values[0], np.sqrt((s**2).sum(axis=1)), rtol=1e-5)


def test_sum_spectra__a_survey_tells_its_correlation_at_some_wavelengths():
    rng = np.random.default_rng(3)
    ds = some_cube(rng)
    node = np.array([5000.0, 7000.0])
    rho = np.stack([np.full((1, *SHAPE), value, dtype=np.float32) for value in (0.1, 0.4)])
    ds = ds.assign(spec_corr=(("corr_wave", "lag", "y", "x"), da.from_array(rho)))
    ds = ds.assign_coords(corr_wave=node, lag_y=("lag", [0]), lag_x=("lag", [1]))
    labels = np.zeros(SHAPE, dtype=int)
    labels[4, 4:6] = 3
    out = sum_spectra(ds, labels)
    a, b = np.moveaxis(np.sqrt(ds["spec_var"].values[:, 4, 4:6]), 1, 0)
    here = np.interp(ds["wave"].values, node, [0.1, 0.4])
    np.testing.assert_allclose(
        out["spec_err"].values[0], np.sqrt(a**2 + b**2 + 2 * here * a * b), rtol=1e-5
    )
    refused = ds.assign(spec_corr=ds["spec_corr"] * 0 + np.float32(0.9))
    with pytest.raises(InputError, match=r"cube.fits: spec_corr.*every variance is positive"):
        sum_spectra(refused, labels).compute()


def test_sum_spectra__missing_pixels_have_the_bins_mean_spectrum():
    rng = np.random.default_rng(4)
    labels = np.zeros(SHAPE, dtype=int)
    labels[15:24, 14:23] = 1  # 81 pixels
    whole = sum_spectra(some_cube(rng), labels).compute()
    mask = np.zeros((23, *SHAPE), dtype=bool)
    mask[3, 15, 14:19] = True  # 5 faint ones
    mask[8, 15:18] = True  # a third
    mask[12, 18:21, 17:20] = True  # 9, the brightest: 11% of the pixels, more of the light
    ds = some_cube(np.random.default_rng(4), mask=mask)
    out = sum_spectra(ds, labels).compute()
    # the pixels differ by a factor alone; their mean light is of the channels that are good
    np.testing.assert_allclose(out["spec_flux"][0, 3], whole["spec_flux"][0, 3], rtol=2e-3)
    plain = 81 * float(ds["spec_flux"].where(~ds["spec_mask"])[3, 15:24, 14:23].mean())
    assert abs(plain / float(whole["spec_flux"][0, 3]) - 1.0) > 0.005
    assert out["spec_err"][0, 3] != whole["spec_err"][0, 3]
    np.testing.assert_array_equal(np.flatnonzero(out["spec_mask"][0]), [8, 12])
    assert np.isnan(out["spec_flux"].values[0, [8, 12]]).all()
    assert np.isnan(out["spec_err"].values[0, [8, 12]]).all()
    strict = sum_spectra(ds, labels, min_good=1.0)
    np.testing.assert_array_equal(np.flatnonzero(strict["spec_mask"][0]), [3, 8, 12])
    generous = sum_spectra(ds, labels, min_good=0.5).compute()
    np.testing.assert_allclose(generous["spec_flux"], whole["spec_flux"], rtol=5e-3)


def test_sum_spectra__pixels_without_data_count_as_missing():
    mask = np.zeros((23, *SHAPE), dtype=bool)
    mask[:, :, 20:] = True
    flux = np.where(mask, np.nan, 2.0)
    ds = cube(flux, tan_wcs(SHAPE, 0.5), mask=mask, correlation=MANGA)
    labels = np.zeros(SHAPE, dtype=int)
    labels[10, 15:24] = 1
    labels[20, 22:30] = 2
    out = sum_spectra(ds, labels).compute()
    assert out["spec_mask"].all()
    out = sum_spectra(ds, labels, min_good=0.5).compute()
    np.testing.assert_allclose(out["spec_flux"][0], 18.0)
    assert out["spec_mask"].values[1].all()


def test_sum_spectra__sums_images_and_averages_line_widths(tmp_path):
    rng = np.random.default_rng(5)
    ds = some_cube(rng)
    flux = rng.uniform(0.5, 2.0, (3, *SHAPE)).astype(np.float32)
    ds["photo_flux"] = (("band", "y", "x"), da.from_array(flux, chunks=(1, 7, 37)))
    ds["photo_err"] = (("band", "y", "x"), da.from_array(np.float32(0.1) * flux))
    ds["spec_lsf"] = ds["spec_flux"] * 0 + 2.0
    ds = ds.assign_coords(band=np.array(["a", "b", "c"], dtype=object))
    ds = ds.assign_coords(band_wave=("band", [4000.0, 5000.0, 6000.0]))
    labels = np.zeros(SHAPE, dtype=int)
    labels[3:5, 3:5], labels[20:30, 9] = 4, 2
    with raise_if_computes():
        lazy = sum_spectra(ds, labels)
    names = planned(lazy)
    # what the dashboard groups and colours by
    for name in ("correlation-blocks", "mean-light", "sum-planes", "sum-lsf", "sum-images"):
        assert number(names, name) == number(names, f"spatial-{name}") > 0
    out = lazy.compute()
    np.testing.assert_array_equal(out["label"], [2, 4])
    np.testing.assert_array_equal(out["n_pixel"], [10, 4])
    assert out["photo_flux"].dims == ("label", "band")
    np.testing.assert_allclose(out["photo_flux"][1], flux[:, 3:5, 3:5].sum(axis=(1, 2)), rtol=1e-6)
    np.testing.assert_allclose(out["photo_err"], 0.1 * out["photo_flux"], rtol=1e-5)
    np.testing.assert_array_equal(out["band_wave"], [4000.0, 5000.0, 6000.0])
    np.testing.assert_allclose(out["spec_lsf"], 2.0, rtol=1e-6)
    assert out.attrs["kind"] == "sums"
    assert out["spec_flux"].attrs["units"]
    assert set(out.coords) == {"label", "wave", "band", "band_wave"}
    step = out.attrs["provenance"][-1]
    assert step["step"] == "sum_spectra"
    assert step["options"].pop("clipped") == pytest.approx(0.0013, abs=1e-4)
    assert step["options"] == {"n_label": 2, "min_good": 0.9, "correlation": MANGA}
    for write, name in ((write_zarr, "sums.zarr"), (write_fits, "sums.fits")):
        write(lazy, tmp_path / name)
        with open_cube(tmp_path / name) as back:
            for variable in out:
                np.testing.assert_array_equal(back[variable].values, out[variable].values)
            np.testing.assert_array_equal(back["label"].values, [2, 4])


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (np.ones((3, 3), int), r"labels.*shape \(y, x\) = \(40, 37\).*int64 of shape \(3, 3\)"),
        (np.ones(SHAPE), r"labels.*integers.*float64"),
        (np.zeros(SHAPE, int), "labels.*a positive label.*largest 0"),
        (da.ones(SHAPE, dtype=int), r"labels.*a Dask array.*compute\(\)"),
        (
            xr.DataArray(np.ones(SHAPE, int), dims=("y", "x"), coords={"x": np.arange(1, 38)}),
            "labels, x.*the cube's pixel numbers",
        ),
    ],
)
def test_sum_spectra__refuses_labels(labels, match):
    with pytest.raises(InputError, match=match):
        sum_spectra(some_cube(np.random.default_rng(0)), labels)


def test_sum_spectra__takes_labels_by_name():
    ds = some_cube(np.random.default_rng(0))
    labels = label_map(np.random.default_rng(0))
    named = xr.DataArray(labels.T, dims=("x", "y"), coords={"x": np.arange(37)})
    xr.testing.assert_identical(sum_spectra(ds, named).compute(), sum_spectra(ds, labels).compute())


def test_sum_spectra__refuses_what_it_cannot_know():
    ds = some_cube(np.random.default_rng(0))
    labels = np.ones(SHAPE, int)
    del ds.attrs["correlation"]
    with pytest.raises(InputError, match=r"cube.fits: .*spec_corr.*oversample the PSF less"):
        sum_spectra(ds, labels)
    with pytest.raises(InputError, match="spec_err or spec_var"):
        sum_spectra(ds.drop_vars("spec_var"), labels)
    with pytest.raises(InputError, match=r"sum_spectra: .*sums over bins.*after this step"):
        sum_spectra(sum_spectra(some_cube(np.random.default_rng(0)), labels), labels)
    with pytest.raises(InputError, match=r"min_good.*a share, 0 to 1.*found 2"):
        sum_spectra(ds, labels, min_good=2.0)
    with pytest.raises(InputError, match="every variance is positive"):
        sum_spectra(ds, labels, correlation={"model": "gaussian", "scale": 2.0, "cutoff": 3.0})
