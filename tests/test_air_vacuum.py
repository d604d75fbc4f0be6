"""Wavelengths of every survey and library kind end in vacuum: a line is where NIST puts it.

Air taken for vacuum moves lines by 0.8 to 2.7 Angstrom in the optical, some 80 km/s.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from astropy.io import fits
from ssp_files import FACTS, write_fits, write_hdf5
from survey_files import SHAPE, califa, manga, muse
from test_io_cube_reader import _changed
from test_io_library import write_pixedfit

from specphoto import open_cube, open_ifs
from specphoto.io.fsps import fsps_grid
from specphoto.io.library import default_library, open_library
from specphoto.io.ssp_file import read_ssp_grid
from specphoto.simulate import simulate_galaxy
from specphoto.spectral.library import CompositeLibrary
from specphoto.spectral.motion import measure_velocities
from specphoto.spectral.parameters import sample_parameters
from specphoto.spectral.velocity import make_template

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from specphoto.spectral.library import Library

# Halpha (NIST Atomic Spectra Database), Angstrom
NIST = {"air": 6562.80, "vacuum": 6564.61}
TOLERANCE = 0.15


def line(wave: NDArray[np.float64], medium: str) -> NDArray[np.float64]:
    return np.exp(-0.5 * ((wave - NIST[medium]) / 2.0) ** 2)


def centre(wave: Any, light: Any) -> float:
    """Centroid of a line, which the sampling of a few channels in two sigma does not move."""
    return float(np.sum(np.asarray(wave) * np.asarray(light)) / np.sum(light))


def with_line(path: Path, hdu: str, wave: NDArray[np.float64], medium: str) -> Path:
    """The file with nothing in it but a line, at wavelengths as the file has them."""
    with fits.open(path, mode="update") as file:
        file[hdu].data[:] = line(wave, medium)[:, None, None]
    return path


LINEAR = 6551.0 + 2.0 * np.arange(SHAPE[0])
FINE = 6556.0 + 1.25 * np.arange(SHAPE[0])
LOG = 6556.0 * 10.0 ** (1e-4 * np.arange(SHAPE[0]))
LOG_CARDS = {"CRVAL3": LOG[0], "CD3_3": 1e-4 * LOG[0] * np.log(10.0)}
SURVEYS = {
    "manga": (lambda p: manga(p, wave=LOG, flux=LOG_CARDS), "FLUX", LOG, "vacuum"),
    "califa": (lambda p: califa(p, CRVAL3=LINEAR[0]), "PRIMARY", LINEAR, "air"),
    "califa that does not say it":
        (lambda p: califa(p, CRVAL3=LINEAR[0], CTYPE3=None), "PRIMARY", LINEAR, "air"),
    "califa that says WAVE":
        (lambda p: califa(p, CRVAL3=LINEAR[0], CTYPE3="WAVE"), "PRIMARY", LINEAR, "air"),
    "muse": (lambda p: muse(p, CRVAL3=FINE[0]), "DATA", FINE, "air"),
    "muse that does not say it":
        (lambda p: muse(p, CRVAL3=FINE[0], CTYPE3=None), "DATA", FINE, "air"),
    "muse in vacuum": (lambda p: muse(p, CRVAL3=FINE[0], CTYPE3="WAVE"), "DATA", FINE, "vacuum"),
}  # fmt: skip


@pytest.mark.parametrize("name", SURVEYS)
def test_open_ifs__a_line_is_in_vacuum(name: str, tmp_path: Path) -> None:
    write, hdu, wave, medium = SURVEYS[name]
    ds = open_ifs(with_line(write(tmp_path / "cube.fits"), hdu, wave, medium))
    light = ds["spec_flux"].values[:, 4, 4]
    assert centre(ds["wave"], light) == pytest.approx(NIST["vacuum"], abs=TOLERANCE)


@pytest.mark.parametrize(
    ("survey", "medium"), [("manga", "vacuum"), ("califa", "air"), ("CALIFA", "air")]
)
def test_open_cube__a_line_of_pixedfits_file_is_in_vacuum(
    survey: str, medium: str, tmp_path: Path
) -> None:
    wave = 6300.0 + 2.0 * np.arange(305)

    def change(hdus: fits.HDUList) -> None:
        hdus[0].header["IFSSURVE"] = survey
        hdus["WAVE"].data[:] = wave
        hdus["SPEC_FLUX"].data[:] = line(wave, medium)[:, None, None]

    ds = open_cube(_changed(tmp_path / "cube.fits", change))
    y, x = np.argwhere(ds["spec_region"].values)[0]
    light = ds["spec_flux"].values[:, y, x]
    assert centre(ds["wave"], light) == pytest.approx(NIST["vacuum"], abs=TOLERANCE)


REST = np.arange(6200.0, 7000.0, 1.0)


def grid_file(path: Path, medium: str) -> Library:
    """Populations of another set, by a file that says what its wavelengths are in."""
    arrays = {
        "wave": REST, "age": np.array([0.01, 0.1, 1.0, 14.0]), "metallicity": np.array([0.0, 0.2]),
        "flux": np.broadcast_to(1.0 - 0.5 * line(REST, medium), (2, 4, REST.size)).copy(),
        "fwhm": np.full(REST.size, 2.5),
    }  # fmt: skip
    facts = FACTS | {"wave": {"units": "Angstrom", "medium": medium}}
    write = write_hdf5 if path.suffix == ".h5" else write_fits
    return CompositeLibrary(read_ssp_grid(write(path, arrays, facts)), sample_parameters(8))


def pixedfit_file(path: Path) -> Library:
    """As FSPS gives it to piXedfit: in vacuum, which the file does not say."""
    return open_library(
        write_pixedfit(path, REST, np.tile(1.0 - 0.5 * line(REST, "vacuum"), (8, 1)))
    )


def fsps_stand_in(monkeypatch: pytest.MonkeyPatch) -> Library:
    """With python-fsps's names; its wavelengths are in vacuum."""

    class StellarPopulation:
        wavelengths, ssp_ages = REST, np.linspace(5.5, 10.15, 94)
        zlegend, resolutions = np.array([0.004, 0.02]), np.full(REST.size, 50.0)
        libraries = ("mist", "miles")

        def __init__(self, **_: Any) -> None: ...

        def get_spectrum(self, **_: Any) -> tuple[Any, Any]:
            return REST, np.tile(1.0 - 0.5 * line(REST, "vacuum"), (94, 1))

    monkeypatch.setitem(sys.modules, "fsps", SimpleNamespace(StellarPopulation=StellarPopulation))
    monkeypatch.setenv("SPS_HOME", "/somewhere")
    return CompositeLibrary(fsps_grid(), sample_parameters(8))


