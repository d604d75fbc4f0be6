"""The SED fit against a plain loop over pixels and models."""

from __future__ import annotations

import numpy as np
import pytest

from specphoto.spectral import sedfit
from specphoto.spectral.features import Measured
from specphoto.spectral.sedfit import ModelTable, best_models, photometric_sigma
from specphoto.spectral.template_error import ProjectedError

N_SHAPE = 3


def projected(n_band=6, *, size=0.0, seed=6):
    """Template error of bands and shape together: any positive covariance."""
    root = size * np.random.default_rng(seed).normal(size=(n_band + N_SHAPE,) * 2)
    whole = root @ root.T
    return ProjectedError(whole[:n_band, :n_band], whole[n_band:, :n_band], whole[n_band:, n_band:])


def fit_sed(flux, sigma, models, shape, *, error=None, typical=None, measured=None, feature=None):
    """Without template error and features unless they are given."""
    error = error or projected(flux.shape[1])
    typical = np.ones_like(sigma) if typical is None else typical
    table = ModelTable(models, shape, feature)
    return sedfit.fit_sed(flux, sigma, table, error, typical, measured)


def toy(n_pixel=37, n_model=45, n_band=6, seed=4):
    """Pixels near some model, models of all colours, shapes of no meaning."""
    rng = np.random.default_rng(seed)
    models = np.exp(rng.normal(0.0, 0.6, (n_model, n_band)))
    truth = rng.integers(0, n_model, n_pixel)
    scale = np.exp(rng.normal(2.0, 1.0, n_pixel))
    flux = scale[:, None] * models[truth]
    sigma = 0.25 * flux * rng.uniform(0.5, 2.0, flux.shape)
    flux = flux + sigma * rng.normal(size=flux.shape)
    return flux, sigma, models, rng.normal(size=(n_model, N_SHAPE))


def one_pixel(flux, sigma, models, shape):
    """Each model by weighted least squares; the moments are sums over models, written out."""
    use = np.isfinite(sigma)
    scale, chi2 = np.zeros(len(models)), np.full(len(models), np.inf)
    for k, model in enumerate(models):
        A, b = (model[use] / sigma[use])[:, None], flux[use] / sigma[use]
        scale[k] = np.linalg.lstsq(A, b, rcond=None)[0][0]
        if scale[k] > 0:
            chi2[k] = np.sum((b - A[:, 0] * scale[k]) ** 2)
    p = np.exp(-0.5 * (chi2 - chi2.min()))
    p /= p.sum()
    h = shape.copy()
    h[:, 0] += np.log(np.where(scale > 0, scale, 1.0))
    mean = sum(p[k] * h[k] for k in range(len(models)))
    cov = sum(p[k] * np.outer(h[k] - mean, h[k] - mean) for k in range(len(models)))
    best = int(np.argmin(chi2))
    for k in np.flatnonzero(scale > 0):  # the relative variance of each model's scale
        cov[0, 0] += p[k] / (scale[k] ** 2 * np.sum((models[k][use] / sigma[use]) ** 2))
    return best, scale[best], chi2[best], 1.0 / np.sum(p**2), mean, cov


