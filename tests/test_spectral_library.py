"""Composite and tabulated libraries against slow, obvious sums."""

from __future__ import annotations

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from specphoto.errors import InputError
from specphoto.io.library import default_grid, default_library
from specphoto.photometry.filters import Filter, load_filters
from specphoto.photometry.synthetic import photon_weights
from specphoto.spectral.dust import birth_transmission, ism_transmission
from specphoto.spectral.library import CompositeLibrary, SSPGrid, TabulatedLibrary
from specphoto.spectral.parameters import ModelParameters, sample_parameters
from specphoto.spectral.priors import HISTORIES
from specphoto.spectral.sfh import star_formation_rate

BANDS = [
    *("galex_fuv", "galex_nuv", "sdss_u", "sdss_g", "sdss_r", "sdss_i", "sdss_z"),
    *("2mass_j", "2mass_h", "2mass_k", "wise_w1", "wise_w2"),
]
MANGA = 3621.59598486 * 10 ** (1e-4 * np.arange(4563))


@pytest.fixture(scope="module")
def filters() -> list[Filter]:
    return load_filters(BANDS)


@pytest.fixture(scope="module")
def library() -> CompositeLibrary:
    return default_library(200)


def slow_spectrum(grid: SSPGrid, models: ModelParameters, i: int) -> np.ndarray:
    """Rest-frame spectrum of one model: stars of every age, one after the other."""
    p = models.take(slice(i, i + 1))
    edges = np.unique(
        np.concatenate([np.geomspace(1e3, 1e7, 300), np.geomspace(1e7, p.age[0], 900)])
    )
    edges = np.concatenate([[0.0], edges[edges <= p.age[0]], p.age])
    age, step = 0.5 * (edges[1:] + edges[:-1]), np.diff(edges)
    mass = star_formation_rate(p.age - age[None], p)[0] * step
    mass /= mass.sum()
    m = int(np.searchsorted(grid.metallicity, p.metallicity[0], side="right")) - 1
    share = np.log(p.metallicity[0] / grid.metallicity[m])
    share /= np.log(grid.metallicity[m + 1] / grid.metallicity[m])
    populations = (1 - share) * grid.flux[m].astype(float) + share * grid.flux[m + 1]
    node = np.clip(np.searchsorted(grid.age, age, side="right") - 1, 0, grid.age.size - 2)
    above = (age - grid.age[node]) / (grid.age[node + 1] - grid.age[node])
    total = np.zeros(grid.wave.size)
    clouds = birth_transmission(grid.wave, p)[0]
    for k, dm, a, old in zip(node, mass, above, age > 1e7, strict=True):
        star = (1 - a) * populations[k] + a * populations[k + 1]
        total += dm * star * (1.0 if old else clouds)
    return total * ism_transmission(grid.wave, p)[0]


@pytest.mark.parametrize("redshift", [-0.001, 0.03, 0.15])
def test_photometry__equals_full_spectra_through_the_filters(library, filters, redshift):
    numbers = [1, 2, 50, 78, 101, 150]
    fast = library.photometry(redshift, filters)[numbers]
    spectra = np.array([slow_spectrum(library.grid, library.parameters, i) for i in numbers])
    weights, _ = photon_weights(library.grid.wave * (1 + redshift), filters)
    slow = spectra @ weights / (1 + redshift)
    # optical depths far above 5 in the far ultraviolet are light that nobody sees
    bright = slow > 1e-3 * slow.max(axis=1, keepdims=True)
    np.testing.assert_allclose(fast[bright], slow[bright], rtol=2e-3)
    assert np.median(np.abs(fast / slow - 1)) < 2e-4


def test_photometry__bands_out_of_range_are_nan(library, filters):
    far = Filter("far", np.array([2e5, 2.2e5, 2.4e5]), np.array([0.0, 1.0, 0.0]))
    edge = Filter("edge", np.array([5e4, 7e4]), np.array([1.0, 1.0]))
    flux = library.photometry(0.03, [filters[3], far, filters[4], edge])
    np.testing.assert_array_equal(np.isnan(flux).all(axis=0), [False, True, False, True])
    assert np.all(flux[:, [0, 2]] > 0)
    np.testing.assert_array_equal(flux[:, [0, 2]], library.photometry(0.03, filters[3:5]))
    assert np.isnan(library.photometry(0.03, [far])).all()


def test_photometry__default_bands_are_inside_at_the_redshifts_of_the_surveys(library, filters):
    for redshift in (-0.003, 0.0, 0.1, 0.2):
        assert np.isfinite(library.photometry(redshift, filters)).all()


