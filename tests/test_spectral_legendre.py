"""The factor: its polynomials, its errors, and the fit that noise must not bias."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.polynomial import legendre as reference

from specphoto.spectral.legendre import (
    basis,
    evaluate,
    evaluate_err,
    fit_factor,
    lower_order,
    normalized,
)

WAVE = 10.0 ** (np.log10(3621.6) + 1e-4 * np.arange(4563))
X = normalized(WAVE, WAVE[0], WAVE[-1])
TRUE = np.array([1.04, 0.08, -0.03, 0.02])


def spectrum():
    """A continuum with a break and lines: nothing a polynomial could follow."""
    lines = sum(
        0.3 * np.exp(-0.5 * ((WAVE - w) / 8.0) ** 2) for w in (3934, 4862, 5175, 6565, 8500)
    )
    return (WAVE / 5000.0) ** 0.6 * (1.0 - 0.4 / (1.0 + np.exp((WAVE - 4000) / 40.0))) * (1 - lines)


def observed(sn, n_pixel, coef=TRUE, seed=0):
    """Spectra ``m / P`` + noise of a S/N per channel that is the same everywhere."""
    model = np.tile(spectrum(), (n_pixel, 1))
    clean = model / (np.asarray(coef) @ basis(X, len(coef) - 1))
    err = clean / sn
    flux = clean + err * np.random.default_rng(seed).normal(size=clean.shape)
    return flux, err**2, np.ones(flux.shape, bool), model


def test_normalized__ends_and_middle():
    np.testing.assert_allclose(normalized(np.array([3000.0, 5000, 7000]), 3000, 7000), [-1, 0, 1])


@pytest.mark.parametrize("order", range(6))
def test_evaluate__equals_numpy_legendre(order):
    coef = np.random.default_rng(order).normal(size=(order + 1, 3, 2))
    np.testing.assert_allclose(evaluate(coef, X), np.moveaxis(reference.legval(X, coef), -1, 0),
                               atol=1e-12)  # fmt: skip
    assert evaluate(coef.astype(np.float32), X).dtype == np.float32


def test_evaluate_err__equals_the_scatter_of_drawn_factors():
    rng = np.random.default_rng(3)
    root = rng.normal(size=(2, 4, 4)) * [0.03, 0.02, 0.01, 0.02]
    cov = root @ root.transpose(0, 2, 1)
    x = np.linspace(-1, 1, 25)
    err = evaluate_err(np.moveaxis(cov, 0, -1), x)
    for pixel in range(2):
        drawn = rng.multivariate_normal(TRUE, cov[pixel], size=40_000)
        scatter = np.std(reference.legval(x, drawn.T), axis=0)
        np.testing.assert_allclose(err[:, pixel], scatter, rtol=0.02)


def test_evaluate_err__unknown_stays_unknown():
    cov = np.full((4, 4, 2), np.nan)
    cov[..., 1] = np.eye(4)
    err = evaluate_err(cov, X)
    assert np.isnan(err[:, 0]).all()
    assert np.isfinite(err[:, 1]).all()


@pytest.mark.parametrize("order", range(6))
def test_fit_factor__without_noise_returns_what_was_injected(order):
    coef = np.array([1.1, -0.1, 0.05, 0.03, -0.02, 0.02])[: order + 1]
    flux, _, good, model = observed(np.inf, 2, coef)
    fit = fit_factor(flux, np.full(flux.shape, 1e-4), good, model, basis(X, order))
    np.testing.assert_allclose(fit.coef, [coef, coef], atol=1e-9)


# A factor of 1, as a polynomial through the clipped ratio finds it
PLAIN_RATIO = {10: 1.009, 5: 1.039, 3: 1.136}


@pytest.mark.parametrize("sn", sorted(PLAIN_RATIO))
def test_usual_fits__are_biased(sn):
    flux, _, _, model = observed(sn, 40, [1.0], seed=sn)
    kept = np.abs(flux / model - 1.0) < 2.5 / sn
    ratio = np.mean([
        reference.legfit(X[u], m[u] / f[u], 3) @ [1, 0, 0, 0]
        for f, m, u in zip(flux, model, kept, strict=True)
    ])  # fmt: skip
    assert ratio == pytest.approx(PLAIN_RATIO[sn], rel=0.015)
    regression = np.mean([
        np.linalg.lstsq((basis(X, 3) * f).T, m, rcond=None)[0] @ [1, 0, 0, 0]
        for f, m in zip(flux, model, strict=True)
    ])  # fmt: skip
    assert regression == pytest.approx(1.0 / (1.0 + 1.0 / sn**2), rel=0.01)


@pytest.mark.parametrize("sn", [10, 5, 3, 2, 1.5])
def test_fit_factor__noise_does_not_bias_it_and_its_covariance_is_right(sn):
    data = observed(sn, 300, seed=int(10 * sn))
    fit = fit_factor(*data, basis(X, 3))
    wrong = fit.coef @ basis(X, 3) / (TRUE @ basis(X, 3)) - 1.0
    assert abs(wrong.mean()) < 0.002
    # at each wavelength, within the scatter of a mean of 300 and a hair
    assert np.all(np.abs(wrong.mean(axis=0)) < 0.003 + 4.0 * wrong.std(axis=0) / np.sqrt(300))
    pull = (fit.coef - TRUE) / np.sqrt(np.einsum("pkk->pk", fit.cov))
    np.testing.assert_allclose(pull.std(axis=0), 1.0, atol=0.13)
    assert pull.std() == pytest.approx(1.0, abs=0.07)
    chi2 = np.einsum("pk,pkl,pl->p", fit.coef - TRUE, np.linalg.inv(fit.cov), fit.coef - TRUE)
    assert chi2.mean() == pytest.approx(4.0, abs=0.6)  # the correlations are right too


def test_fit_factor__noise_that_varies_with_wavelength():
    model = np.tile(spectrum(), (300, 1))
    clean = model / (TRUE @ basis(X, 3))
    err = clean * np.interp(WAVE, [3600, 4500, 9000, 10400], [2.0, 0.2, 0.2, 1.0])
    flux = clean + err * np.random.default_rng(5).normal(size=clean.shape)
    fit = fit_factor(flux, err**2, np.ones(flux.shape, bool), model, basis(X, 3))
    wrong = fit.coef @ basis(X, 3) / (TRUE @ basis(X, 3)) - 1.0
    assert abs(wrong.mean()) < 0.002
    pull = (fit.coef - TRUE) / np.sqrt(np.einsum("pkk->pk", fit.cov))
    assert pull.std() == pytest.approx(1.0, abs=0.07)


def test_fit_factor__errors_that_are_too_small_in_places():
    # as residuals of the sky in the red: four times the stated noise beyond 8500 A
    flux, variance, good, model = observed(6, 300)
    rng = np.random.default_rng(7)
    more = np.where(WAVE > 8500.0, np.sqrt(15.0), 0.0) * np.sqrt(variance)
    fit = fit_factor(flux + more * rng.normal(size=flux.shape), variance, good, model, basis(X, 3))
    pull = (fit.coef - TRUE) / np.sqrt(np.einsum("pkk->pk", fit.cov))
    assert pull.std() == pytest.approx(1.0, abs=0.1)
    wrong = fit.coef @ basis(X, 3) / (TRUE @ basis(X, 3)) - 1.0
    assert abs(wrong.mean()) < 0.002


def test_fit_factor__does_not_read_channels_that_are_not_good():
    flux, variance, good, model = observed(5, 3)
    good[:, 1000:1400] = False
    clean = fit_factor(flux, variance, good, model, basis(X, 3))
    for value in (np.nan, np.inf, 1e9, 0.0):
        dirty = [np.where(good, a, value) for a in (flux, variance)]
        fit = fit_factor(*dirty, good, np.where(good, model, np.nan), basis(X, 3))
        np.testing.assert_allclose(fit.coef, clean.coef, rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-17, 1e-4, 1e6])
def test_fit_factor__does_not_depend_on_the_unit(scale):
    flux, variance, good, model = observed(4, 5)
    plain = fit_factor(flux, variance, good, model, basis(X, 3))
    fit = fit_factor(flux * scale, variance * scale**2, good, model * scale, basis(X, 3))
    np.testing.assert_allclose(fit.coef, plain.coef, rtol=1e-7)
    np.testing.assert_allclose(fit.cov, plain.cov, rtol=1e-6, atol=1e-14)


def assert_unknown(fit):
    assert np.isnan(fit.coef).all()
    assert np.isnan(fit.cov).all()


def test_fit_factor__pure_noise_is_unknown():
    _, variance, good, model = observed(0.02, 200)
    noise = np.sqrt(variance) * np.random.default_rng(2).normal(size=model.shape)
    assert_unknown(fit_factor(noise, variance, good, model, basis(X, 3)))


def test_fit_factor__all_masked_is_unknown():
    flux, variance, good, model = observed(10, 2)
    assert_unknown(fit_factor(flux, variance, np.zeros_like(good), model, basis(X, 3)))


def test_fit_factor__a_dead_spectrum_is_unknown():
    flux, variance, good, model = observed(10, 2)
    assert_unknown(fit_factor(0.0 * flux, variance, good, model, basis(X, 3)))
    assert_unknown(fit_factor(-flux, variance, good, model, basis(X, 3)))


def test_fit_factor__too_few_channels_are_unknown():
    flux, variance, good, model = observed(50, 2)
    good[:, 40:] = False
    assert_unknown(fit_factor(flux, variance, good, model, basis(X, 3)))


def test_fit_factor__a_piece_of_the_range_does_not_fix_the_rest():
    # 60 channels at one end cannot tell what a cubic does at the other, and the error says so
    flux, variance, good, model = observed(20, 2)
    good[:, 60:] = False
    fit = fit_factor(flux, variance, good, model, basis(X, 3))
    factor, true = fit.coef @ basis(X, 3), TRUE @ basis(X, 3)
    err = evaluate_err(np.moveaxis(fit.cov, 0, -1), X).T
    np.testing.assert_allclose(factor[:, :60], np.tile(true[:60], (2, 1)), rtol=0.02)
    assert (err[:, -1] > 0.1).all()
    assert (np.abs(factor - true)[:, -1] < 2.0 * err[:, -1]).all()


def test_fit_factor__steps_down_where_the_sky_leads_the_polynomial_astray():
    # light that is none at the blue end and far too much at the red: no calibration is like that
    flux, variance, good, model = observed(2, 20)
    flux[:, :300] -= model[:, :300]
    flux[:, -250:] += 6.0 * model[:, -250:]
    fit = fit_factor(flux, variance, good, model, basis(X, 3))
    np.testing.assert_array_equal(fit.coef[:, 3], 0.0)
    np.testing.assert_allclose(fit.cov[:, 3, 3], (0.1 * fit.coef[:, 0]) ** 2)
    np.testing.assert_array_equal(fit.cov[:, :3, 3], 0.0)
    factor = fit.coef @ basis(X, 3)
    assert (factor > 0.3).all()
    assert (factor < 3.0).all()


@pytest.mark.parametrize("strength", [0.25, 0.4])
def test_fit_factor__large_but_smooth_factors_keep_their_order(strength):
    coef = np.array([1.0, strength, -0.05, 0.05])
    fit = fit_factor(*observed(10, 30, coef), basis(X, 3))
    assert (fit.coef[:, 3] != 0.0).all()
    np.testing.assert_allclose(fit.coef.mean(axis=0), coef, atol=0.004)


def test_fit_factor__one_unknown_pixel_leaves_its_neighbours_alone():
    flux, variance, good, model = observed(10, 3)
    alone = fit_factor(flux[[0, 2]], variance[[0, 2]], good[[0, 2]], model[[0, 2]], basis(X, 3))
    good[1] = False
    fit = fit_factor(flux, variance, good, model, basis(X, 3))
    np.testing.assert_allclose(fit.coef[[0, 2]], alone.coef, rtol=1e-10)
    assert np.isnan(fit.coef[1]).all()


def test_lower_order__is_that_of_a_joint_gaussian_with_coefficients_near_0():
    # the same update by hand: information of the pixel and of 10% about 0 from order 2 on
    rng = np.random.default_rng(4)
    half = rng.normal(size=(5, 4, 4)) * [0.03, 0.05, 0.2, 0.3]
    cov = half.transpose(0, 2, 1) @ half / 4 + 1e-4 * np.eye(4)
    cov[:, 1] *= 0.1  # order 1 is known
    cov[:, :, 1] *= 0.1
    cov[4] = 1e-4 * np.eye(4)  # and all of the last
    coef = np.array([1.2, 0.1, 0.3, -0.2]) + rng.normal(size=(5, 4)) * 0.1
    rest, order = lower_order(coef, cov, np.full(5, 3))
    error = np.sqrt(np.einsum("pkk->pk", cov)) / coef[:, :1]
    for p in range(5):
        n = next((k - 1 for k in range(1, 4) if error[p, k] >= 0.1), 3)
        assert order[p] == n
        prior = np.diag(np.where(np.arange(4) > n, 1.0 / (0.1 * coef[p, 0]) ** 2, 0.0))
        joint = np.linalg.inv(np.linalg.inv(cov[p]) + prior)
        np.testing.assert_allclose(rest[p] @ cov[p], joint, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(rest[p] @ coef[p], joint @ np.linalg.inv(cov[p]) @ coef[p],
                                   rtol=1e-9, atol=1e-12)  # fmt: skip
    assert set(order) >= {1, 3}


def test_lower_order__leaves_orders_that_the_spectrum_left_out_and_unknown_pixels():
    cov = np.stack([np.diag([1e-4, 1.0, 0.01, 0.01]), np.full((4, 4), np.nan)])
    coef = np.array([[1.0, 0.5, 0.0, 0.0], [np.nan] * 4])
    rest, order = lower_order(coef, cov, np.array([1, -1]))
    np.testing.assert_array_equal(order, [0, -1])
    np.testing.assert_allclose(np.diag(rest[0] @ cov[0]), [1e-4, 0.01 / 1.01, 0.01, 0.01])
    np.testing.assert_array_equal(rest[1], np.eye(4))
