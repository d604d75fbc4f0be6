"""Images brought to a broader PSF and to another grid: flux, errors, holes, units, laziness."""

from __future__ import annotations

import dask
import numpy as np
import pytest
from lazy import raise_if_computes
from spatial_cases import gaussian_sky, images, tan_wcs

from specphoto.errors import InputError
from specphoto.photometry import images as kernels
from specphoto.photometry import match
from specphoto.photometry.match import to_psf
from specphoto.spatial.covariance import correlation_stencil
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


def test_background__is_that_of_the_border():
    rng = np.random.default_rng(8)
    image = rng.normal(5.0, 0.3, (200, 180))
    image[50:150, 50:130] += 100.0  # the galaxy
    image[3:9, 3:9] += 20.0  # a star at the rim
    image[0, 0] = np.nan
    level, scatter = kernels.background(image)
    assert level == pytest.approx(5.0, abs=0.01)
    assert scatter == pytest.approx(0.3, rel=0.03)
    assert np.isnan(kernels.background(np.full((5, 5), np.nan))).all()
