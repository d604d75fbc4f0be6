"""Other packages get the numbers of the dataset, in their own units: each is asked itself."""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from astropy import units as u
from bagpipes_case import ask_bagpipes
from factories import disc_dataset, specphoto_dataset, with_spectra
from lazy import raise_if_computes

from specphoto.errors import InputError
from specphoto.photometry.filters import load_filters
from specphoto.photometry.synthetic import photon_weights
from specphoto.spectral.wavelength import vacuum_to_air

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr

DS = disc_dataset()


def with_unknown() -> xr.Dataset:
    """The disc with a masked run of channels and an image that is missing, in one pixel."""
    bad, image = DS["spec_mask"].values.copy(), DS["photo_flux"].values.copy()
    bad[100:110, 12, 9], image[3, 12, 9] = True, np.nan
    return DS.assign(spec_mask=(("wave", "y", "x"), bad), photo_flux=(("band", "y", "x"), image))


def test_specutils__cube() -> None:
    from specutils import SpectralRegion
    from specutils.manipulation import extract_region

    ds = with_unknown().isel(y=slice(3, 18))
    cube = ds.specphoto.to_specutils()
    assert cube.flux.unit == u.Unit("1e-17 erg s-1 cm-2 AA-1")
    np.testing.assert_array_equal(cube.flux.value, ds["spec_flux"])
    np.testing.assert_array_equal(cube.uncertainty.array, ds["spec_err"])
    np.testing.assert_array_equal(cube.mask, ds["spec_mask"] | ~np.isfinite(ds["spec_flux"]))
    np.testing.assert_array_equal(cube.spectral_axis.to_value(u.AA), ds["wave"])
    assert float(cube.redshift) == pytest.approx(ds.attrs["redshift"])
    sky, wave = cube.wcs.pixel_to_world(9, 12 - 3, 30)
    assert sky.separation(ds.specphoto.pixel_to_sky(9, 12)).arcsec < 1e-6
    assert wave.to_value(u.AA) == pytest.approx(float(ds["wave"][30]))
    part = extract_region(cube, SpectralRegion(5000 * u.AA, 6000 * u.AA))
    inside = (ds["wave"] >= 5000) & (ds["wave"] < 6000)
    np.testing.assert_array_equal(part.flux.value, ds["spec_flux"][inside])


def test_specutils__pixel_sum_and_survey_cube() -> None:
    from specutils.analysis import line_flux

    pixel = DS.specphoto.pixel(9, 12).specphoto.to_specutils()
    np.testing.assert_array_equal(pixel.flux.value, DS["spec_flux"][:, 12, 9])
    assert line_flux(pixel).unit.is_equivalent(u.erg / u.s / u.cm**2)
    total = DS.specphoto.aperture(DS["spec_region"].values)
    np.testing.assert_array_equal(total.specphoto.to_specutils().flux.value, total["spec_flux"])
    survey = DS.rename(spec_err="spec_var").drop_attrs(deep=False)
    cube = survey.specphoto.to_specutils()
    assert cube.uncertainty.uncertainty_type == "var"
    with pytest.raises(InputError, match="to_specutils: expected a dataset with spec_flux"):
        DS[["photo_flux"]].specphoto.to_specutils()


def test_spectral_cube__is_lazy_and_knows_sky_and_masks() -> None:
    ds = with_unknown().isel(y=slice(3, 18), x=slice(2, 19))
    with raise_if_computes():
        cube = ds.specphoto.to_spectral_cube()
    known = np.where(ds["spec_mask"], np.nan, ds["spec_flux"])
    np.testing.assert_array_equal(cube.filled_data[:].value, known)
    np.testing.assert_allclose(cube.spectral_axis.to_value(u.AA), ds["wave"], rtol=1e-7)
    assert cube.unit == u.Unit("1e-17 erg s-1 cm-2 AA-1")
    lat, lon = cube.spatial_coordinate_map
    sky = ds.specphoto.pixel_to_sky(9, 12)
    assert lat[12 - 3, 9 - 2].to_value(u.deg) == pytest.approx(sky.dec.deg)
    assert lon[12 - 3, 9 - 2].to_value(u.deg) == pytest.approx(sky.ra.deg)
    first, last = ds["wave"].values[[40, 80]] * u.AA
    slab = cube.spectral_slab(first, last).sum(axis=0)
    assert slab[9, 7].value == pytest.approx(np.nansum(known[40:81, 9, 7]), rel=1e-4)


