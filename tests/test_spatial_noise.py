"""Errors of pixels and of sums against noise: drawn through the whole match, and observed.

Realisations are the channels of one cube: each is matched as a channel is.
"""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from galaxy_files import small_galaxy
from scipy import ndimage
from spatial_cases import cube, gaussian_sky, hexagon, images, tan_wcs

from specphoto.cube import Grid
from specphoto.io import open_ifs
from specphoto.simulate.manga import manga_grid
from specphoto.simulate.noise import fibre_positions, shepard
from specphoto.spatial.binning import bins_of, correlation_blocks, sum_planes
from specphoto.spatial.correlation import checked_lags, correlation_stencil
from specphoto.spatial.covariance import variance_ratio
from specphoto.spatial.kernel import matching_kernel
from specphoto.spatial.match import match_spatial
from specphoto.spatial.operator import build_operator
from specphoto.spatial.psf import PSF
from specphoto.spatial.sums import sum_spectra
from specphoto.spatial.varying import interpolation

SCALE, CUTOFF = 1.92, 6.4  # MaNGA, spaxels
MANGA = {"model": "gaussian", "scale": SCALE, "cutoff": CUTOFF}
N_REAL = 2000
FIBRES = 61
HOLE = (33, 24, 3.2)  # y, x and radius in spaxels: a dead fibre
GRID = Grid(tan_wcs((21, 21), 1.5, angle=20.0), (21, 21), 6.4)


def lags_of_fibres(weights, shape):
    """Correlation of spaxels that share fibres, by lag, as MaNGA's tables hold it."""
    flat = np.arange(shape[0] * shape[1]).reshape(shape)
    covariance = (weights @ weights.T).toarray()
    lags, rho = [], []
    for step_y in range(7):
        for step_x in range(-6 if step_y else 1, 7):
            first = flat[: shape[0] - step_y, max(0, -step_x) : shape[1] - max(0, step_x)]
            second = flat[step_y:, max(0, step_x) : shape[1] + min(0, step_x)]
            layer = np.zeros(shape, dtype=np.float32)
            layer.ravel()[first.ravel()] = covariance[first.ravel(), second.ravel()]
            lags.append((step_y, step_x))
            rho.append(layer)
    return np.stack(rho), *np.array(lags).T


def fibre_noise(rng, n_real):
    """Noise of fibres resampled to spaxels: values, observed spaxels, and their correlation."""
    pixels = manga_grid(FIBRES)
    weights, total = shepard(fibre_positions(FIBRES, rng=rng), pixels)
    observed = total.reshape(pixels.shape) > 0
    norm = np.sqrt(np.asarray(weights.multiply(weights).sum(axis=1))).ravel()
    weights = weights.multiply(1.0 / np.where(norm > 0, norm, 1.0)[:, None]).tocsr()
    fibre = rng.standard_normal((weights.shape[1], n_real), dtype=np.float32)
    noise = (weights @ fibre).T.reshape(n_real, *pixels.shape)
    return noise, observed, lags_of_fibres(weights, pixels.shape)


def gaussian_noise(rng, n_real):
    """Noise with the Gaussian correlation of MaNGA, over the hexagon of the bundle."""
    shape = manga_grid(FIBRES).shape
    observed = hexagon(tan_wcs(shape, 0.5), shape, 11.5) < 1
    width, margin = SCALE / np.sqrt(2.0), 12
    white = rng.standard_normal((n_real, *(n + 2 * margin for n in shape)), dtype=np.float32)
    point = np.zeros((51, 51))
    point[25, 25] = 1.0
    power = (ndimage.gaussian_filter(point, width, truncate=5.0) ** 2).sum()
    smooth = ndimage.gaussian_filter(white, (0, width, width), truncate=5.0)
    return smooth[:, margin:-margin, margin:-margin] / np.sqrt(power), observed, None


def galaxy(wcs, shape, scale, psf, width=14.0):
    """Round galaxy of a FWHM of 14 arcsec, per pixel of ``scale`` arcsec, through a PSF."""
    seen = np.hypot(width, psf)
    return 40.0 * scale**2 * (width / seen) ** 2 * gaussian_sky(wcs, shape, seen)


