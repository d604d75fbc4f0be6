"""Injected against recovered factor, from survey files of full size to the corrected cube."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import dask
import numpy as np
import pytest

from specphoto import match_spatial, match_spectral, open_ifs, open_photometry
from specphoto.io.library import default_library
from specphoto.simulate import Miscalibration, make_sky, simulate_galaxy
from specphoto.spatial.psf import PSF
from specphoto.spectral import legendre

if TYPE_CHECKING:
    import xarray as xr

    from specphoto.simulate import SimulatedGalaxy

# 20% from end to end, a level, and some curvature
FACTOR = Miscalibration((1.05, 0.1, -0.03, 0.01))
PHOTOMETRIC_ERROR = 0.02
SHAPE = {"manga": (4563, 74, 74), "califa": (1901, 73, 78)}


class Run(NamedTuple):
    """What came back of an object whose spaxels are independent populations."""

    made: SimulatedGalaxy
    out: xr.Dataset
    sn: np.ndarray  # (y, x) per channel near 6200 A
    good: np.ndarray  # (y, x) coverage >= 0.99

    def off(self, name: str) -> np.ndarray:
        """Recovered over injected factor - 1, ``(wave, y, x)``."""
        x = legendre.normalized(self.made.cube.wave, *self.out.attrs["corr_range"])
        injected = self.made.cube.factor()[:, None, None]
        return legendre.evaluate(self.out[name].values, x) / injected - 1.0

    @property
    def wrong(self) -> np.ndarray:
        """Of each pixel by itself."""
        return self.off("corr_coef_pixel")

    @property
    def together(self) -> np.ndarray:
        """Of all pixels together, which have one factor."""
        return self.off("corr_coef")

    def pull(self, wrong: np.ndarray, name: str) -> np.ndarray:
        """Errors over what covariances say they are, ``(wave, y, x)``."""
        x = legendre.normalized(self.made.cube.wave, *self.out.attrs["corr_range"])
        error = legendre.evaluate_err(self.out[name].values, x)
        return wrong * self.made.cube.factor()[:, None, None] / error

    @property
    def index(self) -> np.ndarray:
        """Number of each pixel's population, ``(y, x)``."""
        whole = make_sky(self.made.truth).index.reshape(self.made.cube.pixels.shape)
        return whole[np.ix_(self.out.y.values, self.out.x.values)]


