"""The exact overlap against polygon clipping, reproject_exact and its own invariants."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reproject import reproject_exact
from spatial_cases import tan_wcs

from specphoto.spatial.geometry import PixelFrame, corners_on
from specphoto.spatial.overlap import overlap_matrix

SHAPE_IN = (7, 9)


def clip_polygon(polygon, low_x, high_x, low_y, high_y):
    """Clip by a rectangle, one side after the other (Sutherland and Hodgman)."""
    for axis, limit, sign in ((0, low_x, 1), (0, high_x, -1), (1, low_y, 1), (1, high_y, -1)):
        out = []
        for a, b in zip(polygon, polygon[1:] + polygon[:1], strict=True):
            in_a, in_b = sign * (a[axis] - limit) >= 0, sign * (b[axis] - limit) >= 0
            if in_a:
                out.append(a)
            if in_a != in_b:
                t = (limit - a[axis]) / (b[axis] - a[axis])
                out.append((a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])))
        polygon = out
    return polygon


def area(polygon):
    pairs = zip(polygon, polygon[1:] + polygon[:1], strict=True)
    return 0.5 * abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in pairs))


def brute_force(corner_x, corner_y, shape_in):
    n_y, n_x = corner_x.shape[0] - 1, corner_x.shape[1] - 1
    R = np.zeros((n_y * n_x, shape_in[0] * shape_in[1]))
    for o in range(n_y * n_x):
        q, p = divmod(o, n_x)
        around = [(q, p), (q, p + 1), (q + 1, p + 1), (q + 1, p)]
        quad = [(corner_x[c], corner_y[c]) for c in around]
        for j in range(R.shape[1]):
            y, x = divmod(j, shape_in[1])
            R[o, j] = area(clip_polygon(quad, x - 0.5, x + 0.5, y - 0.5, y + 0.5))
    return R


def affine_corners(matrix, offset, shape_out=(4, 5)):
    y, x = np.mgrid[: shape_out[0] + 1, : shape_out[1] + 1]
    centred = np.stack([x - shape_out[1] / 2, y - shape_out[0] / 2])
    corner = np.tensordot(matrix, centred, axes=1)
    return corner[0] + offset[0], corner[1] + offset[1]


@st.composite
def affine_grids(draw):
    """Corners of scaled, rotated, sheared, flipped and shifted grids, easy angles included."""
    number = lambda low, high: draw(st.floats(low, high))  # noqa: E731
    angle = draw(st.one_of(st.sampled_from([0.0, 45.0, 90.0, 180.0, 1e-6]), st.floats(0, 360)))
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    flip = draw(st.sampled_from([-1.0, 1.0]))
    shear = draw(st.one_of(st.just(0.0), st.floats(-0.4, 0.4)))
    stretch = np.array([[flip * number(0.3, 3.0), shear], [0.0, number(0.3, 3.0)]])
    offset = (number(-3.0, 11.0), number(-3.0, 9.0))
    return affine_corners(np.array([[c, -s], [s, c]]) @ stretch, offset)


@given(affine_grids())
@settings(max_examples=40, deadline=None)
def test_overlap_matrix__equals_polygon_clipping(corners):
    R = overlap_matrix(*corners, SHAPE_IN).toarray()
    np.testing.assert_allclose(R, brute_force(*corners, SHAPE_IN), atol=2e-7)


@given(affine_grids())
@settings(max_examples=100, deadline=None)
def test_overlap_matrix__total_is_the_area_of_the_clipped_frame(corners):
    corner_x, corner_y = corners
    ring = [(0, 0), (0, -1), (-1, -1), (-1, 0)]
    frame = [(corner_x[c], corner_y[c]) for c in ring]
    clipped = clip_polygon(frame, -0.5, SHAPE_IN[1] - 0.5, -0.5, SHAPE_IN[0] - 0.5)
    R = overlap_matrix(corner_x, corner_y, SHAPE_IN)
    assert R.sum() == pytest.approx(area(clipped), abs=1e-5)
    assert R.nnz == 0 or R.data.max() <= 1.0 + 1e-6


@pytest.mark.parametrize("angle", [0.0, 30.0, 90.0])
def test_overlap_matrix__columns_sum_to_one_inside_the_frame(angle):
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    corners = affine_corners(2.3 * np.array([[c, -s], [s, c]]), (4.0, 3.0), shape_out=(9, 9))
    R = overlap_matrix(*corners, SHAPE_IN)
    np.testing.assert_allclose(R.sum(axis=0), 1.0, atol=1e-9)


def test_overlap_matrix__general_quadrilaterals():
    corner_x, corner_y = affine_corners(np.eye(2) * 1.7, (4.0, 3.0))
    rng = np.random.default_rng(1)
    corner_x += rng.uniform(-0.3, 0.3, corner_x.shape)
    corner_y += rng.uniform(-0.3, 0.3, corner_y.shape)
    R = overlap_matrix(corner_x, corner_y, SHAPE_IN).toarray()
    np.testing.assert_allclose(R, brute_force(corner_x, corner_y, SHAPE_IN), atol=1e-9)


def test_overlap_matrix__same_grid_is_the_identity():
    x, y = np.meshgrid(np.arange(10) - 0.5, np.arange(8) - 0.5)
    R = overlap_matrix(x, y, SHAPE_IN)
    np.testing.assert_allclose(R.toarray(), np.eye(63), atol=1e-12)
    assert R.nnz == 63  # neighbours that only touch are not stored


def test_overlap_matrix__corners_off_the_sky_overlap_nothing():
    corner_x, corner_y = affine_corners(np.eye(2) * 1.5, (4.0, 3.0))
    whole = overlap_matrix(corner_x, corner_y, SHAPE_IN).toarray()
    corner_x[0, 0] = np.nan
    corner_y[4, 5] = np.inf
    R = overlap_matrix(corner_x, corner_y, SHAPE_IN).toarray()
    lost = [0, 19]
    assert whole[lost].sum() > 0
    assert not R[lost].any()
    kept = np.setdiff1d(np.arange(20), lost)
    np.testing.assert_array_equal(R[kept], whole[kept])


def test_overlap_matrix__far_corners_do_not_overflow():
    x, y = np.meshgrid([-1e300, 1e300], [-0.5, 0.5])
    assert overlap_matrix(x + 2e300, y, SHAPE_IN).nnz == 0
    x, y = np.meshgrid([-1e6, 1e6], [-1e6, 1e6])
    np.testing.assert_allclose(overlap_matrix(x, y, SHAPE_IN).toarray(), 1.0, atol=1e-6)


@pytest.mark.parametrize(("angle", "flip"), [(0.0, False), (33.0, False), (200.0, True)])
def test_overlap_matrix__equals_reproject_exact(angle, flip):
    shape_in, shape_out = (40, 44), (15, 14)
    wcs_in = tan_wcs(shape_in, 0.5)
    wcs_out = tan_wcs(shape_out, 1.5, angle=angle, flip=flip, shift=(0.3, -0.7))
    y, x = np.mgrid[:40, :44]
    image = np.exp(-np.hypot(x - 20.0, y - 23.0) / 6.0) * (1.0 + 0.3 * np.sin(x))
    wanted, footprint = reproject_exact((image, wcs_in), wcs_out, shape_out, parallel=False)
    corners = corners_on(PixelFrame(wcs_out, 0, 0, shape_out), PixelFrame(wcs_in, 0, 0, shape_in))
    R = overlap_matrix(*corners, shape_in)
    share = np.asarray(R.sum(axis=1)).reshape(shape_out)
    mean = (R @ image.ravel()).reshape(shape_out) / np.where(share > 0, share, 1.0)
    inside = footprint > 0.999
    assert inside.sum() > 60
    np.testing.assert_allclose(mean[inside], wanted[inside], atol=2e-5 * image.max())
    np.testing.assert_allclose(share / 9.0, footprint, atol=2e-3)
