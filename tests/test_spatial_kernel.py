"""Matching kernels: widths add, centroids stay, the target is reached, nothing is deconvolved."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from photutils.psf_matching import make_wiener_kernel
from scipy import signal

from specphoto import plot
from specphoto.errors import InputError
from specphoto.spatial.kernel import (
    MAX_GAIN,
    MAX_RESIDUAL,
    gaussian_kernel,
    kernel_report,
    matching_kernel,
)
from specphoto.spatial.psf import PSF
from specphoto.spatial.psf_image import measure_star

SIGMA = 1.0 / np.sqrt(8.0 * np.log(2.0))
MANGA = PSF("gaussian", 2.54)


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


def worst(source, kernel, target, scale, size=241):
    """Largest difference of the convolved source and the target, over the target's peak."""
    wanted = target.sample(scale, size)
    got = signal.fftconvolve(source.sample(scale, size), kernel, mode="same")
    return np.abs(got - wanted).max() / wanted.max()


@pytest.fixture(scope="module")
def psfs(realdata):
    """Empirical PSFs by band, and that of MaNGA."""

    class Bands(dict):
        def __missing__(self, band):
            if band.startswith("unwise"):
                image = fits.getdata(realdata / f"psf/wise/psf_model_{band[-2:]}.fits")
                self[band] = PSF.from_image(image, 2.75)
            else:
                image = fits.getdata(realdata / f"psf/psf_emp_{band}.fits.gz")
                self[band] = PSF.from_image(image, 0.25)
            return self[band]

    return Bands(manga=MANGA)


# -------------------------------------------------------------------------------- Gaussians


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


def test_matching_kernel__equal_gaussians_give_a_delta():
    K = matching_kernel(PSF("gaussian", 2.5), PSF("gaussian", 2.505), 0.5)
    np.testing.assert_array_equal(K, [[1.0]])


def test_matching_kernel__never_deconvolves_gaussians():
    with pytest.raises(
        InputError,
        match=r"PSF match: expected a target PSF no sharper than the cube's 2.54 arcsec, "
        r"found 1.3 arcsec; convolve the images",
    ):
        matching_kernel(MANGA, PSF("gaussian", 1.3), 0.5)


# ---------------------------------------------------------------------------- other models


@pytest.mark.parametrize(
    ("source", "target", "scale", "limit"),
    [
        (PSF("moffat", 2.5, 3.0), PSF("gaussian", 6.4), 0.5, 0.0005),
        (PSF("moffat", 1.05, 2.8), PSF("gaussian", 1.5), 0.2, 0.001),
        (PSF("gaussian", 2.5), PSF("moffat", 5.0, 3.0), 0.5, 0.002),
        (PSF("moffat", 2.5, 3.0), PSF("moffat", 4.0, 2.5), 0.5, 0.002),
        (MANGA, PSF.named("wise_w2"), 0.5, 0.0005),
        (MANGA, PSF.named("galex_nuv"), 0.5, 0.0005),
    ],
)
def test_matching_kernel__source_through_kernel_is_the_target(source, target, scale, limit):
    K = matching_kernel(source, target, scale)
    assert K.shape[0] % 2 == 1
    assert K.sum() == pytest.approx(1.0, abs=1e-12)
    assert np.abs(centroid(K)).max() < 1e-6
    assert worst(source, K, target, scale) < limit


def test_matching_kernel__equal_fwhm_is_not_the_same_psf():
    gaussian, moffat = PSF("gaussian", 2.5), PSF("moffat", 2.5, 4.0)
    K = matching_kernel(gaussian, moffat, 0.5)
    unmatched = worst(gaussian, np.ones((1, 1)), moffat, 0.5)
    assert unmatched > 0.1
    assert worst(gaussian, K, moffat, 0.5) < 0.03
    # the other way round a few per cent of the light must come in from the wings: still possible
    assert worst(moffat, matching_kernel(moffat, gaussian, 0.5), gaussian, 0.5) < 0.001


def test_matching_kernel__gaussian_cannot_be_had_from_strong_wings_of_its_fwhm():
    moffat = PSF("moffat", 2.5, 2.5)
    with pytest.raises(
        InputError,
        match=r"no sharper than the data's \(Moffat of 2.5 arcsec, beta 2.5\).*within 5% of the "
        r"peak.*more than 1.5, found Gaussian of 2.5 arcsec, missed by \d\d% of the peak",
    ):
        matching_kernel(moffat, PSF("gaussian", 2.5), 0.5)


def test_matching_kernel__same_psfs_give_a_delta():
    one = PSF.from_image(star((41, 41), 5.0, (0.2, 0.0)), 0.5)
    same = PSF.from_image(star((61, 60), 10.0, (-0.4, 0.3)), 0.25)
    for source, target in (
        (PSF("moffat", 2.5, 3.0), PSF("moffat", 2.5, 3.0)),
        (PSF("moffat", 2.5, 3.0), PSF("moffat", 2.501, 3.0)),
        (one, same),
        (one, PSF("gaussian", 2.5)),
    ):
        np.testing.assert_array_equal(matching_kernel(source, target, 0.5), [[1.0]])


