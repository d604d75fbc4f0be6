"""The correction of pixels: anchors, emission lines, gaps, and what is unknown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize
from spectral_cases import (
    BANDS,
    COVERED,
    LIBRARY,
    WAVE,
    P,
    X,
    Z,
    pixels,
    reference,
    toy_library,
    truth,
)

from specphoto.photometry.filters import load_filters
from specphoto.photometry.synthetic import photon_weights
from specphoto.spectral import legendre
from specphoto.spectral.legendre import FactorFit
from specphoto.spectral.pixel import Pixels, _Synthetic, anchor, correct_pixels

GRI = [BANDS.index(b) for b in COVERED]
L = legendre.basis(X, 3)


@pytest.fixture(scope="module")
def ref():
    return reference()


def factor_of(result):
    return result.coef @ legendre.basis(X, result.coef.shape[1] - 1)


# --- anchors -------------------------------------------------------------------------------


def random_anchor(n_pixel=6, n_band=5, seed=0):
    rng = np.random.default_rng(seed)
    root = 0.1 * rng.normal(size=(n_pixel, 4, 4))
    prior = FactorFit([1, 0, 0, 0] + 0.1 * rng.normal(size=(n_pixel, 4)),
                      root @ root.transpose(0, 2, 1))  # fmt: skip
    unit = 5.0 * np.moveaxis(legendre.basis(rng.uniform(-1, 1, n_band), 3), 0, 1)
    unit = unit * np.exp(0.3 * rng.normal(size=(n_pixel, n_band, 1)))
    variance = 0.01 * rng.random((n_pixel, n_band))
    usable = rng.random((n_pixel, n_band)) < 0.7
    photo = unit[:, :, 0] * (1 + 0.1 * rng.normal(size=(n_pixel, n_band)))
    photo_err = 0.1 + 0.2 * rng.random(photo.shape)
    return prior, _Synthetic(unit, variance, usable), photo, photo_err


def test_anchor__is_the_minimum_of_chi2_and_its_curvature():
    prior, synthetic, photo, photo_err = random_anchor()
    fit = anchor(prior, synthetic, photo, photo_err, 0.02)
    for i in range(len(photo)):
        use = synthetic.usable[i]
        R = photo_err[i] ** 2 + synthetic.variance[i] + (0.02 * photo[i]) ** 2
        prior_inverse = np.linalg.inv(prior.cov[i])

        def chi2(c, i=i, use=use, R=R, prior_inverse=prior_inverse):
            away = c - prior.coef[i]
            miss = (photo[i] - synthetic.unit[i] @ c)[use]
            return away @ prior_inverse @ away + np.sum(miss**2 / R[use])

        best = minimize(chi2, prior.coef[i], method="Nelder-Mead",
                        options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000})  # fmt: skip
        assert chi2(fit.coef[i]) <= best.fun + 1e-9
        np.testing.assert_allclose(fit.coef[i], best.x, atol=1e-5)
        step = 1e-3 * np.eye(4)
        curvature = np.array([
            [
                (chi2(fit.coef[i] + a + b) - chi2(fit.coef[i] + a - b)
                 - chi2(fit.coef[i] - a + b) + chi2(fit.coef[i] - a - b)) / 8e-6
                for b in step
            ]
            for a in step
        ])  # fmt: skip
        np.testing.assert_allclose(fit.cov[i] @ curvature, np.eye(4), atol=1e-4)


def test_anchor__without_bands_returns_the_prior():
    prior, synthetic, photo, photo_err = random_anchor()
    for data in (
        (synthetic._replace(usable=np.zeros_like(synthetic.usable)), photo, photo_err, 0.01),
        (synthetic, np.full_like(photo, np.nan), photo_err, 0.01),
        (synthetic, photo, np.full_like(photo, np.nan), 0.01),
        (synthetic, photo, photo_err, np.inf),
    ):
        fit = anchor(prior, *data)
        np.testing.assert_allclose(fit.coef, prior.coef)
        np.testing.assert_allclose(fit.cov, prior.cov)


def test_anchor__unknown_stays_unknown_and_alone():
    prior, synthetic, photo, photo_err = random_anchor()
    plain = anchor(prior, synthetic, photo, photo_err, 0.01)
    prior.coef[2] = prior.cov[2] = synthetic.unit[2] = np.nan
    fit = anchor(prior, synthetic, photo, photo_err, 0.01)
    assert np.isnan(fit.coef[2]).all()
    assert np.isnan(fit.cov[2]).all()
    others = [0, 1, 3, 4, 5]
    np.testing.assert_allclose(fit.coef[others], plain.coef[others])


def test_anchor__good_images_rule_a_vague_prior(ref):
    # three images of 1e-5 and four free coefficients: in-band fluxes must come out equal
    data = pixels(12, sn=1e4, photo_error=1e-5)
    vague = FactorFit(np.tile([1.0, 0, 0, 0], (12, 1)), np.tile(np.eye(4), (12, 1, 1)))
    T = ref.band_weight
    unit = np.stack([(data.flux * L[k]) @ T for k in range(4)], axis=2)
    usable = np.isin(BANDS, COVERED) * np.ones((12, 1), bool)
    fit = anchor(vague, _Synthetic(unit, np.zeros((12, len(BANDS))), usable), data.photo_flux,
                 data.photo_err, 0.0)  # fmt: skip
    in_band = (data.flux * (fit.coef @ L)) @ T
    np.testing.assert_allclose(in_band[:, GRI], data.photo_flux[:, GRI], rtol=5e-5)


# --- the whole correction ------------------------------------------------------------------


def test_correct_pixels__recovers_the_factor(ref):
    result = correct_pixels(pixels(200, sn=30.0, photo_error=0.01), ref)
    wrong = factor_of(result) / P - 1.0
    assert np.median(np.abs(wrong)) < 0.008
    assert abs(wrong.mean()) < 0.003
    np.testing.assert_array_equal(result.n_band, len(BANDS))
    assert (result.best >= 0).all()


def test_correct_pixels__perfect_data_of_a_library_model_give_the_model_and_the_factor():
    # without z: the cube ends inside it, and its mean over the rest is another by 0.8%
    bands = ("sdss_u", *COVERED, "2mass_j")
    shared = reference(bands)
    data = pixels(10, sn=1e5, photo_error=1e-5, bands=bands)
    index, spectra, _ = truth(10, bands=bands)
    np.testing.assert_array_equal(correct_pixels(data, shared).best, index)
    result = correct_pixels(data, replace(shared, floor=np.full(len(bands), 1e-4)))
    np.testing.assert_allclose(result.model, spectra, rtol=1e-3)
    np.testing.assert_allclose(factor_of(result), np.tile(P, (10, 1)), rtol=1e-3)
    np.testing.assert_allclose(result.closure_after[:, 1:4], 0.0, atol=1e-3)
    raw, true = ((f @ shared.band_weight)[:, 1:4] for f in (spectra / P, spectra))
    np.testing.assert_allclose(
        result.closure_before[:, 1:4], -2.5 * np.log10(raw / true), atol=1e-3
    )


@pytest.mark.parametrize("level", [1e-9, 1e-3, 1e5])
def test_correct_pixels__does_not_depend_on_how_bright_pixels_are(ref, level):
    plain = correct_pixels(pixels(20), ref)
    result = correct_pixels(pixels(20, level=level), ref)
    np.testing.assert_allclose(result.coef, plain.coef, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(result.cov, plain.cov, rtol=1e-4, atol=1e-10)
    np.testing.assert_allclose(result.model, plain.model * level, rtol=1e-6)


@pytest.mark.parametrize("order", range(6))
def test_correct_pixels__any_order(order):
    data = pixels(30, sn=50.0, factor=np.full(WAVE.size, 1.2), photo_error=0.01)
    result = correct_pixels(data, reference(order=order))
    assert result.coef.shape == (30, order + 1)
    assert result.cov.shape == (30, order + 1, order + 1)
    assert np.median(np.abs(factor_of(result) / 1.2 - 1.0)) < 0.012


@pytest.mark.parametrize("sn", [100.0, 10.0, 3.0])
def test_correct_pixels__the_error_is_that_of_the_factor(ref, sn):
    # conservative by what models that do hold the truth need not: 3% of template error
    result = correct_pixels(pixels(300, sn=sn, photo_error=0.05), replace(ref, floor=0 * ref.floor))
    err = legendre.evaluate_err(np.moveaxis(result.cov, 0, -1), X).T
    pull = ((factor_of(result) - P) / err)[:, ::60]
    assert 0.6 < np.std(pull) < 1.2
    assert 0.6 < np.percentile(np.abs(pull), 68) < 1.2


def test_correct_pixels__closes_in_the_anchored_bands(ref):
    data = pixels(150, sn=100.0, photo_error=0.02)
    free = correct_pixels(data, replace(ref, anchor_error=np.inf))
    result = correct_pixels(data, ref)
    held = result.closure_after[:, GRI].std()
    # the level follows the images, within their 2%
    assert held < min(0.95 * free.closure_after[:, GRI].std(), 1.0857 * 0.02)
    assert np.isnan(result.closure_after[:, BANDS.index("2mass_j")]).all()


@pytest.mark.parametrize("width", [30.0, 100.0, 500.0])
@pytest.mark.parametrize("redshift", [0.03, 0.05])
def test_correct_pixels__emission_lines_do_not_raise_the_factor(width, redshift):
    # H alpha of this equivalent width: r rises by 3, 9 and 45%. At z = 0.05 it falls into the
    # telluric B band.
    centre, sigma = 6564.61 * (1 + redshift), 3.5
    line = np.exp(-0.5 * ((WAVE - centre) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    _, spectra, photometry = truth(40, redshift=redshift)
    shared = reference(redshift=redshift)
    continuum = spectra[:, np.argmin(np.abs(WAVE - centre))]
    emission = width * (1 + redshift) * continuum[:, None] * line
    true = spectra + emission
    in_band = photometry + emission @ shared.band_weight
    err = 0.03 * np.ones_like(true)
    rng = np.random.default_rng(5)
    data = Pixels(
        in_band * (1 + 0.01 * rng.normal(size=in_band.shape)),
        0.01 * in_band,
        true / P + err * rng.normal(size=err.shape),
        err,
        np.zeros(err.shape, bool),
    )
    with_lines = factor_of(correct_pixels(data, shared)) / P
    without = data._replace(
        photo_flux=data.photo_flux - emission @ shared.band_weight, flux=data.flux - emission / P
    )
    bare = factor_of(correct_pixels(without, shared)) / P
    assert abs(np.median(with_lines / bare) - 1.0) < 0.003
    assert abs(with_lines.mean() - 1.0) < 0.008
    # the factor is smooth: the equivalent width in the corrected spectrum is that of the true one
    near = np.abs(WAVE - centre) < 20.0
    step = np.gradient(WAVE)[near]
    corrected = (true / P * (with_lines * P))[:, near]
    level = (spectra * with_lines)[:, near]
    found = np.sum((corrected / level - 1.0) * step, axis=1) / (1 + redshift)
    np.testing.assert_allclose(found, np.sum((true / spectra - 1.0)[:, near] * step, axis=1)
                               / (1 + redshift), rtol=0.01)  # fmt: skip
    assert np.median(found) == pytest.approx(width, rel=0.1)


def test_correct_pixels__missing_bands_cost_weight_and_nothing_else(ref):
    data = pixels(30, sn=30.0)
    rng = np.random.default_rng(9)
    gone = rng.random(data.photo_flux.shape) < 0.3
    gone[:, BANDS.index("sdss_i")] = False
    flux, err = data.photo_flux.copy(), data.photo_err.copy()
    flux[gone] = np.nan
    err[gone & (rng.random(gone.shape) < 0.5)] = np.nan
    result = correct_pixels(data._replace(photo_flux=flux, photo_err=err), ref)
    np.testing.assert_array_equal(result.n_band, (~gone).sum(axis=1))
    assert np.isfinite(result.coef).all()
    assert np.median(np.abs(factor_of(result) / P - 1.0)) < 0.03
    np.testing.assert_array_equal(np.isnan(result.closure_after[:, GRI]), gone[:, GRI])


def test_correct_pixels__negative_bands_are_data(ref):
    data = pixels(10)
    flux = data.photo_flux.copy()
    flux[:, 0] = -0.5 * data.photo_err[:, 0]
    result = correct_pixels(data._replace(photo_flux=flux), ref)
    np.testing.assert_array_equal(result.n_band, len(BANDS))
    assert np.isfinite(result.chi2).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e9, 1e9])
def test_correct_pixels__does_not_read_what_is_masked(ref, value):
    data = pixels(8, sn=40.0)
    data.bad[:, 300:340] = True
    data.bad[:, ::17] = True
    plain = correct_pixels(data, ref)
    dirty = data._replace(flux=np.where(data.bad, value, data.flux),
                          err=np.where(data.bad, value, data.err))  # fmt: skip
    result = correct_pixels(dirty, ref)
    for name in result._fields:
        np.testing.assert_array_equal(getattr(result, name), getattr(plain, name))


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, -1.0])
def test_correct_pixels__an_error_that_is_none_masks_its_channel(ref, value):
    data = pixels(5, sn=40.0)
    bad = data.bad.copy()
    bad[:, 100:110] = True
    plain = correct_pixels(data._replace(bad=bad), ref)
    err = data.err.copy()
    err[:, 100:110] = value
    result = correct_pixels(data._replace(err=err), ref)
    np.testing.assert_allclose(result.coef, plain.coef, rtol=1e-12)


def test_correct_pixels__nothing_is_unknown_where_the_input_is_good(ref):
    result = correct_pixels(pixels(60, sn=5.0), ref)
    covered = ref.covered
    for name in ("coef", "cov", "model", "chi2", "n_eff", "best"):
        assert np.isfinite(getattr(result, name)).all(), name
    assert np.isfinite(result.closure_after[:, covered]).all()


def test_correct_pixels__no_information_is_unknown(ref):
    data = pixels(6, sn=20.0)
    rng = np.random.default_rng(3)
    flux, bad = data.flux.copy(), data.bad.copy()
    photo = data.photo_flux.copy()
    flux[0] = data.err[0] * rng.normal(size=WAVE.size)  # noise
    bad[1] = True  # nothing observed
    flux[2] = 0.0  # dead
    photo[3] = np.nan  # no photometry
    photo[4] = -np.abs(photo[4])  # photometry of nothing
    result = correct_pixels(data._replace(flux=flux, bad=bad, photo_flux=photo), ref)
    unknown = np.arange(6) < 5
    for name in ("coef", "cov", "model", "closure_before", "closure_after"):
        assert np.isnan(getattr(result, name)[unknown]).all(), name
        assert np.isfinite(getattr(result, name)[5]).any(), name
    np.testing.assert_array_equal(result.best < 0, [False, False, False, True, True, False])


@pytest.mark.parametrize("level", [-5.0, -0.5])
def test_correct_pixels__images_that_contradict_the_spectrum_leave_no_factor(ref, level):
    data = pixels(20, sn=3.0)
    flux = data.photo_flux.copy()
    flux[::2, BANDS.index("sdss_g")] *= level
    result = correct_pixels(data._replace(photo_flux=flux), ref)
    factor = result.coef @ ref.L
    assert (factor[np.isfinite(factor[:, 0])] > 0).all()
    assert np.isnan(factor[::2]).all()
    assert np.isnan(result.cov[::2]).all()
    assert np.isfinite(factor[1::2]).all()


def test_correct_pixels__one_band_has_no_colour(ref):
    data = pixels(3)
    flux = data.photo_flux.copy()
    flux[1, 1:] = np.nan
    flux[2, 2:] = np.nan
    result = correct_pixels(data._replace(photo_flux=flux), ref)
    np.testing.assert_array_equal(result.n_band, [len(BANDS), 1, 2])
    np.testing.assert_array_equal(result.best < 0, [False, True, False])
    assert np.isnan(result.coef[1]).all()
    assert (result.chi2[[0, 2]] >= 0).all()


def test_correct_pixels__a_band_of_infinite_error_is_no_band(ref):
    data = pixels(4)
    missing, infinite = data.photo_flux.copy(), data.photo_err.copy()
    missing[:, BANDS.index("sdss_r")] = np.nan
    infinite[:, BANDS.index("sdss_r")] = np.inf
    plain = correct_pixels(data._replace(photo_flux=missing), ref)
    result = correct_pixels(data._replace(photo_err=infinite), ref)
    np.testing.assert_allclose(result.coef, plain.coef, rtol=1e-12)


def test_correct_pixels__light_of_a_band_beyond_the_cube_is_the_models():
    # a cube that ends inside z, with 1.6% of it beyond; the images see all of it
    bands = ("sdss_u", "sdss_g", "sdss_r", "sdss_i", "sdss_z", "2mass_j")
    z, keep = bands.index("sdss_z"), WAVE < 10_320.0
    data = pixels(60, sn=500.0, photo_error=1e-4, bands=bands)
    data = data._replace(flux=data.flux[:, keep], err=data.err[:, keep], bad=data.bad[:, keep])
    shared = reference(bands, wave=WAVE[keep], anchor_error=1e-3)
    assert 0.98 < photon_weights(WAVE[keep], load_filters(bands))[1][z] < 0.99
    assert shared.covered[z]
    assert np.ptp(shared.beyond[:, z]) > 0.005
    np.testing.assert_array_equal(np.delete(shared.beyond, z, axis=1), 1.0)

    def wrong_in_z(shared):
        factor = correct_pixels(data, shared).coef @ shared.L
        return np.sqrt(np.mean(((factor / P[keep] - 1.0) @ shared.band_weight[:, z]) ** 2))

    assert wrong_in_z(shared) < 5e-4
    assert wrong_in_z(replace(shared, beyond=np.ones_like(shared.beyond))) > 2e-3


def test_correct_pixels__blocks_do_not_matter(ref, monkeypatch):
    data = pixels(40)
    plain = correct_pixels(data, ref)
    monkeypatch.setattr("specphoto.spectral.pixel._PIXELS_AT_ONCE", 7)
    monkeypatch.setattr("specphoto.spectral.sedfit._PIXELS_AT_ONCE", 5)
    result = correct_pixels(data, ref)
    for name in result._fields:
        np.testing.assert_allclose(getattr(result, name), getattr(plain, name), rtol=1e-7,
                                   atol=1e-9)  # fmt: skip


def test_correct_pixels__a_library_that_ends_inside_the_cube():
    short = toy_library()
    keep = short.wave < 9000.0
    cut = type(short)(short.wave[keep], short.flux[:, keep], short.fwhm[keep])
    shared = reference(("sdss_u", "sdss_g", "sdss_r", "sdss_i"), library=cut)
    data = pixels(10, sn=50.0, bands=("sdss_u", "sdss_g", "sdss_r", "sdss_i"))
    result = correct_pixels(data, shared)
    known = WAVE < 9000.0 * (1 + Z) - 20.0
    assert np.isfinite(result.model[:, known]).all()
    assert np.median(np.abs(factor_of(result) / P - 1.0)[:, known]) < 0.02
    assert LIBRARY.n_model == cut.n_model
