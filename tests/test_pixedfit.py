"""The drop-in names: signatures, file names, options, and files that piXedfit's scripts read."""

from __future__ import annotations

import inspect
import os
import shutil
from pathlib import Path

import dask
import numpy as np
import pytest
from astropy.io import fits

import specphoto
from specphoto import pixedfit
from specphoto.errors import InputError
from specphoto.spectral.smoothing import gaussian_matrix, smooth_spectra

PEER = Path(__file__).parent / "data" / "peer"
FLUXMAP = PEER / "fluxmap_reference.fits.gz"
CUBE = PEER / "manga_cropped_LOGCUBE.fits.gz"

# both headers say 0.032, on two scales: a fact of these files, and the spatial match says so
pytestmark = pytest.mark.filterwarnings("ignore:E\\(B-V\\) of the cube and of the photometry")


@pytest.fixture
def workdir(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def specphoto_file(tmp_path_factory) -> str:
    name = str(tmp_path_factory.mktemp("matched") / "specphoto_galaxy.fits")
    return pixedfit.match_imgifs_spatial(str(FLUXMAP), str(CUBE), name_out_fits=name)


@pytest.fixture
def asked(monkeypatch) -> dict:
    """Stands in for the work of the spectral step, and keeps what it was asked for."""
    options: dict = {}

    def match_spectral(cube, **given):
        options.update(given, scheduler=dask.config.get("scheduler", None),
                       num_workers=dask.config.get("num_workers", None))  # fmt: skip
        return cube

    def write_fits(ds, path, *, overwrite):
        options["path"], options["overwrite"] = path, overwrite

    monkeypatch.setattr(specphoto, "match_spectral", match_spectral, raising=False)
    monkeypatch.setattr(specphoto, "write_fits", write_fits, raising=False)
    return options


def test_signatures__as_in_v1():
    spatial = inspect.signature(pixedfit.match_imgifs_spatial).parameters
    assert {n: p.default for n, p in spatial.items() if p.default is not p.empty} == {
        "ifs_survey": "manga", "spec_smoothing": False, "kernel_sigma": 3.5, "nproc": 10,
        "name_out_fits": None,
    }  # fmt: skip
    assert list(spatial)[:2] == ["photo_fluxmap", "ifs_data"]
    spectral = inspect.signature(pixedfit.match_imgifs_spectral).parameters
    assert {n: p.default for n, p in spectral.items() if p.default is not p.empty} == {
        "models_spec": None, "nproc": 10, "del_wave_nebem": 10.0, "cosmo": 0, "H0": 70.0,
        "Om0": 0.3, "name_out_fits": None,
    }  # fmt: skip
    assert next(iter(spectral)) == "specphoto_file"


def test_cwave_filters__tabulated():
    assert pixedfit.cwave_filters("sdss_u") == pytest.approx(3351.0, abs=1.0)
    np.testing.assert_allclose(pixedfit.cwave_filters(["sdss_u"]).shape, (1,))


def test_match_imgifs_spatial__default_name_and_folders(workdir):
    (workdir / "maps").mkdir()
    (workdir / "cubes").mkdir()
    shutil.copy(FLUXMAP, workdir / "maps")
    shutil.copy(CUBE, workdir / "cubes")
    name = pixedfit.match_imgifs_spatial(
        "maps/fluxmap_reference.fits.gz", "cubes/manga_cropped_LOGCUBE.fits.gz", nproc=2
    )
    assert name == "specphoto_fluxmap_reference_manga_cropped_LOGCUBE.fits"
    assert (workdir / name).is_file()


def test_match_imgifs_spatial__file_for_scripts(specphoto_file):
    with fits.open(specphoto_file) as cube:
        header = cube[0].header
        assert cube[0].name == "PHOTO_FLUX"
        assert int(header["nfilters"]) == 12
        assert header["fil2"] == "sdss_u"
        assert header["ifssurve"] == "manga"
        assert float(header["unit"]) == 1e-17
        flux, region = cube["spec_flux"].data, cube["spec_region"].data
        assert flux.shape == (cube["wave"].data.size, *region.shape)
        assert region.sum() > 0
        assert (flux[:, region == 1] != 0).any()
        assert cube["photo_region"].data.sum() >= region.sum()


def test_match_imgifs_spatial__overwrites(specphoto_file):
    before = Path(specphoto_file).stat().st_mtime_ns
    again = pixedfit.match_imgifs_spatial(FLUXMAP, CUBE, name_out_fits=Path(specphoto_file))
    assert again == specphoto_file
    assert Path(specphoto_file).stat().st_mtime_ns > before


def test_match_imgifs_spatial__smoothing(specphoto_file, workdir):
    name = pixedfit.match_imgifs_spatial(
        FLUXMAP, CUBE, spec_smoothing=True, kernel_sigma=40.0, name_out_fits="smooth.fits"
    )
    with fits.open(specphoto_file) as sharp, fits.open(name) as smooth:
        region = (sharp["SPEC_REGION"].data == 1) & (smooth["SPEC_REGION"].data == 1)
        rough = [np.abs(np.diff(h["SPEC_FLUX"].data[:, region], axis=0)).mean()
                 for h in (sharp, smooth)]  # fmt: skip
        level = [h["SPEC_FLUX"].data[20:-20, region].mean() for h in (sharp, smooth)]
    assert rough[1] < 0.5 * rough[0]
    assert level[1] == pytest.approx(level[0], rel=0.01)


def test_match_imgifs_spatial__bad_options(workdir):
    with pytest.raises(InputError, match=r"nproc: expected 1 or more, found 0; give 1"):
        pixedfit.match_imgifs_spatial(FLUXMAP, CUBE, nproc=0)
    with pytest.raises(InputError, match=r"kernel_sigma: expected a sigma in Angstrom above 0"):
        pixedfit.match_imgifs_spatial(FLUXMAP, CUBE, spec_smoothing=True, kernel_sigma=0)
    assert not list(workdir.iterdir())


def test_match_imgifs_spectral__default_name(specphoto_file, asked, workdir):
    assert pixedfit.match_imgifs_spectral(specphoto_file) == "corr_specphoto_galaxy.fits"
    assert asked["path"] == "corr_specphoto_galaxy.fits"
    assert asked["overwrite"] is True
    assert "line_window" not in asked
    assert "library" not in asked


def test_match_imgifs_spectral__options(specphoto_file, asked):
    pixedfit.match_imgifs_spectral(
        specphoto_file, models_spec=PEER / "library_reduced.hdf5", del_wave_nebem=20.0, nproc=1
    )
    assert asked["library"] == PEER / "library_reduced.hdf5"
    # 20 Angstrom at H-alpha of z = 0.03
    assert asked["line_window"] == pytest.approx(886.8, abs=0.5)
    assert (asked["scheduler"], asked["num_workers"]) == ("threads", 1)


def test_match_imgifs_spectral__workers(specphoto_file, asked):
    pixedfit.match_imgifs_spectral(specphoto_file, nproc=1000)
    assert asked["num_workers"] == os.cpu_count()
    with dask.config.set(scheduler="synchronous"):
        pixedfit.match_imgifs_spectral(specphoto_file, nproc=4)
    assert asked["scheduler"] == "synchronous"


def test_match_imgifs_spectral__cosmology(specphoto_file, asked):
    with pytest.warns(UserWarning, match=r"cosmo, H0 and Om0 have no effect"):
        pixedfit.match_imgifs_spectral(specphoto_file, cosmo="Planck15")
    with pytest.warns(UserWarning, match=r"cosmo, H0 and Om0 have no effect"):
        pixedfit.match_imgifs_spectral(specphoto_file, H0=67.0)
    pixedfit.match_imgifs_spectral(specphoto_file, cosmo="flat_LCDM")
    with pytest.raises(InputError, match=r"cosmo: expected 0 or 'flat_LCDM'.*found 'EdS'"):
        pixedfit.match_imgifs_spectral(specphoto_file, cosmo="EdS")


def test_match_imgifs_spectral__peers_file(workdir):
    shutil.copy(PEER / "specphoto_6pixels.fits.gz", workdir)
    library = PEER / "library_reduced.hdf5"
    name = pixedfit.match_imgifs_spectral("specphoto_6pixels.fits.gz", models_spec=library)
    assert name == "corr_specphoto_6pixels.fits"
    with fits.open(name) as cube, fits.open(PEER / "peer_corr_6pixels.fits.gz") as peer:
        region = peer["SPEC_REGION"].data == 1
        ours, theirs = (h["corr_factor"].data[:, region] for h in (cube, peer))
    # an unbiased fit with other weights and bands, on the same spectra
    assert np.median(np.abs(ours / theirs - 1)) < 0.1


def test_smooth_spectra__line_widens_in_quadrature():
    wave = 4000.0 * 10 ** (1e-4 * np.arange(800))
    line = np.exp(-0.5 * ((wave - wave[400]) / 4.0) ** 2)
    matrix = gaussian_matrix(wave, 3.0)
    flux, _ = smooth_spectra(line, np.ones_like(line), np.zeros(800, bool), matrix)
    assert flux.max() == pytest.approx(4.0 / 5.0, rel=1e-3)


def test_smooth_spectra__monte_carlo_with_mask():
    rng = np.random.default_rng(0)
    wave = np.linspace(5000, 5100, 101)
    mask = np.zeros((101, 4000), bool)
    mask[40:43] = True
    sigma = np.linspace(1.0, 2.0, 101)[:, None]
    noise = np.where(mask, 1e9, rng.normal(0.0, sigma, mask.shape))
    var = np.broadcast_to(sigma**2, mask.shape)
    flux, predicted = smooth_spectra(noise, var, mask, gaussian_matrix(wave, 3.0))
    np.testing.assert_allclose(flux.var(axis=1), predicted[:, 0], rtol=0.12)
    assert np.mean(flux.var(axis=1) / predicted[:, 0]) == pytest.approx(1.0, abs=0.02)


def test_smooth_spectra__nothing_good():
    matrix = gaussian_matrix(np.arange(3000.0, 3010.0), 2.0)
    flux, var = smooth_spectra(np.ones(10), np.ones(10), np.ones(10, bool), matrix)
    assert np.isnan(flux).all()
    assert np.isnan(var).all()
