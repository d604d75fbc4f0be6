"""Additive residuals: offsets of the sky beside errors of calibration."""

from __future__ import annotations

import numpy as np
import pytest

from specphoto.spectral.pedestal import additive_residuals, offset


def galaxy(seed, *, slope=0.05, pedestal=0.02, n=400, noise=0.03, scatter=0.03):
    rng = np.random.default_rng(seed)
    true = np.exp(rng.normal(-1.5, 1.0, n))
    synthetic = pedestal + (1.0 + slope) * true * (1.0 + scatter * rng.normal(size=n))
    error = noise * np.ones(n)
    return synthetic[None], (true + error * rng.normal(size=n))[None], error[None]


@pytest.mark.parametrize("pedestal", [0.0, 0.03, -0.05])
@pytest.mark.parametrize("slope", [0.0, 0.1, -0.2])
def test_additive_residuals__come_back_with_their_errors(slope, pedestal):
    pulls = []
    for seed in range(40):
        found = additive_residuals(*galaxy(seed, slope=slope, pedestal=pedestal),
                                   np.ones(400, bool), 1.0)  # fmt: skip
        pulls.append([(found.slope[0] - slope) / found.slope_err[0],
                      (found.pedestal[0] - pedestal) / found.pedestal_err[0]])  # fmt: skip
    assert 0.75 < np.std(pulls) < 1.25
    assert np.abs(np.mean(pulls, axis=0)).max() < 0.6


def test_additive_residuals__noise_of_the_images_biases_nothing():
    # regressed the other way the slope would be attenuated by the images' noise
    found = [additive_residuals(*galaxy(s, slope=0.0, pedestal=0.0, noise=0.3, scatter=0.0),
                                np.ones(400, bool), 1.0) for s in range(60)]  # fmt: skip
    slope = np.array([f.slope[0] for f in found])
    assert abs(slope.mean()) < 3.0 * slope.std() / np.sqrt(60)
    drawn = [galaxy(k, slope=0.0, pedestal=0.0, noise=0.3) for k in range(60)]
    naive = [np.polyfit(d[0], synthetic[0], 1)[0] - 1.0 for synthetic, d, _ in drawn]
    assert np.mean(naive) < -0.1


def test_additive_residuals__stars_and_gaps_are_left_out():
    S, d, error = galaxy(1)
    S[0, :20] += 3.0
    d[0, 30:40] = np.nan
    error[0, 50:60] = np.inf
    found = additive_residuals(S, d, error, np.ones(400, bool), 1.0)
    assert found.pedestal[0] == pytest.approx(0.02, abs=4 * found.pedestal_err[0])
    masked = np.arange(400) >= 20
    again = additive_residuals(S, d, error, masked, 1.0)
    assert found.pedestal[0] == pytest.approx(again.pedestal[0], abs=found.pedestal_err[0])


def test_additive_residuals__a_beam_counts_once_and_too_few_are_unknown():
    data = galaxy(2)
    one, many = (additive_residuals(*data, np.ones(400, bool), b) for b in (1.0, 16.0))
    np.testing.assert_allclose(many.pedestal_err, 4.0 * one.pedestal_err)
    none = additive_residuals(*data, np.arange(400) < 5, 1.0)
    assert np.isnan([*none]).all()


def test_offset__is_linear_between_bands_and_leaves_unknown_ones_out():
    wave = np.array([4000.0, 5000.0, 6000.0, 9000.0])
    pivot, pedestal = np.array([6000.0, 5000.0, 4000.0, 7000.0]), np.array([2.0, np.nan, 0.0, 4.0])
    np.testing.assert_allclose(offset(wave, pivot, pedestal), [0.0, 1.0, 2.0, 4.0])
    np.testing.assert_array_equal(offset(wave, pivot, np.full(4, np.nan)), 0.0)
