"""Images brought to a broader PSF and to another grid: flux, errors, holes, units, laziness."""

from __future__ import annotations

import json

import dask
import dask.array as da
import h5py
import numpy as np
import pytest
import spatial_cases
import xarray as xr
from astropy.convolution import convolve_fft
from astropy.io import fits
from lazy import number, planned, raise_if_computes
from reproject import reproject_exact
from scipy import ndimage
from spatial_cases import gaussian_sky, images, tan_wcs

import specphoto
from specphoto.cube import Grid, pixel_scale
from specphoto.errors import InputError
from specphoto.io.fitsfile import open_fits
from specphoto.io.image_file import Image
from specphoto.io.survey import celestial
from specphoto.photometry import images as kernels
from specphoto.photometry import match, tiles
from specphoto.photometry.extinction import band_transmission
from specphoto.photometry.filters import known_filters, load_filters, register_filter
from specphoto.photometry.galactic import NO_CHANGE, Extinction, band_factors, common_extinction
from specphoto.photometry.match import photometry_from_images, to_psf
from specphoto.photometry.synthetic import synthetic_flux
from specphoto.spatial.covariance import correlation_stencil
from specphoto.spatial.geometry import PixelFrame, corners_on
from specphoto.spatial.kernel import gaussian_kernel, matching_kernel
from specphoto.spatial.psf import PSF

SHAPE = (48, 44)
WCS = tan_wcs(SHAPE, 1.0)
BLOB = gaussian_sky(WCS, SHAPE, 4.0, at=(1.0, -2.0))


def computed(ds):
    with dask.config.set(scheduler="synchronous"):
        return ds.compute()


def own_grid(flux=BLOB, **attrs):
    return images(np.stack([flux, 2.0 * flux]), WCS, bands=("sdss_g", "sdss_r"),
                  pivot=(4702.0, 6176.0), fwhm=4.0, **attrs)  # fmt: skip


# -- to a broader PSF on the own grid


def test_to_psf__gives_the_blob_of_the_broader_psf():
    out = computed(to_psf(own_grid(), 2.0, 3.0))
    wide = np.sqrt(4.0**2 + 3.0**2 - 2.0**2)
    expected = (4.0 / wide) ** 2 * gaussian_sky(WCS, SHAPE, wide, at=(1.0, -2.0))
    inner = (slice(8, -8), slice(8, -8))
    got = out["photo_flux"].values[:, *inner]
    np.testing.assert_allclose(got[0], expected[inner], atol=2e-3)
    np.testing.assert_allclose(got[1], 2.0 * expected[inner], atol=4e-3)
    assert out.attrs["psf"]["fwhm"] == [3.0]


def test_to_psf__computes_nothing_and_records_what_it_does():
    target = PSF("moffat", 4.0, 2.8)
    with raise_if_computes():
        out = to_psf(own_grid(), 2.0, target, min_coverage=0.9)
    assert out["photo_flux"].dtype == np.float32
    assert out.attrs["psf"] == {"model": "moffat", "wave": [], "fwhm": [4.0], "beta": [2.8]}
    step = out.attrs["provenance"][-1]
    assert step["step"] == "to_psf"
    assert step["options"]["source"]["fwhm"] == [2.0]
    assert step["options"]["min_coverage"] == 0.9


def test_to_psf__unknown_pixels_are_not_zeros():
    hole = np.ones(SHAPE)
    hole[20:23, 20:23] = np.nan
    out = computed(to_psf(own_grid(hole), 2.0, 4.0))
    flux, region = out["photo_flux"].values, out["photo_region"].values
    # a flat sky stays flat wherever enough of it is seen
    np.testing.assert_allclose(flux[0][np.isfinite(flux[0])], 1.0, rtol=1e-6)
    assert np.isnan(flux[0, 21, 21])
    assert not region[21, 24]  # close by, lost
    assert region[21, 30]
    assert not region[0, 0]  # beyond the frame nothing is known


