"""The factors of all pixels together: averaged where they may be, and no further."""

from __future__ import annotations

import numpy as np
import pytest
from spectral_cases import BANDS, WAVE, P, Z, reference, truth

from specphoto.photometry.filters import load_filters
from specphoto.spectral.coherence import shrink
from specphoto.spectral.pixel import Pixels, correct_pixels

SIDE = 20
Y, X = (a.ravel().astype(float) for a in np.indices((SIDE, SIDE)))
N = X.size
TRUTH = np.array([1.05, 0.1, -0.03])


def covariance(sigma, *, rho=0.4):
    """Noise of three correlated coefficients, larger in some pixels."""
    scale = sigma * np.linspace(0.5, 1.5, N)[:, None] * (1.0, 2.0, 1.5)
    rho = np.where(np.eye(3) > 0, 1.0, rho)
    return scale[:, :, None] * rho * scale[:, None, :]


def drawn(cov, seed, *, field=0.0, scatter=0.0):
    rng = np.random.default_rng(seed)
    root = np.linalg.cholesky(cov)
    true = TRUTH + field + scatter * rng.normal(size=(N, 3))
    return true, true + np.einsum("pij,pj->pi", root, rng.normal(size=(N, 3)))


def test_shrink__one_factor_is_the_weighted_mean():
    cov = covariance(0.02)
    _, coef = drawn(cov, 1)
    out = shrink(coef, cov, cov, X, Y, 1.0)
    weight = 1.0 / cov[:, range(3), range(3)]
    np.testing.assert_array_equal(out.terms, 1)
    mean = (weight * coef).sum(axis=0) / weight.sum(axis=0)
    # the scatter found about it is a little above 0
    np.testing.assert_allclose(out.coef, np.tile(mean, (N, 1)), atol=0.02)
    assert np.abs(out.coef - mean).mean() < 0.003
    assert (out.scatter < 0.3 * np.sqrt(cov[:, range(3), range(3)].mean(axis=0))).all()


@pytest.mark.parametrize("scatter", [0.0, 0.02, 0.08])
@pytest.mark.parametrize("gradient", [0.0, 0.1])
def test_shrink__errors_are_those_of_the_estimates(scatter, gradient):
    cov = covariance(0.03)
    field = gradient * ((X - X.mean()) / SIDE)[:, None] * np.array([1.0, -1.0, 0.5])
    pull, better = [], []
    for seed in range(12):
        true, coef = drawn(cov, seed, field=field, scatter=scatter)
        out = shrink(coef, cov, cov, X, Y, 1.0)
        pull.append((out.coef - true) / np.sqrt(out.cov[:, range(3), range(3)]))
        better.append(np.mean((out.coef - true) ** 2) / np.mean((coef - true) ** 2))
    # without scatter they allow for what the pixels cannot exclude
    assert (0.8 if scatter else 0.3) < np.std(pull) < 1.25
    assert np.mean(better) < (0.9 if scatter else 0.15)


def test_shrink__finds_scatter_and_gradient():
    cov = covariance(0.01)
    field = 0.2 * ((Y - Y.mean()) / SIDE)[:, None] * np.ones(3)
    _, coef = drawn(cov, 3, field=field, scatter=0.05)
    out = shrink(coef, cov, cov, X, Y, 1.0)
    np.testing.assert_allclose(out.scatter, 0.05, rtol=0.15)
    np.testing.assert_array_equal(out.terms, 3)


def test_shrink__errors_of_models_are_never_averaged():
    # all pixels off by the same: the mean does not know, and its error says so
    noise, model = covariance(0.02), 0.03**2 * np.eye(3) * np.ones((N, 1, 1))
    off = 0.03 * np.array([1.0, -1.0, 1.0])
    _, coef = drawn(noise, 5)
    out = shrink(coef + off, noise + model, noise, X, Y, 1.0)
    error = np.sqrt(out.cov[:, range(3), range(3)])
    assert (error > 0.025).all()
    assert np.abs((out.coef - TRUTH) / error).max() < 2.0


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_shrink__errors_of_models_count_once_shared_or_not(share):
    # whatever part of the models' error all pixels share, the stated error is the true one
    noise, model = covariance(0.02), 0.04**2 * np.eye(3) * np.ones((N, 1, 1))
    pull = []
    for seed in range(60):
        rng = np.random.default_rng([seed, 9])
        shared, apart = rng.normal(size=(1, 3)), rng.normal(size=(N, 3))
        _, coef = drawn(noise, seed)
        coef = coef + 0.04 * (np.sqrt(share) * shared + np.sqrt(1.0 - share) * apart)
        out = shrink(coef, noise + model, noise, X, Y, 1.0)
        pull.append((out.coef - TRUTH) / np.sqrt(out.cov[:, range(3), range(3)]))
    # without a shared part it allows for what few pixels cannot exclude
    assert (0.85 if share else 0.1) < np.std(pull) < 1.15


def test_shrink__a_gradient_that_models_may_make_is_no_field():
    # populations change over the galaxy, and the models' error with them
    noise, model = covariance(0.003), 0.04**2 * np.eye(3) * np.ones((N, 1, 1))
    _, coef = drawn(noise, 6)
    coef = coef + 0.03 * ((X - X.mean()) / SIDE)[:, None]
    out = shrink(coef, noise + model, noise, X, Y, 20.0)
    np.testing.assert_array_equal(out.terms, 1)
    assert np.ptp(out.coef, axis=0).max() < 0.01


