"""Pixels in motion: models, windows and features follow; velocities are found with true errors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from lazy import raise_if_computes
from spectral_cases import (
    BANDS,
    FACTOR,
    LIBRARY,
    WAVE,
    P,
    X,
    Z,
    dataset,
    pixels,
    reference,
    toy_library,
)

from specphoto import match_spatial, match_spectral, open_ifs, open_photometry
from specphoto.errors import InputError
from specphoto.io.library import default_library
from specphoto.photometry.filters import load_filters
from specphoto.simulate import PixelGrid, simulate_galaxy
from specphoto.simulate.populations import population_library
from specphoto.spectral import legendre
from specphoto.spectral.lines import line_channels
from specphoto.spectral.motion import FASTEST, Motion, measure_velocities
from specphoto.spectral.pixel import Pixels, correct_pixels
from specphoto.spectral.tabulated import TabulatedLibrary
from specphoto.spectral.velocity import make_template

C = 299_792.458
MANGA = 10.0 ** (np.log10(3621.6) + 1e-4 * np.arange(4563))


def lines(wave, velocity, centre=6000.0):
    return np.exp(-0.5 * ((wave - centre * (1.0 + velocity / C)) / 6.0) ** 2)


def test_motion__moves_models_and_windows_to_the_red_for_receding_pixels():
    motion = Motion(MANGA, np.array([-300.0, 0.0, 300.0, np.nan]))
    moved = motion.of_models(np.tile(1.0 - 0.5 * lines(MANGA, 0.0), (4, 1)))
    for row, v in zip(moved, (-300.0, 0.0, 300.0, 0.0), strict=True):
        np.testing.assert_allclose(row, 1.0 - 0.5 * lines(MANGA, v), atol=4e-3)
    windows = motion.of_windows(line_channels(MANGA, Z, None, half_width=400.0))
    for row, v in zip(windows, (-300.0, 0.0, 300.0, 0.0), strict=True):
        wanted = line_channels(MANGA, (1.0 + Z) * (1.0 + v / C) - 1.0, None, half_width=400.0)
        # windows keep their width in channels: an edge may be one off
        assert np.mean(row != wanted) < 0.02


def test_motion__spectra_at_rest_are_those_that_do_not_move():
    speed = np.array([-250.0, 137.0])
    moving = np.stack([1.0 - 0.5 * lines(MANGA, v) for v in speed])
    flux, variance, good = Motion(MANGA, speed).at_rest(
        moving, np.full(moving.shape, 2.0), np.ones(moving.shape, bool)
    )
    still = 1.0 - 0.5 * lines(MANGA, 0.0)
    # the nearest channel is up to half of one, 35 km/s, away
    assert np.abs(flux - still).max() < 0.5 * 35.0 / C * 6000.0 / 6.0 * 0.61
    np.testing.assert_array_equal(variance, 2.0)
    assert not good[0, 0]
    assert good[1, 0]
    assert not good[1, -1]
    assert good.mean() > 0.99


def moving_pixels(speed, **options):
    """Pixels whose spectra move; photometry, factor and noise are those of pixels at rest."""
    n = len(speed)
    noisy, still = pixels(n, **options), pixels(n, **(options | {"sn": 1e9}))
    moved = Motion(WAVE, speed).of_models(still.flux * P) / P
    return noisy._replace(flux=noisy.flux - still.flux + moved)


def wrong(result):
    return result.coef @ legendre.basis(X, 3) / P - 1.0


def rms(result):
    return np.sqrt(np.mean(wrong(result) ** 2))


def test_correct_pixels__rotation_is_followed_where_it_is_given():
    # channels of this grid are 276 km/s
    speed = np.linspace(-1000.0, 1000.0, 40)
    data, shared = moving_pixels(speed, sn=50.0), reference()
    blind, seeing = (
        correct_pixels(data._replace(velocity=v), shared) for v in (None, speed)
    )  # fmt: skip
    # the factor is as right as that of pixels at rest, and hardly worse without
    still = rms(correct_pixels(pixels(40, sn=50.0), shared))
    assert rms(seeing) < 1.03 * still
    assert rms(seeing) < 0.95 * rms(blind) < 1.2 * still
    # the reference has its lines where the pixel has them: what is left is the noise of 2%
    line = np.abs(WAVE - 5177.0 * (1.0 + Z)) < 60.0
    truth = (data.flux * P)[:, line]
    miss = [np.std(r.model[:, line] / truth, axis=1).mean() for r in (blind, seeing)]
    assert miss[1] < 0.02
    assert miss[0] > 0.04


def test_correct_pixels__no_motion_is_no_change():
    data, shared = pixels(20), reference()
    still = correct_pixels(data, shared)
    zero = correct_pixels(data._replace(velocity=np.zeros(20)), shared)
    unknown = correct_pixels(data._replace(velocity=np.full(20, np.nan)), shared)
    np.testing.assert_allclose(zero.coef, still.coef, rtol=1e-9)
    np.testing.assert_array_equal(unknown.coef, zero.coef)


def test_correct_pixels__emission_lines_move_with_the_pixel():
    fast = np.full(40, 1000.0)
    halpha = 30.0 * np.exp(-0.5 * ((WAVE - 6564.6 * (1.0 + Z)) / 3.0) ** 2)
    data, shared = moving_pixels(fast, sn=50.0, extra=halpha), reference()
    # at 1000 km/s the line is outside the windows of 500 km/s about where it would be at rest
    blind, seeing = (correct_pixels(data._replace(velocity=v), shared) for v in (None, fast))
    assert rms(seeing) < 1.1 * rms(correct_pixels(pixels(40, sn=50.0, extra=halpha), shared))
    assert rms(seeing) < 0.9 * rms(blind)


def test_correct_pixels__one_line_spread_of_all_pixels_suffices():
    # as a cube half of whose pixels are 30% sharper and half 30% blunter than their mean
    n, mean, rng = 60, 2.5, np.random.default_rng(5)
    family, index = population_library("two_burst"), np.arange(0, 240, 4)
    photometry = family.photometry(Z, load_filters(list(BANDS)))[index]
    L = legendre.basis(legendre.normalized(MANGA, MANGA[0], MANGA[-1]), 3)
    factor = FACTOR @ L
    photo_noise, noise = rng.normal(size=photometry.shape), rng.normal(size=(n, MANGA.size))
    library = default_library(1500)
    shared = reference(library=library, wave=MANGA, lsf=mean)
    for width in (0.7, 1.3):
        flux = family.observed(Z, MANGA, np.full(MANGA.size, width * mean)).spectra(index) / factor
        err = np.median(flux, axis=1)[:, None] / 20.0 * np.ones_like(flux)
        data = Pixels(photometry * (1.0 + 0.03 * photo_noise), 0.03 * photometry,
                      flux + err * noise, err, np.zeros(flux.shape, bool))  # fmt: skip
        own = correct_pixels(data, reference(library=library, wave=MANGA, lsf=width * mean)).coef
        change = (correct_pixels(data, shared).coef - own) @ L / factor
        assert abs(change.mean()) < 5e-4
        assert np.sqrt(np.mean(change**2)) < 3e-3


@pytest.fixture(scope="module")
def moving_models():
    """Models of the default library on MaNGA's wavelengths, with velocities and a template."""
    library, rng = default_library(400), np.random.default_rng(2)
    models = library.observed(Z, MANGA, 72.0 / C * MANGA)
    speed = rng.uniform(-250.0, 250.0, 120)
    spectra = models.spectra(rng.integers(0, 400, 120))
    moved = Motion(MANGA, speed).of_models(spectra / np.median(spectra, axis=1)[:, None])
    return speed, moved, *make_template(library, Z, MANGA, 500.0)


