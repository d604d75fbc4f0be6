"""Real MaNGA spectra, S/N 0 to 153, through the spectral match."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import dask
import numpy as np
import pytest
import xarray as xr
from astropy.io import fits

from specphoto.io.library import default_library
from specphoto.photometry.filters import load_filters
from specphoto.photometry.synthetic import photon_weights
from specphoto.spectral import legendre
from specphoto.spectral.match import match_spectral
from specphoto.spectral.motion import measure_velocities
from specphoto.spectral.sedfit import ModelTable, best_models
from specphoto.spectral.velocity import make_template
from specphoto.spectral.wavelength import vacuum_to_air

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.realdata

BANDS = ("galex_nuv", "sdss_u", "sdss_g", "sdss_r", "sdss_i", "sdss_z", "2mass_j", "2mass_h")
COVERED = [BANDS.index(b) for b in ("sdss_g", "sdss_r", "sdss_i", "sdss_z")]
TILT = np.array([1.0, 0.1])
FILES = (("MaNGA_test_spectra", 8), ("MaNGA_multicomp_test_spectra", 3))
SPECTRA = [(name, row) for name, count in FILES for row in range(count)]
DEAD = ("MaNGA_test_spectra", 5)
GOOD = [s for s in SPECTRA if s != DEAD]


class Spectrum(NamedTuple):
    wave: np.ndarray
    flux: np.ndarray
    err: np.ndarray
    bad: np.ndarray
    lsf: np.ndarray
    redshift: float

    @property
    def sn(self) -> float:
        return float(np.median((self.flux / self.err)[~self.bad]))

    @property
    def tilt(self) -> np.ndarray:
        """P: 0.9 at the blue end, 1.1 at the red."""
        return TILT @ legendre.basis(legendre.normalized(self.wave, self.wave[0], self.wave[-1]), 1)


def read(folder: Path, name: str, row: int) -> Spectrum:
    with fits.open(folder / "manga" / f"{name}.fits.gz") as file:
        wave = file["WAVE"].data.astype(float)
        flux, ivar, mask = (file[k].data[row].astype(float) for k in ("FLUX", "IVAR", "MASK"))
        resolution, redshift = file["SRES"].data[row].astype(float), float(file["Z"].data[row])
    bad = (mask != 0) | ~(ivar > 0)
    err = np.where(bad, np.nan, 1.0 / np.sqrt(np.where(bad, 1.0, ivar)))
    lsf = np.where(resolution > 0, wave / np.abs(resolution) / 2.3548, np.nan)
    return Spectrum(wave, np.where(bad, np.nan, flux), err, bad, lsf, redshift)


@lru_cache
def library():
    """One model in ten of the default library: enough, and quick for eleven redshifts."""
    return default_library(5000)


def photometry(spectrum: Spectrum) -> np.ndarray:
    """In-band fluxes of the spectrum; the other bands from the model nearest to those."""
    filters = load_filters(list(BANDS))
    weights, _ = photon_weights(spectrum.wave, filters)
    filled = np.interp(spectrum.wave, spectrum.wave[~spectrum.bad], spectrum.flux[~spectrum.bad])
    flux = filled @ weights
    models = library().photometry(spectrum.redshift, filters)
    sigma = np.full((1, len(BANDS)), np.inf)
    sigma[0, COVERED] = 0.02 * flux[COVERED]
    fit = best_models(flux[None], sigma, ModelTable(models, np.zeros((len(models), 1))))
    out = fit.scale[0] * models[fit.best[0]]
    out[COVERED] = flux[COVERED]
    return out


def cube(spectrum: Spectrum, images: np.ndarray) -> xr.Dataset:
    """The spectrum as it is, and tilted: two pixels with the same images."""
    both = np.stack([np.ones(spectrum.wave.size), spectrum.tilt], axis=1)[:, None, :]

    def column(values: np.ndarray) -> np.ndarray:
        return np.repeat(values[:, None, None], 2, axis=2)

    dims = ("wave", "y", "x")
    return xr.Dataset(
        {
            "spec_flux": (dims, (column(spectrum.flux) / both).astype("f4")),
            "spec_err": (dims, (column(spectrum.err) / both).astype("f4")),
            "spec_mask": (dims, column(spectrum.bad)),
            "spec_lsf": (("wave",), spectrum.lsf.astype("f4")),
            "photo_flux": (("band", "y", "x"), column(images).astype("f4")),
            "photo_err": (("band", "y", "x"), (0.02 * np.abs(column(images))).astype("f4")),
        },
        coords={"wave": spectrum.wave, "band": np.array(BANDS, dtype=object)},
        attrs={"name": "real", "redshift": spectrum.redshift},
    ).chunk()


@pytest.fixture(scope="module")
def matched(realdata):
    """Each good spectrum with what the match made of it and of its tilted copy."""
    out = {}
    with dask.config.set(scheduler="synchronous"):
        for key in GOOD:
            spectrum = read(realdata, *key)
            made = cube(spectrum, photometry(spectrum))
            out[key] = spectrum, match_spectral(made, library=library()).compute()
    return out


def tolerance(sn: float) -> float:
    """2% of images and models, and the noise of a faint spectrum: its photometry here holds it."""
    return 0.02 + 0.03 / sn


@pytest.mark.parametrize("key", GOOD, ids=lambda k: f"{k[0][6:-8]}-{k[1]}")
def test_manga_spectra__the_injected_tilt_comes_back(matched, key):
    spectrum, out = matched[key]
    factor = out.corr_factor.values[:, 0, :]
    wrong = factor[:, 1] / spectrum.tilt - 1.0
    assert np.median(np.abs(wrong)) < tolerance(spectrum.sn)
    # and beside the copy that was not tilted, whose factor is that of MaNGA's own calibration
    against = factor[:, 1] / factor[:, 0] / spectrum.tilt - 1.0
    assert np.median(np.abs(against)) < 0.3 * tolerance(spectrum.sn)
    assert np.median(np.abs(factor[:, 0] - 1.0)) < tolerance(spectrum.sn)


@pytest.mark.parametrize("key", GOOD, ids=lambda k: f"{k[0][6:-8]}-{k[1]}")
def test_manga_spectra__the_error_covers_what_is_wrong(matched, key):
    spectrum, out = matched[key]
    pull = (out.corr_factor / spectrum.tilt[:, None, None] - 1.0)[:, 0, 1] / (
        out.corr_factor_err / out.corr_factor
    )[:, 0, 1]
    assert np.median(np.abs(pull)) < 2.5


@pytest.mark.parametrize("key", GOOD, ids=lambda k: f"{k[0][6:-8]}-{k[1]}")
def test_manga_spectra__nothing_is_nan_where_the_input_is_good(matched, key):
    spectrum, out = matched[key]
    good = ~spectrum.bad
    for name in ("spec_flux", "spec_err", "corr_factor", "corr_factor_err", "mod_flux"):
        assert np.isfinite(out[name].values[good]).all(), name
    assert (out.corr_factor.values > 0).all()
    assert (out.spec_err.values[good] > 0).all()
    assert not out.spec_mask.values[good].any()
    assert out.spec_mask.values[~good].all()
    assert np.isfinite(out.closure_after.values[COVERED]).all()


@pytest.mark.parametrize("key", GOOD, ids=lambda k: f"{k[0][6:-8]}-{k[1]}")
def test_manga_spectra__synthetic_photometry_closes(matched, key):
    spectrum, out = matched[key]
    tilted = out.isel(x=1)
    gri = COVERED[:3]
    after = np.abs(tilted.closure_after.values[gri])
    assert after.max() < 1.0857 * (0.02 + 0.06 / spectrum.sn) + 0.005
    assert np.abs(tilted.closure_before.values[gri]).max() > 0.03


@pytest.mark.parametrize("key", GOOD, ids=lambda k: f"{k[0][6:-8]}-{k[1]}")
def test_manga_spectra__the_lines_keep_their_equivalent_width(matched, key):
    # a smooth factor changes the ratio of neighbouring channels by its own slope and no more
    spectrum, out = matched[key]
    near = np.abs(spectrum.wave / (6564.6 * (1 + spectrum.redshift)) - 1.0) < 0.006
    factor = out.corr_factor.values[near, 0, 1]
    assert np.ptp(factor) / factor.mean() < 0.01


def test_manga_spectra__a_dead_spectrum_is_unknown(realdata, matched):
    dead = read(realdata, *DEAD)
    assert dead.bad.all()
    images = photometry(matched[GOOD[0]][0])
    out = match_spectral(cube(dead, images), library=library()).compute()
    for name in ("corr_coef", "corr_cov", "corr_factor", "corr_factor_err", "spec_flux",
                 "spec_err", "mod_flux"):  # fmt: skip
        assert np.isnan(out[name].values).all(), name
    assert out.spec_mask.values.all()


def test_manga_spectra__noise_of_a_real_spectrum_is_unknown(matched):
    # the faintest spectrum's errors around nothing at all
    spectrum, _ = matched[("MaNGA_test_spectra", 6)]
    noise = spectrum.err * np.random.default_rng(1).normal(size=spectrum.wave.size)
    out = match_spectral(cube(spectrum._replace(flux=noise), photometry(spectrum)),
                         library=library()).compute()  # fmt: skip
    assert np.isnan(out.corr_factor.values).all()
    assert out.spec_mask.values.all()


def test_velocities__wavelengths_and_library_are_both_in_vacuum(realdata):
    found, in_air = [], []
    for name, row in GOOD:
        s = read(realdata, name, row)
        template, clean = make_template(library(), s.redshift, s.wave, 500.0)
        data = (
            np.where(s.bad, 0.0, s.flux)[None], np.where(s.bad, 1.0, s.err)[None] ** 2,
            (clean & ~s.bad)[None],
        )  # fmt: skip
        found.append(measure_velocities(*data, template, s.wave).velocity[0])
        air = np.interp(vacuum_to_air(s.wave), s.wave, template)
        in_air.append(measure_velocities(*data, air, s.wave).velocity[0])
    known = np.isfinite(found)
    assert known.sum() >= 9
    # the catalogue's redshifts are of whole galaxies, the spectra of their bins
    assert abs(np.median(np.array(found)[known])) < 30.0
    assert np.median(np.array(in_air)[known]) < -50.0