def test_spectra__equal_a_slow_sum(library):
    wave, z = MANGA[::7], 0.03
    numbers = np.array([3, 60, 141])
    fast = library.observed(z, wave, None).spectra(numbers)
    edges = np.concatenate([[0], 0.5 * (wave[1:] + wave[:-1]), [0]])
    for row, i in zip(fast, numbers, strict=True):
        spectrum = slow_spectrum(library.grid, library.parameters, i) / (1 + z)
        for c in (1, 200, 400, 600):
            points = np.linspace(edges[c], edges[c + 1], 2001)
            mean = np.interp(points, library.grid.wave * (1 + z), spectrum).mean()
            assert row[c] == pytest.approx(mean, rel=2e-3)


@pytest.mark.parametrize("nebular", [False, True])
@pytest.mark.parametrize("redshift", [-0.001, 0.0294, 0.12])
def test_spectra__have_the_photometry_of_the_library(filters, redshift, nebular):
    library = default_library(64, nebular=nebular)
    wave = np.arange(3500.0, 10300.0, 1.2)
    weights, covered = photon_weights(wave, filters)
    inside = covered > 0.9999
    assert inside.sum() >= 3
    spectra = library.observed(redshift, wave, 70.0 / 3e5 * wave).spectra(np.arange(64))
    flux = spectra @ weights[:, inside]
    np.testing.assert_allclose(flux, library.photometry(redshift, filters)[:, inside], rtol=1e-3)


def test_spectra__are_smooth_to_the_line_spread_of_the_data(library):
    wave = np.arange(4500.0, 7000.0, 1.0)
    sharp = library.observed(0.0, wave, None).spectra(np.array([5]))[0]
    broad = library.observed(0.0, wave, np.full(wave.size, 8.0)).spectra(np.array([5]))[0]
    kernel = np.exp(-0.5 * (np.arange(-40, 41) / np.sqrt(64 - (2.5 / 2.35482) ** 2)) ** 2)
    expected = np.convolve(sharp, kernel / kernel.sum(), mode="same")
    np.testing.assert_allclose(broad[100:-100], expected[100:-100], rtol=2e-3)


def test_spectra__nan_where_the_library_does_not_reach(library):
    wave = np.arange(800.0, 1500.0, 5.0)
    spectra = library.observed(0.0, wave, None).spectra(np.array([0, 1, 1]))
    first = library.wave_range[0]
    np.testing.assert_array_equal(np.isfinite(spectra[0]), wave - 2.5 >= first)
    np.testing.assert_array_equal(spectra[1], spectra[2])
    beyond = library.observed(0.0, np.array([1e6, 1.1e6]), None).spectra(np.array([0]))
    assert np.isnan(beyond).all()


def test_nebular__lines_carry_their_luminosity_through_the_dust(filters):
    z, bare, glowing = 0.02, default_library(64), default_library(64, nebular=True)
    gas = glowing.nebular
    dark = replace(gas, line=0 * gas.line)
    no_lines = CompositeLibrary(
        replace(default_grid(), nebular=dark), bare.parameters, nebular=True
    )
    wave = np.arange(6600.0, 6800.0, 1.0)
    index = np.arange(64)
    lines = [
        x.observed(z, wave, np.full(wave.size, 2.0)).spectra(index) for x in (glowing, no_lines)
    ]
    flux = (lines[0] - lines[1]).sum(axis=1)

    near = np.flatnonzero(np.abs(gas.line_wave - 6564.0) < 30.0)  # Halpha and [N II]
    assert near.size == 3
    narrow = Filter("r", np.array([6600.0, 6800.0]), np.array([1.0, 1.0]))
    through = (glowing.photometry(z, [narrow]) - no_lines.photometry(z, [narrow]))[:, 0]
    # a flat filter: mean flux times width is the line's flux, times its place over the middle
    place = gas.line_wave[near].mean() * (1 + z) / 6700.0
    # single precision leaves noise of a millionth of the stars' light
    np.testing.assert_allclose(through * 200.0 / place, flux, rtol=5e-3, atol=1e-6)
    assert np.all(flux >= 0)
    forming = bare.parameters.age < 3e8
    r_band = [x.photometry(z, filters[4:5])[forming, 0] for x in (bare, glowing)]
    assert np.median(r_band[1] / r_band[0]) > 1.02