@pytest.mark.parametrize("snr", [5.0, 50.0])
def test_measure_velocities__errors_are_true(moving_models, snr):
    speed, spectra, template, clean = moving_models
    err = np.ones_like(spectra) / snr
    flux = spectra + err * np.random.default_rng(3).normal(size=err.shape)
    use = np.broadcast_to(clean, flux.shape)
    found = measure_velocities(flux, err**2, use, template, MANGA)
    known = np.isfinite(found.velocity)
    assert known.mean() > (0.5 if snr < 10 else 0.9)
    pull = (found.velocity - speed)[known] / found.error[known]
    assert abs(np.median(pull)) < 0.4
    assert 0.4 < 1.48 * np.median(np.abs(pull)) < 1.4
    assert np.percentile(np.abs(pull), 95) < 3.0
    assert np.median(found.error[known]) < (45.0 if snr < 10 else 20.0)


def test_measure_velocities__noise_has_none():
    rng = np.random.default_rng(4)
    library = default_library(100)
    template, clean = make_template(library, Z, MANGA, 500.0)
    flux = 1.0 + 0.3 * rng.normal(size=(200, MANGA.size))
    flux[:20] = 0.0
    variance = np.full(flux.shape, 0.09)
    found = measure_velocities(flux, variance, np.broadcast_to(clean, flux.shape), template, MANGA)
    assert np.isfinite(found.velocity).mean() <= 0.01
    assert np.all(np.isnan(found.velocity) == np.isnan(found.error))


