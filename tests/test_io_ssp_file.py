"""Grids of populations of other sets, from FITS and HDF5."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from ssp_files import FACTS, emiles_like, write_fits, write_hdf5

from specphoto.errors import InputError
from specphoto.io.library import default_grid
from specphoto.io.ssp_file import read_ssp_grid
from specphoto.photometry.filters import load_filters
from specphoto.spectral.library import CompositeLibrary
from specphoto.spectral.parameters import sample_parameters
from specphoto.spectral.priors import HISTORIES
from specphoto.spectral.ssp import whole_ages

WRITERS = {"fits": write_fits, "hdf5": write_hdf5}


@pytest.mark.parametrize("kind", WRITERS)
def test_read_ssp_grid__gives_vacuum_years_and_mass_fractions(kind, tmp_path):
    arrays, own = emiles_like(), default_grid()
    grid = read_ssp_grid(WRITERS[kind](tmp_path / f"grid.{kind}", arrays, FACTS))
    kept = (own.wave > 3600.0) & (own.wave < 7400.0)
    np.testing.assert_allclose(grid.wave, own.wave[kept], rtol=1e-9)
    np.testing.assert_allclose(grid.metallicity, own.metallicity[2:5], rtol=1e-9)
    assert grid.age[:2] == pytest.approx([0.0, 1e7])
    np.testing.assert_allclose(grid.age[2:], arrays["age"] * 1e9)
    np.testing.assert_array_equal(grid.flux[:, 2:], arrays["flux"])
    np.testing.assert_array_equal(grid.flux[:, 0], arrays["flux"][:, 0])
    assert grid.fwhm.shape == grid.wave.shape
    assert grid.fwhm[0] == 2.51
    assert grid.identity.startswith(f"grid.{kind} ")


def test_read_ssp_grid__fits_and_hdf5_are_one_grid(tmp_path):
    a = read_ssp_grid(write_fits(tmp_path / "grid", emiles_like(), FACTS))
    (tmp_path / "other").mkdir()
    b = read_ssp_grid(write_hdf5(tmp_path / "other" / "grid", emiles_like(), FACTS))
    assert a.identity == b.identity  # the name and the digest of all arrays


def test_read_ssp_grid__any_order_and_unit(tmp_path):
    arrays, facts = dict(emiles_like()), copy.deepcopy(FACTS)
    wanted = read_ssp_grid(write_hdf5(tmp_path / "a.h5", arrays, FACTS))
    arrays |= {
        "wave": arrays["wave"] / 10.0, "fwhm": arrays["fwhm"] / 10.0, "age": arrays["age"][::-1],
        "metallicity": 0.02 * 10.0 ** arrays["metallicity"][::-1],
        "flux": arrays["flux"][::-1, ::-1],
    }  # fmt: skip
    facts["wave"]["units"], facts["metallicity"] = "nm", {}
    grid = read_ssp_grid(write_hdf5(tmp_path / "b.h5", arrays, facts))
    for name in ("wave", "age", "metallicity", "flux", "fwhm"):
        np.testing.assert_allclose(getattr(grid, name), getattr(wanted, name), rtol=1e-12)


def test_read_ssp_grid__photometry_is_that_of_the_set_it_was_made_of(tmp_path):
    grid = read_ssp_grid(write_fits(tmp_path / "grid.fits", emiles_like(), FACTS))
    # old populations, that the cut at 63 Myr does not touch, and metallicities of both grids
    p = sample_parameters(512)
    delayed = p.history == HISTORIES.index("delayed")
    rows = (p.metallicity > 0.004) & (p.metallicity < 0.02) & delayed & (p.tau < 0.05 * p.age)
    models, filters = p.take(rows), load_filters(["sdss_g", "sdss_r"])
    own = CompositeLibrary(default_grid(), models).photometry(0.0, filters)
    other = CompositeLibrary(grid, models).photometry(0.0, filters)
    assert rows.sum() >= 5
    np.testing.assert_allclose(other, own, rtol=1e-4)


def test_whole_ages__adds_what_is_missing_and_nothing_else():
    flux = np.array([[[4.0], [2.0], [1.0]]], dtype=np.float32)
    age, whole = whole_ages(np.array([0.0, 1e7, 2e7]), flux)
    assert age.size == 3
    assert whole is flux
    age, whole = whole_ages(np.array([5e6, 15e6, 25e6]), flux)
    np.testing.assert_array_equal(age, [0.0, 5e6, 1e7, 15e6, 25e6])
    np.testing.assert_array_equal(whole[0, :, 0], [4.0, 4.0, 3.0, 2.0, 1.0])


def test_read_ssp_grid__facts_that_the_file_lacks_are_given(tmp_path):
    arrays, facts = dict(emiles_like()), copy.deepcopy(FACTS)
    del facts["wave"]["medium"], arrays["fwhm"]
    path = write_hdf5(tmp_path / "grid.h5", arrays, facts)
    grid = read_ssp_grid(path, medium="vacuum", fwhm=2.5)
    np.testing.assert_array_equal(grid.wave, arrays["wave"])
    np.testing.assert_array_equal(grid.fwhm, 2.5)
    with pytest.raises(InputError, match=r"found medium None; give medium: air or"):
        read_ssp_grid(path, fwhm=2.5)
    with pytest.raises(InputError, match=r"expected a grid of populations .* found .*fwhm"):
        read_ssp_grid(path, medium="air")


def spoiled(name: str, fact: str | None = None, value=None, array=None):
    arrays, facts = dict(emiles_like()), copy.deepcopy(FACTS)
    if fact:
        facts[name][fact] = value
    if array is not None:
        arrays[name] = array
    return arrays, facts


NAN = np.full(emiles_like()["flux"].shape, np.nan)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (spoiled("age", "units", "kg"), r"expected a unit like yr, found 'kg'"),
        (spoiled("age", array=-emiles_like()["age"]), r"expected ages of at least 0, each once"),
        (spoiled("age", array=0 * emiles_like()["age"]), r"expected ages of at least 0, each once"),
        (spoiled("wave", "units", "furlongs"), r"expected a unit like Angstrom, found 'furlongs'"),
        (spoiled("flux", "units", "Lsun / Hz"), r"expected luminosities per wavelength, found"),
        (spoiled("flux", array=NAN), r"expected finite luminosities"),
        (spoiled("flux", array=emiles_like()["flux"].T), r"expected flux of shape \(3, "),
        (spoiled("wave", array=emiles_like()["wave"][::-1]), r"wavelengths that increase"),
        (spoiled("metallicity", "scale", "Z"), r"as mass fractions, found -0\.69"),
    ],
)
def test_read_ssp_grid__says_what_is_wrong(case, message, tmp_path):
    with pytest.raises(InputError, match=rf"grid\.h5: .*{message}"):
        read_ssp_grid(write_hdf5(tmp_path / "grid.h5", *case))


def test_read_ssp_grid__no_grid(tmp_path):
    path = tmp_path / "grid.fits"
    with pytest.raises(InputError, match=r"grid\.fits: expected a grid of populations"):
        read_ssp_grid(path)
    path.write_text("no")
    with pytest.raises(InputError, match=r"grid\.fits: expected a grid of populations"):
        read_ssp_grid(path)
    facts = copy.deepcopy(FACTS)
    del facts["metallicity"]["solar"]
    with pytest.raises(InputError, match=r"metallicity of the Sun beside \[M/H\]"):
        read_ssp_grid(write_hdf5(tmp_path / "grid.h5", emiles_like(), facts))
