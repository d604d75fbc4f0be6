from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from astropy import units as u
from dust_extinction import parameter_averages
from dust_extinction.shapes import FM90

from specphoto.errors import InputError
from specphoto.photometry.extinction import (
    SFD_SCALE,
    band_transmission,
    effective_ebv,
    extinction_curve,
    transmission,
)
from specphoto.photometry.filters import Filter, cwave_filters, load_filters

LAWS = ["G23", "F99", "CCM89", "O94", "pixedfit", "pixedfit-ifs"]


@pytest.mark.parametrize("law", ["G23", "F99", "CCM89", "O94"])
@pytest.mark.parametrize("rv", [3.1, 4.0])
def test_transmission__is_the_published_law_inside_its_range(law, rv):
    wave = np.geomspace(1200.0, 30000.0, 300)
    expected = getattr(parameter_averages, law)(Rv=rv).extinguish(wave * u.AA, Ebv=0.3)
    np.testing.assert_allclose(transmission(wave, 0.3, law=law, rv=rv), expected, rtol=1e-12)


def test_extinction_curve__threads_do_not_share_their_numbers():
    # the same number of wavelengths, so that one thread's numbers would fit into the other's
    waves = [np.geomspace(lo, 10.0 * lo, 800) for lo in (1000.0, 3000.0, 9000.0, 27000.0)]
    expected = [extinction_curve(wave) for wave in waves]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(extinction_curve, waves * 10))
    np.testing.assert_array_equal(found, expected * 10)


@pytest.mark.parametrize("law", LAWS)
def test_transmission__is_finite_and_bounded_everywhere(law):
    wave = np.geomspace(5.0, 1e8, 4000)
    through = transmission(wave, 0.5, law=law)
    assert np.all((through >= 0) & (through <= 1))
    assert through[-1] > 0.999
    assert np.all(np.isfinite(extinction_curve(wave, law=law)))


@pytest.mark.parametrize(("law", "edge"), [("G23", 32e4), ("F99", 1e4 / 0.3), ("CCM89", 1e4 / 0.3)])
def test_extinction_curve__goes_on_smoothly_past_the_red_end(law, edge):
    below, above, far = extinction_curve([edge * (1 - 1e-7), edge * (1 + 1e-7), 2 * edge], law=law)
    assert above == pytest.approx(below, rel=1e-5)
    assert far == pytest.approx(above * 2**-1.61, rel=1e-5)


def test_extinction_curve__holds_its_last_value_past_the_blue_end():
    assert extinction_curve(100.0) == extinction_curve(912.0)


def test_transmission__keeps_the_shape():
    assert transmission(5500.0, 0.1).shape == ()
    assert transmission(np.full((2, 3), 5500.0), 0.1).shape == (2, 3)
    np.testing.assert_array_equal(transmission([3000.0, 9000.0], 0.0), 1.0)


def test_extinction_curve__pixedfit_is_ccm89_in_the_optical():
    wave = np.linspace(3031.0, 9090.0, 200)
    expected = 3.1 * parameter_averages.CCM89(Rv=3.1)(wave * u.AA)
    for law in ("pixedfit", "pixedfit-ifs"):
        np.testing.assert_allclose(extinction_curve(wave, law=law), expected, rtol=1e-10)


def test_extinction_curve__pixedfit_is_the_lmc_in_the_ultraviolet():
    wave = np.linspace(1250.0, 1690.0, 100)
    lmc = FM90(C1=-0.69, C2=0.89, C3=2.55, C4=0.50, xo=4.608, gamma=0.994)
    curve = extinction_curve(wave, law="pixedfit")
    # the far-ultraviolet rise has its coefficients to three digits there
    np.testing.assert_allclose(curve, 3.1 + lmc(wave * u.AA), rtol=1e-3)


