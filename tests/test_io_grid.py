"""Target grids from an image's header: orientation kept, scale changed, cube held."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs.utils import proj_plane_pixel_scales
from spatial_cases import cube, tan_wcs

from specphoto.cube import celestial_wcs
from specphoto.errors import InputError
from specphoto.io.grid import grid_from_image

SHAPE = (120, 150)
WCS = tan_wcs(SHAPE, 0.1, angle=57.0, flip=True, shift=(12.0, -7.0))


@pytest.fixture
def image(tmp_path):
    """An image as archives deliver them: bare primary, tables and cubes before the picture."""
    path = tmp_path / "image.fits"
    fits.HDUList(
        [
            fits.PrimaryHDU(),
            fits.ImageHDU(np.zeros((4, 5)), name="NOWCS"),
            fits.ImageHDU(np.zeros((2, 3, 4)), tan_wcs((3, 4), 9.0).to_header(), name="CUBE"),
            fits.ImageHDU(np.zeros(SHAPE, "f4"), WCS.to_header(), name="SCI"),
        ]
    ).writeto(path)
    return path


def scales(wcs):
    return proj_plane_pixel_scales(wcs) * 3600.0


def test_grid_from_image__the_image_itself(image):
    grid = grid_from_image(image, psf=0.2)
    assert grid.shape == SHAPE
    assert grid.psf == 0.2
    x, y = np.array([0.0, 149.0, 30.0]), np.array([0.0, 5.0, 119.0])
    separation = grid.wcs.pixel_to_world(x, y).separation(WCS.pixel_to_world(x, y))
    assert separation.arcsec.max() < 1e-6


def test_grid_from_image__pixels_are_blocks_of_the_images(image):
    grid = grid_from_image(image, pixel_scale=0.4, psf=1.0)
    assert grid.shape == (30, 38)  # 37.5 blocks across: the frame holds the image
    np.testing.assert_allclose(scales(grid.wcs), 0.4, rtol=1e-9)
    block = np.array([0.0, 7.0, 20.0])
    corner, new = 4 * block - 0.5, block - 0.5
    separation = grid.wcs.pixel_to_world(new, new).separation(WCS.pixel_to_world(corner, corner))
    assert separation.arcsec.max() < 1e-6
    # same orientation and parity
    np.testing.assert_allclose(grid.wcs.pixel_scale_matrix, 4.0 * WCS.pixel_scale_matrix, rtol=1e-8)


@pytest.mark.parametrize("scale", [0.4, 0.33])
def test_grid_from_image__holds_the_cube_and_the_reach_of_the_psf(image, scale):
    wcs = tan_wcs((20, 24), 0.2, angle=10.0, shift=(3.0, 0.0))
    ifs = cube(np.ones((3, 20, 24)), wcs)
    ifs = ifs.isel(x=slice(4, 24))
    grid = grid_from_image(image, pixel_scale=scale, psf=1.5, around=ifs)
    np.testing.assert_allclose(scales(grid.wcs), scale, rtol=1e-9)
    x, y = np.meshgrid([3.5, 23.5], [-0.5, 19.5])
    sky = celestial_wcs(ifs).pixel_to_world(x.ravel(), y.ravel())
    corner_x, corner_y = grid.wcs.world_to_pixel(sky)
    margin = 1.5 / scale
    for corner, size in ((corner_x, grid.shape[1]), (corner_y, grid.shape[0])):
        low, high = corner.min() + 0.5 - margin, size - 0.5 - corner.max() - margin
        assert -1e-6 < low <= 1.0
        assert -1e-6 < high <= 1.0
    # still in step with the image's pixels
    offset = (grid.wcs.wcs.crpix - 0.5) - (WCS.wcs.crpix - 0.5) * 0.1 / scale
    np.testing.assert_allclose(offset, np.round(offset), atol=1e-6)


def test_grid_from_image__psf_may_be_a_model(image):
    psf = {"model": "moffat", "wave": [5000.0, 9000.0], "fwhm": [1.2, 1.0], "beta": [2.5, 2.5]}
    assert grid_from_image(image, psf=psf).psf == psf


def test_grid_from_image__distortion_terms_are_left_out(tmp_path):
    header = WCS.to_header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN-SIP", "DEC--TAN-SIP"
    header["A_ORDER"], header["A_2_0"], header["B_ORDER"], header["B_0_2"] = 2, 1e-4, 2, 1e-4
    path = tmp_path / "sip.fits"
    fits.PrimaryHDU(np.zeros(SHAPE, "f4"), header).writeto(path)
    grid = grid_from_image(path, psf=0.2)
    assert list(grid.wcs.wcs.ctype) == ["RA---TAN", "DEC--TAN"]
    assert grid.wcs.sip is None
    np.testing.assert_allclose(grid.wcs.wcs.crpix, WCS.wcs.crpix)


def test_grid_from_image__refusals(image, tmp_path):
    away = cube(np.ones((3, 9, 9)), tan_wcs((9, 9), 0.2, shift=(400.0, 0.0)))
    with pytest.raises(InputError, match=r"image.fits: expected an image that shows cube.fits"):
        grid_from_image(image, psf=1.0, around=away)
    for name, options in (
        ("pixel scale", {"pixel_scale": 0.0, "psf": 1.0}),
        ("psf", {"psf": -1.0}),
    ):
        with pytest.raises(InputError, match=f"grid: {name}: expected a positive number"):
            grid_from_image(image, **options)
    path = tmp_path / "bare.fits"
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(path)
    with pytest.raises(InputError, match=r"expected a 2-D image with a celestial WCS, found the"):
        grid_from_image(path, psf=1.0)
