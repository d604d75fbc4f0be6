"""Sharpening of images: Richardson-Lucy steps, and the cube's detail in them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from specphoto.spatial.kernel import gaussian_kernel
from specphoto.spatial.sharpen import Blur, detail_of, hold, pixel_blur, richardson_lucy

SHAPE = (60, 52)
KERNEL = gaussian_kernel(3.0)


def blob(sigma, at=(30, 26)):
    y, x = np.indices(SHAPE)
    return np.exp(-0.5 * ((y - at[0]) ** 2 + (x - at[1]) ** 2) / sigma**2)


def through(blur, sky):
    return blur.core(blur(blur.widen(sky)))


def test_blur__is_the_convolution_and_its_transpose():
    rng = np.random.default_rng(0)
    kernel = rng.random((5, 9))
    blur = Blur(kernel, SHAPE)
    sky = rng.random(SHAPE)
    expected = ndimage.convolve(sky, kernel, mode="nearest")
    np.testing.assert_allclose(through(blur, sky)[5:-5, 5:-5], expected[5:-5, 5:-5], rtol=1e-10)
    one, other = blur.widen(rng.random(SHAPE)), blur.widen(rng.random(SHAPE))
    assert (blur(one) * other).sum() == pytest.approx((one * blur.transpose(other)).sum())


@pytest.mark.parametrize("side", [0.6, 1.0, 2.4, 3.0])
def test_pixel_blur__adds_a_pixel_and_keeps_the_light(side):
    kernel = pixel_blur(KERNEL, side)
    assert kernel.shape[0] % 2 == 1
    assert kernel.sum() == pytest.approx(1.0)
    axis = np.arange(kernel.shape[0]) - kernel.shape[0] // 2
    variance = (kernel.sum(axis=1) * axis**2).sum()
    assert variance == pytest.approx(9.0 + max(side**2 - 1.0, 0.0) / 12.0, abs=0.2)


def test_richardson_lucy__goes_towards_the_sky_and_keeps_the_light():
    blur = Blur(KERNEL, SHAPE)
    sky = blob(3.0)[None]
    image = through(blur, sky)
    few, many = richardson_lucy(image, image, blur, (5, 40))
    wrong = [np.abs(s - sky).max() for s in (image, few, many)]
    assert wrong[2] < 0.4 * wrong[1] < 0.4 * wrong[0]
    assert many.min() >= 0.0
    assert many.sum() == pytest.approx(image.sum(), rel=1e-3)


def test_richardson_lucy__held_light_keeps_its_shape_and_finds_its_scale():
    blur = Blur(KERNEL, SHAPE)
    held = np.zeros(SHAPE)
    held[:, 24:] = 1.0
    # a peak where the sky is held, and light outside which must be found
    sky = (blob(1.5) + 0.3 * blob(5.0, (30, 12)))[None]
    start = np.where(held, 0.8 * sky, through(blur, sky))
    (found,) = richardson_lucy(through(blur, sky), start, blur, (30,), held=held)
    np.testing.assert_allclose(found[0, 30, 24:32] / sky[0, 30, 24:32], 1.0, atol=0.03)
    outside = (found[0] * (1.0 - held)).sum() / (sky[0] * (1.0 - held)).sum()
    assert outside == pytest.approx(1.0, abs=0.03)


def test_richardson_lucy__dark_and_negative_images_stay_finite():
    blur = Blur(KERNEL, SHAPE)
    image = np.stack([np.zeros(SHAPE), -blob(3.0), blob(3.0) - 0.1])
    for found in richardson_lucy(image, image, blur, (3, 10), held=np.zeros(SHAPE)):
        assert np.isfinite(found).all()
        assert found.min() >= 0.0


def cube_of(flux, sigma):
    return np.stack([flux, np.broadcast_to(sigma**2, flux.shape)], axis=1).astype("f4")


def test_detail_of__is_what_is_significant():
    sky = np.stack([blob(4.0) + 0.1] * 5)
    flux = 7.0 * sky
    flux[:, 30, 26] *= 1.5
    detail = detail_of(sky, cube_of(flux, np.array(0.01)))
    assert detail.ratio[30, 26] == pytest.approx(1.5, abs=0.02)
    assert detail.weight[30, 26] > 0.99
    np.testing.assert_allclose(detail.ratio[:20], 1.0, atol=0.01)
    assert hold(sky, detail)[0, 30, 26] == pytest.approx(1.5 * sky[0, 30, 26], rel=0.02)
    # the same under noise says nothing
    assert detail_of(sky, cube_of(flux, np.array(5.0))).weight[30, 26] == 0.0


def test_detail_of__a_line_at_one_wavelength_is_none():
    sky = np.stack([blob(4.0) + 0.1] * 5)
    flux = 7.0 * sky
    flux[2, 28:33, 24:29] *= 3.0
    detail = detail_of(sky, cube_of(flux, np.array(0.001)))
    np.testing.assert_allclose(detail.ratio, 1.0, atol=1e-5)


def test_detail_of__unknown_spaxels_are_no_detail():
    sky = np.stack([blob(4.0) + 0.1] * 4)
    cube = cube_of(2.0 * sky, np.array(0.01))
    cube[:, :, :, 30:] = np.nan
    cube[1:, :, 10] = np.nan
    detail = detail_of(sky, cube)
    assert np.isfinite(detail.ratio).all()
    np.testing.assert_array_equal(detail.weight[:, 30:], 0.0)
    assert not detail_of(sky, cube * np.float32(np.nan)).weight.any()
