"""Masked spaxels: holes in the galaxy, foreground stars, channels in which more is missing."""

from __future__ import annotations

import functools

import dask
import numpy as np
import pytest
from spatial_cases import blurred, cube, hexagon, images, offsets, tan_wcs

from specphoto.cube import Grid
from specphoto.spatial.geometry import PixelFrame, corners_on
from specphoto.spatial.match import match_spatial
from specphoto.spatial.overlap import overlap_matrix

SHAPE, SHAPE_OUT = (74, 74), (31, 31)
WCS_IN, WCS_OUT = tan_wcs(SHAPE, 0.5), tan_wcs(SHAPE_OUT, 1.5)
MARGIN = 70
WAVE = np.linspace(4400.0, 7800.0, 45)
APOTHEM = 14.0
STAR = (5.0, -3.0)  # arcsec east and north
MAPS = ["spec_flux", "spec_mask", "spec_region", "edge_bias", "coverage"]


@functools.cache
def overlap():
    x, y = corners_on(PixelFrame(WCS_OUT, 0, 0, SHAPE_OUT), PixelFrame(WCS_IN, 0, 0, SHAPE))
    return overlap_matrix(x + MARGIN, y + MARGIN, tuple(n + 2 * MARGIN for n in SHAPE))


@functools.cache
def disc():
    """Sky of a 3" disc: as the cube sees it, as the images do."""
    n = SHAPE[0] + 2 * MARGIN
    y, x = (np.indices((n, n)) - (n - 1) / 2) * 0.5
    return seen(np.exp(-np.hypot(x, y) / 3.0))


@functools.cache
def star(light):
    """A point source of so much light, in units of the disc's whole."""
    east, north = offsets(WCS_IN, SHAPE)
    sky = np.zeros(tuple(n + 2 * MARGIN for n in SHAPE))
    j, i = np.unravel_index(np.argmin(np.hypot(east - STAR[0], north - STAR[1])), SHAPE)
    sky[j + MARGIN, i + MARGIN] = light * 2.0 * np.pi * (3.0 / 0.5) ** 2
    return seen(sky)


def seen(sky):
    inner = slice(MARGIN, MARGIN + SHAPE[0])
    return blurred(sky, 2.54)[inner, inner], (overlap() @ blurred(sky, 6.4).ravel()).reshape(
        SHAPE_OUT
    )


def near(radius, *, at=STAR, wcs=WCS_IN, shape=SHAPE):
    east, north = offsets(wcs, shape)
    return np.hypot(east - at[0], north - at[1]) < radius


def out_near(radius, at=STAR):
    return near(radius, at=at, wcs=WCS_OUT, shape=SHAPE_OUT)


def observation(*, holes=None, star_light=0.0):
    """Cube and images; ``holes`` is a mask (wave, y, x) or (y, x) beside the bundle's own."""
    sharp, blunt = disc()
    extra = star(star_light) if star_light else (0.0, 0.0)
    outside = hexagon(WCS_IN, SHAPE, APOTHEM) > 1.0
    mask = np.broadcast_to(outside, (WAVE.size, *SHAPE)).copy()
    if holes is not None:
        mask |= holes
    ifs = cube(np.broadcast_to(sharp + extra[0], mask.shape), WCS_IN, mask=mask, wave=WAVE)
    return ifs, images(np.stack([blunt + extra[1]] * 3), WCS_OUT, rel_err=0.0)


def matched(ifs, target, **options):
    """Matched maps, and the bias against the disc alone."""
    with dask.config.set(scheduler="synchronous"):
        out = match_spatial(ifs, target, **options)[MAPS].compute()
    return out, out["spec_flux"].values / disc()[1] - 1.0


def foreground_of(radius):
    return (("y", "x"), near(radius))


def test_match_spatial__star_is_a_hole_and_no_smear():
    # as bright as a tenth of the disc, its spaxels masked in the cube; the images have it all
    ifs, target = observation(holes=near(3.0), star_light=0.1)
    blind, bias_blind = matched(ifs, target)
    told, bias = matched(ifs.assign(foreground=foreground_of(3.0)), target)
    # not told of the star, the images pour it into the hole
    assert bias_blind[:, blind["spec_region"].values].max() > 0.2
    # told, what is trusted is right and what is not is left out; at the star there is nothing
    region = told["spec_region"].values
    assert np.abs(bias[:, region]).max() < 0.03
    assert np.mean(np.abs(bias[:, region]) < 0.02) > 0.97
    assert not region[out_near(2.5)].any()
    assert told["spec_mask"].values[:, out_near(1.5)].all()
    assert np.isnan(told["spec_flux"].values[:, out_near(1.5)]).all()
    # and no more is lost than the star's surroundings
    far = hexagon(WCS_OUT, SHAPE_OUT, APOTHEM) < 0.8
    assert region[far & ~out_near(11.5)].all()


