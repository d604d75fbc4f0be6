"""The correction of pixels: emission lines, gaps, and what is unknown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from spectral_cases import (
    BANDS,
    COVERED,
    FACTOR,
    LIBRARY,
    WAVE,
    P,
    X,
    Z,
    pixels,
    reference,
    toy_library,
    truth,
)

from specphoto.photometry.filters import load_filters
from specphoto.photometry.synthetic import photon_weights
from specphoto.spectral import legendre
from specphoto.spectral.pixel import Pixels, correct_pixels
from specphoto.spectral.template_error import TemplateError

GRI = [BANDS.index(b) for b in COVERED]
L = legendre.basis(X, 3)


@pytest.fixture(scope="module")
def ref():
    return reference()


def factor_of(result):
    return result.coef @ legendre.basis(X, result.coef.shape[1] - 1)


# --- the whole correction ------------------------------------------------------------------


def test_correct_pixels__recovers_the_factor(ref):
    result = correct_pixels(pixels(200, sn=30.0, photo_error=0.01), ref)
    wrong = factor_of(result) / P - 1.0
    assert np.median(np.abs(wrong)) < 0.008
    assert abs(wrong.mean()) < 0.003
    np.testing.assert_array_equal(result.n_band, len(BANDS))
    assert (result.best >= 0).all()


def test_correct_pixels__perfect_data_of_a_library_model_give_the_model_and_the_factor():
    # without z: the cube ends inside it, and its mean over the rest is another by 0.8%
    bands = ("sdss_u", *COVERED, "2mass_j")
    shared = reference(bands)
    data = pixels(10, sn=1e5, photo_error=1e-5, bands=bands)
    index, spectra, _ = truth(10, bands=bands)
    np.testing.assert_array_equal(correct_pixels(data, shared).best, index)
    exact = reference(
        bands, model_error=1e-4, template_error=TemplateError((5000.0,), (1e-4,), 0.3)
    )
    result = correct_pixels(data, exact)
    np.testing.assert_allclose(result.model, spectra, rtol=1e-3)
    np.testing.assert_allclose(factor_of(result), np.tile(P, (10, 1)), rtol=1e-3)
    np.testing.assert_allclose(result.closure_after[:, 1:4], 0.0, atol=1e-3)
    raw, true = ((f @ shared.band_weight)[:, 1:4] for f in (spectra / P, spectra))
    np.testing.assert_allclose(
        result.closure_before[:, 1:4], -2.5 * np.log10(raw / true), atol=1e-3
    )


@pytest.mark.parametrize("level", [1e-9, 1e-3, 1e5])
def test_correct_pixels__does_not_depend_on_how_bright_pixels_are(ref, level):
    plain = correct_pixels(pixels(20), ref)
    result = correct_pixels(pixels(20, level=level), ref)
    np.testing.assert_allclose(result.coef, plain.coef, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(result.cov, plain.cov, rtol=1e-4, atol=1e-10)
    np.testing.assert_allclose(result.model, plain.model * level, rtol=1e-6)


@pytest.mark.parametrize("order", range(6))
def test_correct_pixels__any_order(order):
    data = pixels(30, sn=50.0, factor=np.full(WAVE.size, 1.2), photo_error=0.01)
    result = correct_pixels(data, reference(order=order))
    assert result.coef.shape == (30, order + 1)
    assert result.cov.shape == (30, order + 1, order + 1)
    assert np.median(np.abs(factor_of(result) / 1.2 - 1.0)) < 0.012


@pytest.mark.parametrize("sn", [100.0, 10.0, 3.0])
def test_correct_pixels__the_error_is_that_of_the_factor(ref, sn):
    # conservative by what models that do hold the truth need not: 3% of template error
    result = correct_pixels(pixels(300, sn=sn, photo_error=0.05), replace(ref, floor=0 * ref.floor))
    err = legendre.evaluate_err(np.moveaxis(result.cov, 0, -1), X).T
    pull = ((factor_of(result) - P) / err)[:, ::60]
    assert 0.6 < np.std(pull) < 1.2
    assert 0.6 < np.percentile(np.abs(pull), 68) < 1.2


def test_correct_pixels__closes_in_covered_bands(ref):
    # truths that no model of the library holds: a bend of 10% in the middle of the cube
    data = pixels(150, sn=100.0, photo_error=0.02)
    bend = 1.0 + 0.1 * np.exp(-0.5 * ((WAVE - 6200.0) / 900.0) ** 2)
    weights, _ = photon_weights(WAVE, load_filters(list(BANDS)))
    _, true, _ = truth(150)
    photo = data.photo_flux * np.where(
        ref.share > 0.5,
        (true * bend) @ weights / np.where(ref.share > 0.5, true @ weights, 1.0),
        1.0,
    )
    data = data._replace(photo_flux=photo, flux=data.flux * bend)
    result, single = correct_pixels(data, ref), correct_pixels(data, reference(method="best"))
    held = np.sqrt(np.mean(result.closure_after[:, GRI] ** 2))
    assert held < min(0.8 * np.sqrt(np.mean(single.closure_after[:, GRI] ** 2)), 1.0857 * 0.025)
    assert np.isnan(result.closure_after[:, BANDS.index("2mass_j")]).all()
    wrong = [np.abs(factor_of(r) / P - 1.0).mean() for r in (result, single)]
    assert wrong[0] < 0.8 * wrong[1]


def test_correct_pixels__a_band_held_out_judges_the_factor():
    data = pixels(150, sn=50.0, photo_error=0.02)
    result = correct_pixels(data, reference(holdout=True))
    assert np.isnan(np.delete(result.closure_holdout, [*GRI, BANDS.index("sdss_z")], axis=1)).all()
    held, after = (np.nanstd(a[:, GRI]) for a in (result.closure_holdout, result.closure_after))
    assert held > 1.1 * after
    assert held < 0.05
    # it is blind to the image that it judges
    other = data._replace(photo_flux=data.photo_flux.copy())
    r = BANDS.index("sdss_r")
    other.photo_flux[:, r] *= 1.1
    moved = correct_pixels(other, reference(holdout=True))
    change = moved.closure_holdout[:, r] - result.closure_holdout[:, r]
    np.testing.assert_allclose(change, 2.5 * np.log10(1.1), atol=1e-6)
    assert np.isnan(correct_pixels(data, reference()).closure_holdout).all()


def test_correct_pixels__doubt_is_flagged(ref):
    data = pixels(40, sn=30.0)
    photo, flux = data.photo_flux.copy(), data.flux.copy()
    photo[10:20, BANDS.index("galex_nuv")] *= 20.0  # what no model has
    broad = np.exp(-0.5 * ((WAVE - 6760.0) / 250.0) ** 2)  # a broad line
    flux[20:30] *= 1.0 + 0.8 * broad
    photo[30:] *= np.where(np.isin(BANDS, ["sdss_g"]), 3.0, 1.0)
    result = correct_pixels(data._replace(photo_flux=photo, flux=flux), ref)
    flag = result.flag.astype(int)
    assert (flag[:10] == 0).mean() >= 0.9
    assert (flag[10:20] & 1).mean() > 0.8
    assert ((flag[20:30] & 2) > 0).all()
    assert ((flag[30:] & 5) > 0).all()


def test_correct_pixels__the_factor_moves_with_the_photometry_as_stated(ref):
    data = pixels(400, sn=50.0, photo_error=0.02)
    _, _, photometry = truth(400)
    result = correct_pixels(data, ref)
    noise = data.photo_flux - photometry
    # the covariance of coefficients and noise over pixels, both in units of the noise
    found = np.einsum("pk,pb->kb", result.coef - FACTOR, noise / data.photo_err) / 400
    stated = (result.photo_cov / data.photo_err[:, None]).mean(axis=0)
    error = result.coef.std(axis=0)[:, None] / np.sqrt(400)
    assert np.abs(stated).max() > 5 * error.min()
    assert (np.abs(found - stated) < 4 * error).all()


@pytest.mark.parametrize("width", [30.0, 100.0, 500.0])
@pytest.mark.parametrize("redshift", [0.03, 0.05])
def test_correct_pixels__emission_lines_do_not_raise_the_factor(width, redshift):
    # H alpha of this equivalent width: r rises by 3, 9 and 45%. At z = 0.05 it falls into the
    # telluric B band.
    centre, sigma = 6564.61 * (1 + redshift), 3.5
    line = np.exp(-0.5 * ((WAVE - centre) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    _, spectra, photometry = truth(40, redshift=redshift)
    shared = reference(redshift=redshift)
    continuum = spectra[:, np.argmin(np.abs(WAVE - centre))]
    emission = width * (1 + redshift) * continuum[:, None] * line
    true = spectra + emission
    in_band = photometry + emission @ shared.band_weight
    err = 0.03 * np.ones_like(true)
    rng = np.random.default_rng(5)
    data = Pixels(
        in_band * (1 + 0.01 * rng.normal(size=in_band.shape)),
        0.01 * in_band,
        true / P + err * rng.normal(size=err.shape),
        err,
        np.zeros(err.shape, bool),
    )
    with_lines = factor_of(correct_pixels(data, shared)) / P
    without = data._replace(
        photo_flux=data.photo_flux - emission @ shared.band_weight, flux=data.flux - emission / P
    )
    bare = factor_of(correct_pixels(without, shared)) / P
    assert abs(np.median(with_lines / bare) - 1.0) < 0.003
    assert abs(with_lines.mean() - 1.0) < 0.008
    # the factor is smooth: the equivalent width in the corrected spectrum is that of the true one
    near = np.abs(WAVE - centre) < 20.0
    step = np.gradient(WAVE)[near]
    corrected = (true / P * (with_lines * P))[:, near]
    level = (spectra * with_lines)[:, near]
    found = np.sum((corrected / level - 1.0) * step, axis=1) / (1 + redshift)
    np.testing.assert_allclose(found, np.sum((true / spectra - 1.0)[:, near] * step, axis=1)
                               / (1 + redshift), rtol=0.01)  # fmt: skip
    assert np.median(found) == pytest.approx(width, rel=0.1)


def test_correct_pixels__missing_bands_cost_weight_and_nothing_else(ref):
    data = pixels(30, sn=30.0)
    rng = np.random.default_rng(9)
    gone = rng.random(data.photo_flux.shape) < 0.3
    gone[:, BANDS.index("sdss_i")] = False
    flux, err = data.photo_flux.copy(), data.photo_err.copy()
    flux[gone] = np.nan
    err[gone & (rng.random(gone.shape) < 0.5)] = np.nan
    result = correct_pixels(data._replace(photo_flux=flux, photo_err=err), ref)
    np.testing.assert_array_equal(result.n_band, (~gone).sum(axis=1))
    assert np.isfinite(result.coef).all()
    assert np.median(np.abs(factor_of(result) / P - 1.0)) < 0.03
    np.testing.assert_array_equal(np.isnan(result.closure_after[:, GRI]), gone[:, GRI])


def test_correct_pixels__negative_bands_are_data(ref):
    data = pixels(10)
    flux = data.photo_flux.copy()
    flux[:, 0] = -0.5 * data.photo_err[:, 0]
    result = correct_pixels(data._replace(photo_flux=flux), ref)
    np.testing.assert_array_equal(result.n_band, len(BANDS))
    assert np.isfinite(result.chi2).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e9, 1e9])
def test_correct_pixels__does_not_read_what_is_masked(ref, value):
    data = pixels(8, sn=40.0)
    data.bad[:, 300:340] = True
    data.bad[:, ::17] = True
    plain = correct_pixels(data, ref)
    dirty = data._replace(flux=np.where(data.bad, value, data.flux),
                          err=np.where(data.bad, value, data.err))  # fmt: skip
    result = correct_pixels(dirty, ref)
    for name in result._fields:
        np.testing.assert_array_equal(getattr(result, name), getattr(plain, name))


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, -1.0])
def test_correct_pixels__an_error_that_is_none_masks_its_channel(ref, value):
    data = pixels(5, sn=40.0)
    bad = data.bad.copy()
    bad[:, 100:110] = True
    plain = correct_pixels(data._replace(bad=bad), ref)
    err = data.err.copy()
    err[:, 100:110] = value
    result = correct_pixels(data._replace(err=err), ref)
    np.testing.assert_allclose(result.coef, plain.coef, rtol=1e-12)


def test_correct_pixels__nothing_is_unknown_where_the_input_is_good(ref):
    result = correct_pixels(pixels(60, sn=5.0), ref)
    covered = ref.covered
    for name in ("coef", "cov", "model", "chi2", "n_eff", "best"):
        assert np.isfinite(getattr(result, name)).all(), name
    assert np.isfinite(result.closure_after[:, covered]).all()


def test_correct_pixels__no_information_is_unknown(ref):
    data = pixels(6, sn=20.0)
    rng = np.random.default_rng(3)
    flux, bad = data.flux.copy(), data.bad.copy()
    photo = data.photo_flux.copy()
    flux[0] = data.err[0] * rng.normal(size=WAVE.size)  # noise
    bad[1] = True  # nothing observed
    flux[2] = 0.0  # dead
    photo[3] = np.nan  # no photometry
    photo[4] = -np.abs(photo[4])  # photometry of nothing
    result = correct_pixels(data._replace(flux=flux, bad=bad, photo_flux=photo), ref)
    unknown = np.arange(6) < 5
    for name in ("coef", "cov", "model", "closure_before", "closure_after"):
        assert np.isnan(getattr(result, name)[unknown]).all(), name
        assert np.isfinite(getattr(result, name)[5]).any(), name
    np.testing.assert_array_equal(result.best < 0, [False, False, False, True, True, False])


@pytest.mark.parametrize("level", [-5.0, -0.5])
def test_correct_pixels__images_that_contradict_the_spectrum_leave_no_factor(ref, level):
    data = pixels(20, sn=3.0)
    flux = data.photo_flux.copy()
    flux[::2, BANDS.index("sdss_g")] *= level
    result = correct_pixels(data._replace(photo_flux=flux), ref)
    factor = result.coef @ ref.L
    assert (factor[np.isfinite(factor[:, 0])] > 0).all()
    assert np.isnan(factor[::2]).all()
    assert np.isnan(result.cov[::2]).all()
    assert np.isfinite(factor[1::2]).all()


def test_correct_pixels__one_band_leaves_the_colour_to_the_library(ref):
    data = pixels(90, photo_error=0.01)
    flux = data.photo_flux.copy()
    flux[:30] = np.nan
    flux[30:60, np.arange(len(BANDS)) != BANDS.index("sdss_r")] = np.nan
    result = correct_pixels(data._replace(photo_flux=flux), ref)
    np.testing.assert_array_equal(result.n_band, np.repeat([0, 1, len(BANDS)], 30))
    np.testing.assert_array_equal(result.best < 0, np.arange(90) < 30)
    assert np.isnan(result.coef[:30]).all()
    # the level is that of the image; what is not known of the tilt is in the error
    known = np.isfinite(result.coef[30:60, 0])
    assert known.mean() > 0.9
    assert np.nanmedian(np.abs(result.closure_after[30:60, BANDS.index("sdss_r")])) < 0.01
    level, tilt = (np.sqrt(result.cov[:, k, k]) for k in (0, 1))
    assert np.nanmedian(tilt[30:60]) > 5.0 * np.median(tilt[60:])
    pull = ((result.coef[30:60, 1] - FACTOR[1]) / tilt[30:60])[known]
    assert np.abs(pull).max() < 3.5
    assert np.std(pull) < 1.3
    # the order says it: no tilt from a band, all of the factor from seven
    assert (level[30:60][known] < 0.1).all()
    np.testing.assert_array_equal(result.order[:30], -1)
    assert (result.order[30:60] == 0).mean() > 0.8
    np.testing.assert_array_equal(result.order[60:], 3)


def test_correct_pixels__no_band_in_the_cube_leaves_the_shape_to_the_models(ref):
    data = pixels(60, sn=50.0)
    flux = data.photo_flux.copy()
    inside = [BANDS.index(b) for b in ("sdss_g", "sdss_r", "sdss_i", "sdss_z")]
    flux[:, inside] = np.nan
    result = correct_pixels(data._replace(photo_flux=flux), ref)
    whole = correct_pixels(data, ref)
    assert np.isfinite(result.coef).all()
    error, usual = (np.sqrt(r.cov[:, 0, 0]) for r in (result, whole))
    assert np.median(error / usual) > 2.0
    pull = (result.coef[:, 0] - FACTOR[0]) / error
    assert np.std(pull) < 1.3


def test_correct_pixels__where_no_model_fits_the_error_grows(ref, monkeypatch):
    # u and J half as bright again as any model of such a g, r, i has them
    data = pixels(60, sn=30.0)
    photo = data.photo_flux.copy()
    photo[:, [BANDS.index("sdss_u"), BANDS.index("2mass_j")]] *= 1.5
    data = data._replace(photo_flux=photo)

    def pull(result):
        return np.sqrt(np.nanmean((result.coef - FACTOR) ** 2
                                  / np.einsum("pkk->pk", result.cov)))  # fmt: skip

    result = correct_pixels(data, ref)
    assert ((result.flag.astype(int) & 1) > 0).mean() > 0.9
    assert np.nanmedian(np.abs(factor_of(result) / P - 1.0)) < 0.07
    assert pull(result) < 1.7
    monkeypatch.setattr("specphoto.spectral.pixel._TURNS", 0)
    assert pull(correct_pixels(data, ref)) > 5.0


def test_correct_pixels__what_the_sky_leaves_does_not_lead_the_factor(ref):
    # residuals of 5577 and of the OH bands many times the stated errors, and a telluric trough
    data = pixels(60, sn=20.0)
    rng = np.random.default_rng(8)
    oh = (WAVE > 8900.0) * rng.normal(size=(60, WAVE.size)) * 6.0
    line = 40.0 * np.exp(-0.5 * ((WAVE - 5578.9) / 2.0) ** 2) * rng.choice([-1, 1], (60, 1))
    trough = 1.0 - 0.3 * (np.abs(WAVE - 7620.0) < 30.0)
    flux = data.flux * trough + data.err * (oh + line)
    result = correct_pixels(data._replace(flux=flux), ref)
    plain = correct_pixels(data, ref)
    assert np.isfinite(result.coef).all()
    wrong, usual = (np.median(np.abs(factor_of(r) / P - 1.0)) for r in (result, plain))
    assert wrong < usual + 0.005
    pull = (result.coef - FACTOR) / np.sqrt(np.einsum("pkk->pk", result.cov))
    assert np.sqrt(np.mean(pull**2)) < 1.2


@pytest.mark.parametrize("kind", ["quasar", "cool star"])
def test_correct_pixels__light_of_another_kind_is_flagged_or_right(ref, kind):
    # broad lines on a power law; bands of molecules: no model of stars of a galaxy has either
    shape = np.exp(0.5 * np.log(5500.0 / WAVE))
    if kind == "quasar":
        for centre, size in ((4862.7, 0.6), (6564.6, 2.5)):
            at = centre * (1 + Z)
            shape = shape * (1.0 + size * np.exp(-0.5 * ((WAVE - at) / (0.012 * at)) ** 2))
    else:
        shape = np.exp(4.0 * np.log(WAVE / 5500.0))
        for begin, end in ((4950, 5200), (5450, 5650), (5850, 6150), (6650, 7050), (7590, 7900)):
            rest = WAVE / (1 + Z)
            shape = shape * (1.0 - 0.6 * ((rest > begin) & (rest < end)))
    photometry = np.full((20, len(BANDS)), np.nan)
    weights, share = photon_weights(WAVE, load_filters(list(BANDS)))
    inside = share > 0.98
    photometry[:, inside] = (shape @ weights)[inside]
    rng = np.random.default_rng(1)
    photometry *= 1.0 + 0.02 * rng.normal(size=photometry.shape)
    err = 0.03 * np.ones((20, WAVE.size))
    flux = shape / P + err * rng.normal(size=err.shape)
    data = Pixels(photometry, 0.02 * photometry, flux, err, np.zeros(err.shape, bool))
    result = correct_pixels(data, ref)
    wrong = np.sqrt(np.mean((factor_of(result) / P - 1.0) ** 2, axis=1))
    trusted = result.flag == 0
    assert (wrong[trusted & np.isfinite(wrong)] < 0.05).all()
    assert ((result.flag.astype(int) & 2) > 0).mean() > 0.9


def test_correct_pixels__light_that_the_spectrum_lacks_in_a_band_is_an_error(ref):
    # residuals of the sky take most of the light off the blue end, and no cubic follows them
    data = pixels(40, sn=50.0)
    end = 1.0 - 0.9 * np.exp(-(((WAVE - WAVE[0]) / 120.0) ** 2))
    result = correct_pixels(data._replace(flux=data.flux * end), ref)
    red = WAVE > 4200.0
    assert np.median(np.abs(factor_of(result) / P - 1.0)[:, red]) < 0.02


def test_correct_pixels__a_band_of_infinite_error_is_no_band(ref):
    data = pixels(4)
    missing, infinite = data.photo_flux.copy(), data.photo_err.copy()
    missing[:, BANDS.index("sdss_r")] = np.nan
    infinite[:, BANDS.index("sdss_r")] = np.inf
    plain = correct_pixels(data._replace(photo_flux=missing), ref)
    result = correct_pixels(data._replace(photo_err=infinite), ref)
    np.testing.assert_allclose(result.coef, plain.coef, rtol=1e-12)


def test_correct_pixels__light_of_a_band_beyond_the_cube_is_the_models():
    # a cube that ends inside z, with 1.6% of it beyond; the images see all of it
    bands = ("sdss_u", "sdss_g", "sdss_r", "sdss_i", "sdss_z", "2mass_j")
    z, keep = bands.index("sdss_z"), WAVE < 10_320.0
    data = pixels(60, sn=500.0, photo_error=1e-4, bands=bands)
    data = data._replace(flux=data.flux[:, keep], err=data.err[:, keep], bad=data.bad[:, keep])
    shared = reference(bands, wave=WAVE[keep])
    assert 0.98 < photon_weights(WAVE[keep], load_filters(bands))[1][z] < 0.99
    assert shared.covered[z]
    assert np.ptp(shared.beyond[:, z]) > 0.005
    np.testing.assert_array_equal(np.delete(shared.beyond, z, axis=1), 1.0)

    def closure_in_z(shared):
        return np.sqrt(np.mean(correct_pixels(data, shared).closure_after[:, z] ** 2))

    assert closure_in_z(shared) < 5e-4
    assert closure_in_z(replace(shared, beyond=np.ones_like(shared.beyond))) > 2e-3


def test_correct_pixels__blocks_do_not_matter(ref, monkeypatch):
    data = pixels(40)
    plain = correct_pixels(data, ref)
    monkeypatch.setattr("specphoto.spectral.pixel._PIXELS_AT_ONCE", 7)
    monkeypatch.setattr("specphoto.spectral.sedfit._PIXELS_AT_ONCE", 5)
    result = correct_pixels(data, ref)
    for name in result._fields:
        np.testing.assert_allclose(getattr(result, name), getattr(plain, name), rtol=1e-7,
                                   atol=1e-9)  # fmt: skip


def test_correct_pixels__a_library_that_ends_inside_the_cube():
    short = toy_library()
    keep = short.wave < 9000.0
    cut = type(short)(short.wave[keep], short.flux[:, keep], short.fwhm[keep])
    shared = reference(("sdss_u", "sdss_g", "sdss_r", "sdss_i"), library=cut)
    data = pixels(10, sn=50.0, bands=("sdss_u", "sdss_g", "sdss_r", "sdss_i"))
    result = correct_pixels(data, shared)
    known = WAVE < 9000.0 * (1 + Z) - 20.0
    assert np.isfinite(result.model[:, known]).all()
    assert np.median(np.abs(factor_of(result) / P - 1.0)[:, known]) < 0.02
    assert LIBRARY.n_model == cut.n_model
