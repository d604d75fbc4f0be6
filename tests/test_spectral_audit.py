"""What is wrong with a library is said in words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from specphoto.io.library import default_grid, default_library
from specphoto.photometry.filters import load_filters
from specphoto.spectral.audit import audit, facts
from specphoto.spectral.library import CompositeLibrary
from specphoto.spectral.parameters import sample_parameters
from specphoto.spectral.tabulated import TabulatedLibrary
from specphoto.spectral.wavelength import air_to_vacuum, vacuum_to_air

WAVE = np.linspace(3000.0, 9000.0, 601)


def findings(library, **options):
    return {f.what: f for f in audit(library, **options)}


def composites(**changes):
    return CompositeLibrary(replace(default_grid(), **changes), sample_parameters(8))


def test_audit__the_default_library_is_sound():
    found = findings(default_library(8), redshift=0.03, filters=load_filters(["sdss_g", "wise_w4"]))
    assert [name for name, f in found.items() if not f.good] == ["wise_w4"]
    assert found["wise_w4"].words == "0.0% inside: left out of a fit (z = 0.03)"
    assert found["sdss_g"].words == "inside (z = 0.03)"


def test_audit__bands_at_the_redshift():
    library = TabulatedLibrary(WAVE, np.ones((2, 601), np.float32), np.full(601, 3.0))
    filters = load_filters(["sdss_u"])
    assert not findings(library, filters=filters, redshift=0.1)["sdss_u"].good
    assert findings(library, filters=filters, redshift=0.0)["sdss_u"].good


@pytest.mark.parametrize(
    ("value", "words"),
    [(np.nan, "1 with NaN or infinity"), (-1.0, "1 with negative flux"), (0.0, "1 with no light")],
)
def test_audit__spectra(value, words):
    flux = np.ones((3, 601), np.float32)
    flux[1] = value
    found = findings(TabulatedLibrary(WAVE, flux, np.full(601, 3.0)))
    assert not found["spectra"].good
    assert words in found["spectra"].words
    assert found["wavelengths"].good


def test_audit__wavelengths_and_resolution():
    flux, fwhm = np.ones((3, 601), np.float32), np.full(601, 3.0)
    assert not findings(TabulatedLibrary(WAVE[::-1], flux, fwhm))["wavelengths"].good
    fwhm[4] = 0.0
    assert not findings(TabulatedLibrary(WAVE, flux, fwhm))["resolution"].good


def test_audit__normalised_spectra_are_found_out():
    flux = default_grid().flux
    at = np.argmin(np.abs(default_grid().wave - 5500.0))
    found = findings(composites(flux=flux / flux[..., at : at + 1]))
    assert not found["fading"].good
    assert "not in light per mass formed at any age" in found["fading"].words
    found = findings(composites(flux=flux * np.float32(3.8e33)))
    assert found["fading"].good
    assert not found["mass to light"].good


def test_audit__ages():
    grid = default_grid()
    young = np.array(grid.flux)
    late = int(np.searchsorted(grid.age, 3e8))
    young[:, :late] = young[:, late : late + 1]
    found = findings(composites(flux=young))
    assert not found["ages"].good
    assert "younger stars shine like those of" in found["ages"].words
    keep = grid.age < 8e9
    found = findings(composites(age=grid.age[keep], flux=grid.flux[:, keep]))
    assert "none as old as galaxies are" in found["ages"].words


def test_facts__say_what_is_in_it():
    told = dict(facts(default_library(16, nebular=True, log_u=-2.0)))
    assert told["models"] == "16"
    assert told["nebular emission"] == "log U = -2"
    assert told["resolution"].startswith("2.5 A at 4000")
    assert told["a_v"].startswith("0 to ")
    assert told["histories"] == "50% delayed, 50% double power law"
    assert told["dust"] == "power law"
    table = TabulatedLibrary(WAVE, np.ones((2, 601), np.float32), np.full(601, 3.0),
                             {"log_age": np.array([1.0, 2.0])})  # fmt: skip
    assert dict(facts(table))["log_age"] == "1 to 2, median 1.5"


@pytest.mark.parametrize(("medium", "shift"), [(None, 0), ("air", -83), ("vacuum", 83)])
def test_audit__air_and_vacuum_are_told_apart(medium, shift):
    wave = default_grid().wave
    moved = {None: wave, "air": vacuum_to_air(wave), "vacuum": air_to_vacuum(wave)}[medium]
    library = composites(wave=moved)
    table = TabulatedLibrary(moved, default_grid().flux[4, 40:], default_grid().fwhm)
    for case in (library, table):
        found = findings(case, against=default_grid())["lines"]
        assert found.good == (medium is None)
        number = float(found.words.split()[0])
        assert abs(number - shift) < 15.0
    if medium == "air":
        assert "air taken for vacuum would be -83" in found.words
    if medium == "vacuum":
        assert "vacuum taken for air would be +83" in found.words


def test_audit__lines_of_coarse_or_featureless_spectra():
    wave = default_grid().wave
    flat = TabulatedLibrary(wave, np.ones((2, wave.size), np.float32), default_grid().fwhm)
    assert not findings(flat, against=default_grid())["lines"].good
    coarse = TabulatedLibrary(wave, default_grid().flux[4, 40:], np.full(wave.size, 20.0))
    assert "lines" not in findings(coarse, against=default_grid())
