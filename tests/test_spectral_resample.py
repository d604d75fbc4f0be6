"""Resampling and smoothing against quadrature and analytic cases."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from specphoto.spectral.resample import (
    channel_edges,
    kernel_sigma,
    line_profiles,
    observing_matrix,
    resample_matrix,
)

FINE = np.arange(4000.0, 6000.0, 0.9)
CHANNELS = 10 ** np.arange(np.log10(4100.0), np.log10(5900.0), 1e-4)


def gaussian(wave: np.ndarray, centre: float, sigma: float) -> np.ndarray:
    return norm.pdf(wave, centre, sigma)


def moments(wave: np.ndarray, line: np.ndarray) -> tuple[float, float, float]:
    steps = np.diff(channel_edges(wave))
    flux = np.sum(line * steps)
    centre = np.sum(line * steps * wave) / flux
    return flux, centre, np.sum(line * steps * (wave - centre) ** 2) / flux


def test_channel_edges__meet_half_way_and_keep_the_ends_symmetric():
    np.testing.assert_allclose(channel_edges(np.array([1.0, 2.0, 4.0])), [0.5, 1.5, 3.0, 5.0])


@pytest.mark.parametrize("sigma", [None, 0.0, 0.7, 4.0])
def test_resample_matrix__rows_sum_to_one(sigma):
    width = None if sigma is None else np.full(CHANNELS.size, sigma)
    matrix, inside = resample_matrix(FINE, CHANNELS, width)
    assert inside.all()
    np.testing.assert_allclose(matrix @ np.full(FINE.size, 3.0), 3.0, rtol=1e-8)


@pytest.mark.parametrize("sigma", [0.0, 0.3, 2.0, 9.0])
def test_resample_matrix__equals_quadrature(sigma):
    rng = np.random.default_rng(3)
    wave_in = np.sort(rng.uniform(4000.0, 4300.0, 150))
    wave_out = np.sort(rng.uniform(4100.0, 4200.0, 25))
    flux = rng.normal(size=wave_in.size)
    matrix, inside = resample_matrix(wave_in, wave_out, np.full(wave_out.size, sigma))
    assert inside.all()
    edges = channel_edges(wave_out)
    x = np.arange(4030.0, 4270.0, 1e-3) + 5e-4
    spectrum = np.interp(x, wave_in, flux)
    for i, value in enumerate(matrix @ flux):
        low, high = edges[i : i + 2]
        if sigma:
            seen = norm.cdf(x, low, sigma) - norm.cdf(x, high, sigma)
        else:
            seen = ((x > low) & (x < high)).astype(float)
        assert value == pytest.approx(np.sum(seen * spectrum) / seen.sum(), abs=2e-3)


def test_resample_matrix__follows_a_slope_exactly():
    matrix, _ = resample_matrix(FINE, CHANNELS, np.full(CHANNELS.size, 1.5))
    edges = channel_edges(CHANNELS)
    np.testing.assert_allclose(matrix @ FINE, 0.5 * (edges[1:] + edges[:-1]), rtol=1e-9)


def test_resample_matrix__broadens_a_line_by_its_kernel():
    own, kernel = 1.6, 2.5
    matrix, _ = resample_matrix(FINE, CHANNELS, np.full(CHANNELS.size, kernel))
    flux, centre, variance = moments(CHANNELS, matrix @ gaussian(FINE, 5000.3, own))
    channel = np.log(10) * 1e-4 * 5000.0
    assert flux == pytest.approx(1.0, abs=1e-6)
    assert centre == pytest.approx(5000.3, abs=2e-3)
    expected = own**2 + kernel**2 + 0.9**2 / 6 + channel**2 / 12
    # the moment over channels counts the channel's own width once more
    assert variance == pytest.approx(expected, rel=2e-3)


def test_kernel_sigma__gives_the_line_spread_of_the_data():
    lsf, own = 2.2, 1.3
    sigma = kernel_sigma(np.full(CHANNELS.size, lsf), np.full(CHANNELS.size, own), FINE, CHANNELS)
    matrix, _ = resample_matrix(FINE, CHANNELS, sigma)
    _, _, variance = moments(CHANNELS, matrix @ gaussian(FINE, 5100.0, own))
    assert variance == pytest.approx(lsf**2, rel=2e-3)


def test_kernel_sigma__never_deconvolves_and_ignores_unknown_widths():
    lsf = np.full(CHANNELS.size, 0.5)
    lsf[3] = np.nan
    np.testing.assert_array_equal(
        kernel_sigma(lsf, np.full(CHANNELS.size, 1.0), FINE, CHANNELS), 0.0
    )


def test_resample_matrix__channels_past_the_samples_are_empty():
    wave = np.linspace(3500.0, 6500.0, 900)
    matrix, inside = resample_matrix(FINE, wave, np.full(wave.size, 2.0))
    edges = channel_edges(wave)
    expected = (edges[:-1] - 12.0 >= FINE[0]) & (edges[1:] + 12.0 <= FINE[-1])
    np.testing.assert_array_equal(inside, expected)
    np.testing.assert_array_equal(np.diff(matrix.indptr) > 0, inside)
    nothing, none = resample_matrix(FINE, np.array([100.0, 101.0]))
    assert nothing.nnz == 0
    assert not none.any()


def test_observing_matrix__stretches_both_wavelength_and_resolution():
    z, fwhm, lsf = 0.08, 2.5, 2.6
    wave = np.arange(4700.0, 6000.0, 1.1)
    matrix, _ = observing_matrix(FINE, np.full(FINE.size, fwhm), z, wave, np.full(wave.size, lsf))
    line = gaussian(FINE, 5000.0, fwhm / 2.35482)
    flux, centre, variance = moments(wave, matrix @ line)
    assert centre == pytest.approx(5000.0 * (1 + z), abs=2e-3)
    assert variance == pytest.approx(lsf**2, rel=2e-3)
    assert flux == pytest.approx(1 + z, rel=1e-6)


def test_line_profiles__conserve_flux_however_narrow():
    centre, sigma = np.array([4500.0, 5000.2, 5555.5]), np.array([3.0, 0.4, 0.0])
    profiles = line_profiles(centre, sigma, CHANNELS)
    np.testing.assert_allclose(profiles @ np.diff(channel_edges(CHANNELS)), 1.0, rtol=1e-9)
    assert moments(CHANNELS, profiles[0])[1] == pytest.approx(4500.0, abs=1e-2)
