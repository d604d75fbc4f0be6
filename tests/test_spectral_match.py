"""The lazy face of the spectral match: what it refuses, what it returns, under any scheduler."""

from __future__ import annotations

import logging
import pickle
import re
from pathlib import Path

import dask
import dask.array as da
import h5py
import numpy as np
import pytest
import xarray as xr
from lazy import graph_size, raise_if_computes
from spectral_cases import (
    BANDS,
    COVERED,
    FACTOR,
    LIBRARY,
    WAVE,
    P,
    X,
    Z,
    dataset,
    pixels,
    reference,
    truth,
)

from specphoto.cube import FLUX_UNIT, VARIABLES
from specphoto.errors import InputError
from specphoto.io.corr_factor import with_factor
from specphoto.photometry.filters import load_filters
from specphoto.photometry.synthetic import photon_weights
from specphoto.spatial.sums import sum_spectra
from specphoto.spectral.match import match_spectral
from specphoto.spectral.pixel import Pixels, correct_pixels
from specphoto.spectral.velocity import with_given

ADDED = (
    "corr_coef", "corr_cov", "corr_photo_cov", "corr_factor", "corr_factor_err", "mod_flux", "chi2",
    "n_band", "n_eff", "model_index", "closure_before", "closure_after",
)  # fmt: skip
CUBES = ("spec_flux", "spec_err", "corr_factor", "corr_factor_err", "mod_flux")


def match(cube, **options):
    """Each pixel by itself, unless asked otherwise."""
    return match_spectral(cube, **{"library": LIBRARY, "block": 4, "coherent": False, **options})


@pytest.fixture(scope="module")
def cube():
    return dataset()


@pytest.fixture(scope="module")
def result(cube):
    with dask.config.set(scheduler="synchronous"):
        return match(cube).compute()


# --- laziness and layout -------------------------------------------------------------------


def test_match_spectral__computes_nothing(cube):
    with raise_if_computes():
        out = match(cube)
        match(cube, compat="pixedfit")
    assert all(dask.is_dask_collection(out[name].data) for name in ADDED)
    assert graph_size(out) < 60 * 6 + 400


def test_match_spectral__default_library_computes_nothing(cube):
    with raise_if_computes():
        match_spectral(cube)


def test_match_spectral__prepares_the_library_once(cube, monkeypatch):
    count = []
    from specphoto.spectral import match as module

    make = module.make_reference
    monkeypatch.setattr(module, "make_reference", lambda *a, **k: count.append(1) or make(*a, **k))
    match(cube).compute(scheduler="synchronous")
    assert len(count) == 1


def test_match_spectral__graph_travels(cube):
    out = match(cube, exclude_bands=["galex_nuv"])
    assert len(pickle.dumps(out.chi2.data)) < 20e6


def test_match_spectral__dims_dtypes_units(cube, result):
    lazy = match(cube)
    for name in (*ADDED, "spec_flux", "spec_err", "spec_mask"):
        variable, array = VARIABLES[name], result[name]
        assert array.dims in variable.dims, name
        assert array.dtype.kind == variable.kind, name
        assert array.dtype == lazy[name].dtype, name
        assert array.dtype.itemsize <= 4, name
        assert array.attrs["units"] == variable.unit, name
        assert array.attrs["long_name"] == variable.doc, name
        assert array.shape == lazy[name].shape, name
    assert result.mod_flux.attrs["units"] == FLUX_UNIT
    assert result.corr_coef.shape == (4, 7, 9)
    assert result.corr_cov.shape == (4, 4, 7, 9)
    assert result.attrs["corrected"] is True
    assert result.attrs["corr_range"] == [WAVE[0], WAVE[-1]]
    step = result.attrs["provenance"][-1]
    assert step["step"] == "match_spectral"
    assert step["options"]["library"] == "toy library"
    assert step["options"]["bands_fitted"] == list(BANDS)


def test_match_spectral__leaves_its_input_alone(cube):
    before = cube.copy(deep=True)
    match(cube)
    assert before.identical(cube)
    assert "corr_coef" not in cube


# --- values --------------------------------------------------------------------------------


