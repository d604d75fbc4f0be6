"""Features of spectra: blind to the calibration, sharp on the populations."""

from __future__ import annotations

import numpy as np
import pytest
from spectral_cases import WAVE, X, Z

from specphoto.io.library import default_library
from specphoto.spectral import legendre
from specphoto.spectral.features import find_features
from specphoto.spectral.lines import line_channels, sky_channels

LSF = np.full(WAVE.size, 2.5)
LIBRARY = default_library(1500)
CLEAN = ~(line_channels(WAVE, Z, LSF) | sky_channels(WAVE))


@pytest.fixture(scope="module")
def found():
    return find_features(LIBRARY.observed(Z, WAVE, LSF), LIBRARY.n_model, WAVE, CLEAN, Z)


def spectra(index):
    return LIBRARY.observed(Z, WAVE, LSF).spectra(np.asarray(index))


def measured(features, flux, sn=1e4):
    noise = np.median(flux, axis=1)[:, None] / sn * np.ones_like(flux)
    return features.measure(flux, noise**2, np.ones(flux.shape, bool))


def test_measure__gives_the_features_of_the_models(found):
    features, values = found
    index = np.arange(0, LIBRARY.n_model, 3)
    away = measured(features, spectra(index)).value - values[index]
    assert np.abs(away).max() < 0.5 * np.sqrt(features.error[0, 0])
    assert values.std(axis=0)[0] > 3 * np.sqrt(features.error[0, 0])


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e6])
def test_measure__a_smooth_factor_changes_nothing(found, scale):
    features, _ = found
    flux = spectra(np.arange(3, 1500, 50))
    factor = scale * (np.array([1.0, 0.15, -0.1, 0.05]) @ legendre.basis(X, 3))
    dust = np.exp(-0.7 * (WAVE / 5500.0) ** -1.3)
    plain = measured(features, flux)
    for change in (factor, 1.0 / factor, dust):
        away = measured(features, flux * change).value - plain.value
        assert np.abs(away).max() < 1.5 * np.sqrt(features.error[0, 0])
        assert np.sqrt(np.mean(away**2)) < 0.5 * np.sqrt(features.error[0, 0])


def test_measure__noise_is_that_of_the_weights(found):
    features, _ = found
    rng = np.random.default_rng(2)
    flux = np.repeat(spectra([20]), 400, axis=0)
    noise = np.median(flux) / 8.0
    got = features.measure(flux + noise * rng.normal(size=flux.shape),
                           np.full(flux.shape, noise**2), np.ones(flux.shape, bool))  # fmt: skip
    scatter = np.cov(got.value.T)
    stated = np.linalg.inv(got.weight).mean(axis=0) - features.error
    np.testing.assert_allclose(np.sqrt(np.diag(scatter)), np.sqrt(np.diag(stated)), rtol=0.15)
    # its bias, of weights that follow the noise, is small against the models' own error
    bias = got.value.mean(axis=0) - measured(features, flux[:1]).value[0]
    assert np.abs(bias).max() < 0.5 * np.sqrt(features.error[0, 0])


def test_measure__masked_channels_are_not_read_and_cost_weight(found):
    features, _ = found
    flux = spectra([5, 6])
    good = np.ones(flux.shape, bool)
    good[:, 300:500] = False
    good[:, ::7] = False
    variance = (0.02 * flux) ** 2
    dirty = np.where(good, flux, -1e9)
    a = features.measure(np.where(good, flux, 0.0), variance, good)
    b = features.measure(np.where(good, dirty, 0.0), variance, good)
    np.testing.assert_array_equal(a.value, b.value)
    whole = features.measure(flux, variance, np.ones_like(good))
    assert (np.trace(a.weight, axis1=1, axis2=2) < np.trace(whole.weight, axis1=1, axis2=2)).all()


def test_measure__what_tells_nothing_has_no_weight(found):
    features, _ = found
    flux = spectra([1, 2, 3, 4])
    good = np.ones(flux.shape, bool)
    good[0], good[1, 200:] = False, False
    flux[2] *= -1.0
    got = features.measure(np.where(good, flux, 0.0), (0.1 * np.abs(flux)) ** 2, good)
    assert (got.weight[:3] == 0).all()
    assert np.isfinite(got.value).all()
    assert (np.linalg.eigvalsh(got.weight[3]) > 0).all()


def test_find_features__bins_of_a_composite_are_means_over_clean_channels():
    models = default_library(64).observed(Z, WAVE, LSF)
    features, _ = find_features(models, 64, WAVE, CLEAN, Z)
    index = np.arange(64)
    whole, binned = models.spectra(index), models.binned(features.average).spectra(index)
    number = features.average.shape[1]
    for b in (0, number // 2, number - 1):
        channel = features.average[:, [b]].toarray()[:, 0] > 0
        assert CLEAN[channel].all()
        np.testing.assert_allclose(binned[:, b], whole[:, channel].mean(axis=1), rtol=1e-3)


def test_find_features__errors_hold_the_velocity(found):
    features, _ = found
    models = LIBRARY.observed(Z, WAVE, LSF)
    flux = models.spectra(np.arange(LIBRARY.n_model))
    ratio = 1.0 + 150.0 / 299_792.458
    moved = np.stack([np.interp(WAVE / ratio, WAVE, row) for row in flux])
    change = measured(features, moved).value - measured(features, flux).value
    weight = np.linalg.inv(features.error)
    assert np.median(np.einsum("pi,ij,pj->p", change, weight, change)) < 2.0


def test_find_features__too_little_of_a_spectrum_has_none():
    part = slice(0, 60)
    models = LIBRARY.observed(Z, WAVE[part], LSF[part])
    assert find_features(models, LIBRARY.n_model, WAVE[part], CLEAN[part], Z) is None
