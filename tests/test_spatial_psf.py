"""Matching kernels: widths add, centroids stay, nothing is deconvolved."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from specphoto.errors import InputError
from specphoto.spatial.kernel import gaussian_kernel, matching_kernel
from specphoto.spatial.psf import PSF, moffat_image

SIGMA = 1.0 / np.sqrt(8.0 * np.log(2.0))


def centroid(image):
    """Centroid (x, y) from the middle of the array."""
    y, x = np.indices(image.shape)
    middle_y, middle_x = (np.array(image.shape) - 1) / 2
    return (image * (x - middle_x)).sum(), (image * (y - middle_y)).sum()


def second_moment(image):
    """Second moment along x."""
    x = np.arange(image.shape[1]) - (image.shape[1] - 1) / 2
    return (image.sum(axis=0) * x**2).sum() / image.sum()


def star(shape, fwhm, at):
    """Gaussian star, FWHM in pixels, off the middle of its array by ``at`` (x, y)."""
    y, x = np.indices(shape)
    y, x = y - (shape[0] - 1) / 2 - at[1], x - (shape[1] - 1) / 2 - at[0]
    return np.exp(-0.5 * (x**2 + y**2) / (fwhm * SIGMA) ** 2)


@pytest.mark.parametrize("sigma", [0.05, 0.3, 0.5, 0.8, 1.0, 2.0, 5.0, 9.0])
def test_gaussian_kernel__has_the_second_moment_asked_for(sigma):
    K = gaussian_kernel(sigma)
    assert K.shape[0] == K.shape[1]
    assert K.shape[0] % 2 == 1
    assert K.sum() == pytest.approx(1.0, abs=1e-12)
    assert second_moment(K) == pytest.approx(sigma**2, rel=1e-9)
    np.testing.assert_array_equal(K, K[::-1, ::-1])


@pytest.mark.parametrize(
    ("source", "target", "scale"),
    [(2.54, 6.4, 0.5), (2.5, 2.6, 1.0), (1.05, 1.5, 0.2), (2.5, 20.0, 0.5)],
)
def test_matching_kernel__variances_of_gaussians_add(source, target, scale):
    K = matching_kernel(PSF("gaussian", source), PSF("gaussian", target), scale)
    wanted = (target**2 - source**2) * SIGMA**2 / scale**2
    assert second_moment(K) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize(
    ("source", "target", "scale", "limit"),
    [
        (PSF("moffat", 2.5, 3.0), PSF("gaussian", 6.4), 0.5, 0.001),
        (PSF("moffat", 1.05, 2.8), PSF("gaussian", 1.5), 0.2, 0.005),
        (PSF("gaussian", 2.5), PSF("moffat", 5.0, 3.0), 0.5, 0.003),
        (PSF("moffat", 2.5, 3.0), PSF("moffat", 4.0, 2.5), 0.5, 0.007),
    ],
)
def test_matching_kernel__source_through_kernel_is_the_target(source, target, scale, limit):
    K = matching_kernel(source, target, scale)
    assert K.shape[0] % 2 == 1
    assert K.sum() == pytest.approx(1.0, abs=1e-12)
    wanted = target.sample(scale, 241)
    got = signal.fftconvolve(source.sample(scale, 241), K, mode="same")
    assert np.abs(got - wanted).max() < limit * wanted.max()


def test_moffat_image__has_the_fwhm_asked_for():
    image = moffat_image(8.0, 2.8, 401)
    assert image.sum() == pytest.approx(1.0)
    assert image[200, 204] == pytest.approx(0.5 * image[200, 200], rel=1e-12)


@pytest.mark.parametrize("shape", [(81, 81), (80, 80), (81, 80)])
@pytest.mark.parametrize("pixel", [0.25, 0.3, 0.5, 0.75])
def test_matching_kernel__psf_images_of_any_parity_are_centred(shape, pixel):
    target = PSF.from_image(star(shape, 6.4 / pixel, (0.2, -0.3)), pixel)
    K = matching_kernel(PSF("gaussian", 2.54), target, 0.5)
    assert K.shape[0] % 2 == 1
    assert np.abs(centroid(K)).max() < 0.005
    source = PSF("gaussian", 2.54).sample(0.5, 121)
    wanted = PSF("gaussian", 6.4).sample(0.5, 121)
    got = signal.fftconvolve(source, K, mode="same")
    # the star's own pixels must not broaden or shift it
    assert np.abs(got - wanted).max() < 0.005 * wanted.max()


@pytest.mark.parametrize("shape", [(61, 61), (60, 60)])
def test_matching_kernel__two_psf_images(shape):
    source = PSF.from_image(star(shape, 5.0, (0.5, 0.1)), 0.5)
    target = PSF.from_image(star((121, 120), 25.6, (-0.4, 0.0)), 0.25)
    K = matching_kernel(source, target, 0.5)
    assert np.abs(centroid(K)).max() < 0.005
    assert second_moment(K) == pytest.approx((12.8**2 - 5.0**2) * SIGMA**2, rel=0.01)


def test_psf_from_image__does_not_change_the_image():
    image = star((31, 31), 6.0, (0.0, 0.0))
    before = image.copy()
    psf = PSF.from_image(image, 0.5)
    np.testing.assert_array_equal(image, before)
    assert psf.fwhm == pytest.approx(3.0, rel=0.01)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.ones(5), r"PSF image: expected a finite 2-D image of a point source"),
        (np.full((9, 9), np.nan), r"found shape \(9, 9\) with 81 pixels that are not finite"),
        (np.zeros((9, 9)), r"PSF image: expected light.*found a sum of 0"),
        (-np.ones((9, 9)), r"PSF image: expected light"),
        (star((41, 41), 5.0, (9.0, 0.0)), r"within 10% of the side .* \+9.0 \(x\) and .0.0 \(y\)"),
        (star((9, 9), 6.0, (0.0, 0.0)), r"expected a frame of at least 2 FWHM, found 9 x 9 pixels"),
    ],
)
def test_psf_from_image__refuses_what_is_no_star(image, message):
    with pytest.raises(InputError, match=message):
        PSF.from_image(image, 0.5)


@pytest.mark.parametrize("scale", [None, 0.0, -0.5, np.nan])
def test_psf_from_image__needs_the_pixel_scale(scale):
    with pytest.raises(InputError, match=r"star.fits: expected a known pixel scale in arcsec"):
        PSF.from_image(star((31, 31), 6.0, (0.0, 0.0)), scale, name="star.fits")


def test_psf_from_attrs__interpolates_in_wavelength():
    attrs = {"model": "moffat", "wave": [4750.0, 9350.0], "fwhm": [1.2, 1.0], "beta": [2.0, 3.0]}
    psf = PSF.from_attrs(attrs, 7050.0)
    assert (psf.model, psf.fwhm, psf.beta) == ("moffat", pytest.approx(1.1), pytest.approx(2.5))
    one = {"model": "gaussian", "wave": [], "fwhm": [2.5], "beta": None}
    assert PSF.from_attrs(one, 5000.0) == PSF("gaussian", 2.5)


def test_matching_kernel__equal_psfs_give_a_delta():
    K = matching_kernel(PSF("gaussian", 2.5), PSF("gaussian", 2.505), 0.5)
    np.testing.assert_array_equal(K, [[1.0]])


def test_matching_kernel__never_deconvolves():
    with pytest.raises(
        InputError,
        match=r"PSF match: expected a target PSF no sharper than the cube's 2.54 arcsec, "
        r"found 1.3 arcsec; convolve the images",
    ):
        matching_kernel(PSF("gaussian", 2.54), PSF("gaussian", 1.3), 0.5)