def test_match_spectral__equals_the_kernels(cube, result):
    good = cube.photo_region.values
    data = pixels(63)
    direct = correct_pixels(
        data.take(good.ravel())._replace(
            **{k: getattr(data, k)[good.ravel()].astype("f4")
               for k in ("photo_flux", "photo_err", "flux", "err")}
        ),
        reference(),
    )  # fmt: skip
    # the cube's blocks are other products: equal to the rounding of float32
    np.testing.assert_allclose(result.corr_coef.values[:, good].T, direct.coef, rtol=1e-5,
                               atol=1e-6)  # fmt: skip
    np.testing.assert_allclose(result.mod_flux.values[:, good].T, direct.model, rtol=2e-6)
    np.testing.assert_array_equal(result.model_index.values[good], direct.best)
    np.testing.assert_allclose(result.closure_after.values[:, good].T, direct.closure_after,
                               atol=2e-6)  # fmt: skip


def test_match_spectral__flux_and_error_carry_the_factor(cube, result):
    for name in ("spec_flux", "spec_err"):
        np.testing.assert_array_equal(result[name], (cube[name] * result.corr_factor).compute())
    rebuilt = with_factor(result.drop_vars(["corr_factor", "corr_factor_err"]).chunk())
    for name in ("corr_factor", "corr_factor_err"):
        np.testing.assert_allclose(rebuilt[name], result[name], rtol=1e-6)
    good = cube.photo_region.values
    wrong = result.corr_factor.values[:, good] / P[:, None] - 1.0
    assert np.median(np.abs(wrong)) < 0.02


def test_match_spectral__unknown_is_nan_and_masked(cube, result):
    gone = ~cube.photo_region.values
    assert gone.sum() == 3
    for name in CUBES:
        assert np.isnan(result[name].values[:, gone]).all(), name
        assert np.isfinite(result[name].values[:, ~gone]).all(), name
    assert result.spec_mask.values[:, gone].all()
    assert not result.spec_mask.values[:, ~gone].any()
    assert np.isnan(result.chi2.values[gone]).all()
    assert (result.model_index.values[gone] == -1).all()
    assert (result.n_band.values[gone] == 0).all()
    assert (result.n_band.values[~gone] == len(BANDS)).all()


def test_match_spectral__nan_channels_stay_nan_and_masked(cube):
    flux, mask = cube.spec_flux.values.copy(), cube.spec_mask.values.copy()
    flux[50:60, 3, 3] = np.nan
    mask[50:60, 3, 3] = True
    flux[:, 4, 4], mask[:, 4, 4] = np.nan, True  # photometry, but no spectrum
    holed = cube.assign(spec_flux=cube.spec_flux.copy(data=flux),
                        spec_mask=cube.spec_mask.copy(data=mask))  # fmt: skip
    out = match(holed).compute()
    assert np.isnan(out.spec_flux.values[50:60, 3, 3]).all()
    assert out.spec_mask.values[50:60, 3, 3].all()
    assert np.isfinite(np.delete(out.spec_flux.values[:, 3, 3], range(50, 60))).all()
    assert np.isfinite(out.corr_factor.values[:, 3, 3]).all()
    assert np.isnan(out.corr_coef.values[:, 4, 4]).all()
    assert np.isnan(out.spec_flux.values[:, 4, 4]).all()
    assert out.spec_mask.values[:, 4, 4].all()


def test_match_spectral__a_pixel_of_noise_is_unknown_not_a_number(cube):
    flux = cube.spec_flux.values.copy()
    flux[:, 3, 5] = cube.spec_err.values[:, 3, 5] * np.random.default_rng(0).normal(size=WAVE.size)
    out = match(cube.assign(spec_flux=cube.spec_flux.copy(data=flux))).compute()
    for name in (*CUBES, "corr_coef", "corr_cov"):
        assert np.isnan(out[name].values[..., 3, 5]).all(), name
    assert out.spec_mask.values[:, 3, 5].all()
    assert out.model_index.values[3, 5] >= 0  # its photometry is as good as any


@pytest.mark.parametrize("order", [0, 1, 5, 10])
def test_match_spectral__orders(cube, order):
    small = cube.isel(y=slice(2, 4), x=slice(2, 4))
    out = match(small, order=order).compute()
    assert out.corr_coef.shape == (order + 1, 2, 2)
    assert np.isfinite(out.corr_coef).all()


