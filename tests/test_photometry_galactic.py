"""One extinction for both data sets: what each source did is undone, the common one applied."""

from __future__ import annotations

import numpy as np
import pytest
from astropy import units as u
from dust_extinction.parameter_averages import G23

from specphoto.errors import InputError
from specphoto.photometry.extinction import transmission
from specphoto.photometry.filters import cwave_filters, load_filters
from specphoto.photometry.galactic import (
    Extinction,
    band_factors,
    channel_factors,
    common_extinction,
)

WAVE = np.linspace(3700.0, 10300.0, 50)
BANDS = ["galex_nuv", "sdss_g", "sdss_r", "wise_w1"]


def magnitudes(wave, ebv):
    """Extinction in magnitudes by the law's own package."""
    return 3.1 * ebv * G23(Rv=3.1)(np.asarray(wave) * u.AA)


def test_common_extinction__the_given_one_goes_first():
    assert common_extinction({"ebv": 0.1, "ebv_scale": "SF11"}, {"ebv": 0.1}, 0.03).ebv == 0.03
    assert common_extinction({"ebv": 0.1, "ebv_scale": "SF11"}, {}, 0.0).ebv == 0.0


def test_common_extinction__the_cubes_header_then_the_images():
    assert common_extinction({"ebv": 0.1, "ebv_scale": "SFD"}, {}, None).ebv == pytest.approx(0.086)
    assert common_extinction({}, {"ebv": 0.05, "ebv_scale": "SF11"}, None).ebv == 0.05
    assert common_extinction({"ebv": None}, {}, None).ebv is None


def test_common_extinction__agreeing_headers_are_silent():
    # MaNGA's SFD and piXedfit's SF11 value of one line of sight
    cube, photometry = {"ebv": 0.05, "ebv_scale": "SFD"}, {"ebv": 0.043, "ebv_scale": "SF11"}
    assert common_extinction(cube, photometry, None).ebv == pytest.approx(0.043)


def test_common_extinction__disagreeing_headers_are_told_of_in_magnitudes():
    cube, photometry = {"ebv": 0.05, "ebv_scale": "SF11"}, {"ebv": 0.03, "ebv_scale": "SF11"}
    difference = magnitudes(4702.0, 0.02)
    message = rf"differ by \+{difference:.3f} mag of extinction in g \(0.0500 against 0.0300"
    with pytest.warns(UserWarning, match=message + ".*that of the cube is used for both"):
        assert common_extinction(cube, photometry, None).ebv == 0.05
    with pytest.warns(UserWarning, match="the given value is used for both"):
        assert common_extinction(cube, photometry, 0.04).ebv == 0.04


def test_channel_factors__uncorrected_cube():
    factor = channel_factors({"ebv_corrected": False}, WAVE, Extinction(0.1))
    np.testing.assert_allclose(factor, 10 ** (0.4 * magnitudes(WAVE, 0.1)), rtol=1e-6)
    np.testing.assert_array_equal(channel_factors({}, WAVE, Extinction(None)), 1.0)
    np.testing.assert_allclose(channel_factors({}, WAVE, Extinction(0.0)), 1.0)


def test_channel_factors__corrected_cube_is_brought_back_first():
    attrs = {"ebv_corrected": True, "ebv": 0.08, "ebv_law": "CCM89"}
    sky = 1.0 + WAVE / 5000.0
    seen = sky * 10 ** (-0.4 * magnitudes(WAVE, 0.1))
    delivered = seen / transmission(WAVE, 0.08, law="CCM89")
    np.testing.assert_allclose(
        delivered * channel_factors(attrs, WAVE, Extinction(0.1)), sky, rtol=1e-6
    )


@pytest.mark.parametrize("attrs", [{"ebv": 0.1}, {"ebv_law": "CCM89"}, {}])
def test_channel_factors__a_correction_that_is_not_stated_stands(attrs):
    np.testing.assert_array_equal(
        channel_factors({"ebv_corrected": True, **attrs}, WAVE, Extinction(0.1)), 1.0
    )


def integrated(name, ebv):
    """Band-integrated extinction factor of a flat spectrum, by plain sums."""
    curve = load_filters([name])[0]
    wave = np.linspace(curve.wave[0], curve.wave[-1], 20_001)
    weight = np.interp(wave, curve.wave, curve.response) * wave
    return (weight * 10 ** (-0.4 * magnitudes(wave, ebv))).sum() / weight.sum()