def noisy_cube(kind, rng, n_real=N_REAL, *, psf=None):
    """Cube of noise, more of it to one side, with a hole; through a PSF (FWHM), of a galaxy."""
    noise, observed, lags = {"fibres": fibre_noise, "gaussian": gaussian_noise}[kind](rng, n_real)
    shape = observed.shape
    y, x = np.indices(shape)
    sigma = 1.0 + 0.5 * np.sin(x / 9.0) + 0.3 * y / shape[0]
    mask = ~observed | (np.hypot(y - HOLE[0], x - HOLE[1]) < HOLE[2])
    wcs = tan_wcs(shape, 0.5)
    source = 0.0 if psf is None else galaxy(wcs, shape, 0.5, psf)
    ds = cube(
        source + noise * sigma, wcs, variance=sigma**2, mask=mask, chunks=500,
        correlation=MANGA,
    )  # fmt: skip
    if lags is None:
        return ds
    rho, lag_y, lag_x = lags
    seen = ds.assign(spec_corr=(("corr_wave", "lag", "y", "x"), da.from_array(rho[None])))
    return seen.assign_coords(corr_wave=[6000.0], lag_y=("lag", lag_y), lag_x=("lag", lag_x))


def squares(shape, side):
    """Squares of pixels as a label map."""
    y, x = np.indices(shape)
    return 1 + y // side * 1000 + x // side


def scatter_over_error(ds):
    """Standard deviation over realisations over the error, of each pixel or bin that is known."""
    last = [d for d in ds["spec_flux"].dims if d != "wave"] + ["wave"]
    flux, error = (ds[v].transpose(*last).values.astype(float) for v in ("spec_flux", "spec_err"))
    known = np.isfinite(flux).all(axis=-1)
    return np.sqrt(flux[known].var(axis=-1) / (error[known] ** 2).mean(axis=-1)), known


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


@pytest.mark.parametrize("kind", ["gaussian", "fibres"])
def test_match_spatial__pixels_and_sums_scatter_by_their_errors(kind):
    # from 2.5" to 6.4" and from 0.5" to 1.5", up to the rim of the bundle and round a hole
    ds = noisy_cube(kind, np.random.default_rng(5))
    with dask.config.set(scheduler="synchronous"):
        out = match_spatial(ds, GRID, min_coverage=0.3, source_psf=2.5)
        names = ["spec_flux", "spec_err", "spec_mask", "spec_corr", "coverage"]
        out = out[names].compute()
        ratio, known = scatter_over_error(out)
        coverage = out["coverage"].values[known]
        assert ratio.size > 200
        assert rms(ratio) == pytest.approx(1.0, abs=0.03)
        assert (coverage < 0.7).sum() > 50
        assert rms(ratio[coverage < 0.7]) == pytest.approx(1.0, abs=0.03)
        near_hole = near(out, ds, HOLE, 4.0)[known]
        assert near_hole.sum() > 10
        assert rms(ratio[near_hole]) == pytest.approx(1.0, abs=0.05)
        for side in (3, 7):
            ratio = scatter_of_sums(out, side)
            assert ratio.size > (100 if side == 3 else 15)
            assert rms(ratio) == pytest.approx(1.0, abs=0.05)
            # as independent pixels they would not
            alone = sum_spectra(
                out, squares((21, 21), side), min_good=1.0, correlation={"model": "none"}
            )
            assert rms(scatter_over_error(alone)[0]) > (2.5 if side == 3 else 4.0)