def test_match_spectral__coherent_is_the_kernel_on_all_pixels(cube, result):
    out = match(cube, coherent=True).compute()
    np.testing.assert_array_equal(out.corr_coef_pixel, result.corr_coef)
    np.testing.assert_array_equal(out.corr_cov_pixel, result.corr_cov)
    # seen without a beam, each pixel is by itself; one factor was injected
    np.testing.assert_array_equal(out.corr_terms, 1)
    known = np.isfinite(out.corr_coef.values[0])
    np.testing.assert_array_equal(known, np.isfinite(result.corr_coef.values[0]))
    wrong, before = (
        np.abs(r.corr_factor.values[:, known] / P[:, None] - 1.0).mean() for r in (out, result)
    )
    assert wrong < 0.5 * before
    assert (
        out.corr_factor_err.values[:, known] < result.corr_factor_err.values[:, known]
    ).mean() > 0.9
    np.testing.assert_allclose(
        out.spec_flux.values[:, known],
        (cube.spec_flux * out.corr_factor).values[:, known],
        rtol=1e-5,
    )
    # the closure is that of the spectrum as corrected
    weights, _ = photon_weights(WAVE, load_filters(["sdss_r"]))
    inside = np.nansum(out.spec_flux.values * weights[:, :1, None], axis=0)
    closure = -2.5 * np.log10(inside / out.photo_flux.sel(band="sdss_r").values)
    np.testing.assert_allclose(out.closure_after.sel(band="sdss_r").values[known], closure[known],
                               atol=0.01)  # fmt: skip


def test_match_spectral__coherent_needs_beams_enough(cube, result):
    wide = cube.assign_attrs(psf={"model": "gaussian", "wave": [], "fwhm": [6.4], "beta": None},
                             pixel_scale=1.5)  # fmt: skip
    out = match(wide, coherent=True).compute()
    np.testing.assert_array_equal(out.corr_terms, 0)
    np.testing.assert_array_equal(out.corr_coef, result.corr_coef)
    np.testing.assert_allclose(out.closure_after, result.closure_after, atol=1e-5)


# --- bins ------------------------------------------------------------------------------------


INDEPENDENT = {"model": "none"}


def test_match_spectral__bins_of_one_pixel_are_the_pixels(cube, result):
    labels = np.arange(1, 64).reshape(7, 9)
    labels[~cube.spec_region.values] = 0
    alone = cube.assign_attrs(correlation=INDEPENDENT)
    with raise_if_computes():
        out = match(alone, labels=labels)
    out = out.compute()
    for name in (*ADDED, "corr_order", "fit_flag", "spec_flux", "spec_err"):
        np.testing.assert_allclose(out[name], result[name], rtol=2e-4, atol=1e-5, err_msg=name)
    np.testing.assert_array_equal(out.spec_mask, result.spec_mask)


def test_match_spectral__a_bin_is_solved_as_its_mean_pixel():
    faint = dataset((6, 9), sn=3.0).assign_attrs(correlation=INDEPENDENT)
    labels = 1 + np.arange(54).reshape(6, 9) // 9 // 3 * 3 + np.arange(9) // 3
    labels[:3, :3] = 0  # the corner has no data
    labels[5, 8] = -1
    out = match(faint, labels=labels).compute()
    mean = Pixels(*(
        np.stack([
            np.asarray(faint[name].values, float)[:, labels == k].mean(axis=1)
            if name != "spec_err"
            else np.sqrt((faint[name].values.astype(float)[:, labels == k] ** 2).sum(axis=1))
            / (labels == k).sum()
            for k in range(2, 7)
        ])
        for name in ("photo_flux", "photo_err", "spec_flux", "spec_err")
    ), bad=np.zeros((5, WAVE.size), bool))  # fmt: skip
    found = correct_pixels(mean, reference())
    for k in range(2, 7):
        coef = out.corr_coef.values[:, labels == k]
        np.testing.assert_allclose(coef, found.coef[k - 2][:, None].repeat(coef.shape[1], 1),
                                   rtol=1e-3, atol=1e-4)  # fmt: skip
        np.testing.assert_allclose(out.closure_after.values[:, labels == k][:, 0],
                                   found.closure_after[k - 2], atol=1e-3)  # fmt: skip
    assert np.isnan(out.corr_factor.values[:, labels < 1]).all()
    assert out.spec_mask.values[:, labels < 1].all()
    assert (out.model_index.values[labels < 1] == -1).all()
    # that is what bins are for
    pixel = match(faint).compute()
    error, of_pixel = (np.median(r.corr_factor_err.values[:, labels > 0]) for r in (out, pixel))
    assert error < 0.9 * of_pixel