def test_to_psf__a_band_without_data_does_not_empty_the_region():
    flux = np.stack([np.ones(SHAPE), np.full(SHAPE, np.nan)])
    ds = images(flux, WCS, bands=("sdss_g", "sdss_r"), pivot=(4702.0, 6176.0))
    region = computed(to_psf(ds, 2.0, 4.0))["photo_region"].values
    assert region[10:-10, 10:-10].all()


def test_to_psf__refuses_a_sharper_target():
    with pytest.raises(InputError, match=r"images\.fits.*no broader than .*2 arcsec.*found a PSF"):
        to_psf(own_grid(), 3.0, 2.0)


def test_to_psf__tiles_give_the_same_as_one_piece(monkeypatch):
    rng = np.random.default_rng(3)
    flux = rng.normal(1.0, 0.3, SHAPE)
    flux[rng.random(SHAPE) < 0.01] = np.nan
    options = {"correlation": {"model": "gaussian", "scale": 1.0, "cutoff": 3.0}}
    whole = computed(to_psf(own_grid(flux), 2.0, 3.0, **options))
    monkeypatch.setattr(match, "_TILE", 13)
    tiled = to_psf(own_grid(flux), 2.0, 3.0, **options)
    assert len(tiled["photo_flux"].chunks[1]) == 3
    tiled = computed(tiled)
    for name in ("photo_flux", "photo_err", "photo_region"):
        np.testing.assert_allclose(tiled[name].values, whole[name].values, rtol=1e-5)


def dense(kernel, shape):
    """K as a matrix, zeros beyond the frame."""
    unit = np.eye(shape[0] * shape[1]).reshape(-1, *shape)
    return np.stack([kernels._convolve(u, kernel).ravel() for u in unit], axis=1)


@pytest.mark.parametrize("scale", [0.0, 1.2])
def test_bring_to_psf__has_the_exact_variance(scale):
    rng = np.random.default_rng(2)
    shape = (13, 12)
    flux, sigma = rng.normal(size=shape), rng.uniform(0.5, 2.0, shape)
    flux[5, 6] = np.nan
    kernel = gaussian_kernel(0.8)
    stencil = correlation_stencil(scale, 3.0)
    flat, sky = kernels.bring_to_psf(flux, sigma, kernel, stencil=stencil, min_coverage=0.3)
    y, x = (n.ravel() for n in np.indices(shape))
    rho = np.zeros((y.size, y.size))
    dy, dx = y[:, None] - y, x[:, None] - x
    near = (np.abs(dy) < stencil.shape[0] // 2 + 1) & (np.abs(dx) < stencil.shape[1] // 2 + 1)
    middle = stencil.shape[0] // 2
    rho[near] = stencil[dy[near] + middle, dx[near] + middle]
    w = np.isfinite(flux).ravel()
    A = dense(kernel, shape) * w
    noise = sigma.ravel()
    coverage = A.sum(axis=1)
    expected = np.sqrt(np.diag(A @ (rho * np.outer(noise, noise)) @ A.T)) / coverage
    np.testing.assert_allclose(sky.ravel(), expected, rtol=1e-6)
    np.testing.assert_allclose(flat.ravel(), A @ np.nan_to_num(flux).ravel() / coverage, rtol=1e-6)


def test_bring_to_psf__an_unknown_error_makes_errors_unknown_and_no_flux():
    flux, error = np.ones((2, *SHAPE)), np.ones((2, *SHAPE))
    error[0, 20, 20] = np.nan
    flat, sigma = kernels.bring_to_psf(flux, error, gaussian_kernel(1.0))
    inner = (slice(8, -8), slice(8, -8))
    assert np.isfinite(flat[:, *inner]).all()
    assert np.isnan(sigma[0, 21, 21])
    assert np.isfinite(sigma[1, *inner]).all()
    assert np.isfinite(sigma[0, 30, 30])


# -- to another grid


def rotated(n_y, n_x, side, angle, *, at=(0.0, 0.0)):
    """Corners of output pixels, turned."""
    x, y = np.meshgrid(np.arange(n_x + 1) * side, np.arange(n_y + 1) * side)
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    return c * x - s * y + at[0], s * x + c * y + at[1]


KERNELS = {
    "none": np.ones((1, 1)),
    "gaussian": gaussian_kernel(1.7),
    "moffat": matching_kernel(PSF("gaussian", 1.3), PSF("moffat", 3.6, 2.5), 0.4),
}


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS.keys())
def test_bring_to_grid__is_the_operator_of_the_cube(kernel):
    from specphoto.spatial.operator import build_operator

    rng = np.random.default_rng(5)
    flux, variance = rng.normal(size=(40, 37)), rng.uniform(0.5, 2.0, (40, 37))
    flux[10:13, 20:22] = np.nan
    corner = rotated(14, 15, 3.7, 20.0, at=(-4.0, -9.0))
    operator = build_operator(*corner, flux.shape, kernel)
    A = operator.weight if isinstance(operator.weight, np.ndarray) else operator.weight.toarray()
    A = A.T.astype(float) * np.isfinite(flux).ravel()
    coverage = A.sum(axis=1) / operator.area
    seen = coverage > 0.5
    got = kernels.bring_to_grid(flux, variance, *corner, kernel, min_coverage=0.5)
    got = got.reshape(2, -1)[:, operator.row]
    np.testing.assert_array_equal(np.isfinite(got[0]), seen)
    expected = (A @ np.nan_to_num(flux).ravel() / coverage)[seen]
    np.testing.assert_allclose(got[0][seen], expected, atol=1e-5)
    expected = (np.sqrt(A**2 @ variance.ravel()) / coverage)[seen]
    np.testing.assert_allclose(got[1][seen], expected, rtol=1e-5)