@pytest.mark.parametrize("kind", ["gaussian", "fibres"])
def test_match_spatial__compensated_pixels_and_sums_scatter_by_their_errors(kind):
    # with images the light beyond the rim and in the hole is made up for, and so is the error
    ds = noisy_cube(kind, np.random.default_rng(8), 400, psf=2.5)
    flux = np.stack([galaxy(GRID.wcs, GRID.shape, 1.5, GRID.psf)] * 3)
    with dask.config.set(scheduler="synchronous"):
        out = match_spatial(ds, images(flux, GRID.wcs, fwhm=GRID.psf), source_psf=2.5)
        names = ["spec_flux", "spec_err", "spec_mask", "spec_corr", "spec_region", "edge_factor"]
        out = out[names].compute()
        ratio, known = scatter_over_error(out)
        trusted = out["spec_region"].values[known]
        rim = trusted & (np.abs(out["edge_factor"].values[known] - 1.0) > 0.1)
        assert trusted.sum() > 150
        assert rms(ratio[trusted]) == pytest.approx(1.0, abs=0.03)
        assert rim.sum() > 30
        assert rms(ratio[rim]) == pytest.approx(1.0, abs=0.03)
        out["spec_mask"] = out["spec_mask"] | ~out["spec_region"]
        for side in (3, 7):
            ratio = scatter_of_sums(out, side)
            assert ratio.size > (100 if side == 3 else 15)
            assert rms(ratio) == pytest.approx(1.0, abs=0.05)