def test_band_factors__piXedfits_correction_is_undone_and_redone_in_the_band():  # noqa: N802
    attrs = {"ebv_corrected": True, "ebv": 0.12, "ebv_law": "pixedfit"}
    factor = band_factors(attrs, BANDS, Extinction(0.1))
    own = transmission(np.array(cwave_filters(BANDS)), 0.12, law="pixedfit")
    wanted = own / [integrated(name, 0.1) for name in BANDS]
    np.testing.assert_allclose(factor, wanted, rtol=1e-4)


def test_band_factors__uncorrected_and_unstated():
    uncorrected = band_factors({"ebv_corrected": False}, BANDS, Extinction(0.1))
    np.testing.assert_allclose(uncorrected, [1 / integrated(n, 0.1) for n in BANDS], rtol=1e-4)
    np.testing.assert_array_equal(band_factors({}, BANDS, Extinction(None)), 1.0)
    np.testing.assert_array_equal(
        band_factors({"ebv_corrected": True}, BANDS, Extinction(0.1)), 1.0
    )


def test_factors__one_dust_for_both():
    # a flat spectrum behind dust: cube and images, corrected each in its own way, agree
    ifs = {"ebv_corrected": False, "ebv": 0.1, "ebv_scale": "SFD"}
    photometry = {"ebv_corrected": True, "ebv": 0.086, "ebv_scale": "SF11", "ebv_law": "pixedfit"}
    dust = common_extinction(ifs, photometry, None)
    assert dust.law == "G23"
    ebv = dust.ebv
    bands = ["sdss_g", "sdss_r", "sdss_i"]
    seen = np.array([integrated(name, ebv) for name in bands])
    delivered = seen / transmission(np.array(cwave_filters(bands)), 0.086, law="pixedfit")
    np.testing.assert_allclose(delivered * band_factors(photometry, bands, dust), 1.0, rtol=1e-4)
    cube = 10 ** (-0.4 * magnitudes(WAVE, ebv))
    np.testing.assert_allclose(cube * channel_factors(ifs, WAVE, dust), 1.0, rtol=1e-6)


def test_common_extinction__either_is_brought_to_the_other():
    # the cube was not corrected, the images were by piXedfit with another E(B-V)
    ifs = {"ebv_corrected": False, "ebv": 0.05, "ebv_scale": "SF11"}
    photometry = {"ebv_corrected": True, "ebv": 0.03, "ebv_scale": "SF11", "ebv_law": "pixedfit"}
    with pytest.warns(UserWarning, match="that of the images is used for both"):
        to_images = common_extinction(ifs, photometry, "images", "pixedfit")
    assert to_images == Extinction(0.03, "pixedfit")
    # the images stay as they are, but for what the wavelength of a band is not the whole band
    np.testing.assert_allclose(band_factors(photometry, BANDS[1:], to_images), 1.0, atol=2e-3)
    law = transmission(WAVE, 0.03, law="pixedfit")
    np.testing.assert_allclose(channel_factors(ifs, WAVE, to_images), 1.0 / law, rtol=1e-12)
    with pytest.warns(UserWarning, match="that of the cube is used for both"):
        to_cube = common_extinction(ifs, photometry, "cube")
    assert to_cube == Extinction(0.05, "G23")
    # what the images were corrected too little for
    factor = band_factors(photometry, ["sdss_g"], to_cube)[0]
    own = transmission(np.array(cwave_filters(["sdss_g"])), 0.03, law="pixedfit")[0]
    assert factor == pytest.approx(own / integrated("sdss_g", 0.05), rel=1e-4)


def test_common_extinction__a_header_without_a_value():
    with pytest.raises(InputError, match=r"found 'images', which states none; give a number"):
        common_extinction({"ebv": 0.05}, {}, "images")
    with pytest.raises(InputError, match=r"ebv: .* found 'both'"):
        common_extinction({"ebv": 0.05}, {}, "both")
    with pytest.raises(InputError, match=r"extinction law: expected one of G23, F99"):
        common_extinction({"ebv": 0.05}, {}, None, "SMC")


def test_common_extinction__what_cannot_be_made_consistent_is_said(caplog):
    corrected, not_corrected = {"ebv_corrected": True}, {"ebv_corrected": False, "ebv": 0.05}
    common_extinction(not_corrected, corrected)
    assert "the images are corrected for a Galactic extinction that is not stated" in caplog.text
    caplog.clear()
    common_extinction({"ebv_corrected": False}, corrected)
    assert "only the images are corrected for Galactic extinction, and no E(B-V)" in caplog.text
    caplog.clear()
    common_extinction(not_corrected, {**not_corrected, "ebv_corrected": True, "ebv_law": "G23"})
    common_extinction(not_corrected, {})
    common_extinction(corrected, corrected)
    assert caplog.text == ""
