from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import quad
from sedpy import observate

from specphoto.errors import InputError
from specphoto.photometry.filters import Filter, load_filters
from specphoto.photometry.synthetic import ab_magnitude, photon_weights, synthetic_flux

CURVE = Filter("test", np.array([4.0, 4.3, 5.1, 6.2, 7.0]), np.array([0.0, 0.7, 1.0, 0.4, 0.2]))
SEDPY = {
    "galex_fuv": "galex_FUV", "galex_nuv": "galex_NUV", "sdss_u": "sdss_u0", "sdss_g": "sdss_g0",
    "sdss_r": "sdss_r0", "sdss_i": "sdss_i0", "sdss_z": "sdss_z0", "2mass_j": "twomass_J",
    "2mass_h": "twomass_H", "2mass_k": "twomass_Ks", "wise_w1": "wise_w1", "wise_w2": "wise_w2",
}  # fmt: skip


def brute_force(wave, flux, curve: Filter, *, lo: float, hi: float) -> tuple[float, float]:
    """Integrals of F R lam and R lam by adaptive quadrature between all nodes."""
    edges = np.unique(np.concatenate([wave, curve.wave, [lo, hi]]))
    edges = edges[(edges >= lo) & (edges <= hi)]

    def response(lam: float) -> float:
        return float(np.interp(lam, curve.wave, curve.response, left=0, right=0) * lam)

    def signal(lam: float) -> float:
        return response(lam) * float(np.interp(lam, wave, flux))

    pairs = list(pairwise(edges))
    return (
        sum(quad(signal, a, b)[0] for a, b in pairs),
        sum(quad(response, a, b)[0] for a, b in pairs),
    )


def blackbody(wave, temperature: float):
    return 1e20 / wave**5 / np.expm1(1.4387769e8 / (wave * temperature))


@pytest.mark.parametrize(
    ("first", "last", "n_wave"), [(3.0, 8.0, 23), (3.0, 8.0, 3), (5.0, 6.5, 9), (3.0, 5.5, 14)]
)
def test_photon_weights__equal_brute_force(first, last, n_wave):
    rng = np.random.default_rng(3)
    wave = np.sort(np.r_[first, last, rng.uniform(first, last, n_wave - 2)])
    flux = rng.normal(5.0, 2.0, n_wave)
    weights, covered = photon_weights(wave, [CURVE])
    lo, hi = max(first, 4.0), min(last, 7.0)
    signal, inside = brute_force(wave, flux, CURVE, lo=lo, hi=hi)
    total = brute_force(wave, flux, CURVE, lo=4.0, hi=7.0)[1]
    assert flux @ weights[:, 0] == pytest.approx(signal / inside, rel=1e-10)
    assert covered[0] == pytest.approx(inside / total, rel=1e-10)


def test_photon_weights__flat_spectrum_is_one():
    wave = np.geomspace(1000.0, 70000.0, 4563)
    weights, covered = photon_weights(wave, load_filters(SEDPY))
    np.testing.assert_allclose(weights.sum(axis=0), 1.0, rtol=1e-12)
    np.testing.assert_allclose(covered, 1.0, rtol=1e-12)
    assert weights.min() >= 0


def test_photon_weights__linear_spectrum_is_exact_on_any_grid():
    coarse, fine = np.array([3000.0, 11000.0]), np.linspace(3000.0, 11000.0, 5000)
    curves = load_filters(["sdss_g", "sdss_r", "sdss_i"])
    means = [(w - 2500.0) @ photon_weights(w, curves)[0] for w in (coarse, fine)]
    np.testing.assert_allclose(means[0], means[1], rtol=1e-12)


def test_photon_weights__no_overlap_is_zero_weight():
    weights, covered = photon_weights(np.linspace(3600.0, 10300.0, 50), load_filters(["wise_w1"]))
    assert covered[0] == 0
    assert not weights.any()


def test_photon_weights__wavelengths_must_increase():
    with pytest.raises(InputError, match="increase"):
        photon_weights([5000.0, 4000.0], [CURVE])
    with pytest.raises(InputError, match="at least 2"):
        photon_weights([5000.0], [CURVE])


@pytest.mark.parametrize("temperature", [3000.0, 6000.0, 20000.0])
def test_synthetic_flux__agrees_with_sedpy(temperature):
    # on the relative scale: sedpy rounds c and the AB zero point, worth 9e-5 mag together
    wave = np.geomspace(1000.0, 70000.0, 40000)
    flux = blackbody(wave, temperature)
    ours = synthetic_flux(flux, wave, load_filters(SEDPY))
    theirs = []
    for name in SEDPY.values():
        curve = observate.Filter(name)
        theirs.append(curve.obj_counts(wave, flux) / curve.obj_counts(wave, np.ones(wave.size)))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


def test_ab_magnitude__agrees_with_sedpy():
    wave = np.geomspace(1000.0, 70000.0, 40000)
    flux = 1e-17 * blackbody(wave, 6000.0)
    curves = load_filters(SEDPY)
    ours = ab_magnitude(synthetic_flux(flux, wave, curves) / 1e-17, [c.pivot for c in curves])
    theirs = [float(observate.Filter(name).ab_mag(wave, flux)) for name in SEDPY.values()]
    np.testing.assert_allclose(ours, theirs, atol=2e-4)


def test_ab_magnitude__flat_in_frequency_is_the_same_in_all_bands():
    wave = np.geomspace(1000.0, 70000.0, 40000)
    curves = load_filters(SEDPY)
    flux = 3630.78 * 1e-23 * 2.99792458e18 / wave**2 / 1e-17  # 3630.78 Jy is 0 mag
    magnitudes = ab_magnitude(synthetic_flux(flux, wave, curves), [c.pivot for c in curves])
    np.testing.assert_allclose(magnitudes, 0.0, atol=2e-5)


def test_ab_magnitude__flux_that_is_not_positive_is_nan():
    assert np.isnan(ab_magnitude([-1.0, 0.0, np.nan], 5000.0)).all()


def test_synthetic_flux__keeps_the_shape_and_marks_what_is_not_covered():
    wave = np.arange(3600.0, 10300.0, 2.0)
    flux = np.broadcast_to(wave[:, None, None], (wave.size, 2, 3))
    mean = synthetic_flux(flux, wave, load_filters(["sdss_u", "sdss_r", "wise_w1"]))
    assert mean.shape == (3, 2, 3)
    assert np.isnan(mean[[0, 2]]).all()
    assert (np.abs(mean[1] - 6200) < 50).all()
    assert np.isfinite(synthetic_flux(flux, wave, load_filters(["sdss_u"]), min_covered=0.1)).all()


def test_synthetic_flux__bad_channels_count_as_not_covered():
    wave = np.arange(5000.0, 7500.0, 2.0)
    flux = np.full((wave.size, 2), 4.0)
    flux[600, 0] = np.nan  # one channel of about 700
    flux[500:700, 1] = np.inf
    mean = synthetic_flux(flux, wave, load_filters(["sdss_r"]))
    assert mean[0, 0] == pytest.approx(4.0, rel=1e-12)
    assert np.isnan(mean[0, 1])


def test_synthetic_flux__channels_and_wavelengths_must_agree():
    with pytest.raises(InputError, match="first axis"):
        synthetic_flux(np.ones((3, 50)), np.linspace(4.0, 7.0, 50), [CURVE])