def run(folder, survey, *, half=15, library="default", **options) -> Run:
    """Simulate files, open, match, correct the middle of the field; the files are then removed."""
    made = simulate_galaxy(
        folder, survey=survey, mode="independent", compress=False, factor=FACTOR, ebv=0.03,
        cube_options={"snr": (2.0, 40.0)}, photometry_options={"error": PHOTOMETRIC_ERROR},
        **options,
    )  # fmt: skip
    ifs = open_ifs(made.cube.path)
    # one PSF, whatever its shape in the images' header: only so are pixels independent
    same = PSF.from_attrs(ifs.attrs["psf"], float(np.median(ifs.wave)))
    matched = match_spatial(ifs, open_photometry(made.photometry.path), target_psf=same)
    n_y, n_x = (matched.sizes[axis] // 2 for axis in ("y", "x"))
    part = {"y": slice(n_y - half, n_y + half), "x": slice(n_x - half, n_x + half)}
    out = match_spectral(matched.isel(part), library=library)
    names = [
        "corr_coef",
        "corr_cov",
        "corr_coef_pixel",
        "corr_cov_pixel",
        "closure_before",
        "closure_after",
        "coverage",
        "n_eff",
    ]
    with dask.config.set(scheduler="threads", num_workers=2):
        out = out[names].compute()
    exposure = made.cube.exposure
    at = int(np.argmin(np.abs(made.cube.wave - 6200.0)))
    with np.errstate(invalid="ignore"):
        sn = (exposure.noiseless(at, at + 1) / exposure.sigma(at, at + 1))[0]
    made.cube.path.unlink()
    sn = sn[part["y"], part["x"]]
    return Run(made, out, sn, (out.coverage.values >= 0.99) & np.isfinite(sn))


@pytest.fixture(scope="module", params=sorted(SHAPE))
def full_size(request, tmp_path_factory) -> Run:
    return run(tmp_path_factory.mktemp(request.param), request.param, seed=5)


def test_recovery__the_files_are_of_full_size(full_size):
    made = full_size.made.cube
    assert (made.wave.size, *made.pixels.shape) == SHAPE[made.survey]


def test_recovery__factor_within_two_percent_and_unbiased(full_size):
    bright = full_size.good & (full_size.sn >= 3.0)
    assert bright.sum() >= 500
    assert np.unique(full_size.index[bright]).size >= 500
    wrong = full_size.wrong[:, bright]
    assert np.isfinite(wrong).all()
    assert np.median(np.abs(wrong)) <= 0.02
    assert abs(wrong.mean()) < 0.005
    # nor is there a wavelength or a brightness at which it is much more
    assert np.abs(wrong.mean(axis=1)).max() < 0.01
    for low, high in ((3, 6), (6, 12), (12, 100)):
        some = bright & (full_size.sn >= low) & (full_size.sn < high)
        assert abs(full_size.wrong[:, some].mean()) < 0.006


def test_recovery__nothing_is_unknown_down_to_sn_two(full_size):
    assert np.isfinite(full_size.wrong[:, full_size.good]).all()
    assert abs(full_size.wrong[:, full_size.good].mean()) < 0.005


def test_recovery__the_error_is_that_of_the_factor(full_size):
    pull = full_size.pull(full_size.wrong, "corr_cov_pixel")[:, full_size.good]
    # a little wide: a library that holds the truth has no template error
    assert 0.65 < np.std(pull[::50]) < 1.15
    assert 0.65 < np.percentile(np.abs(pull[::50]), 68) < 1.15


def test_recovery__one_factor_of_all_pixels_is_nearer_by_far(full_size):
    bright = full_size.good & (full_size.sn >= 3.0)
    alone, together = (np.abs(w[:, bright]) for w in (full_size.wrong, full_size.together))
    assert np.median(together) < 0.4 * np.median(alone)
    assert together.max() < 0.03
    pull = full_size.pull(full_size.together, "corr_cov")[:, bright]
    # the error of models that all pixels may share is not averaged
    assert np.abs(pull).max() < 2.0


def test_recovery__synthetic_photometry_closes_within_the_photometric_errors(full_size):
    bright = full_size.good & (full_size.sn >= 3.0)
    # CALIFA COMB ends within i
    manga = full_size.out.attrs["survey"] == "manga"
    for band in ("sdss_g", "sdss_r", *(["sdss_i"] if manga else [])):
        before, after = (
            full_size.out[name].sel(band=band).values[bright]
            for name in ("closure_before", "closure_after")
        )
        # the factor of all pixels together does not follow the noise of one
        assert np.std(after) < 1.2 * 1.0857 * PHOTOMETRIC_ERROR
        assert abs(np.mean(after)) < 0.005
        assert np.sqrt(np.mean(before**2)) > 1.15 * np.sqrt(np.mean(after**2))


def test_recovery__populations_that_are_not_in_the_library(tmp_path):
    # of its family, but none of its models: the fit holds the first 20 000 of the 50 000 drawn
    found = run(tmp_path, "manga", size=37, seed=8, library=default_library(20_000))
    held_out = found.good & (found.sn >= 3.0) & (found.index >= 20_000)
    assert held_out.sum() > 250
    wrong = found.wrong[:, held_out]
    assert np.median(np.abs(wrong)) <= 0.02
    assert abs(wrong.mean()) < 0.005


def test_recovery__populations_of_another_family(tmp_path):
    # two bursts and another dust law: what no model of the library is
    found = run(tmp_path, "manga", size=37, seed=9, family="two_burst",
                library=default_library(20_000))  # fmt: skip
    bright = found.good & (found.sn >= 3.0)
    wrong = found.wrong[:, bright]
    assert np.median(np.abs(wrong)) < 0.02
    assert abs(wrong.mean()) < 0.008
    assert np.percentile(np.sqrt(np.mean(wrong**2, axis=0)), 84) < 0.05
    pull = found.pull(found.wrong, "corr_cov_pixel")[:, bright]
    assert np.percentile(np.abs(pull[::50]), 68) < 1.3
    for band in ("sdss_g", "sdss_r", "sdss_i"):
        after = found.out.closure_after.sel(band=band).values[bright]
        assert np.std(after) < 1.2 * 1.0857 * PHOTOMETRIC_ERROR
