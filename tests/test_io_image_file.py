"""Reading one image: HDUs, WCS, units, maps, PSF, and what is refused."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from astropy.io import fits
from spatial_cases import tan_wcs

from specphoto.errors import InputError
from specphoto.io.fits_array import FitsArray
from specphoto.io.image_file import Image, parse_image, read_image
from specphoto.io.image_unit import flux_factor
from specphoto.photometry.filters import load_filter
from specphoto.spatial.psf import PSF

SHAPE = (12, 15)
WCS = tan_wcs(SHAPE, 0.4)
LIGHT = 2.99792458e18


def write(path, *, primary=None, name="SCI", extra=(), wcs=WCS, shape=SHAPE, **cards):
    header = wcs.to_header() if wcs is not None else fits.Header()
    header.update(cards)
    image = np.arange(np.prod(shape), dtype="f4").reshape(shape)
    hdus = [fits.PrimaryHDU(header=fits.Header(primary or {})), fits.ImageHDU(image, header, name)]
    hdus += [fits.ImageHDU(np.full(s, v, "f4"), name=n) for n, s, v in extra]
    fits.HDUList(hdus).writeto(path)
    return path


# -- units: each kind against a hand number


def factor(pivot=6000.0, area=4.0, cards=None, **options):
    return flux_factor(fits.Header(cards or {}), pivot, area, "a.fits, SCI", [], **options)[0]


# 3.6308e-20 erg/s/cm2/Hz is AB magnitude 0
AB = 3.630780547701013e-20


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("erg/s/cm2/A", 1e17),
        ("1E-17 erg/s/cm^2/Ang/spaxel", 1.0),
        ("10**(-20)*erg/s/cm**2/Angstrom", 1e-3),
        ("W/m2/um", 1e-1 * 1e17),  # 1e7 erg / 1e4 cm2 / 1e4 A
        ("Jy", 1e-23 * LIGHT / 6000**2 * 1e17),
        ("mJy/pixel", 1e-26 * LIGHT / 6000**2 * 1e17),
        ("uJy", 1e-29 * LIGHT / 6000**2 * 1e17),
        ("ergs/sec/cm^2/Hz", LIGHT / 6000**2 * 1e17),
        ("MJy/sr", 1e-17 * LIGHT / 6000**2 * 1e17 * 4.0 / 206264.80625**2),
        ("MJY/SR", 1e-17 * LIGHT / 6000**2 * 1e17 * 4.0 / 206264.80625**2),
        ("Jy/arcsec2", 4e-23 * LIGHT / 6000**2 * 1e17),
        ("maggy", AB * LIGHT / 6000**2 * 1e17),
        ("nanomaggy", AB * 1e-9 * LIGHT / 6000**2 * 1e17),
        ("nanomaggies", AB * 1e-9 * LIGHT / 6000**2 * 1e17),
        ("nmgy", AB * 1e-9 * LIGHT / 6000**2 * 1e17),
    ],
)  # fmt: skip
def test_flux_factor__of_a_flux(unit, expected):
    assert factor(unit=unit) == pytest.approx(expected, rel=1e-6)
    assert factor(cards={"BUNIT": unit}) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("unit", ["COUNTS/S", "counts/s", "ELECTRONS/S", "e-/s", "DN/s", "ct s-1"])
def test_flux_factor__of_counts_per_second(unit):
    assert factor(cards={"BUNIT": unit, "PHOTFLAM": 2.5e-18}) == pytest.approx(0.25)
    assert factor(unit=unit, photflam=2.5e-17) == pytest.approx(2.5)


def test_flux_factor__of_counts_takes_the_exposure_time():
    assumed: list[str] = []
    header = fits.Header({"BUNIT": "COUNTS", "PHOTFLAM": 2.5e-18, "EXPTIME": 50.0})
    assert flux_factor(header, 6000.0, 1.0, "a", assumed)[0] == pytest.approx(0.005)
    assert assumed == ["COUNTS summed over EXPTIME = 50 s"]
    with pytest.raises(
        InputError, match=r"a: expected counts per second.*EXPTIME None.*zero_point"
    ):
        flux_factor(header[:2], 6000.0, 1.0, "a", assumed)


def test_flux_factor__of_a_zero_point():
    # magnitude 25 per count, whatever the header says of units
    expected = AB * 1e-10 * LIGHT / 6000**2 * 1e17
    assert factor(zero_point=25.0, cards={"BUNIT": "ADU"}) == pytest.approx(expected, rel=1e-9)
    # 22.5 is a nanomaggy
    assert factor(zero_point=22.5) == pytest.approx(factor(unit="nanomaggy"), rel=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"a\.fits, SCI: expected the unit of the image \(card BUNIT\), found none; give unit"),
        ({"unit": "garbage"}, r"unit: expected a unit that can be read, found 'garbage'"),
        ({"unit": "K"}, r"expected a flux density per pixel or per solid angle, found 'K'"),
        ({"unit": "JY/BEAM"}, r"found 'JY/BEAM'; .*per beam"),
        ({"unit": "count/s"}, r"what one count/s is worth \(card PHOTFLAM\), found None"),
        ({"unit": "Jy", "photflam": 1e-18}, r"photflam: expected an image in counts per second"),
        ({"unit": "Jy", "zero_point": 25.0}, r"zero_point: expected one finite calibration"),
        ({"zero_point": np.nan}, r"one finite calibration, found zero_point nan"),
    ],
)
def test_flux_factor__refuses(options, message):
    with pytest.raises(InputError, match=message):
        factor(**options)


# -- the file


def test_read_image__reads_headers_and_no_pixels(tmp_path):
    path = write(tmp_path / "a.fits", primary={"EXPTIME": 10.0}, BUNIT="COUNTS", PHOTFLAM=1e-18,
                 extra=[("WHT", SHAPE, 2.0)])  # fmt: skip
    found = read_image(Image(path, "sdss_r", psf=1.3, noise="wht", noise_kind="weight", sky=0.5))
    assert isinstance(found.flux, FitsArray)
    assert isinstance(found.noise, FitsArray)
    assert found.factor == pytest.approx(1e-2)  # the time is in the primary header
    assert found.frame.shape == SHAPE
    assert found.curve.name == "sdss_r"
    assert found.psf == PSF("gaussian", 1.3)
    assert (found.noise_kind, found.sky) == ("weight", 0.5)
    np.testing.assert_array_equal(found.flux[2:3, :4], [[30.0, 31.0, 32.0, 33.0]])
    about = found.about
    assert about["input"] == "a.fits"
    assert about["hdu"] == "SCI"
    assert about["noise_from"] == "wht"
    assert about["pixel_scale"] == pytest.approx(0.4)
    pickle.loads(pickle.dumps(found.flux))


def test_read_image__takes_the_first_image_or_the_one_named(tmp_path):
    path = write(tmp_path / "a.fits", name="ONE", BUNIT="Jy", extra=[("TWO", SHAPE, 3.0)])
    assert read_image(Image(path, "sdss_r")).about["hdu"] == "ONE"
    two = read_image(Image(path, "sdss_r", hdu="two", wcs=WCS, unit="Jy"))
    assert two.flux[0, 0] == 3.0


def test_read_image__of_pixels():
    pixels = np.ones(SHAPE)
    found = read_image(Image(pixels, "sdss_r", wcs=WCS, unit="Jy", noise=pixels, mask=pixels > 2))
    assert found.flux is pixels
    assert found.name == "image in sdss_r"
    assert found.about["noise_from"] == "array"
    assert found.psf is None
    assert read_image(Image(pixels, "sdss_r", wcs=WCS, unit="Jy", name="M 51")).name == "M 51"


def test_read_image__takes_maps_of_other_files(tmp_path):
    path = write(tmp_path / "a.fits", BUNIT="Jy")
    fits.PrimaryHDU(np.full(SHAPE, 7.0)).writeto(tmp_path / "ivar.fits")
    found = read_image(
        Image(path, "sdss_r", noise=tmp_path / "ivar.fits", noise_kind="inverse variance")
    )
    assert found.noise[0, 0] == 7.0
    estimated = read_image(Image(path, "sdss_r", noise="estimate", sky="estimate"))
    assert (estimated.noise, estimated.noise_kind, estimated.sky) == (None, "estimate", "estimate")


def test_read_image__takes_a_psf_by_name_or_image(tmp_path):
    path = write(tmp_path / "a.fits", BUNIT="Jy")
    assert read_image(Image(path, "sdss_r", psf="wise_w2")).psf.fwhm == PSF.named("wise_w2").fwhm
    moffat = {"model": "moffat", "wave": [], "fwhm": [0.7], "beta": [2.5]}
    assert read_image(Image(path, "sdss_r", psf=moffat)).psf == PSF("moffat", 0.7, 2.5)
    star = PSF("gaussian", 1.5).sample(0.25, 41)
    fits.PrimaryHDU(star, fits.Header({"PIXSCALE": 0.25})).writeto(tmp_path / "psf.fits")
    assert read_image(Image(path, "sdss_r", psf=tmp_path / "psf.fits")).psf.fwhm == pytest.approx(
        1.5, rel=0.03
    )
    fits.PrimaryHDU(star).writeto(tmp_path / "bare.fits")
    with pytest.raises(InputError, match=r"bare\.fits, PRIMARY: .*PIXSCALE.*found None"):
        read_image(Image(path, "sdss_r", psf=tmp_path / "bare.fits"))


def skewed():
    wcs = tan_wcs(SHAPE, 0.4)
    wcs.wcs.cd = wcs.wcs.cd @ np.diag([1.0, 1.5])
    return wcs


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ({"wcs": None}, {}, r"a\.fits, SCI: expected a celestial WCS .* found none"),
        ({"wcs": skewed()}, {}, r"WCS: expected square pixels, found 0\.4 by 0\.6 arcsec"),
        ({"shape": (3, *SHAPE)}, {}, r"SCI: expected an array of 2 axes, found shape \(3,"),
        ({}, {"hdu": "ERR"}, r"expected the extensions ERR, found only PRIMARY, SCI, BAD"),
        ({}, {"noise": "ERR"}, r"SCI: noise: .* found 'ERR'; give one of the HDUs \(PRIMARY, SCI"),
        ({}, {"noise": "BAD"}, r"SCI: noise: expected a map of the image's shape .*\(2, 3\)"),
        ({}, {"mask": np.ones(4)}, r"SCI: mask: expected numbers of two axes .*shape \(4,\)"),
        ({}, {"noise": "SCI", "noise_kind": "rms"}, r"noise_kind: expected 'error' or .*'rms'"),
        ({}, {"sky": "some"}, r"sky: expected a number in the image's unit.*found 'some'"),
        ({}, {"sky": np.inf}, r"sky: .*found inf"),
        ({}, {"psf": -1.0}, r"PSF: .*found -1\.0"),
        ({}, {"psf": "sdss_rr"}, r"PSF of 'sdss_rr': .*sdss_r"),
    ],
)
def test_read_image__refuses(tmp_path, given, options, message):
    path = write(tmp_path / "a.fits", **{"BUNIT": "Jy", "extra": [("BAD", (2, 3), 1.0)], **given})
    with pytest.raises(InputError, match=message):
        read_image(Image(path, "sdss_r", **options))


def test_read_image__refuses_what_is_no_image(tmp_path):
    with pytest.raises(InputError, match=r"expected specphoto\.Image objects, found a str"):
        read_image("a.fits")
    with pytest.raises(InputError, match=r"filter 'sdss_q': .*no curve of that name"):
        read_image(Image(np.ones(SHAPE), "sdss_q", wcs=WCS, unit="Jy"))
    with pytest.raises(InputError, match=r"image in sdss_r: expected a celestial WCS beside"):
        read_image(Image(np.ones(SHAPE), "sdss_r", unit="Jy"))
    fits.PrimaryHDU().writeto(tmp_path / "empty.fits")
    with pytest.raises(InputError, match=r"empty\.fits: expected a 2-D image, found the HDUs PRIM"):
        read_image(Image(tmp_path / "empty.fits", "sdss_r"))


def test_parse_image__reads_one_line():
    image = parse_image("f.fits,band=sdss_r, psf=sdss_r,sky=0.1,zero_point=25,noise=WHT")
    assert (image.data, image.band, image.psf, image.sky) == ("f.fits", "sdss_r", "sdss_r", 0.1)
    assert (image.zero_point, image.noise, image.noise_kind) == (25.0, "WHT", "error")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.fits", r"expected the filter of the image, found none; add ,band=NAME"),
        ("a.fits,band=sdss_r,fwhm=2", r"each option once, out of band.*found 'fwhm=2'"),
        ("a.fits,band=sdss_r,sky", r"found 'sky'"),
        ("a.fits,band=sdss_r,band=sdss_g", r"found 'band=sdss_g'"),
    ],
)
def test_parse_image__refuses(text, message):
    with pytest.raises(InputError, match=message):
        parse_image(text)


def test_read_image__real_hst_image(realdata):
    found = read_image(Image(realdata / "muse_a478" / "a478hst-cutout.fits", "sdss_i",
                             noise="WHT", noise_kind="weight", psf="hst_acs_f814w"))  # fmt: skip
    assert found.frame.shape == (600, 600)
    assert found.factor == pytest.approx(0.2507987)
    assert found.about["unit"] == "COUNTS/S, PHOTFLAM 2.50799e-18"
    assert found.about["pixel_scale"] == pytest.approx(0.1, rel=1e-3)
    assert found.curve.pivot == load_filter("sdss_i").pivot