def test_spectral_cube__axes_of_surveys() -> None:
    manga = specphoto_dataset(3, 37).isel(wave=slice(4, None, 2))
    axis = manga.specphoto.to_spectral_cube().spectral_axis
    np.testing.assert_allclose(axis.to_value(u.AA), manga["wave"], rtol=1e-9)
    # linear in air, as CALIFA and MUSE have it
    linear = {"ctype": "AWAV", "crval": 4750.0, "cdelt": 1.25, "crpix": 1.0}
    air = 4750.0 + 1.25 * np.arange(37)
    from specphoto.spectral.wavelength import air_to_vacuum

    muse = manga_like(air_to_vacuum(air), linear)
    cube = muse.specphoto.to_spectral_cube()
    assert cube.wcs.wcs.ctype[2] == "AWAV"
    np.testing.assert_allclose(cube.spectral_axis.to_value(u.AA), air, rtol=1e-7)
    np.testing.assert_allclose(vacuum_to_air(muse["wave"].values), air, rtol=1e-7)
    with pytest.raises(InputError, match="linear or logarithmic wavelength axis, found channels"):
        manga.isel(wave=[0, 1, 5]).specphoto.to_spectral_cube()
    with pytest.raises(InputError, match=r"a cube \(wave, y, x\), found dims \('wave',\)"):
        manga.specphoto.pixel(4, 4).specphoto.to_spectral_cube()


def manga_like(wave: np.ndarray, axis: dict[str, Any]) -> xr.Dataset:
    return specphoto_dataset(3, 37).assign_coords(wave=wave).assign_attrs(spectral_axis=axis)


