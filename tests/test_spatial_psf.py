"""PSFs: by name, by wavelength, and from images that are checked, centred and resampled."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from scipy import optimize

from specphoto.errors import InputError
from specphoto.photometry.filters import known_filters
from specphoto.spatial.psf import PSF, broadest, moffat_image, psf_nodes
from specphoto.spatial.psf_image import measure_star

SIGMA = 1.0 / np.sqrt(8.0 * np.log(2.0))
EMPIRICAL = (
    "sdss_u", "sdss_g", "sdss_r", "sdss_i", "sdss_z", "2mass_j", "2mass_h", "2mass_k",
    "galex_fuv", "galex_nuv",
)  # fmt: skip


def star(shape, fwhm, at):
    """Gaussian star, FWHM in pixels, off the middle of its array by ``at`` (x, y)."""
    y, x = np.indices(shape)
    y, x = y - (shape[0] - 1) / 2 - at[1], x - (shape[1] - 1) / 2 - at[0]
    return np.exp(-0.5 * (x**2 + y**2) / (fwhm * SIGMA) ** 2)


def empirical(realdata, band):
    """Empirical PSF of a band; of WISE the unWISE model."""
    if band.startswith("wise"):
        return PSF.from_image(fits.getdata(realdata / f"psf/wise/psf_model_{band[-2:]}.fits"), 2.75)
    return PSF.from_image(fits.getdata(realdata / f"psf/psf_emp_{band}.fits.gz"), 0.25)


# ---------------------------------------------------------------------------------- models


def test_moffat_image__has_the_fwhm_asked_for():
    image = moffat_image(8.0, 2.8, 401)
    assert image.sum() == pytest.approx(1.0)
    assert image[200, 204] == pytest.approx(0.5 * image[200, 200], rel=1e-12)


@pytest.mark.parametrize("psf", [PSF("gaussian", 3.0), PSF("moffat", 3.0, 3.5)])
def test_area__is_that_of_the_sampled_psf(psf):
    assert psf.area == pytest.approx(0.25**2 / (psf.sample(0.25, 401) ** 2).sum(), rel=1e-3)


def test_area__of_an_image_is_that_of_its_model():
    image = PSF.from_image(moffat_image(8.0, 3.5, 161), 0.4)
    assert image.area == pytest.approx(PSF("moffat", 3.2, 3.5).area, rel=0.01)


def test_broadest__counts_the_wings():
    sharp_core = PSF("moffat", 2.4, 2.5)
    assert broadest([PSF("gaussian", 2.5), sharp_core, PSF("gaussian", 2.3)]) is sharp_core
    assert broadest(iter([PSF("gaussian", 2.5), PSF("gaussian", 2.6)])).fwhm == 2.6


# ------------------------------------------------------------------------- names and nodes


def test_named__file_that_says_wise_w2_needs_no_more():
    psf = PSF.named("wise_w2")
    assert (psf.model, psf.fwhm) == ("moffat", 6.37)


def test_named__every_band_has_a_plausible_psf():
    bands = [f"spitzer_irac_{n}" for n in (36, 45, 58, 80)] + [f"wise_w{n}" for n in range(1, 5)]
    bands += [*EMPIRICAL, "herschel_spire_500", "hst_wfpc2_f814w", "pan-starrs_y", "ctio_decam_Y"]
    assert set(bands) <= set(known_filters())
    for band in bands:
        assert 0.1 < PSF.named(band).fwhm < 37.0


def test_named__unknown_band_names_the_nearest():
    with pytest.raises(InputError, match=r"PSF of 'wise_w5': .* nearest known are wise_w\d"):
        PSF.named("wise_w5")


@pytest.mark.parametrize("band", [*EMPIRICAL, "wise_w1", "wise_w2"])
def test_named__is_the_fit_to_the_empirical_psf(realdata, band):
    psf, size = empirical(realdata, band), 73
    scale = psf.fwhm / 12.0
    image = psf.sample(scale, size)
    axis = (np.arange(size) - size // 2) * scale
    radius = np.hypot(axis[:, None], axis[None, :])
    near = radius < 3.0 * psf.fwhm

    def moffat(r, peak, fwhm, beta):
        alpha = fwhm / (2.0 * np.sqrt(2.0 ** (1.0 / beta) - 1.0))
        return peak * (1.0 + (r / alpha) ** 2) ** -beta

    def gaussian(r, peak, fwhm):
        return peak * np.exp(-4.0 * np.log(2.0) * (r / fwhm) ** 2)

    def residual(model, start):
        best, _ = optimize.curve_fit(model, radius[near], image[near], start)
        return best, np.sqrt(((image[near] - model(radius[near], *best)) ** 2).sum())

    (_, fwhm, beta), moffat_residual = residual(moffat, (image.max(), psf.fwhm, 4.0))
    assert moffat_residual < residual(gaussian, (image.max(), psf.fwhm))[1]
    named = PSF.named(band)
    assert named.beta == pytest.approx(beta, rel=0.03)
    if not band.startswith("wise"):  # there the FWHM is that of another PSF, and close
        assert named.fwhm == pytest.approx(fwhm, abs=0.01)
    assert named.fwhm == pytest.approx(fwhm, rel=0.025)


def test_psf_nodes__of_an_attribute():
    attrs = {"model": "moffat", "wave": [4750.0, 9350.0], "fwhm": [1.2, 1.0], "beta": [2.0, 3.0]}
    wave, psfs = psf_nodes(None, attrs, "cube")
    np.testing.assert_array_equal(wave, [4750.0, 9350.0])
    assert psfs == (PSF("moffat", 1.2, 2.0), PSF("moffat", 1.0, 3.0))
    wave, psfs = psf_nodes(None, {"model": "gaussian", "wave": [], "fwhm": [2.5]}, "cube")
    assert (wave.tolist(), psfs) == ([0.0], (PSF("gaussian", 2.5),))


def test_psf_nodes__one_if_it_does_not_vary():
    attrs = {"model": "gaussian", "wave": [4000.0, 9000.0], "fwhm": [2.5, 2.5], "beta": None}
    assert len(psf_nodes(attrs, None, "cube")[1]) == 1
    image = PSF.from_image(star((31, 31), 6.0, (0, 0)), 0.5)
    assert psf_nodes([(4000.0, image), (9000.0, image)], None, "cube")[1] == (image,)


@pytest.mark.parametrize(
    ("option", "psf"),
    [
        (2.5, PSF("gaussian", 2.5)),
        (np.float32(2.5), PSF("gaussian", 2.5)),
        ("sdss_r", PSF.named("sdss_r")),
        (PSF("moffat", 1.0, 2.8), PSF("moffat", 1.0, 2.8)),
    ],
)
def test_psf_nodes__the_option_goes_before_what_is_stated(option, psf):
    assert psf_nodes(option, 3.0, "cube")[1] == (psf,)
    assert psf_nodes(None, option, "cube")[1] == (psf,)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (None, r"cube: PSF: expected a FWHM in arcsec in the header or as an option, found None"),
        (-1.0, r"found -1.0"),
        ([(5000.0, 2.5), (5000.0, 2.4)], r"found 5000, 5000; give pairs"),
        ([], r"found no wavelength"),
        ([2.5, 2.4], r"expected pairs \(wavelength in Angstrom"),
        ([(5000.0, np.nan)], r"found nan"),
    ],
)
def test_psf_nodes__refuses_what_is_no_psf(option, message):
    with pytest.raises(InputError, match=message):
        psf_nodes(option, None, "cube")


def test_psf_from_attrs__interpolates_in_wavelength():
    attrs = {"model": "moffat", "wave": [4750.0, 9350.0], "fwhm": [1.2, 1.0], "beta": [2.0, 3.0]}
    psf = PSF.from_attrs(attrs, 7050.0)
    assert (psf.model, psf.fwhm, psf.beta) == ("moffat", pytest.approx(1.1), pytest.approx(2.5))
    one = {"model": "gaussian", "wave": [], "fwhm": [2.5], "beta": None}
    assert PSF.from_attrs(one, 5000.0) == PSF("gaussian", 2.5)


# ---------------------------------------------------------------------------------- images


def test_psf_from_image__does_not_change_the_image():
    image = star((31, 31), 6.0, (0.0, 0.0))
    before = image.copy()
    psf = PSF.from_image(image, 0.5)
    np.testing.assert_array_equal(image, before)
    assert psf.fwhm == pytest.approx(3.0, rel=0.002)


@pytest.mark.parametrize("shape", [(41, 41), (40, 41)])
@pytest.mark.parametrize("at", [(0.0, 0.0), (0.31, -0.44), (-2.2, 1.7)])
def test_psf_from_image__recentred_on_the_core(shape, at):
    psf = PSF.from_image(7.0 * star(shape, 5.0, at), 0.5)
    middle = [(n - 1) / 2 for n in shape]
    np.testing.assert_allclose(psf.centre, [middle[0] + at[1], middle[1] + at[0]], atol=1e-4)
    np.testing.assert_allclose(psf.sample(0.5, 31), PSF("gaussian", 2.5).sample(0.5, 31), atol=1e-5)


def test_psf_from_image__sky_taken_off():
    image = 100.0 * star((61, 61), 6.0, (0.0, 0.0)) + 3.0
    flat = PSF.from_image(image, 0.5)
    np.testing.assert_allclose(flat.image.sum(), 1.0)
    assert abs(flat.image[0]).max() < 1e-12
    kept = PSF.from_image(image, 0.5, sky=0.0)
    assert kept.image[0, 0] == pytest.approx(3.0 / image.sum())


@pytest.mark.parametrize(("pixel", "limit"), [(2.75, 5e-3), (0.25, 1e-6), (0.125, 1e-6)])
def test_sample__onto_finer_and_coarser_pixels(pixel, limit):
    # the pixel is in the PSF already: sampled, not averaged again; 2.75 arcsec are 2.3 per FWHM
    shape = (81, 81) if pixel > 1 else (int(40 / pixel), int(40 / pixel) + 1)
    psf = PSF.from_image(star(shape, 6.37 / pixel, (0.2, 0.1)), pixel)
    wanted = PSF("gaussian", 6.37).sample(0.5, 25)
    got = psf.sample(0.5, 25)
    assert np.abs(got - wanted).max() < limit * wanted.max()


def test_sample__zero_beyond_the_frame():
    image = PSF.from_image(star((21, 21), 5.0, (0.0, 0.0)), 0.5).sample(0.5, 41)
    assert np.all(image[:10] == 0)
    assert image[20, 20] == image.max()


@pytest.mark.parametrize("band", [*EMPIRICAL, "wise_w1", "wise_w2"])
def test_psf_from_image__empirical(realdata, band):
    psf = empirical(realdata, band)
    assert psf.image.sum() == pytest.approx(1.0)
    # the SDSS stars: the peak is noisier than the fit
    assert psf.fwhm == pytest.approx(PSF.named(band).fwhm, rel=0.06)
    again = measure_star(psf.sample(0.4, 151), sky=0.0)
    limit = 1e-3 if psf.fwhm > 2.0 else 2e-2  # SDSS is undersampled at 0.4 arcsec
    np.testing.assert_allclose(again.centre, 75.0, atol=limit)


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