def test_match_spectral__bins_taken_together_close_in_their_own_bands():
    faint = dataset((6, 9), sn=10.0).assign_attrs(correlation=INDEPENDENT)
    labels = 1 + np.arange(54).reshape(6, 9) // 9 // 2 * 9 + np.arange(9)
    labels[~faint.spec_region.values] = 0
    out = match(faint, labels=labels, coherent=True).compute()
    assert (out.corr_terms.values >= 1).all()
    whole = sum_spectra(out.drop_vars("spec_lsf"), labels).compute()
    r = BANDS.index("sdss_r")
    weights, _ = photon_weights(WAVE, load_filters(["sdss_r"]))
    inside = np.nan_to_num(whole.spec_flux.values) @ weights[:, 0]
    closure = -2.5 * np.log10(inside / whole.photo_flux.values[:, r])
    painted = [out.closure_after.values[r, labels == k][0] for k in whole.label.values]
    np.testing.assert_allclose(painted, closure, atol=0.02)


def test_match_spectral__bins_move_at_the_mean_of_their_pixels(cube):
    labels = np.where(cube.spec_region.values, 1 + np.arange(63).reshape(7, 9) // 21, 0)
    velocity = np.where(np.arange(63).reshape(7, 9) % 2, 100.0, np.nan)
    out = match(cube.assign_attrs(correlation=INDEPENDENT), labels=labels, velocity=velocity)
    with_one = match(cube.assign_attrs(correlation=INDEPENDENT), labels=labels,
                     velocity=np.full((7, 9), 100.0))  # fmt: skip
    np.testing.assert_array_equal(out.corr_coef.compute(), with_one.corr_coef.compute())


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.ones((3, 3), int), "labels"),
        (np.zeros((7, 9), int), "label"),
        (np.ones((7, 9)), "integ"),
    ],
)
def test_match_spectral__refuses_labels_that_are_none(cube, labels, message):
    with pytest.raises(InputError, match=message):
        match(cube.assign_attrs(correlation=INDEPENDENT), labels=labels)


def test_match_spectral__spectra_below_the_least_sn_have_no_factor(cube, result):
    dim = cube.copy()
    noisy = (cube.y < 3) & (cube.x > 4)
    dim["spec_err"] = (cube.spec_err * xr.where(noisy, 10.0, 1.0).astype("f4")).transpose(
        *cube.spec_err.dims
    )
    out = match(dim, min_snr=5.0).compute()
    known = np.isfinite(out.corr_coef.values[0])
    np.testing.assert_array_equal(known, np.isfinite(result.corr_coef.values[0]) & ~noisy.values)
    assert out.spec_mask.values[:, noisy.values].all()
    assert (out.corr_order.values[noisy.values] == -1).all()


# --- what the sky left -------------------------------------------------------------------------


def with_pedestal(cube, pedestal):
    """Pixels of different brightness, and the same sky left in all spectra."""
    light = np.exp(np.random.default_rng(2).normal(-1.0, 1.0, cube.photo_region.shape))
    out = cube.copy()
    for name in ("photo_flux", "photo_err", "spec_flux", "spec_err"):
        out[name] = (cube[name] * light.astype("f4")).transpose(*cube[name].dims)
    out["spec_flux"] = out["spec_flux"] + np.float32(pedestal)
    return out