def test_bring_to_grid__sums_the_variance_of_an_oversampled_image_to_a_tenth_of_a_percent():
    kernel = gaussian_kernel(20.0)
    variance = np.random.default_rng(1).uniform(0.5, 1.5, (250, 250))
    corner = rotated(3, 3, 15.0, 30.0, at=(120.0, 100.0))
    assert kernels._block(kernel) == 2
    fast = kernels.bring_to_grid(variance, variance, *corner, kernel)[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_BLOCK", 0.0)
        exact = kernels.bring_to_grid(variance, variance, *corner, kernel)[1]
    np.testing.assert_allclose(fast, exact, rtol=1e-3)


def test_bring_to_grid__pixels_that_see_nothing_are_unknown():
    corner = rotated(2, 2, 2.0, 0.0, at=(50.0, 50.0))
    out = kernels.bring_to_grid(np.ones((9, 9)), np.ones((9, 9)), *corner, gaussian_kernel(1.0))
    assert np.isnan(out).all()
    corner[0][0, 0] = np.nan  # off the projection
    out = kernels.bring_to_grid(np.ones((99, 99)), np.ones((99, 99)), *corner, np.ones((1, 1)))
    assert np.isnan(out[:, 0, 0]).all()
    assert (out[0].ravel()[1:] == 4.0).all()


# -- photometry from images


FINE = tan_wcs((150, 150), 0.3, angle=25.0)
OUT = tan_wcs((30, 32), 1.2)
GRID = Grid(OUT, (30, 32), 3.0)
# one erg/s/cm2/A is 1e17 of our units
UNIT = {"unit": "1e-17 erg/s/cm2/A"}


def star(fwhm, *, at=(1.0, -2.0), flux=50.0, shape=(150, 150), wcs=FINE, scale=0.3):
    image = gaussian_sky(wcs, shape, fwhm, at=at) * scale**2
    return flux * image * 4.0 * np.log(2.0) / (np.pi * fwhm**2)


def of_star(**options):
    return Image(star(1.2), **{"band": "sdss_r", "wcs": FINE, "psf": 1.2, **UNIT, **options})


def test_photometry_from_images__is_what_the_package_exports():
    assert specphoto.photometry_from_images is photometry_from_images
    assert specphoto.Image is Image


def test_photometry_from_images__keeps_the_flux_and_place_of_a_star():
    out = computed(photometry_from_images(of_star(), GRID, min_coverage=0.0))
    flux = np.nan_to_num(out["photo_flux"].values[0])
    assert flux.sum() == pytest.approx(50.0, rel=1e-6)
    y, x = np.indices(flux.shape)
    at = OUT.wcs.crpix[0] - 1 - 1.0 / 1.2, OUT.wcs.crpix[1] - 1 - 2.0 / 1.2
    assert (flux * x).sum() / 50.0 == pytest.approx(at[0], abs=2e-3)
    assert (flux * y).sum() / 50.0 == pytest.approx(at[1], abs=2e-3)
    # PSF wanted, and the pixels of both grids
    spread = (3.0**2 / (8.0 * np.log(2.0)) + (1.2**2 + 0.3**2) / 12.0) / 1.2**2
    assert (flux * (x - at[0]) ** 2).sum() / 50.0 == pytest.approx(spread, rel=5e-3)


def test_photometry_from_images__gives_the_cubes_psf_on_the_cubes_own_grid():
    wave = np.array([5000.0, 6000.0, 7000.0])
    cube = spatial_cases.cube(np.ones((3, 30, 32)), OUT, wave=wave, fwhm=2.4)
    cube.attrs["psf"] = {"model": "gaussian", "wave": [5000, 7000], "fwhm": [2.6, 2.4],
                         "beta": None}  # fmt: skip
    ds = photometry_from_images(of_star(), cube, min_coverage=0.0)
    assert ds.attrs["psf"]["fwhm"] == [2.6]  # the broadest over the range
    assert ds.attrs["name"] == "cube.fits"
    flux = np.nan_to_num(computed(ds)["photo_flux"].values[0])
    x = np.arange(32) - (flux.sum(axis=0) @ np.arange(32)) / 50.0
    width = np.sqrt(8.0 * np.log(2.0) * (flux.sum(axis=0) @ x**2) / 50.0) * 1.2
    assert width == pytest.approx(2.6, rel=5e-3)  # the spaxel is in the cube's PSF
    # an image broader than the cube sets the PSF of all
    wide = photometry_from_images(of_star(psf=4.0), cube)
    assert wide.attrs["psf"]["fwhm"][0] == pytest.approx(np.hypot(4.0, 0.84), rel=1e-2)
    # narrower than its own pixels allow: no kernel, and the pixels do what they do
    bare = photometry_from_images(of_star(), cube, psf=1.2, min_coverage=0.0)
    assert np.nansum(bare["photo_flux"].values) == pytest.approx(50.0, rel=1e-6)


def test_photometry_from_images__keeps_surface_brightness_of_a_disc():
    disc = Image(np.full((150, 150), 2.0), "sdss_r", wcs=FINE, psf=1.0, unit="MJy/sr")
    out = computed(photometry_from_images(disc, GRID, region=np.ones((30, 32), bool)))
    factor = 1e-17 * 2.99792458e18 / out["band_wave"].values[0] ** 2 * 1e17
    expected = 2.0 * factor * 1.2**2 / 206264.80625**2
    flux = out["photo_flux"].values[0]
    assert np.isfinite(flux).mean() > 0.8
    np.testing.assert_allclose(flux[np.isfinite(flux)], expected, rtol=1e-6)
    assert out["photo_region"].values.all()


@pytest.mark.parametrize("angle", [0.0, 33.0])
def test_photometry_from_images__is_a_convolution_and_an_exact_reprojection(angle):
    shape = (90, 90)
    wcs = tan_wcs(shape, 0.4, angle=angle)
    rng = np.random.default_rng(1)
    sky = ndimage.gaussian_filter(rng.normal(size=shape), 1.5) + star(
        1.4, shape=shape, wcs=wcs, scale=0.4
    )
    kernel = gaussian_kernel(np.sqrt(3.0**2 - 1.4**2) / np.sqrt(8 * np.log(2)) / 0.4)
    smooth = convolve_fft(sky, kernel, normalize_kernel=False)
    # reproject averages surface brightness
    area = pixel_scale(OUT) ** 2 / pixel_scale(wcs) ** 2
    expected, _ = reproject_exact((smooth, wcs), OUT, (30, 32), parallel=False)
    out = photometry_from_images(Image(sky, "sdss_r", wcs=wcs, psf=1.4, **UNIT), GRID)
    flux = computed(out)["photo_flux"].values[0]
    inner = (slice(10, 20), slice(10, 20))
    np.testing.assert_allclose(flux[inner], area * expected[inner], rtol=1e-6, atol=1e-7)


def test_photometry_from_images__has_the_errors_of_a_monte_carlo():
    rng = np.random.default_rng(6)
    shape = (60, 60)
    wcs, grid = tan_wcs(shape, 0.4, angle=20.0), Grid(tan_wcs((10, 10), 1.1), (10, 10), 2.5)
    sigma = rng.uniform(0.5, 2.0, shape)
    image = Image(sigma, "sdss_r", wcs=wcs, psf=1.2, noise=sigma, **UNIT)
    predicted = computed(photometry_from_images(image, grid))["photo_err"].values[0]
    assert np.isfinite(predicted).all()
    frames = PixelFrame(grid.wcs, 0, 0, (10, 10)), PixelFrame(wcs, 0, 0, shape)
    kernel = matching_kernel(PSF("gaussian", 1.2), PSF("gaussian", 2.5), 0.4)
    unknown, corners = np.full(shape, np.nan), corners_on(*frames)
    flux = np.array(
        [
            kernels.bring_to_grid(sigma * rng.normal(size=shape), unknown, *corners, kernel)[0]
            for _ in range(300)
        ]
    )
    ratio = np.sqrt((flux**2).mean() / (predicted**2).mean())
    assert ratio == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(
    ("kind", "value"), [("error", 0.3), ("variance", 0.09), ("inverse variance", 1 / 0.09)]
)
def test_photometry_from_images__reads_every_kind_of_noise(kind, value):
    noise = np.full((150, 150), value)
    noise[75:78, 75:78] = 0.0  # no information there
    image = Image(np.ones((150, 150)), "sdss_r", wcs=FINE, psf=3.0, noise=noise, noise_kind=kind,
                  **UNIT)  # fmt: skip
    out = computed(photometry_from_images(image, GRID))
    error = out["photo_err"].values[0]
    # a pixel of 16 independent ones, the PSF as it is; and some that the grid's edges share
    assert np.nanmedian(error) == pytest.approx(0.3 * 4.0, rel=0.15)
    hole = np.isnan(out["photo_flux"].values[0, 12:18, 12:20])
    assert 1 <= hole.sum() <= 6


def test_photometry_from_images__scales_weights_and_takes_the_sky_off():
    rng = np.random.default_rng(7)
    weight = np.where(np.arange(150) < 75, 100.0, 400.0) * np.ones((150, 1))
    noise = rng.normal(size=(150, 150)) * 5.0 / np.sqrt(weight)
    pixels = star(1.2) + noise + 3.0
    options = {"wcs": FINE, "psf": 1.2, **UNIT}
    weighted = Image(pixels, "sdss_r", noise=weight, noise_kind="weight", sky="estimate", **options)
    known = Image(pixels, "sdss_r", noise=5.0 / np.sqrt(weight), sky=3.0, **options)
    flat = Image(pixels, "sdss_r", noise="estimate", **options)
    got, expected, kept = (
        computed(photometry_from_images(i, GRID)) for i in (weighted, known, flat)
    )
    np.testing.assert_allclose(got["photo_err"].values, expected["photo_err"].values, rtol=0.05)
    pedestal = got["photo_flux"].values - expected["photo_flux"].values
    assert np.nanmax(np.abs(pedestal)) < 0.02 * 16
    assert np.nanmedian(kept["photo_flux"].values) == pytest.approx(3.0 * 16, rel=0.01)
    assert np.nanmin(kept["photo_err"].values) > 0


def test_photometry_from_images__invents_no_errors_and_no_light_in_holes():
    pixels = np.ones((150, 150))
    pixels[70:80, 70:80] = np.nan
    mask = np.zeros((150, 150), int)
    mask[:, :40] = 4
    image = Image(pixels, "sdss_r", wcs=FINE, psf=1.2, mask=mask, **UNIT)
    second = Image(np.ones((150, 150)), "sdss_g", wcs=FINE, psf=1.2, **UNIT)
    out = computed(photometry_from_images([image, second], GRID))
    flux = out["photo_flux"].values
    assert np.isnan(out["photo_err"].values).all()
    assert np.isnan(flux[0, 14:16, 15:17]).all()
    assert np.isfinite(flux[1, 14:16, 15:17]).all()
    np.testing.assert_allclose(flux[np.isfinite(flux)], 16.0, rtol=1e-6)
    np.testing.assert_array_equal(out["photo_region"].values, np.isfinite(flux).all(axis=0))
    assert np.isnan(flux[0]).sum() > np.isnan(flux[1]).sum() + 50


def test_photometry_from_images__is_lazy_and_says_what_it_did(tmp_path):
    header = FINE.to_header()
    header["BUNIT"] = "nanomaggy"
    fits.PrimaryHDU(star(1.2).astype("f4"), header).writeto(tmp_path / "r.fits")
    image = Image(tmp_path / "r.fits", "sdss_r", psf=1.2, noise="estimate", sky="estimate")
    with raise_if_computes():
        ds = photometry_from_images([image, of_star(band="sdss_g")], GRID, psf=PSF("moffat", 3, 3))
    assert list(ds["band"].values) == ["sdss_r", "sdss_g"]
    assert ds["band_wave"].values[1] == pytest.approx(4700, abs=10)
    assert ds.attrs["kind"] == "photometry"
    assert ds.attrs["pixel_scale"] == pytest.approx(1.2)
    assert ds.attrs["psf"] == {"model": "moffat", "wave": [], "fwhm": [3], "beta": [3]}
    assert "redshift" not in ds.attrs
    first, second = ds.attrs["provenance"]
    assert (first["input"], first["unit"], first["noise"]) == ("r.fits", "nanomaggy", "estimate")
    assert first["sky"] == "estimate"
    assert second["sky"] == "none"
    assert second["options"].pop("kernel")["worst_residual"] < 0.01
    assert second["options"] == {"psf": ds.attrs["psf"], "min_coverage": 0.95}
    json.dumps(ds.attrs)
    names = planned(ds)
    assert number(names, "spatial-image-tile") == 2
    # the tile of the one that is a file, and the four sides of its border
    assert number(names, "spatial-border-statistics") == 1
    assert number(names, "read-cut") == 5
    out = computed(ds)
    assert out["stamp_image"].dtype == np.float32
    # the Galactic extinction is not corrected: the common step does it
    assert band_factors(ds.attrs, ["sdss_r"], NO_CHANGE) == 1.0
    reddened = 1.0 / band_transmission(load_filters(["sdss_r"]), 0.1, law="G23")
    np.testing.assert_allclose(band_factors(ds.attrs, ["sdss_r"], Extinction(0.1)), reddened)
    assert common_extinction({}, ds.attrs) == NO_CHANGE


def test_photometry_from_images__tiles_give_the_same_as_one_piece(monkeypatch):
    pixels = np.random.default_rng(2).normal(size=(150, 150))
    image = of_star(noise=np.abs(pixels) + 0.5, mask=pixels > 3)
    whole = photometry_from_images(image, GRID)
    monkeypatch.setattr(tiles, "_CUT", 32)
    monkeypatch.setattr(tiles, "_TILE_SIDES", (8, 16))
    split = photometry_from_images(image, GRID)
    assert split["photo_flux"].data.npartitions == 16
    for name in ("photo_flux", "photo_err"):
        np.testing.assert_allclose(
            computed(split)[name].values, computed(whole)[name].values, rtol=1e-6, atol=1e-9
        )


def test_photometry_from_images__a_frame_beyond_the_image_is_unknown():
    small = Image(np.ones((20, 20)), "sdss_r", wcs=tan_wcs((20, 20), 0.3), psf=1.2, **UNIT)
    grid = Grid(tan_wcs((300, 320), 1.2), (300, 320), 2.0)
    out = computed(photometry_from_images(small, grid))
    assert 1 <= np.isfinite(out["photo_flux"].values).sum() <= 25
    assert out["photo_flux"].shape == (1, 300, 320)


def far_away():
    wcs = tan_wcs((30, 32), 1.2)
    wcs.wcs.crval = [151.0, 2.0]
    return Grid(wcs, (30, 32), 3.0)


@pytest.mark.parametrize(
    ("image", "grid", "psf", "message"),
    [
        ({"psf": 4.0, "name": "blunt.fits"}, GRID, None,
         r"blunt\.fits: expected images no broader than .*3 arcsec.*4 arcsec; ask for a broader"),
        ({"psf": None, "name": "a.fits"}, GRID, 3.0, r"a\.fits: expected the PSF of the image"),
        ({}, far_away(), None, r"image in sdss_r: .* no overlap, centres 35\d\d arcsec apart"),
        ({}, "grid", 3.0, r"grid: expected a specphoto\.Grid or an IFS cube, found a str"),
    ],
)  # fmt: skip
def test_photometry_from_images__refuses(image, grid, psf, message):
    with pytest.raises(InputError, match=message):
        photometry_from_images(of_star(**image), grid, psf)


def test_photometry_from_images__refuses_bands_and_cubes_it_cannot_use():
    with pytest.raises(InputError, match=r"each band once, found sdss_r more than once"):
        photometry_from_images([of_star(), of_star()], GRID)
    with pytest.raises(InputError, match=r"at least one image.*found none"):
        photometry_from_images([], GRID)
    with pytest.raises(InputError, match=r"region: expected the grid's shape \(30, 32\)"):
        photometry_from_images(of_star(), GRID, region=np.ones((3, 3), bool))
    cube = spatial_cases.cube(np.ones((3, 30, 32)), OUT)
    cube.attrs.pop("psf")
    with pytest.raises(InputError, match=r"cube\.fits: PSF: .*give psf .*psf_fwhm"):
        photometry_from_images(of_star(), cube)


def test_photometry_from_images__real_hst_image_on_the_muse_grid(realdata):
    folder = realdata / "muse_a478"
    if "hst_wfpc2_f814w" not in known_filters():
        names = (realdata / "tables" / f"pixedfit_filters_{part}.hdf5" for part in "wt")
        register_filter("hst_wfpc2_f814w", *(h5py.File(n)["hst_wfpc2_f814w"][:] for n in names))
    ifs = specphoto.open_ifs(folder / "minicube.fits")
    path = folder / "a478hst-cutout.fits"
    # the astrometry of the two differs by this much, arcsec in RA and Dec; the cube has no PSF
    wcs = celestial(open_fits(path)["SCI"].header, "HST")
    wcs.wcs.crval += np.array([0.782 / np.cos(np.deg2rad(10.47)), 0.974]) / 3600.0
    psf = PSF("gaussian", 1.06)
    options = {"psf": 0.15, "noise": "WHT", "noise_kind": "weight", "wcs": wcs}
    hst = Image(path, "hst_wfpc2_f814w", sky="estimate", **options)
    out = computed(photometry_from_images(hst, ifs, psf))
    flux, error = out["photo_flux"].values[0], out["photo_err"].values[0]
    assert np.isfinite(flux).all()
    assert np.isfinite(error).all()
    assert out.attrs["name"] == "Abell 478"
    few = ifs[["spec_flux", "spec_mask"]].isel(wave=slice(None, None, 5)).compute()
    spectra = few["spec_flux"].where(~few["spec_mask"]).values
    curve = load_filters(["hst_wfpc2_f814w"])
    cube = synthetic_flux(spectra, few["wave"].values, curve, min_covered=0.5)[0]
    inner = (slice(2, -2), slice(2, -2))
    image, cube = flux[inner].ravel(), cube[inner].ravel()
    assert np.corrcoef(image, cube)[0, 1] > 0.995
    slope, offset = np.polyfit(image, cube, 1)
    assert np.std(cube - slope * image - offset) < 0.02 * cube.max()
    assert slope == pytest.approx(0.91, abs=0.03)
    # the border says what the sky is: no more is left than 5% of the pedestal, which is an option
    kept = Image(path, "hst_wfpc2_f814w", **options)
    pedestal = computed(photometry_from_images(kept, ifs, psf))["photo_flux"].values[0] - flux
    np.testing.assert_allclose(pedestal, 0.01796, rtol=0.01)
    assert abs(offset) < 0.05 * 0.01796


def test_photometry_from_images__takes_pixels_of_dask():
    pixels = da.from_array(star(1.2), chunks=64)
    with raise_if_computes():
        ds = photometry_from_images(Image(pixels, "sdss_r", wcs=FINE, psf=1.2, **UNIT), GRID)
    expected = computed(photometry_from_images(of_star(), GRID))["photo_flux"].values
    np.testing.assert_array_equal(computed(ds)["photo_flux"].values, expected)


def test_photometry_from_images__follows_a_distorted_wcs():
    header = FINE.to_header()
    header.update(CTYPE1="RA---TAN-SIP", CTYPE2="DEC--TAN-SIP", A_ORDER=2, B_ORDER=2, A_2_0=4e-4)
    wcs = celestial(header, "SIP")
    # one bright pixel far from the middle, where the distortion is a pixel
    pixels = np.zeros((150, 150))
    pixels[75, 125] = 1.0
    image = Image(pixels, "sdss_r", wcs=wcs, psf=2.0, **UNIT)
    wide = Grid(tan_wcs((60, 62), 1.2), (60, 62), 3.0)
    flux = np.nan_to_num(computed(photometry_from_images(image, wide, min_coverage=0.0))
                         ["photo_flux"].values[0])  # fmt: skip
    assert flux.sum() == pytest.approx(1.0, rel=1e-2)
    y, x = np.indices(flux.shape)
    at = wide.wcs.world_to_pixel(wcs.pixel_to_world(125.0, 75.0))
    np.testing.assert_allclose([(flux * x).sum(), (flux * y).sum()] / flux.sum(), at, atol=0.05)


def test_photometry_from_images__is_written_and_opened_again(tmp_path):
    wcs = tan_wcs((30, 30), 0.5)
    image = Image(
        gaussian_sky(wcs, (30, 30), 3.0), "sdss_r", wcs=wcs, zero_point=22.5, psf=1.3,
        noise=np.full((30, 30), 0.01),
    )  # fmt: skip
    made = photometry_from_images([image], Grid(tan_wcs((15, 15), 1.0), (15, 15), 2.5))
    specphoto.write_fits(made, tmp_path / "photometry.fits")
    back = specphoto.open_photometry(tmp_path / "photometry.fits")
    assert back.attrs["kind"] == "photometry"
    assert back.attrs["psf"] == made.attrs["psf"]
    xr.testing.assert_equal(back.compute(), made.compute())


def test_to_psf__tells_how_the_noise_is_correlated():
    wide = to_psf(own_grid(), 2.0, 5.0)
    kernel = gaussian_kernel(np.sqrt(5.0**2 - 2.0**2) / 2.3548)
    both = ndimage.convolve(np.pad(kernel, kernel.shape[0] // 2), kernel)
    middle = both.shape[0] // 2
    scale = wide.attrs["photo_correlation"]["sdss_r"]
    for lag in (1, 2, 4):
        rho = both[middle, middle + lag] / both[middle, middle]
        assert np.exp(-0.5 * (lag / scale) ** 2) == pytest.approx(rho, abs=0.01)
    wider = to_psf(wide, 5.0, 6.0)
    assert wider.attrs["photo_correlation"]["sdss_r"] == pytest.approx(
        to_psf(own_grid(), 2.0, 6.0).attrs["photo_correlation"]["sdss_r"]
    )