def test_nebular__halpha_of_constant_star_formation():
    # Kennicutt & Evans 2012: log SFR = log L(Halpha) - 41.27 for a Kroupa function; BC03's
    # tracks give about 0.15 dex more ionising photons than the Starburst99 of that relation
    p = sample_parameters(2).take(slice(0, 1))
    steady = replace(
        p, age=np.array([1e8]), history=np.array([HISTORIES.index("constant")]),
        metallicity=np.array([0.02]),
        a_v=np.array([0.0]),
    )  # fmt: skip
    library = CompositeLibrary(default_grid(), steady, nebular=True)
    weights = library._weights[0][0]
    gas = library.nebular
    halpha = weights @ gas.line[4, :, np.argmin(np.abs(gas.line_wave - 6564.6))]
    per_solar_mass_and_year = halpha * 3.828e33 * 1e8
    assert np.log10(per_solar_mass_and_year) == pytest.approx(41.27, abs=0.2)


def test_observed__small_and_same_after_pickling_and_in_threads(library):
    models = library.observed(0.03, MANGA, 72 / 3e5 * MANGA)
    content = pickle.dumps(models)
    assert len(content) < 20e6
    index = np.arange(40)
    expected = models.spectra(index)
    np.testing.assert_array_equal(pickle.loads(content).spectra(index), expected)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(models.spectra, [index] * 8):
            np.testing.assert_array_equal(found, expected)


def test_composite__pickles_without_what_it_can_compute(filters):
    library = default_library(50)
    before = len(pickle.dumps(library))
    flux = library.photometry(0.03, filters)
    content = pickle.dumps(library)
    assert len(content) == before
    np.testing.assert_array_equal(pickle.loads(content).photometry(0.03, filters), flux)


def test_tabulated__agrees_with_the_composites_it_is_a_table_of(library, filters):
    grid = library.grid
    numbers = [4, 30, 99]
    flux = np.array([slow_spectrum(grid, library.parameters, i) for i in numbers], np.float32)
    table = TabulatedLibrary(grid.wave, flux, grid.fwhm, {"age": np.arange(3.0)})
    assert table.n_model == 3
    assert table.wave_range == library.wave_range
    expected = library.photometry(0.05, filters)[numbers]
    np.testing.assert_allclose(table.photometry(0.05, filters)[:, 2:], expected[:, 2:], rtol=2e-3)
    lsf = np.full(MANGA.size, 2.0)
    models = pickle.loads(pickle.dumps(table.observed(0.05, MANGA, lsf)))
    assert models.flux.shape[1] < grid.wave.size
    np.testing.assert_allclose(
        models.spectra(np.array([2, 0])),
        library.observed(0.05, MANGA, lsf).spectra(np.array(numbers)[[2, 0]]),
        rtol=2e-3,
    )


def test_tabulated__out_of_range(filters):
    wave = np.linspace(4000.0, 6000.0, 500)
    table = TabulatedLibrary(wave, np.ones((2, 500), np.float32), np.full(500, 3.0))
    flux = table.photometry(0.0, [filters[3], filters[9]])
    assert np.isnan(flux).all()
    spectra = table.observed(0.0, MANGA, None).spectra(np.array([1]))
    np.testing.assert_allclose(np.nanmax(spectra), 1.0, rtol=1e-6)
    assert np.isnan(spectra[0, 0])
    assert np.isnan(table.observed(0.0, MANGA + 9e4, None).spectra(np.array([1]))).all()


def test_library__misfits_are_named():
    grid = default_grid()
    with pytest.raises(InputError, match="one fwhm per wavelength"):
        replace(grid, fwhm=grid.fwhm[1:])
    with pytest.raises(InputError, match="an age node at 1e"):
        replace(grid, age=grid.age * 1.01)
    with pytest.raises(InputError, match="expected nebular emission in the grid, found none"):
        CompositeLibrary(replace(grid, nebular=None), sample_parameters(4), nebular=True)
    with pytest.raises(InputError, match="one flux and one fwhm per wavelength and model"):
        TabulatedLibrary(grid.wave, grid.flux[0, :, 1:], grid.fwhm)


def test_identity__tells_libraries_apart():
    names = {
        default_library(8).identity,
        default_library(9).identity,
        default_library(8, nebular=True).identity,
        default_library(8, nebular=True, log_u=-2.0).identity,
    }
    assert len(names) == 4
    assert all(n.startswith("bc03_miles_kroupa sha256:") for n in names)


def test_kernels__import_neither_dask_nor_xarray():
    code = (
        "import sys, specphoto.spectral.library, specphoto.spectral.parameters; "
        "sys.exit(bool({'dask', 'xarray'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