def test_shrink__pixels_far_off_do_not_shape_the_field():
    cov = covariance(0.01)
    true, coef = drawn(cov, 7)
    hit = (X - 5) ** 2 + (Y - 12) ** 2 < 6.0
    coef[hit] += 0.5
    out = shrink(coef, cov, cov, X, Y, 1.0)
    assert np.abs(out.coef - true)[~hit].max() < 0.02
    left_out = shrink(coef, cov, cov, X, Y, 1.0, use=~hit)
    assert np.abs(left_out.coef - true).max() < 0.02


def test_shrink__noise_that_a_beam_shares_does_not_average_over_it():
    cov = covariance(0.02)
    _, coef = drawn(cov, 8)
    one, many = (shrink(coef, cov, cov, X, Y, beam) for beam in (1.0, 16.0))
    assert (many.cov >= one.cov)[:, range(3), range(3)].all()


def test_shrink__too_few_beams_leave_pixels_as_they_are():
    cov = covariance(0.02)
    _, coef = drawn(cov, 9)
    out = shrink(coef, cov, cov, X, Y, N / 3.0)
    np.testing.assert_array_equal(out.coef, coef)
    np.testing.assert_array_equal(out.cov, cov)
    np.testing.assert_array_equal(out.own, np.broadcast_to(np.eye(3), cov.shape))
    np.testing.assert_array_equal(out.terms, 0)


def test_shrink__pixels_in_a_row_have_no_field_across_it():
    cov = covariance(0.02)
    true, coef = drawn(cov, 12, scatter=0.02)
    out = shrink(coef, cov, cov, np.arange(N, dtype=float), np.zeros(N), 1.0)
    np.testing.assert_array_equal(out.terms, 1)
    assert np.mean((out.coef - true) ** 2) < np.mean((coef - true) ** 2)


def test_shrink__unknown_stays_unknown_and_alone():
    cov = covariance(0.02)
    _, coef = drawn(cov, 10)
    gone = np.random.default_rng(1).random(N) < 0.3
    coef[gone] = np.nan
    out = shrink(coef, cov, cov, X, Y, 1.0)
    assert np.isnan(out.coef[gone]).all()
    assert np.isnan(out.cov[gone]).all()
    part = shrink(*(a[~gone] for a in (coef, cov, cov, X, Y)), 1.0)
    np.testing.assert_allclose(out.coef[~gone], part.coef, rtol=1e-9)


def test_shrink__own_is_the_derivative_by_the_pixels_coefficients():
    cov = covariance(0.02)
    _, coef = drawn(cov, 11, scatter=0.03)
    out = shrink(coef, cov, cov, X, Y, 1.0)
    step = 1e-6
    for p in (0, 155, N - 1):
        for k in range(3):
            moved = coef.copy()
            moved[p, k] += step
            slope = (shrink(moved, cov, cov, X, Y, 1.0).coef[p] - out.coef[p]) / step
            # but for what one pixel does to the scatter
            np.testing.assert_allclose(slope, out.own[p, :, k], atol=0.01)


def test_shrink__nothing_of_the_galaxy_leaks_into_the_field():
    # one factor everywhere; populations change outwards, a lane is dusty, a region is full of
    # H alpha of 300 Angstrom, another is masked
    n = 24
    y, x = (a.ravel().astype(float) for a in np.indices((n, n)))
    radius = np.hypot(x - 11.5, y - 11.5)
    lane, gas = np.abs(y - 8.0) < 2.0, np.hypot(x - 17.0, y - 17.0) < 4.0
    hidden = (x < 6.0) & (y > 15.0)
    _, spectra, photometry = truth(n * n)
    order = np.argsort(photometry[:, 2] / photometry[:, 4])[np.argsort(np.argsort(radius))]
    shared = reference()
    band_waves = np.array([band.pivot for band in load_filters(list(BANDS))])
    dusty = np.where(lane, 0.6, 0.0)[:, None]  # A(V), a screen as wavelength to the power -0.7
    dim, dim_bands = (10.0 ** (-0.4 * dusty * (wave / 5500.0) ** -0.7)
                      for wave in (WAVE, band_waves))  # fmt: skip
    true, images = spectra[order] * dim, photometry[order] * dim_bands
    line = np.exp(-0.5 * ((WAVE - 6564.61 * (1 + Z)) / 3.5) ** 2) / (3.5 * np.sqrt(2 * np.pi))
    level = true[:, np.argmin(np.abs(WAVE - 6564.61 * (1 + Z)))]
    glow = np.where(gas, 300.0 * (1 + Z) * level, 0.0)[:, None] * line
    true, images = true + glow, images + glow @ shared.band_weight
    rng = np.random.default_rng(11)
    err = 0.1 * np.median(true, axis=1)[:, None] * np.ones_like(true)
    data = Pixels(
        images * (1.0 + 0.02 * rng.normal(size=images.shape)), 0.02 * images,
        true / P + err * rng.normal(size=err.shape), err,
        np.broadcast_to(hidden[:, None], err.shape),
    )  # fmt: skip
    found = correct_pixels(data, shared)
    together = shrink(found.coef, found.cov, found.noise, x, y, 1.0)
    assert not np.isfinite(together.coef[hidden]).any()
    off = (together.coef @ shared.L / P - 1.0)[~hidden]
    inner, lane, gas = (a[~hidden] for a in (radius < 6.0, lane, gas))
    for part in (lane, gas, inner):
        assert np.abs(off[part].mean(axis=0) - off[~part].mean(axis=0)).max() < 0.005
    assert np.abs(off.mean(axis=0)).max() < 0.01