def compare(fit, flux, sigma, models, shape):
    for i in range(len(flux)):
        best, scale, chi2, n_eff, mean, cov = one_pixel(flux[i], sigma[i], models, shape)
        assert fit.best[i] == best
        assert fit.scale[i] == pytest.approx(scale, rel=1e-9)
        assert fit.chi2[i] == pytest.approx(chi2, rel=1e-7, abs=1e-8)
        assert fit.n_eff[i] == pytest.approx(n_eff, rel=1e-5)
        np.testing.assert_allclose(fit.shape_mean[i], mean, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(fit.shape_cov[i], cov, rtol=1e-4, atol=1e-4)


def test_fit_sed__equals_a_loop_over_pixels_and_models():
    data = toy()
    fit = fit_sed(*data)
    compare(fit, *data)
    assert len(set(fit.best)) > 10
    assert np.median(fit.n_eff) > 1.5  # the moments are of more than one model
    np.testing.assert_array_equal(fit.n_band, 6)


def test_fit_sed__bands_without_data_have_no_weight():
    flux, sigma, models, shape = toy(seed=8)
    gone = np.random.default_rng(1).random(flux.shape) < 0.3
    gone[:, :2] = False
    sigma = np.where(gone, np.inf, sigma)
    compare(fit_sed(flux, sigma, models, shape), flux, sigma, models, shape)
    worthless = np.where(gone, np.nan, flux)
    fit = fit_sed(worthless, sigma, models, shape)
    compare(fit, flux, sigma, models, shape)
    np.testing.assert_array_equal(fit.n_band, (~gone).sum(axis=1))


def test_fit_sed__negative_fluxes_are_data():
    flux, sigma, models, shape = toy(seed=2)
    flux[:, 0] = -0.5 * sigma[:, 0]
    fit = fit_sed(flux, sigma, models, shape)
    compare(fit, flux, sigma, models, shape)
    without = fit_sed(flux, np.where(flux < 0, np.inf, sigma), models, shape)
    assert np.median(without.scale / fit.scale) != pytest.approx(1.0, abs=1e-3)
    np.testing.assert_array_equal(fit.n_band, 6)


def test_fit_sed__a_model_cannot_have_a_negative_amplitude():
    _, _, models, shape = toy()
    fit = fit_sed(-models[:1], np.ones((1, 6)), models, shape)
    assert fit.best[0] == -1
    assert np.isnan([fit.scale[0], fit.chi2[0], fit.n_eff[0], *fit.shape_mean[0]]).all()


@pytest.mark.parametrize("n_model", [45, 1000, 4099])
def test_fit_sed__equal_chi2_takes_the_lowest_index(n_model):
    # 15 models again and again: wherever the copies lie in a product's blocks, the first wins
    flux, sigma, models, shape = toy(n_pixel=70)
    copies = np.resize(models[:15], (n_model, 6))
    fit = fit_sed(flux, sigma, copies, np.resize(shape[:15], (n_model, N_SHAPE)))
    assert fit.best.max() < 15
    np.testing.assert_array_equal(fit.best, fit_sed(flux, sigma, models[:15], shape[:15]).best)


def test_fit_sed__n_eff_counts_equal_models():
    flux, sigma, models, shape = toy(n_pixel=5)
    same = np.repeat(models[:1], 7, axis=0)
    fit = fit_sed(flux, sigma, same, shape[:7])
    np.testing.assert_allclose(fit.n_eff, 7.0, rtol=1e-9)
    np.testing.assert_allclose(fit.shape_mean[:, 1:], np.tile(shape[:7, 1:].mean(0), (5, 1)))
    np.testing.assert_allclose(fit.shape_cov[0, 1:, 1:], np.cov(shape[:7, 1:].T, bias=True))


def test_fit_sed__one_acceptable_model_leaves_the_error_of_its_scale():
    _, _, models, shape = toy()
    sigma = 0.1 * models[:1] * np.ones((4000, 1))
    flux = models[:1] + sigma * np.random.default_rng(0).normal(size=sigma.shape)
    fit = fit_sed(flux, sigma, models[:1], shape[:1])
    assert np.std(fit.shape_mean[:, 0]) == pytest.approx(0.1 / np.sqrt(6), rel=0.05)
    np.testing.assert_allclose(np.sqrt(fit.shape_cov[:, 0, 0]).mean(), 0.1 / np.sqrt(6), rtol=0.02)


def test_fit_sed__pixels_without_any_band_are_unknown():
    flux, sigma, models, shape = toy(n_pixel=40)
    sigma[[0, 33]] = np.inf
    flux[33] = np.nan
    fit = fit_sed(flux, sigma, models, shape)
    np.testing.assert_array_equal(np.flatnonzero(fit.best == -1), [0, 33])
    assert (fit.n_band[[0, 33]] == 0).all()
    for values in (fit.scale, fit.chi2, fit.n_eff, fit.shape_mean, fit.shape_cov):
        assert np.isnan(values[[0, 33]]).all()
        assert np.isfinite(np.delete(values, [0, 33], axis=0)).all()


def test_fit_sed__models_without_light_in_a_band_lose_and_harm_nothing():
    # the first model has no light in the only bands of a pixel: the others are still compared
    flux, sigma, models, shape = toy()
    models[0, :2] = 0.0
    sigma[3, 2:] = np.inf
    fit = fit_sed(flux, sigma, models, shape)
    assert fit.best[3] > 0
    assert np.isfinite(fit.chi2[3])
    assert np.isfinite(fit.shape_cov[3]).all()


@pytest.mark.parametrize("factor", [1e-20, 1e15])
def test_fit_sed__units_change_only_the_scale(factor):
    flux, sigma, models, shape = toy()
    plain, other = fit_sed(flux, sigma, models, shape), fit_sed(
        flux * factor, sigma * factor, models, shape
    )  # fmt: skip
    np.testing.assert_array_equal(other.best, plain.best)
    np.testing.assert_allclose(other.scale, plain.scale * factor, rtol=1e-9)
    np.testing.assert_allclose(other.chi2, plain.chi2, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(other.n_eff, plain.n_eff, rtol=1e-7)
    np.testing.assert_allclose(
        other.shape_mean[:, 0], plain.shape_mean[:, 0] + np.log(factor), rtol=1e-8
    )
    np.testing.assert_allclose(other.shape_cov, plain.shape_cov, rtol=1e-6, atol=1e-9)


# --- template error, features, and what the shape owes to the photometry --------------------


def with_error(seed=5, n_pixel=12):
    flux, sigma, models, shape = toy(n_pixel=n_pixel, seed=seed)
    rng = np.random.default_rng(seed)
    sigma[rng.random(sigma.shape) < 0.15] = np.inf
    typical = np.abs(flux) * rng.uniform(0.8, 1.2, flux.shape)
    return (flux, sigma, models, shape), projected(size=0.1), typical


def by_joint_gaussian(flux, sigma, typical, models, shape, error):
    """Shape of one pixel: each model as a Gaussian of band errors, shape errors and scale."""
    use = np.isfinite(sigma)
    n, found = use.sum(), []
    K = np.block([[error.band[np.ix_(use, use)], error.cross[:, use].T],
                  [error.cross[:, use], error.shape]])  # fmt: skip
    for k, model in enumerate(models):
        # unknowns: template errors of bands and shape, and the scale, of a very wide prior
        design = np.hstack([np.diag(typical[use]), np.zeros((n, N_SHAPE)), model[use, None]])
        wide = 1e4 * np.abs(flux).max() ** 2 / np.mean(model[use] ** 2)
        prior = np.zeros((n + N_SHAPE + 1,) * 2)
        prior[:-1, :-1], prior[-1, -1] = K, wide
        inner = design @ prior @ design.T + np.diag(sigma[use] ** 2)
        G = np.linalg.solve(inner, design @ prior).T
        mean, cov = G @ flux[use], prior - G @ design @ prior
        s = mean[-1]
        chi2 = flux[use] @ np.linalg.solve(inner, flux[use])
        to_shape = np.zeros((N_SHAPE, n + N_SHAPE + 1))
        to_shape[:, n:-1], to_shape[0, -1] = np.eye(N_SHAPE), 1.0 / s
        h = shape[k] + mean[n:-1]
        h[0] += np.log(s)
        found.append((s, chi2, h, to_shape @ cov @ to_shape.T))
    return found


def test_fit_sed__template_error_is_that_of_a_joint_gaussian():
    data, error, typical = with_error()
    fit = fit_sed(*data, error=error, typical=typical)
    flux, sigma, models, shape = data
    for i in range(len(flux)):
        found = by_joint_gaussian(flux[i], sigma[i], typical[i], models, shape, error)
        chi2 = np.array([f[1] if f[0] > 0 else np.inf for f in found])
        p = np.exp(-0.5 * (chi2 - chi2.min()))
        p /= p.sum()
        lit = np.flatnonzero(p > 0)
        mean = sum(p[k] * found[k][2] for k in lit)
        away = [found[k][2] - mean for k in lit]
        cov = sum(p[k] * (np.outer(a, a) + found[k][3]) for k, a in zip(lit, away, strict=True))
        assert fit.best[i] == np.argmin(chi2)
        np.testing.assert_allclose(fit.shape_mean[i], mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(fit.shape_cov[i], cov, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("size", [0.0, 0.1])
def test_fit_sed__the_derivative_by_the_photometry_is_that_of_differences(size):
    data, _, typical = with_error()
    flux, sigma, models, shape = data
    options = {"error": projected(size=size), "typical": typical}
    fit = fit_sed(*data, **options)
    for b in range(flux.shape[1]):
        step = np.zeros_like(flux)
        step[:, b] = 1e-5 * np.abs(flux[:, b])
        up, down = (fit_sed(flux + s, sigma, models, shape, **options) for s in (step, -step))
        slope = (up.shape_mean - down.shape_mean) / (2 * step[:, b, None])
        slope[~np.isfinite(sigma[:, b])] = 0.0
        scale = np.abs(flux[:, b, None])
        np.testing.assert_allclose(fit.shape_photo[:, :, b] * scale, slope * scale, rtol=1e-4,
                                   atol=1e-6)  # fmt: skip


def test_fit_sed__a_band_corrects_the_shape_that_shares_its_template_error():
    # one model, one band brighter than it by far more than its error; the shape follows
    _, _, models, shape = toy()
    model = models[:1]
    error = ProjectedError(np.diag([0.04, 0, 0, 0, 0, 0]), np.zeros((N_SHAPE, 6)), np.eye(N_SHAPE))
    error.cross[1, 0] = 0.04
    flux = model * [1.1, 1, 1, 1, 1, 1]
    fit = fit_sed(flux, 1e-3 * model, model, shape[:1], error=error, typical=model)
    np.testing.assert_allclose(fit.shape_mean[0, 1] - shape[0, 1], 0.1, rtol=1e-2)
    assert fit.shape_cov[0, 1, 1] == pytest.approx(1.0 - 0.04, rel=1e-3)


def test_fit_sed__features_weigh_the_models():
    flux, sigma, models, shape = toy(seed=3)
    rng = np.random.default_rng(1)
    feature = rng.normal(size=(len(models), 4))
    root = rng.normal(size=(len(flux), 4, 4))
    measured = Measured(rng.normal(size=(len(flux), 4)), root @ root.transpose(0, 2, 1))
    fit = fit_sed(flux, sigma, models, shape, feature=feature, measured=measured)
    single = best_models(flux, sigma, ModelTable(models, shape, feature), measured)
    for i in range(len(flux)):
        away = measured.value[i] - feature
        extra = np.einsum("ki,ij,kj->k", away, measured.weight[i], away)
        weight = 1.0 / sigma[i] ** 2
        scale = (models * weight) @ flux[i] / (models**2 @ weight)
        chi2 = ((flux[i] - scale[:, None] * models) ** 2) @ weight + extra
        p = np.exp(-0.5 * (chi2 - chi2.min()))
        assert fit.best[i] == single.best[i] == np.argmin(chi2)
        assert fit.n_eff[i] == pytest.approx(p.sum() ** 2 / (p**2).sum(), rel=1e-3)


def test_best_models__is_the_best_of_the_spread():
    flux, sigma, models, shape = toy()
    fit, single = (
        fit_sed(flux, sigma, models, shape),
        best_models(flux, sigma, ModelTable(models, shape)),
    )
    np.testing.assert_array_equal(single.best, fit.best)
    np.testing.assert_allclose(single.chi2, fit.chi2, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(single.scale, fit.scale)
    np.testing.assert_array_equal(single.n_eff, 1.0)
    np.testing.assert_allclose(single.shape_mean[:, 1:], shape[fit.best, 1:])


def test_photometric_sigma__adds_the_floor_in_quadrature():
    sigma = photometric_sigma(
        np.array([[10.0, -10.0, 10.0]]), np.array([[0.3, 0.3, 0.3]]), np.array([0.04, 0.04, 0.0])
    )
    np.testing.assert_allclose(sigma, [[0.5, 0.5, 0.3]])


@pytest.mark.parametrize(
    ("flux", "err", "floor"),
    [
        (np.nan, 1.0, 0.05), (np.inf, 1.0, 0.05), (1.0, np.nan, 0.05), (1.0, np.inf, 0.05),
        (1.0, 0.0, 0.05), (1.0, -99.0, 0.05), (1.0, 1.0, np.inf), (np.nan, np.nan, np.inf),
    ],
)  # fmt: skip
def test_photometric_sigma__no_data_is_an_infinite_error(flux, err, floor):
    sigma = photometric_sigma(np.array([[flux, 1.0]]), np.array([[err, 1.0]]),
                              np.array([floor, 0.0]))  # fmt: skip
    np.testing.assert_array_equal(sigma, [[np.inf, 1.0]])