# ---------------------------------------------------------------------------------- images


@pytest.mark.parametrize("shape", [(81, 81), (80, 80), (81, 80)])
@pytest.mark.parametrize("pixel", [0.25, 0.3, 0.5, 0.75])
def test_matching_kernel__psf_images_of_any_parity_are_centred(shape, pixel):
    target = PSF.from_image(star(shape, 6.4 / pixel, (0.2, -0.3)), pixel)
    K = matching_kernel(MANGA, target, 0.5)
    assert K.shape[0] % 2 == 1
    assert np.abs(centroid(K)).max() < 0.005
    # the star's own pixels must not broaden or shift it
    assert worst(MANGA, K, PSF("gaussian", 6.4), 0.5, 121) < 0.005


@pytest.mark.parametrize("shape", [(61, 61), (60, 60)])
def test_matching_kernel__two_psf_images(shape):
    source = PSF.from_image(star(shape, 5.0, (0.5, 0.1)), 0.5)
    target = PSF.from_image(star((121, 120), 25.6, (-0.4, 0.0)), 0.25)
    K = matching_kernel(source, target, 0.5)
    assert np.abs(centroid(K)).max() < 0.001
    assert second_moment(K) == pytest.approx((12.8**2 - 5.0**2) * SIGMA**2, rel=0.01)


def test_matching_kernel__crossed_psfs_cannot_be_matched_either_way():
    y, x = np.indices((81, 81)) - 40.0
    along = PSF.from_image(np.exp(-0.5 * ((x / 5.0) ** 2 + (y / 3.0) ** 2)), 0.5)
    across = PSF.from_image(along.image.T, 0.5)
    for source, target in ((along, across), (across, along)):
        with pytest.raises(InputError, match=r"PSF match: .* missed by \d\d% of the peak"):
            matching_kernel(source, target, 0.5)


def test_matching_kernel__source_hardly_sampled():
    # an image of the Hubble telescope on its own pixels, brought to the seeing of a cube
    source, target = PSF.named("hst_wfpc2_f814w"), PSF("moffat", 0.8, 2.8)
    assert worst(source, matching_kernel(source, target, 0.1), target, 0.1) < 0.001