def test_extinction_curve__pixedfit_at_single_wavelengths():
    # worked by hand from the formulas: 1/3.1 micron-1 (optical), 4 and 8 micron-1 (ultraviolet)
    x = np.array([0.5, 4.0, 8.0])
    infrared = 1.2524 * 0.5**1.61
    near = 2.41 + 0.89 * 4 + 3.55 / ((4 - 4.608**2 / 4) ** 2 + 0.994**2)
    far = 2.41 + 0.89 * 8 + 2.55 / ((8 - 4.608**2 / 8) ** 2 + 0.994**2)
    far += 0.5 * (0.539 * 2.1**2 + 0.0564 * 2.1**3)
    np.testing.assert_allclose(
        extinction_curve(1e4 / x, law="pixedfit"), [infrared, near, far], rtol=1e-12
    )


def test_transmission__undoes_pixedfits_image_correction_at_cw():
    names = ["galex_fuv", "sdss_r", "wise_w2"]
    through = transmission(cwave_filters(names), 0.032, law="pixedfit")
    lmc = FM90(C1=-0.69, C2=0.89, C3=2.55, C4=0.50, xo=4.608, gamma=0.994)
    k = [
        3.1 + lmc(1516.0 * u.AA),
        3.1 * parameter_averages.CCM89(Rv=3.1)(6166.0 * u.AA),
        1.2524 * (1 / 4.6028) ** 1.61,
    ]
    np.testing.assert_allclose(through, 10 ** (-0.4 * 0.032 * np.array(k)), rtol=1e-4)


def test_effective_ebv__sfd_is_rescaled():
    assert effective_ebv(0.1, "SFD") == pytest.approx(0.1 * SFD_SCALE)
    assert effective_ebv(0.1, "SF11") == 0.1
    with pytest.raises(InputError, match="'SFD' or 'SF11'"):
        effective_ebv(0.1, "Planck")  # type: ignore[arg-type]


def test_band_transmission__narrow_band_is_the_transmission_at_its_wavelength():
    narrow = Filter("narrow", np.array([5000.0, 5000.5, 5001.0]), np.array([0.0, 1.0, 0.0]))
    assert band_transmission([narrow], 0.3)[0] == pytest.approx(
        float(transmission(5000.5, 0.3)), rel=1e-6
    )


def test_band_transmission__is_the_ratio_of_the_integrals():
    curve = load_filters(["galex_nuv"])[0]
    wave = np.linspace(*curve.range, 40001)
    flux = np.exp((wave - 2000) / 300)
    weight = np.interp(wave, curve.wave, curve.response) * wave
    through = transmission(wave, 0.4)
    for f, spectrum in ((1.0, None), (flux, (wave, flux))):
        expected = np.trapezoid(f * weight * through, wave) / np.trapezoid(f * weight, wave)
        found = band_transmission([curve], 0.4, spectrum=spectrum)[0]
        assert found == pytest.approx(expected, rel=1e-5)


def test_band_transmission__a_red_source_loses_less_than_a_blue_one():
    wave = np.geomspace(900.0, 60000.0, 3000)
    bands = load_filters(["galex_nuv", "sdss_u", "sdss_g", "wise_w1"])
    red = band_transmission(bands, 0.3, spectrum=(wave, wave**3))
    blue = band_transmission(bands, 0.3, spectrum=(wave, wave**-3))
    assert np.all(red[1:] > blue[1:])


def test_band_transmission__spectrum_must_cover_the_band():
    with pytest.raises(InputError, match=r"'sdss_u'.*3800 to 9000"):
        band_transmission(load_filters(["sdss_u"]), 0.1, spectrum=([3800.0, 9000.0], [1.0, 1.0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"law": "F98"}, r"one of G23, F99.*'F98'"),
        ({"rv": 20.0}, r"'G23'.*R_V between 2\.3 and 5\.6.*20"),
        ({"rv": 4.0, "law": "pixedfit"}, "'pixedfit'.*R_V = 3.1"),
    ],
)
def test_transmission__bad_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        transmission([5000.0], 0.1, **options)


def test_transmission__bad_numbers_are_refused():
    with pytest.raises(InputError, match="finite"):
        transmission([5000.0], np.nan)
    with pytest.raises(InputError, match="positive"):
        transmission([0.0, 5000.0], 0.1)


def test_photometry__needs_neither_dask_nor_xarray():
    code = (
        "import sys, specphoto.photometry.extinction, specphoto.photometry.filters;"
        "sys.exit(bool({'dask', 'xarray'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