def scatter_of_sums(out, side):
    """Scatter over error of sums over squares, laid in many ways over the grid."""
    steps = range(0, side, side // 3)
    labels = [np.roll(squares((21, 21), side), (y, x), axis=(0, 1)) for y in steps for x in steps]
    sums = [sum_spectra(out, each, min_good=1.0).compute() for each in labels]
    return np.concatenate([scatter_over_error(s)[0] for s in sums])


def near(out, ds, place, distance):
    """Output pixels within some arcsec of a spaxel (y, x)."""
    wcs = [WCS(fits.Header.fromstring(d.attrs["wcs"], sep="\n")) for d in (out, ds)]
    x, y = wcs[0].world_to_pixel(wcs[1].pixel_to_world(place[1], place[0]))
    at_y, at_x = np.indices((out.sizes["y"], out.sizes["x"]))
    return np.hypot(at_y - y, at_x - x) * 1.5 < distance


def observed_noise(folder):
    """Variance image of an observed MaNGA cube, and its correlation matrix by lag."""
    with fits.open(folder / "manga/manga-7815-3702-SNRG.fits.gz") as hdus:
        shape = (42, 42)
        variance = np.array(hdus["SPECTRUM"].data["VARIANCE"], dtype=float).reshape(shape)
        table = hdus["CORREL"].data
        first, second = (
            [np.array(table[f"INDX{k}_C{axis}"], dtype=int) for axis in (1, 2)] for k in "IJ"
        )
        value = np.array(table["RHOIJ"], dtype=np.float32)
    steps = [b - a for a, b in zip(first, second, strict=True)]
    # here the first index is the slow one
    assert ((steps[0] > 0) | ((steps[0] == 0) & (steps[1] >= 0))).all()
    pairs = (steps[0] != 0) | (steps[1] != 0)
    lags, layer = np.unique(np.stack(steps)[:, pairs], axis=1, return_inverse=True)
    rho = np.zeros((lags.shape[1], *shape), dtype=np.float32)
    rho[layer.ravel(), first[0][pairs], first[1][pairs]] = value[pairs]
    good = np.zeros(shape, dtype=bool)
    good[first[0][~pairs], first[1][~pairs]] = True
    return np.sqrt(variance), good, checked_lags(rho, *lags, name="7815-3702")


@pytest.mark.parametrize("side", [3, 7])
def test_sum_spectra__of_a_survey_file_scatter_by_their_errors(side):
    ds = open_ifs(small_galaxy().cube.path)
    good = (~ds["spec_mask"]).mean("wave").values > 0.9
    labels = np.where(good, squares(good.shape, side), 0)
    out = sum_spectra(ds, labels).compute()
    whole = out["n_pixel"].values == side**2
    flux, error = (out[v].values[whole] for v in ("spec_flux", "spec_err"))
    assert whole.sum() >= 5
    # second differences leave the noise, which is independent between channels, and few lines
    noise = flux[:, 2:] - 2.0 * flux[:, 1:-1] + flux[:, :-2]
    pull = noise / np.sqrt(error[:, 2:] ** 2 + 4.0 * error[:, 1:-1] ** 2 + error[:, :-2] ** 2)
    assert 1.4826 * np.nanmedian(np.abs(pull)) == pytest.approx(1.0, abs=0.03)


@pytest.mark.realdata
@pytest.mark.parametrize("side", [3, 7])
def test_sum_planes__the_gaussian_model_gives_the_noise_of_observed_bins(realdata, side):
    """Errors of bins by the Gaussian model against those by the matrix of an observed cube.

    Over all tilings one of the 718 bins of 3 x 3 differs by more than 8%, and none of the 486 of
    7 x 7; over the first tiling, from the first pixel on, none at all does.
    """
    sigma, good, own = observed_noise(realdata)
    assert own.clipped < 1e-3
    model = correlation_stencil(SCALE, CUTOFF)
    ratios = []
    for shift in np.ndindex(side, side):
        bins = bins_of(np.roll(squares(good.shape, side), shift, axis=(0, 1)))
        error = [
            sum_planes(
                bins, [correlation_blocks(bins, c)], np.ones((1, 1)), *plane_of(sigma, good),
                min_good=1.0,
            )[1, 0]
            for c in (model, own)
        ]  # fmt: skip
        ratios.append((error[0] / error[1])[np.isfinite(error[0])])
    # bins laid side by side from the first pixel on
    assert np.median(ratios[0]) == pytest.approx(1.0, abs=0.03)
    np.testing.assert_allclose(ratios[0], 1.0, atol=0.08)
    # and wherever else they are laid; the one is on the rim
    every = np.concatenate(ratios)
    assert every.size > 450
    assert np.median(every) == pytest.approx(1.0, abs=0.03)
    assert (np.abs(every - 1.0) < 0.08).mean() > 0.995
    np.testing.assert_allclose(every, 1.0, atol=0.10)


def plane_of(sigma, good):
    """Flux, sigma, good as one channel, and the light."""
    s = sigma[None].astype(np.float32)
    return np.ones_like(s), s, good[None], np.ones(good.shape, dtype=np.float32)


@pytest.mark.realdata
def test_variance_ratio__is_smooth_in_wavelength(realdata):
    """The ratio from five wavelengths against the exact one, with observed errors."""
    with fits.open(realdata / "manga/MaNGA_test_spectra.fits.gz") as hdus:
        wave = np.array(hdus["WAVE"].data, dtype=float)
        ivar = np.array(hdus["IVAR"].data[[6, 4]], dtype=float)  # S/N 1.5 and 153
    faint, bright = np.where(ivar > 0, 1.0 / np.where(ivar > 0, ivar, 1.0), np.nan)
    channels = np.flatnonzero(np.isfinite(faint + bright))
    y, x = np.indices((74, 74))
    radius = np.hypot(y - 36.5, x - 36.5)
    light = np.exp(-radius / 5.0)  # 2.5" disc

    def ratio(channel):
        source = np.clip(bright[channel] - faint[channel], 0.0, None)
        sigma = np.sqrt(np.mean(faint[channel] + light[..., None] * source, axis=-1))
        return variance_ratio(op, radius < 32, sigma, correlation_stencil(SCALE, CUTOFF))

    kernel = matching_kernel(PSF("gaussian", 2.54), PSF("gaussian", 6.4), 0.5)
    edge = (np.arange(25) - 12) * 3 + 36.5
    op = build_operator(*np.meshgrid(edge, edge), (74, 74), kernel, min_coverage=0.3)
    first = (np.linspace(0.06, 0.94, 5) * (wave.size - 1)).astype(int) - 4
    few = [np.intersect1d(np.arange(s, s + 9), channels) for s in first]
    nodes = np.stack([ratio(channel) for channel in few])
    here = channels[::150]
    exact = np.stack([ratio(here[k : k + 1]) for k in range(here.size)])
    node_wave = np.array([wave[s : s + 9].mean() for s in first])
    error = np.sqrt(interpolation(wave[here], node_wave) @ nodes / exact) - 1.0
    assert rms(error) < 0.003
    assert np.abs(error).max() < 0.02