@pytest.mark.parametrize(
    ("source", "target", "limit"),
    [
        ("sdss_r", "2mass_j", 0.001), ("sdss_g", "2mass_k", 0.001), ("sdss_r", "galex_fuv", 0.001),
        ("sdss_r", "unwise_w1", 0.001), ("sdss_i", "unwise_w2", 0.001),
        ("2mass_j", "galex_fuv", 0.006), ("2mass_k", "unwise_w2", 0.006),
        ("galex_fuv", "galex_nuv", 0.003), ("galex_nuv", "unwise_w1", 0.003),
        ("galex_nuv", "unwise_w2", 0.003), ("unwise_w1", "unwise_w2", 0.012),
        ("manga", "2mass_j", 0.004), ("manga", "galex_fuv", 0.003), ("manga", "galex_nuv", 0.002),
        ("manga", "unwise_w1", 0.001), ("manga", "unwise_w2", 0.001),
    ],
)  # fmt: skip
def test_matching_kernel__empirical_psfs(psfs, source, target, limit):
    K = matching_kernel(psfs[source], psfs[target], 0.5)
    assert K.shape[0] == K.shape[1]
    assert K.shape[0] % 2 == 1
    assert K.sum() == pytest.approx(1.0, abs=1e-12)
    report = kernel_report(psfs[source], psfs[target], K, 0.5)
    assert report.accepted
    assert report.worst_residual < limit
    assert report.residual_power < 2e-4
    assert report.encircled_residual < 0.0025
    # the core of the result is where the core of the target is
    size = report.residual.shape[0]
    T = psfs[target].sample(0.5, size)
    core = measure_star(T + report.residual * T.max(), sky=0.0).centre
    np.testing.assert_allclose(core, size // 2, atol=3e-3 if "unwise_w1" in source else 1e-3)


@pytest.mark.parametrize(
    ("source", "target"), [("sdss_g", "sdss_r"), ("sdss_r", "sdss_g"), ("2mass_k", "2mass_j")]
)
def test_matching_kernel__about_as_broad_is_possible(psfs, source, target):
    K = matching_kernel(psfs[source], psfs[target], 0.5)
    report = kernel_report(psfs[source], psfs[target], K, 0.5)
    assert report.accepted
    assert report.largest_gain > 1.1


@pytest.mark.parametrize(
    ("source", "target", "missed"),
    [
        ("unwise_w2", "unwise_w1", 22), ("galex_nuv", "galex_fuv", 31), ("sdss_r", "sdss_i", 38),
        ("galex_nuv", "2mass_j", 64), ("unwise_w1", "2mass_j", 81), ("manga", "sdss_r", 60),
    ],
)  # fmt: skip
def test_matching_kernel__deconvolution_is_refused_in_numbers(psfs, source, target, missed):
    message = rf"found PSF image of .*, missed by {missed}% of the peak; .* never deconvolved"
    with pytest.raises(InputError, match=message):
        matching_kernel(psfs[source], psfs[target], 0.5)


# ------------------------------------------------------------------- reports, other makers


def test_kernel_report__of_gaussians():
    target = PSF("gaussian", 6.4)
    report = kernel_report(MANGA, target, matching_kernel(MANGA, target, 0.5), 0.5)
    assert report.worst_residual < 2e-4
    assert report.negative_share == 0.0
    assert report.largest_gain == pytest.approx(1.0)
    # light within r of a Gaussian: 1 - exp(-r^2 / 2 sigma^2)
    wanted = 1.0 - np.exp(-0.5 * (report.radius / (6.4 * SIGMA)) ** 2)
    np.testing.assert_allclose(report.encircled_target, wanted, atol=0.025)  # rings of pixels
    np.testing.assert_allclose(report.encircled_result, report.encircled_target, atol=1e-4)
    assert report.verdict.startswith("matched: differs from the target by at most 0.0")


def test_kernel_report__sees_a_bad_kernel():
    report = kernel_report(MANGA, PSF("gaussian", 6.4), gaussian_kernel(3.0), 0.5)
    assert not report.accepted
    assert report.worst_residual > MAX_RESIDUAL
    assert report.verdict.startswith("not matched: differs")
    sharp = np.array([[0.0, -1.0, 0.0], [-1.0, 5.0, -1.0], [0.0, -1.0, 0.0]])
    report = kernel_report(MANGA, MANGA, sharp, 0.5)
    assert report.largest_gain == pytest.approx(9.0, rel=0.01)
    assert report.negative_share == pytest.approx(4 / 9)
    assert report.noise == pytest.approx(np.sqrt(29.0))
    assert report.largest_gain > MAX_GAIN
    assert not report.accepted


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (PSF("moffat", 2.5, 3.0), PSF("gaussian", 6.4)),
        (MANGA, PSF.named("wise_w2")),
        (PSF("moffat", 1.34, 3.4), PSF.named("2mass_j")),
    ],
)
def test_matching_kernel__against_photutils_and_pypher(source, target):
    from pypher.pypher import homogenization_kernel

    S, T = source.sample(0.5, 121), target.sample(0.5, 121)
    theirs = {
        "photutils": make_wiener_kernel(S, T, regularization=1e-4, penalty="laplacian"),
        "pypher": homogenization_kernel(T, S, reg_fact=1e-4)[0],
    }
    ours = kernel_report(source, target, matching_kernel(source, target, 0.5), 0.5)
    K = np.zeros((121, 121))
    made = matching_kernel(source, target, 0.5)
    first = 60 - made.shape[0] // 2
    K[first : first + made.shape[0], first : first + made.shape[0]] = made
    for kernel in theirs.values():
        report = kernel_report(source, target, kernel, 0.5)
        assert np.abs(K - kernel).max() < 0.02 * K.max()
        assert ours.worst_residual < report.worst_residual + 3e-4  # the wings that are cut
        assert ours.encircled_residual < report.encircled_residual + 5e-4


def test_matching_kernel__better_than_photutils_and_pypher_on_real_psfs(psfs):
    from pypher.pypher import homogenization_kernel

    for source, target in (("sdss_r", "2mass_j"), ("2mass_j", "2mass_k"), ("sdss_r", "sdss_g")):
        S, T = (psfs[band].sample(0.5, 99) for band in (source, target))
        ours = matching_kernel(psfs[source], psfs[target], 0.5)
        ours_worst = kernel_report(psfs[source], psfs[target], ours, 0.5).worst_residual
        for kernel in (
            make_wiener_kernel(S, T, regularization=1e-4, penalty="laplacian"),
            homogenization_kernel(T, S, reg_fact=1e-4)[0],
        ):
            theirs = kernel_report(psfs[source], psfs[target], kernel, 0.5)
            assert ours_worst < theirs.worst_residual


def test_plot_kernel__encircled_energy_and_residual():
    target = PSF("moffat", 5.0, 3.0)
    report = kernel_report(MANGA, target, matching_kernel(MANGA, target, 0.5), 0.5)
    left, right = plot.kernel(report)
    drawn = {line.get_label(): line.get_ydata() for line in left.get_lines()}
    np.testing.assert_array_equal(drawn["target PSF"], report.encircled_target)
    np.testing.assert_array_equal(drawn["after the kernel"], report.encircled_result)
    np.testing.assert_allclose(right.images[0].get_array(), 100.0 * report.residual)
    assert plot.kernel(report, (left, right)) == (left, right)
    left.figure.draw_without_rendering()