@pytest.mark.parametrize("package", ["specutils", "spectral_cube"])
def test_cubes__name_what_is_not_installed(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(InputError, match=f"pip install {package.replace('_', '-')}"):
        getattr(DS.specphoto, f"to_{package}")()


class OneSpectrum:
    """A source for prospector that has one spectrum, in Lsun / Hz, and no lines."""

    def __init__(self, wave: np.ndarray, luminosity: np.ndarray) -> None:
        self.wave, self.luminosity = wave, luminosity

    def get_galaxy_spectrum(self, **params: Any) -> tuple[np.ndarray, np.ndarray, float]:
        return self.wave, self.luminosity, 1.0

    def get_galaxy_elines(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array([6564.6, 6585.3]), np.zeros(2)


@pytest.fixture(scope="module")
def spectrum() -> tuple[np.ndarray, np.ndarray]:
    wave = np.geomspace(1000.0, 30000.0, 8000)
    return wave, 6.0 * (wave / 5500.0) ** -0.7 * (1.0 + 0.3 * np.tanh((wave - 4000.0) / 200.0))


def test_prospector__its_model_of_the_spectrum_is_the_observation(
    spectrum: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the data of FSPS, which are not here, have the list of lines; without them it cannot be had
    monkeypatch.setitem(sys.modules, "fsps", None)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "emlines_info.dat").write_text("6564.6,Halpha\n6585.3,[N II]\n")
    monkeypatch.setenv("SPS_HOME", str(tmp_path))
    from prospect.likelihood import chi_phot, chi_spec
    from prospect.models import SpecModel
    from prospect.models.priors import TopHat
    from prospect.models.sedmodel import to_cgs
    from prospect.utils.obsutils import fix_obs

    wave, flux = spectrum
    narrow = np.interp(DS["wave"].values, wave, flux)
    bands, _ = photon_weights(wave, load_filters([str(b) for b in DS["band"].values]))
    ds = with_spectra(DS, narrow, flux @ bands, factor=1.25)
    obs = fix_obs(ds.specphoto.to_prospector(9, 12))
    assert obs["filternames"] == [str(b) for b in ds["band"].values]
    # F_lambda at 10 pc as luminosity per frequency
    per_hz = 1e-17 * flux * wave**2 / 2.998e18 / to_cgs
    parameters = [
        {"name": "mass", "N": 1, "isfree": True, "init": 1.0, "prior": TopHat(mini=0.0, maxi=2.0)},
        {"name": "zred", "N": 1, "isfree": False, "init": 0.0},
        {"name": "lumdist", "N": 1, "isfree": False, "init": 1e-5},
    ]
    model = SpecModel(parameters)
    spec, phot, _ = model.predict(np.array([1.0]), obs=obs, sps=OneSpectrum(wave, per_hz))
    assert np.abs(chi_spec(spec, obs)).max() < 0.01
    assert np.abs(chi_phot(phot, obs)).max() < 0.05
    np.testing.assert_allclose(obs["maggies"], phot, rtol=2e-3)
    np.testing.assert_allclose(obs["unc"], 0.1 * obs["spectrum"], rtol=1e-5)


def test_prospector__masks_what_is_unknown_and_counts_nothing_twice() -> None:
    from prospect.utils.obsutils import fix_obs

    ds = with_unknown()
    obs = ds.specphoto.to_prospector(9, 12)
    assert np.flatnonzero(~obs["phot_mask"]).tolist() == [3]
    assert np.flatnonzero(~obs["mask"]).tolist() == list(range(100, 110))
    assert fix_obs(obs)["ndof"] == 8 + 230
    alone = fix_obs(ds.specphoto.to_prospector(9, 12, spectrum="corrected"))
    assert alone["maggies"] is None
    ratio = (alone["spectrum"] / obs["spectrum"])[obs["mask"]]
    factor = ds["corr_factor"].isel(y=12, x=9).values[obs["mask"]]
    np.testing.assert_allclose(ratio, factor, rtol=1e-5)
    images = fix_obs(ds.specphoto.to_prospector(10, 1))  # beyond spec_region
    assert images["spectrum"] is None
    assert images["ndof"] == 9


def test_fitters__refuse_what_cannot_be_fitted() -> None:
    nothing = DS.assign(photo_flux=DS["photo_flux"] * np.nan)
    with pytest.raises(InputError, match="x = 0, y = 0: expected something to fit, found outside"):
        nothing.specphoto.to_prospector(0, 0)
    before = specphoto_dataset(3, 40)
    with pytest.raises(InputError, match="expected a corrected cube, found no factor"):
        before.specphoto.to_prospector(4, 5, spectrum="corrected")
    with pytest.raises(InputError, match="'observed' or 'corrected', found 'both'"):
        DS.specphoto.to_prospector(9, 12, spectrum="both")


def test_bagpipes__its_model_of_a_galaxy_is_found_in_the_observation(tmp_path: Path) -> None:
    # in a process of its own: it keeps hundreds of MB, files open, and its style of figures
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        found = pool.submit(ask_bagpipes, tmp_path).result()
    known = np.arange(9) != 3
    np.testing.assert_allclose(found.images[known, 1], found.true_images[known], rtol=3e-3)
    assert found.images[3, 2] > 1e80
    assert (found.spectrum[100:110, 2] > 1e80).all()
    assert found.chisq_phot < 0.1
    assert found.chisq_spec < 0.1
    assert found.lnlike_elsewhere < found.lnlike
    np.testing.assert_allclose(found.corrected[:100, 1], 1.2 * found.spectrum[:100, 1], rtol=1e-5)
    assert found.exists == {"corrected": (True, False), "edge": (False, True)}