def test_make_template__a_library_that_ends_inside_the_cube():
    rest = np.linspace(3900.0, 6500.0, 5000)
    lined = 1.0 - 0.4 * lines(rest, 0.0, 5177.0) - 0.4 * lines(rest, 0.0, 4862.7)
    library = TabulatedLibrary(rest, np.tile(lined, (3, 1)).astype("f4"), np.full(5000, 2.5))
    template, clean = make_template(library, Z, MANGA, 500.0)
    assert not clean[MANGA > 6500.0 * (1.0 + Z)].any()
    assert clean[np.abs(MANGA - 5400.0) < 100.0].mean() > 0.5
    moved = Motion(MANGA, np.array([150.0])).of_models(np.nan_to_num(template)[None])
    found = measure_velocities(moved, np.full(moved.shape, 1e-4), clean[None], template, MANGA)
    assert found.velocity[0] == pytest.approx(150.0, abs=found.error[0])
    assert found.error[0] < 20.0
    beyond = TabulatedLibrary(rest + 9000.0, library.flux, library.fwhm)
    template, clean = make_template(beyond, Z, MANGA, 500.0)
    assert not clean.any()
    nothing = measure_velocities(moved, np.ones(moved.shape), clean[None], template, MANGA)
    assert np.isnan(nothing.velocity[0])


def test_measure_velocities__faster_than_looked_for_is_unknown(moving_models):
    _, _, template, clean = moving_models
    spectra = Motion(MANGA, np.array([0.0, 1.5 * FASTEST])).of_models(np.tile(template, (2, 1)))
    use = np.broadcast_to(clean, spectra.shape)
    found = measure_velocities(spectra, np.full(spectra.shape, 1e-4), use, template, MANGA)
    assert found.velocity[0] == pytest.approx(0.0, abs=3.0)
    assert np.isnan(found.velocity[1])


def test_match_spectral__velocity_given_or_measured():
    data, library = dataset(sn=50.0), toy_library()
    field = np.zeros((7, 9))
    field[3, 4] = np.nan
    with raise_if_computes():
        given = match_spectral(data, library=library, velocity=field)
        measured = match_spectral(data, library=library, velocity="measured")
    plain = match_spectral(data, library=library)
    assert "spec_velocity" not in plain
    np.testing.assert_allclose(given["corr_coef"], plain["corr_coef"], rtol=1e-5)
    np.testing.assert_array_equal(given["spec_velocity"], field.astype("f4"))
    found = measured[["spec_velocity", "spec_velocity_err", "corr_coef"]].compute()
    known = np.isfinite(found["spec_velocity"].values)
    assert not known[0, 0]  # there is no spectrum
    assert known.mean() > 0.5
    pull = (found["spec_velocity"] / found["spec_velocity_err"]).values[known]
    assert np.abs(pull).max() < 4.0
    again = match_spectral(data, library=library, velocity=found["spec_velocity"])
    np.testing.assert_allclose(again["corr_coef"], found["corr_coef"], rtol=1e-5)