def test_match_spectral__additive_residuals_tell_calibration_from_sky():
    cube = with_pedestal(dataset((9, 9), sn=50.0, factor=np.full(WAVE.size, 1.1)), 0.05)
    out = match(cube)
    with raise_if_computes():
        match(cube, subtract_pedestal=True)
    gri = [BANDS.index(b) for b in COVERED]
    slope, pedestal, slope_err, pedestal_err = (
        out[f"additive_{name}"].values
        for name in ("slope", "pedestal", "slope_err", "pedestal_err")
    )
    assert (np.abs(pedestal - 0.05) < 4 * pedestal_err)[gri].all()
    assert (np.abs(slope - (1 / 1.1 - 1)) < 4 * slope_err)[gri].all()
    assert (pedestal_err[gri] < 0.01).all()
    assert np.isnan(np.delete(pedestal, [*gri, BANDS.index("sdss_z")])).all()


def test_match_spectral__the_pedestal_is_subtracted_if_asked():
    clean = dataset((9, 9), sn=50.0, factor=np.full(WAVE.size, 1.1))
    cube = with_pedestal(clean, 0.05)
    kept, without = match(cube), match(cube, subtract_pedestal=True)
    known = np.isfinite(kept.corr_coef.values[0]) & np.isfinite(without.corr_coef.values[0])
    wrong = [np.abs(r.corr_factor.values[:, known] / 1.1 - 1.0).mean() for r in (kept, without)]
    assert wrong[1] < 0.5 * wrong[0]
    taken = (cube.spec_flux - without.spec_flux / without.corr_factor).values[:, known]
    np.testing.assert_allclose(np.median(taken), 0.05, atol=0.01)


def test_match_spectral__closure_of_bands_held_out_if_asked(cube, result):
    assert "closure_holdout" not in result
    out = match(cube, holdout=True).compute()
    np.testing.assert_array_equal(out.corr_coef, result.corr_coef)
    known = np.isfinite(result.corr_coef.values[0])
    gri = out.closure_holdout.sel(band=list(COVERED)).values[:, known]
    assert np.isfinite(gri).all()
    assert gri.std() > result.closure_after.sel(band=list(COVERED)).values[:, known].std()


@pytest.mark.parametrize("method", ["best", "ratio"])
def test_match_spectral__other_methods_are_of_one_model(cube, result, method):
    out = match(cube, method=method).compute()
    known = np.isfinite(result.corr_coef.values[0])
    np.testing.assert_array_equal(out.n_eff.values[known], 1.0)
    assert (result.n_eff.values[known] > 1.0).mean() > 0.5
    factor = (out.corr_factor / result.corr_factor).values[:, known]
    np.testing.assert_allclose(factor, 1.0, atol=0.15)
    assert not np.allclose(factor, 1.0, atol=1e-3)
    np.testing.assert_array_equal(out.corr_photo_cov.values[..., known], 0.0)


def test_match_spectral__the_ratio_is_biased_at_low_sn_and_ours_is_not():
    # 36% of the noise of a channel: 1 / f is larger than 1 / mean(f), as published
    faint = dataset(sn=3.0, factor=np.ones(WAVE.size), photo_error=0.01)
    ratio, ours = (match(faint, method=m).compute().corr_factor for m in ("ratio", "bayesian"))
    assert float(ratio.mean()) > 1.08
    assert abs(float(ours.mean()) - 1.0) < 0.01


def test_match_spectral__names_an_unknown_method(cube):
    with pytest.raises(InputError, match="method: expected 'bayesian' or 'best' or 'ratio', found"):
        match(cube, method="difference")


def test_match_spectral__works_in_memory_and_without_an_lsf(cube, result):
    held = cube.compute()
    np.testing.assert_allclose(match(held).chi2.compute(), result.chi2, rtol=1e-5)
    out = match(cube.drop_vars("spec_lsf")).compute()
    assert np.isfinite(out.corr_coef.values[:, cube.photo_region.values]).all()


def test_match_spectral__an_lsf_cube_is_averaged(cube, result):
    lsf = np.full(cube.spec_flux.shape, 2.5, np.float32)
    lsf[:, 0, 0] = np.nan
    out = match(cube.assign(spec_lsf=(("wave", "y", "x"), lsf)))
    np.testing.assert_allclose(out.mod_flux.compute(), result.mod_flux, rtol=1e-5)


# --- schedulers and chunks -----------------------------------------------------------------


