"""Which channels are not clean continuum."""

from __future__ import annotations

import numpy as np
import pytest

from specphoto.spectral.lines import EMISSION_LINES, line_channels, sky_channels

WAVE = np.arange(3600.0, 10400.0, 0.5)
C = 299_792.458


def at(mask, wavelength):
    return bool(mask[np.argmin(np.abs(WAVE - wavelength))])


@pytest.mark.parametrize("redshift", [-0.001, 0.0, 0.03, 0.15])
def test_line_channels__cover_the_strong_lines_where_they_are_seen(redshift):
    mask = line_channels(WAVE, redshift, None)
    for rest in (3727.09, 3729.88, 4341.68, 4862.68, 5008.24, 6549.85, 6564.61, 6585.27, 6732.67):
        assert at(mask, rest * (1 + redshift))


def test_line_channels__are_as_wide_as_asked_in_velocity():
    mask = line_channels(WAVE, 0.02, None, half_width=300.0)
    for rest in (5008.24, 7137.77, 9071.09):
        velocity = (WAVE / (rest * 1.02) - 1.0) * C
        assert mask[np.abs(velocity) < 299.0].all()
        edge = (np.abs(velocity) > 301.0) & (np.abs(velocity) < 600.0)
        assert not mask[edge].any()


def test_line_channels__widen_by_three_sigma_of_the_line_spread():
    lsf = np.full(WAVE.size, 6.0)
    lsf[:100] = np.nan
    mask = line_channels(WAVE, 0.0, lsf, half_width=100.0)
    reach = 100.0 / C * 5008.24 + 18.0
    assert at(mask, 5008.24 + reach - 1.0)
    assert not at(mask, 5008.24 + reach + 1.0)


def test_line_channels__leave_most_of_the_continuum():
    lsf = np.full(WAVE.size, 2.0)
    for redshift in (0.0, 0.03, 0.1):
        mask = line_channels(WAVE, redshift, lsf)
        assert 0.1 < mask.mean() < 0.35
        assert not at(mask, 5500.0 * (1 + redshift))


def test_emission_lines__are_in_vacuum():
    # NIST, Ritz vacuum wavelengths: [O III], H alpha and [N II] lie 1.4-1.8 A above air
    for vacuum, air in ((5008.24, 5006.84), (6564.61, 6562.79), (6585.27, 6583.45)):
        assert np.abs(EMISSION_LINES - vacuum).min() < 0.05
        assert np.abs(EMISSION_LINES - air).min() > 1.0


def test_sky_channels__hold_the_telluric_bands_and_the_night_sky_in_the_observed_frame():
    mask = sky_channels(WAVE)
    for telluric in (6870.0, 6900.0, 7610.0, 7650.0, 9400.0):
        assert at(mask, telluric)
    for night_sky in (5578.9, 5894.6, 6302.0):
        assert at(mask, night_sky)
    for clean in (4500.0, 5500.0, 6564.6, 7000.0, 7750.0, 8800.0, 9700.0):
        assert not at(mask, clean)
    assert mask.mean() < 0.1
