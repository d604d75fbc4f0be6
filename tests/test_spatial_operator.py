"""The operator against convolution and reprojection one after the other, and its invariants."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.convolution import convolve_fft
from reproject import reproject_exact
from scipy import ndimage, sparse
from spatial_cases import apply_one, gaussian_sky, offsets, tan_wcs

from specphoto.spatial import operator as module
from specphoto.spatial.geometry import PixelFrame, corners_on
from specphoto.spatial.kernel import gaussian_kernel, matching_kernel
from specphoto.spatial.operator import build_operator, full_light
from specphoto.spatial.psf import PSF

SHAPE = (44, 40)
KERNEL = matching_kernel(PSF("gaussian", 2.54), PSF("gaussian", 5.0), 0.5)


def planes(image):
    """One good channel of an image, its variance 1."""
    flux = image[None].astype(np.float32)
    return flux, np.ones_like(flux), np.ones(flux.shape, bool)


def grids(shape_out=(24, 24), scale_out=1.5, **out):
    wcs_in, wcs_out = tan_wcs(SHAPE, 0.5), tan_wcs(shape_out, scale_out, **out)
    frames = PixelFrame(wcs_out, 0, 0, shape_out), PixelFrame(wcs_in, 0, 0, SHAPE)
    return wcs_in, wcs_out, corners_on(*frames)


def structured(shape, seed=3):
    """Sky with structure at all scales, positive."""
    rng = np.random.default_rng(seed)
    return ndimage.gaussian_filter(rng.normal(size=shape), 1.5) + 1.0


@pytest.mark.parametrize(
    "out",
    [
        {},
        {"angle": 37.0, "shift": (0.3, -0.6)},
        {"flip": True, "angle": 110.0},
        {"scale_out": 0.35, "shape_out": (60, 62), "angle": 5.0},
    ],
    ids=["aligned", "rotated", "flipped", "finer"],
)
def test_apply__equals_convolve_fft_then_reproject_exact(out):
    wcs_in, wcs_out, corners = grids(**out)
    shape_out = out.get("shape_out", (24, 24))
    image = structured(SHAPE)
    operator = build_operator(*corners, SHAPE, KERNEL)
    sums = apply_one(operator, *planes(image))
    coverage = sums.weight[0] / operator.area
    smooth = convolve_fft(image, KERNEL, boundary="fill", fill_value=0.0, normalize_kernel=False)
    mean, footprint = reproject_exact((smooth, wcs_in), wcs_out, shape_out, parallel=False)
    wanted = mean.ravel()[operator.row] * operator.area
    inside = (coverage >= 0.99) & (footprint.ravel()[operator.row] > 0.999)
    assert inside.sum() > 30
    np.testing.assert_allclose(
        sums.flux[0][inside], wanted[inside], atol=1e-4 * np.abs(wanted[inside]).max()
    )


def test_apply__conserves_the_flux_of_the_whole_plane():
    # the output frame holds the cube and the reach of the kernel: every column sums to 1
    _, _, corners = grids(shape_out=(31, 30), angle=20.0)
    image = structured(SHAPE)
    operator = build_operator(*corners, SHAPE, KERNEL)
    sums = apply_one(operator, *planes(image))
    assert sums.flux.sum(dtype=float) == pytest.approx(image.sum(), rel=1e-5)


def test_apply__conserves_flux_in_a_frame_that_cuts_the_cube():
    # s_j from the output frame's own shape: its indicator correlated with the kernel
    shape_out = (9, 8)
    x, y = np.meshgrid(np.arange(9) * 3.0 + 5.5, np.arange(10) * 3.0 + 12.5)
    image = structured(SHAPE)
    operator = build_operator(x, y, SHAPE, KERNEL)
    assert operator.shape_out == shape_out
    sums = apply_one(operator, *planes(image))
    inside = np.zeros((200, 200))
    inside[60 + 13 : 60 + 13 + 27, 60 + 6 : 60 + 6 + 24] = 1.0
    s = ndimage.correlate(inside, KERNEL, mode="constant")[60 : 60 + 44, 60 : 60 + 40]
    assert 0.2 < s.mean() < 0.7
    assert sums.flux.sum(dtype=float) == pytest.approx((s * image).sum(), rel=1e-5)


@pytest.mark.parametrize("at", [(0.0, 0.0), (0.37, -0.61), (-1.2, 0.9)])
@pytest.mark.parametrize("parity", [31, 30])
@pytest.mark.parametrize("image_psf", [False, True], ids=["model", "image"])
def test_apply__point_source_keeps_its_centroid(at, parity, image_psf):
    shape_in, shape_out = (parity, parity), (26, 27)
    wcs_in = tan_wcs(shape_in, 0.5)
    wcs_out = tan_wcs(shape_out, 1.0, angle=25.0, shift=(0.2, 0.4))
    target = PSF("gaussian", 4.0)
    if image_psf:
        grid = tan_wcs((64, 64), 0.25, shift=(0.3, 0.1))
        target = PSF.from_image(gaussian_sky(grid, (64, 64), 4.0), 0.25)
    kernel = matching_kernel(PSF("gaussian", 2.0), target, 0.5)
    frames = PixelFrame(wcs_out, 0, 0, shape_out), PixelFrame(wcs_in, 0, 0, shape_in)
    operator = build_operator(*corners_on(*frames), shape_in, kernel)
    star = gaussian_sky(wcs_in, shape_in, 2.0, at=at)
    flux = np.nan_to_num(operator.scatter(apply_one(operator, *planes(star)).flux)[0])
    east, north = offsets(wcs_out, shape_out)
    assert (flux * east).sum() / flux.sum() == pytest.approx(at[0], abs=0.005)
    assert (flux * north).sum() / flux.sum() == pytest.approx(at[1], abs=0.005)


def test_build_operator__refuses_an_even_kernel():
    _, _, corners = grids()
    with pytest.raises(ValueError, match=r"expected odd sides of one shape, found \[\(4, 4\)\]"):
        build_operator(*corners, SHAPE, np.full((4, 4), 1 / 16))


def test_build_operator__asymmetric_kernel_is_not_mirrored():
    kernel = np.zeros((3, 5))
    kernel[0, 4] = 1.0  # moves light by +2 in x and -1 in y
    x, y = np.meshgrid(np.arange(41) - 0.5, np.arange(45) - 0.5)
    image = np.zeros(SHAPE)
    image[20, 10] = 1.0
    operator = build_operator(x, y, SHAPE, kernel)
    flux = operator.scatter(apply_one(operator, *planes(image)).flux)[0]
    assert flux[19, 12] == 1.0
    assert np.nansum(flux) == 1.0


def test_apply__dense_and_sparse_are_the_same(monkeypatch):
    _, _, corners = grids(shape_out=(40, 40), scale_out=1.0, angle=10.0)
    kernel = gaussian_kernel(1.0)
    rng = np.random.default_rng(2)
    flux = rng.normal(size=(5, *SHAPE)).astype(np.float32)
    variance = rng.uniform(1.0, 2.0, flux.shape).astype(np.float32)
    good = rng.random(flux.shape) > 0.3
    results = []
    for below, kind in ((0.0, np.ndarray), (1.1, sparse.csr_array)):
        monkeypatch.setattr(module, "_SPARSE_BELOW", below)
        operator = build_operator(*corners, SHAPE, kernel)
        assert isinstance(operator.weight, kind)
        results.append((operator.row, *apply_one(operator, flux, variance, good)))
        assert operator.geometric_coverage.max() == pytest.approx(1.0, abs=1e-5)
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_apply__is_the_sum_written_out():
    # float64 loops over the definition, with a kernel, an overlap and holes of every kind
    x, y = np.meshgrid(np.arange(5) * 2.3 - 1.1, np.arange(4) * 2.1 - 0.7)
    shape = (6, 7)
    kernel = gaussian_kernel(0.9)
    operator = build_operator(x, y, shape, kernel)
    rng = np.random.default_rng(5)
    flux = rng.normal(size=(2, *shape)).astype(np.float32)
    variance = rng.uniform(0.5, 2.0, flux.shape).astype(np.float32)
    good = rng.random(flux.shape) > 0.2
    flux[~good] = np.nan
    variance[~good] = np.inf
    sums = apply_one(operator, flux, variance, good)
    pad = operator.pad
    n_y, n_x = operator.padded_shape
    R = operator.overlap.toarray().reshape(-1, n_y, n_x)
    reach = kernel.shape[0] // 2
    for o in range(operator.row.size):
        A = np.zeros(shape)
        for j_y, j_x in np.ndindex(*shape):
            for d_y, d_x in np.ndindex(*kernel.shape):
                e_y, e_x = j_y + d_y - reach + pad, j_x + d_x - reach + pad
                A[j_y, j_x] += R[o, e_y, e_x] * kernel[d_y, d_x]
        w = good.astype(float)
        for k in range(2):
            f, v = np.nan_to_num(flux[k], nan=0.0), np.where(good[k], variance[k], 0.0)
            assert sums.flux[k, o] == pytest.approx((A * w[k] * f).sum(), abs=1e-5)
            assert sums.variance[k, o] == pytest.approx((A**2 * w[k] * v).sum(), abs=1e-5)
            assert sums.weight[k, o] == pytest.approx((A * w[k]).sum(), abs=1e-5)


def test_apply__dead_spaxels_leave_a_flat_sky_flat():
    _, _, corners = grids()
    operator = build_operator(*corners, SHAPE, KERNEL)
    rng = np.random.default_rng(7)
    good = rng.random((1, *SHAPE)) > 0.3
    good[0, 18:22, 18:22] = False
    flux = np.where(good, 2.5, np.nan).astype(np.float32)
    sums = apply_one(operator, flux, np.ones_like(flux), good)
    coverage = sums.weight / operator.area
    seen = coverage[0] > 0.2
    assert coverage[0][operator.geometric_coverage > 0.999].max() < 0.85
    np.testing.assert_allclose(
        (sums.flux / coverage)[0][seen], 2.5 * operator.area[seen], rtol=1e-5
    )


def test_apply__no_good_spaxel_is_no_weight():
    _, _, corners = grids()
    operator = build_operator(*corners, SHAPE, KERNEL)
    flux = np.full((3, *SHAPE), np.nan, np.float32)
    sums = apply_one(operator, flux, flux, np.zeros(flux.shape, bool))
    assert all(part.shape == (3, operator.row.size) and not part.any() for part in sums)


def test_build_operator__min_coverage_leaves_rows_out():
    _, _, corners = grids()
    every = build_operator(*corners, SHAPE, KERNEL)
    some = build_operator(*corners, SHAPE, KERNEL, min_coverage=0.5)
    np.testing.assert_array_equal(some.row, every.row[every.geometric_coverage > 0.5])
    assert 0 < some.row.size < every.row.size


def test_build_operator__no_overlap_is_an_empty_operator():
    x, y = np.meshgrid(np.arange(4) * 3.0 + 500.0, np.arange(4) * 3.0)
    operator = build_operator(x, y, SHAPE, KERNEL)
    assert operator.row.size == 0
    sums = apply_one(operator, *planes(structured(SHAPE)))
    assert sums.flux.shape == (1, 0)
    assert np.isnan(operator.scatter(sums.flux)).all()


def test_full_light__is_the_operator_of_a_larger_cube():
    # the same sky seen by a cube with a wide margin, where nothing is missing
    _, _, corners = grids()
    operator = build_operator(*corners, SHAPE, KERNEL)
    margin = operator.pad + 20
    sky = structured((SHAPE[0] + 2 * margin, SHAPE[1] + 2 * margin), seed=9)
    wide = build_operator(corners[0] + margin, corners[1] + margin, sky.shape, KERNEL)
    truth = np.zeros(24 * 24)
    truth[wide.row] = apply_one(wide, *planes(sky)).flux[0]
    inner = sky[20:-20, 20:-20]
    got = full_light(operator, inner[None])[0]
    # rows whose kernel stays inside the padded grid need nothing from beyond its border
    deep = operator.geometric_coverage > 0.2
    np.testing.assert_allclose(got[deep], truth[operator.row][deep], rtol=3e-4)