def test_match_spectral__same_bits_whatever_computes(cube, result, scheduler):
    out = match(cube).compute()
    for name in (*ADDED, "spec_flux", "spec_err", "spec_mask"):
        np.testing.assert_array_equal(out[name], result[name], err_msg=name)


@pytest.mark.parametrize(
    ("chunks", "block"), [((1141, 7, 9), 24), ((137, 3, 2), 5), ((50, 7, 1), 1), ((1141, 2, 9), 3)]
)
def test_match_spectral__chunks_change_nothing(result, chunks, block):
    out = match(dataset(chunks=chunks), block=block).compute()
    for name in ("spec_flux", "spec_err", "corr_factor", "mod_flux"):
        peak = np.nanmax(np.abs(result[name].values), axis=(1, 2), keepdims=True)
        difference = np.abs(out[name].values - result[name].values) / peak
        assert np.nanmax(difference) < 1e-5, name
        np.testing.assert_array_equal(np.isnan(out[name]), np.isnan(result[name]))
    np.testing.assert_array_equal(out.model_index, result.model_index)
    np.testing.assert_array_equal(out.spec_mask, result.spec_mask)


def test_match_spectral__a_slice_equals_the_slice_of_the_whole(cube, result):
    part = {"y": slice(2, 6), "x": slice(1, 8)}
    out = match(cube.isel(part)).compute()
    np.testing.assert_allclose(out.spec_flux, result.spec_flux.isel(part), rtol=1e-5)
    np.testing.assert_array_equal(out.x, result.x.isel(x=part["x"]))


# --- bands ---------------------------------------------------------------------------------


def wide(redshift=Z):
    return dataset((2, 3), bands=("sdss_g", "sdss_r", "sdss_i", "2mass_j", "wise_w1", "wise_w2"),
                   sn=50.0).assign_attrs(redshift=redshift)  # fmt: skip


def test_match_spectral__leaves_w1_and_w2_out_by_default(caplog):
    small = wide()
    with caplog.at_level(logging.INFO, logger="specphoto"):
        out = match(small)
    assert "band wise_w1 is left out" in caplog.text
    assert "band wise_w2 is left out" in caplog.text
    fitted = out.attrs["provenance"][-1]["options"]["bands_fitted"]
    assert fitted == ["sdss_g", "sdss_r", "sdss_i", "2mass_j"]
    out = out.compute()
    assert (out.n_band.values[0, 2] == 4).all()
    images = small.photo_flux.values.copy()
    images[4:] *= 30.0  # dust: whatever shines there says nothing about stars
    dusty = match(small.assign(photo_flux=small.photo_flux.copy(data=images))).compute()
    np.testing.assert_array_equal(dusty.corr_coef, out.corr_coef)


def test_match_spectral__takes_what_bands_it_is_told():
    out = match(wide(), exclude_bands=["2mass_j"]).compute()
    assert out.attrs["provenance"][-1]["options"]["bands_fitted"] == [
        "sdss_g", "sdss_r", "sdss_i", "wise_w1", "wise_w2",
    ]  # fmt: skip
    assert out.n_band.values[0, 2] == 5


def test_match_spectral__band_error_widens_one_band():
    narrow, loose = match(wide()).compute(), match(wide(), band_error={"2mass_j": 10.0}).compute()
    assert (loose.chi2 <= narrow.chi2 + 1e-4).values[0, 2]
    assert (loose.n_eff > narrow.n_eff).values[0, 2]


def test_match_spectral__bands_outside_the_library_have_no_weight_and_are_named(caplog):
    cut = type(LIBRARY)(LIBRARY.wave[200:-320], LIBRARY.flux[:, 200:-320], LIBRARY.fwhm[200:-320])
    small = dataset((2, 3), sn=50.0)
    with caplog.at_level(logging.WARNING, logger="specphoto"):
        out = match(small, library=cut).compute()
    assert "toy: band galex_nuv is outside the library's range, weight 0" in caplog.text
    assert "band 2mass_j is outside" in caplog.text
    assert "sdss_r" not in caplog.text
    assert out.n_band.values[0, 2] == len(out.attrs["provenance"][-1]["options"]["bands_fitted"])
    assert out.n_band.values[0, 2] < len(BANDS)
    assert np.isfinite(out.chi2.values[0, 2])