def test_match_spectral__velocity_of_another_shape_or_name():
    with pytest.raises(InputError, match=r"toy: velocity: .* shape \(7, 9\), found \(3, 3\)"):
        match_spectral(dataset(), library=LIBRARY, velocity=np.zeros((3, 3)))
    with pytest.raises(InputError, match="expected a map in km/s, or 'measured', found 'gas'"):
        match_spectral(dataset(), library=LIBRARY, velocity="gas")


class Turning(NamedTuple):
    """A galaxy's pixels that have a factor: errors of the factor, misfit, velocities in km/s."""

    wrong: np.ndarray  # recovered over injected factor - 1, (n_wave, n_pixel)
    misfit: float  # rms of the reference about the spectrum at 5200 A, over the continuum
    truth: np.ndarray
    found: np.ndarray
    error: np.ndarray

    @property
    def rms(self) -> float:
        return float(np.sqrt(np.mean(self.wrong**2)))


@pytest.fixture(scope="module")
def turning(tmp_path_factory) -> dict[str, Turning]:
    """One galaxy of populations that the fit does not hold, at rest and turning at 250 km/s."""
    out = {}
    for speed in (0.0, 250.0):
        made = simulate_galaxy(
            tmp_path_factory.mktemp("turning"), size=37, seed=3, speed=speed, inclination=75.0,
            family="two_burst", compress=False, cube_options={"snr": 20.0},
            photometry_options={"error": 0.03, "pixels": PixelGrid((27, 27), 1.5)},
        )  # fmt: skip
        photometry = open_photometry(made.photometry.path)
        matched = match_spatial(open_ifs(made.cube.path), photometry).compute()
        at = np.ix_(matched.y.values, matched.x.values)
        truth, factor = made.velocity()[at], made.factor()[(slice(None), *at)]
        ways = {"given": truth, "measured": "measured"} if speed else {}
        for name, velocity in {"not known" if speed else "at rest": None, **ways}.items():
            done = match_spectral(
                matched.chunk(), library=default_library(3000), velocity=velocity
            ).compute()
            out[name] = _turning(done, truth, factor)
    return out


def _turning(done, truth, factor):
    good = done.spec_region.values & np.isfinite(done.corr_coef.values[0])
    x = legendre.normalized(done.wave.values, *done.attrs["corr_range"])
    wrong = legendre.evaluate(done.corr_coef_pixel.values, x)[:, good] / factor[:, good] - 1.0
    near = np.abs(done.wave.values / (1.0 + done.attrs["redshift"]) - 5200.0) < 100.0
    flux, err, model = (
        done[name].values[near][:, good] for name in ("spec_flux", "spec_err", "mod_flux")
    )
    left = flux - model * (flux * model).sum(axis=0) / (model**2).sum(axis=0)
    misfit = np.sqrt(np.mean((left**2 - err**2) / np.median(flux, axis=0) ** 2))
    none = np.full(good.shape, np.nan)
    found, error = (
        done[name].values[good] if name in done else none[good]
        for name in ("spec_velocity", "spec_velocity_err")
    )
    return Turning(wrong, float(misfit), truth[good], found, error)


def test_galaxy__its_velocity_field_is_recovered(turning):
    true, found, error = turning["measured"][2:]
    assert true.max() > 150.0
    assert true.min() < -150.0
    assert np.isfinite(found).mean() > 0.95
    known = np.isfinite(found)
    off = (found - true)[known]
    assert abs(np.median(off)) < 15.0
    assert 1.48 * np.median(np.abs(off)) < 20.0
    assert np.percentile(np.abs(off / error[known]), 95) < 2.5
    assert np.polyfit(true[known], found[known], 1)[0] == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("way", ["not known", "given", "measured"])
def test_galaxy__the_factor_is_as_right_as_at_rest(turning, way):
    still, moving = turning["at rest"], turning[way]
    assert abs(moving.wrong.mean() - still.wrong.mean()) < 0.002
    assert abs(moving.rms - still.rms) < 0.002


def test_galaxy__the_reference_has_its_lines_where_the_pixel_has_them(turning):
    blind = turning["not known"].misfit
    assert blind > 1.8 * turning["at rest"].misfit
    # what is left is the beam's: velocities within it broaden lines
    for way in ("given", "measured"):
        assert turning[way].misfit < 0.7 * blind