@pytest.mark.parametrize(
    "kind", ["grid.h5 air", "grid.h5 vacuum", "grid.fits air", "grid.fits vacuum", "pixedfit",
             "fsps"],
)  # fmt: skip
def test_library__a_line_is_in_vacuum(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "pixedfit":
        library = pixedfit_file(tmp_path / "library.hdf5")
    elif kind == "fsps":
        library = fsps_stand_in(monkeypatch)
    else:
        name, medium = kind.split()
        library = grid_file(tmp_path / name, medium)
    redshift = 0.03
    wave = np.arange(6700.0, 6820.0, 0.8)
    seen = library.observed(redshift, wave, None).spectra(np.arange(8))
    for row in seen:
        depth = 1.0 - row / np.interp(wave, wave[[0, -1]], row[[0, -1]])
        found = centre(wave, np.where(depth > 0.02, depth, 0.0))
        assert found == pytest.approx(NIST["vacuum"] * (1.0 + redshift), abs=TOLERANCE)


@pytest.mark.parametrize(("survey", "size"), [("manga", 19), ("califa", 1), ("muse", 8)])
def test_match__spectra_of_each_survey_are_at_rest_with_the_default_library(
    survey: Any, size: int, tmp_path: Path
) -> None:
    made = simulate_galaxy(
        tmp_path, survey=survey, size=size, seed=3, speed=0.0, halpha=0.0, compress=False,
        cube_options={"snr": 30.0},
    )  # fmt: skip
    ds = open_ifs(made.cube.path).isel(x=slice(None, None, 2))
    bright = np.argsort(np.nan_to_num(np.nanmedian(ds["spec_flux"].values, axis=0)).ravel())[-12:]
    flux, variance, bad = (
        ds[name].values.reshape(ds.sizes["wave"], -1)[:, bright].T.astype(float)
        for name in ("spec_flux", "spec_var", "spec_mask")
    )
    wave = ds["wave"].values
    template, clean = make_template(default_library(2000), 0.03, wave, 500.0)
    good = (bad == 0) & clean
    found = measure_velocities(
        np.where(good, flux, 0.0), np.where(good, variance, 1.0), good, template, wave
    )
    # 80 km/s where either were in air
    assert np.isfinite(found.velocity).all()
    assert abs(np.median(found.velocity)) < 25.0