def test_match_spatial__foreground_masks_spaxels_that_the_cube_did_not():
    ifs, target = observation(star_light=0.1)
    ifs = ifs.assign(foreground=foreground_of(3.0))
    out, _ = matched(ifs, target)
    masked = ifs.assign(spec_mask=ifs["spec_mask"] | ifs["foreground"])
    same, _ = matched(masked, target)
    np.testing.assert_array_equal(out["spec_flux"], same["spec_flux"])


def test_match_spatial__no_foreground_is_as_if_it_were_not_there():
    ifs, target = observation()
    plain, _ = matched(ifs, target)
    out, _ = matched(ifs.assign(foreground=(("y", "x"), np.zeros(SHAPE, bool))), target)
    np.testing.assert_array_equal(out["spec_flux"], plain["spec_flux"])
    np.testing.assert_array_equal(out["spec_region"], plain["spec_region"])


@pytest.mark.parametrize("at", [(0.5, 0.0), (4.0, 2.0), (-8.0, 3.0)], ids=["core", "mid", "rim"])
def test_match_spatial__dead_fibre_is_filled_from_the_images(at):
    # a fibre is 2 arcsec wide; its dither reaches further
    hole = near(1.75, at=at)
    ifs, target = observation(holes=hole)
    _, plain = matched(ifs, target, compensate=False)
    out, bias = matched(ifs, target)
    around = out_near(3.0, at=at)
    assert np.abs(plain[:, around]).max() > 0.04
    assert np.abs(bias[:, around & out["spec_region"].values]).max() < 0.02
    assert out["spec_region"].values[around].mean() > 0.9
    np.testing.assert_array_equal(np.isnan(bias[:, around]), False)


@pytest.mark.parametrize("with_images", [True, False], ids=["images", "grid"])
def test_match_spatial__channel_with_a_hole_is_right_or_masked(with_images):
    holes = np.zeros((WAVE.size, *SHAPE), bool)
    # between the nodes, so that the hole is not the usual state of the cube there
    holes[8] = near(1.0, at=(4.0, 2.0))
    holes[9] = near(3.0, at=(4.0, 2.0))
    holes[10] = near(7.0, at=(4.0, 2.0))
    holes[18] = True
    ifs, target = observation(holes=holes)
    whole, _ = observation()
    if not with_images:
        target = Grid(WCS_OUT, SHAPE_OUT, psf=6.4)
    out, _ = matched(ifs, target)
    usual, _ = matched(whole, target)
    inside = hexagon(WCS_OUT, SHAPE_OUT, APOTHEM) < 0.95
    change = out["spec_flux"].values / usual["spec_flux"].values - 1.0
    known = np.isfinite(change) & inside
    np.testing.assert_array_equal(known, ~out["spec_mask"].values & inside)
    assert np.abs(change[known]).max() < 0.012
    # what misses little is kept, what misses most is not
    assert known[8][inside].all()
    assert known[9][inside].mean() > 0.8
    assert not known[10][out_near(4.0, at=(4.0, 2.0))].any()
    assert known[10][inside & ~out_near(14.0, at=(4.0, 2.0))].all()
    assert not known[18].any()
    # the other channels know nothing of it
    np.testing.assert_allclose(change[[0, 22, 44]][:, inside], 0.0, atol=1e-4)


def test_match_spatial__single_bad_voxels_hardly_matter():
    rng = np.random.default_rng(3)
    ifs, target = observation(holes=rng.random((WAVE.size, *SHAPE)) < 0.02)
    usual, _ = matched(observation()[0], target)
    out, _ = matched(ifs, target)
    region = out["spec_region"].values
    assert not out["spec_mask"].values[:, region].any()
    change = out["spec_flux"].values / usual["spec_flux"].values - 1.0
    assert np.abs(change[:, region]).max() < 0.002


def test_match_spatial__without_images_only_whole_pixels_are_trusted():
    ifs, _ = observation(holes=near(1.75, at=(4.0, 2.0)))
    out, bias = matched(ifs, Grid(WCS_OUT, SHAPE_OUT, psf=6.4))
    region = out["spec_region"].values
    assert 20 < region.sum() < 0.5 * np.isfinite(bias[0]).sum()
    assert not region[out_near(2.0, at=(4.0, 2.0))].any()
    # a surrounded hole is the worse case: a few percent where 2% is missing
    assert np.abs(bias[:, region]).max() < 0.03
    assert np.mean(np.abs(bias[:, region]) < 0.02) > 0.95