def test_match_spectral__negative_redshift():
    at = -0.002
    index = np.random.default_rng(1).integers(0, LIBRARY.n_model, 6)
    spectra = LIBRARY.observed(at, WAVE, np.full(WAVE.size, 2.5)).spectra(index)
    from specphoto.photometry.filters import load_filters

    photo = LIBRARY.photometry(at, load_filters(list(BANDS)))[index]
    small = dataset((2, 3))

    def put(name, values):
        return small[name].copy(data=values.T.reshape(-1, 2, 3).astype("f4"))

    nearby = small.assign(
        spec_flux=put("spec_flux", spectra / P), spec_err=put("spec_err", 0.01 * spectra / P),
        photo_flux=put("photo_flux", photo), photo_err=put("photo_err", 0.01 * photo),
        spec_mask=put("spec_mask", np.zeros(spectra.shape)).astype(bool),
    ).assign_attrs(redshift=at)  # fmt: skip
    out = match(nearby).compute()
    np.testing.assert_array_equal(out.model_index.values.ravel(), index)
    assert out.attrs["redshift"] == at
    np.testing.assert_allclose(out.corr_factor.values / P[:, None, None], 1.0, atol=0.02)


def test_match_spectral__redshift_option_wins(cube):
    without = cube.copy()
    del without.attrs["redshift"]
    out = match(without, redshift=Z)
    assert out.attrs["redshift"] == Z
    assert match(cube, redshift=0.1).attrs["redshift"] == 0.1


def test_match_spectral__a_pixedfit_library_by_path(tmp_path, cube, result):
    path = tmp_path / "library.hdf5"
    with h5py.File(path, "w") as f:
        f.create_group("mod").attrs["nmodels"] = LIBRARY.n_model
        f["mod/spec/wave"] = LIBRARY.wave
        for i, flux in enumerate(LIBRARY.flux):
            f[f"mod/spec/f{i}"] = flux
    out = match(cube, library=path).compute()
    np.testing.assert_array_equal(out.model_index, result.model_index)
    assert out.attrs["provenance"][-1]["options"]["library"].startswith(
        "library.hdf5, 120 models, "
    )


# --- refusals ------------------------------------------------------------------------------


def test_match_spectral__refuses_a_corrected_cube(cube):
    with pytest.raises(InputError, match=r"toy: expected a cube that was not corrected yet"):
        match(match(cube))


@pytest.mark.parametrize("value", [None, np.nan, np.inf, -1.5])
def test_match_spectral__needs_a_redshift(cube, value):
    without = cube.assign_attrs(redshift=value)
    if value is None:
        del without.attrs["redshift"]
    with pytest.raises(InputError, match=r"toy: expected a redshift .* found .*--redshift"):
        match(without)


@pytest.mark.parametrize("option", [{"exclude_bands": ["W1"]}, {"band_error": {"W1": 0.1}}])
def test_match_spectral__names_bands_that_the_cube_has_not(cube, option):
    with pytest.raises(InputError, match=r"toy: exclude_bands, band_error: .* found W1; name"):
        match(cube, **option)


@pytest.mark.parametrize(("n", "order"), [(1, 3), (40, 3), (10, 0)])
def test_match_spectral__needs_channels(cube, n, order):
    with pytest.raises(InputError, match=rf"at least {10 * order + 11} channels .* found {n}"):
        match(cube.isel(wave=slice(0, n)), order=order)


@pytest.mark.parametrize("order", [-1, 11])
def test_match_spectral__refuses_orders(cube, order):
    with pytest.raises(InputError, match=rf"order: expected 0 to 10, found {order}"):
        match(cube, order=order)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": 2.5}, r"order: expected a whole number, found 2\.5"),
        ({"block": 0}, "block: expected 1 or more, found 0"),
        ({"model_error": -0.1}, r"model_error: expected 0 or more, found -0\.1"),
        ({"model_error": np.nan}, "model_error: expected a finite number, found nan"),
        ({"band_error": {"sdss_g": -1.0}}, r"band_error of sdss_g: expected 0 or more"),
        ({"min_snr": np.nan}, "min_snr: expected a finite number, found nan"),
        ({"line_window": 0.0}, "line_window: expected 1 or more, found 0"),
        ({"redshift": "0.03"}, "expected a redshift .* found '0.03'"),
        ({"velocity": 9000.0}, "velocity: expected at most 3000 km/s either way, found 9000"),
        ({"velocity": np.inf}, "velocity: expected at most 3000 km/s"),
    ],
)
def test_match_spectral__refuses_numbers_that_mean_nothing(cube, options, message):
    if "velocity" in options:
        shape = (cube.sizes["y"], cube.sizes["x"])
        options = {"velocity": np.full(shape, options["velocity"])}
    with pytest.raises(InputError, match=message):
        match(cube, **options)


def test_with_given__goes_by_the_names_of_dimensions_and_leaves_out_what_no_star_does(cube):
    shape = (cube.sizes["y"], cube.sizes["x"])
    field = xr.DataArray(np.arange(np.prod(shape), dtype=float).reshape(shape), dims=("y", "x"))
    given = with_given(cube, field.transpose("x", "y"))["spec_velocity"]
    np.testing.assert_array_equal(given.values, field.values)
    fast = da.from_array(np.where(field.data > 3, np.inf, field.data))
    lazy = with_given(cube, fast)["spec_velocity"].values
    np.testing.assert_array_equal(np.isfinite(lazy), field.values <= 3)


def test_match_spectral__names_a_library_that_is_not_there(cube):
    with pytest.raises(InputError, match=r"nowhere\.hdf5: expected a piXedfit library"):
        match(cube, library="nowhere.hdf5")


def test_match_spectral__needs_a_band(cube):
    with pytest.raises(InputError, match=r"expected at least one band .* found none of galex_nuv"):
        match(cube, exclude_bands=list(BANDS))


def test_match_spectral__names_unknown_filters(cube):
    odd = cube.assign_coords(band=np.array([*BANDS[:-1], "sdss_q"], dtype=object))
    with pytest.raises(InputError, match="sdss_q"):
        match(odd)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"del_wave_nebem": 5.0}, "found del_wave_nebem"),
        ({"speed": 1}, "found speed"),
        ({"compat": "pixedfit", "speed": 1}, "found speed"),
        ({"compat": "peer"}, r"compat: expected 'pixedfit' or None, found 'peer'"),
    ],
)
def test_match_spectral__refuses_options_it_does_not_have(cube, options, message):
    with pytest.raises(InputError, match=message):
        match(cube, **options)


@pytest.mark.parametrize("name", ["photo_flux", "spec_err", "wave"])
def test_match_spectral__names_what_is_missing(cube, name):
    with pytest.raises(InputError, match=f"match_spectral: .*no {name}"):
        match(cube.drop_vars(name))


def test_match_spectral__wavelengths_must_increase(cube):
    with pytest.raises(InputError, match="wavelengths that increase"):
        match(cube.isel(wave=slice(None, None, -1)))


def test_match_spectral__covered_bands_close(result):
    bands = [BANDS.index(b) for b in COVERED]
    before, after = (np.abs(result[n].values[bands]) for n in ("closure_before", "closure_after"))
    assert np.nanmedian(after) < 0.025 < np.nanmedian(before)


# --- the page on fitting the result ---------------------------------------------------------


def test_errors_page__its_likelihood_is_that_of_the_truth(result):
    page = (Path(__file__).parent.parent / "docs" / "errors.md").read_text()
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    assert "isel(y=50, x=50)" in code
    _, spectra, photometry = truth(63)
    level = []
    for number in range(20, 60):
        y, x = divmod(number, 9)
        names = {"cube": result, "x": X}
        exec(code.replace("isel(y=50, x=50)", f"isel(y={y}, x={x})"), names)
        a = result.corr_coef.values[:, y, x] - FACTOR
        args = spectra[number], photometry[number]
        level.append([
            names["minus_two_log_likelihood"](value, *args) for value in (a, a + 0.1 * np.eye(4)[0])
        ])  # fmt: skip
    true, wrong = np.mean(level, axis=0)
    # channels, coefficients and bands; errors are a little too large in the library's own family
    expected = (~result.spec_mask.values[:, 5, 5]).sum() + 4 + len(BANDS)
    assert 0.85 * expected < true < 1.1 * expected
    assert wrong > true + 20.0
