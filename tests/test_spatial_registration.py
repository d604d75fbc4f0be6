"""Registration: injected offsets come back, errors are true, and no information is said so."""

from __future__ import annotations

from dataclasses import replace

import dask
import matplotlib as mpl
import numpy as np
import pytest
import spatial_cases
from lazy import raise_if_computes
from matplotlib.figure import Figure
from scipy import ndimage
from spatial_cases import apply_one, hexagon, tan_wcs

import specphoto
from specphoto import plot, simulate
from specphoto.cube import wcs_string
from specphoto.errors import InputError
from specphoto.io.image_file import Image
from specphoto.spatial.comparison import Limits, Scene, look, quadratic
from specphoto.spatial.correlation import LagCorrelation, correlation_stencil
from specphoto.spatial.covariance import variance_ratio
from specphoto.spatial.geometry import PixelFrame, corners_on, geometry_of
from specphoto.spatial.inputs import frame_of, noise_of, resolution_of, sky_per_pixel
from specphoto.spatial.kernel import matching_kernel
from specphoto.spatial.match import match_spatial
from specphoto.spatial.operator import build_operator
from specphoto.spatial.psf import FWHM_PER_SIGMA, PSF
from specphoto.spatial.register import find_shift, register
from specphoto.spatial.registration import LARGEST_WIDTH, fit_band
from specphoto.spatial.shifts import (
    FEW_PIXELS,
    NO_BAND,
    NO_STRUCTURE,
    OK,
    STATUS,
    UNCERTAIN,
    BandFit,
    combine,
)  # fmt: skip

mpl.use("Agg")

APOTHEM = {19: 6.0, 37: 8.0, 127: 15.5}
SCALE, PEDESTAL = 0.9, 0.01


def galaxy(seed=3, *, disc=4.0, at=(0.0, 0.0), bulge=0.35):
    """Gaussians (flux, east, north, sigma, axis ratio, angle): disc, bulge, nucleus, knots."""
    rng = np.random.default_rng(seed)
    parts = [(1.0, *at, disc, 0.6, 0.7), (bulge, *at, disc / 3, 0.8, 0.3), (0.12, *at, 1.0, 1.0, 0)]
    for _ in range(12):
        radius, angle = disc * rng.uniform(0.3, 1.8), rng.uniform(0, 2 * np.pi)
        east, north = at[0] + radius * np.cos(angle), at[1] + 0.7 * radius * np.sin(angle)
        parts.append((0.02 * rng.uniform(0.3, 1.5), east, north, 0.4, 1.0, 0.0))
    return parts


def render(parts, wcs, shape, fwhm, *, moved=(0.0, 0.0), sub=3):
    """Flux per pixel of Gaussians seen with a Gaussian PSF, the positions off by ``moved``."""
    matrix = wcs.wcs.cd * 3600.0
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    phase = (np.arange(sub) - (sub - 1) / 2) / sub
    out = np.zeros(shape)
    for dy, dx in [(a, b) for a in phase for b in phase]:
        step = np.stack([x + dx + 1 - wcs.wcs.crpix[0], y + dy + 1 - wcs.wcs.crpix[1]])
        east, north = np.tensordot(matrix, step, axes=1)
        for flux, e, n, sigma, ratio, angle in parts:
            u, v = east - moved[0] - e, north - moved[1] - n
            c, s = np.cos(angle), np.sin(angle)
            a, b = (width**2 + (fwhm / FWHM_PER_SIGMA) ** 2 for width in (sigma, ratio * sigma))
            power = (u * c + v * s) ** 2 / a + (v * c - u * s) ** 2 / b
            out += flux / (2 * np.pi * np.sqrt(a * b)) * np.exp(-0.5 * power)
    return out / sub**2 * abs(np.linalg.det(matrix))


def scene(
    parts, *, offset=(0.0, 0.0), fibres=37, fwhm=(2.54, 6.4), true_fwhm=None, snr=50, image_snr=50,
    image_parts=None, correlation=1.92,
):  # fmt: skip
    """Noiseless cube and image; the cube's WCS has to move by ``offset`` (arcsec) to be right."""
    apothem = APOTHEM[fibres]
    n_in, n_out = 2 * int(apothem / 0.866 / 0.5) + 6, int(1.6 * apothem) + 24
    wcs_in, wcs_out = tan_wcs((n_in, n_in), 0.5), tan_wcs((n_out, n_out), 1.5, angle=15.0)
    moved = (-offset[0], -offset[1])
    flux = SCALE * render(parts, wcs_in, (n_in, n_in), true_fwhm or fwhm[0], moved=moved)
    image = render(image_parts or parts, wcs_out, (n_out, n_out), fwhm[1], sub=5)
    good = hexagon(wcs_in, (n_in, n_in), apothem) < 1
    level = np.median(flux[good])
    kernel = matching_kernel(PSF("gaussian", fwhm[0]), PSF("gaussian", fwhm[1]), 0.5)
    room = int((4.5 + 4.5 * LARGEST_WIDTH * fwhm[1]) / 0.5) + 4
    frames = PixelFrame(wcs_in, 0, 0, (n_in, n_in)), PixelFrame(wcs_out, 0, 0, (n_out, n_out))
    place = geometry_of(*frames, np.zeros([n + 2 * room for n in kernel.shape]))
    return Scene(
        flux=flux, variance=(level / snr) ** 2 * (0.5 + 0.5 * flux / level), good=good,
        foreground=np.zeros_like(good),
        image=image + PEDESTAL,
        error=np.hypot(image, np.median(image[image > 0.02 * image.max()])) / image_snr,
        region=image > 0.01 * image.max(),
        corner_x=place.corners[0], corner_y=place.corners[1], box=place.box,
        x=place.positions[0], y=place.positions[1], kernel=kernel,
        sky_in=sky_per_pixel(frames[0]), sky_out=sky_per_pixel(frames[1]), fwhm=fwhm[1],
        correlation=correlation_stencil(correlation, 3.3 * correlation),
        image_correlation=np.ones((1, 1)),
    )  # fmt: skip


def noisy(clean, seed, *, scale=1.92):
    """Draw noise: correlated as MaNGA's for the cube, independent for the images."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=clean.flux.shape)
    if scale:
        width = scale / np.sqrt(2.0)
        noise = ndimage.gaussian_filter(noise, width, mode="wrap", truncate=6) * width
        noise *= 2.0 * np.sqrt(np.pi)
    pixels = rng.normal(size=clean.image.shape) * clean.error
    flux = clean.flux + noise * np.sqrt(clean.variance)
    return replace(clean, flux=flux, image=clean.image + pixels)


# -- injected offsets


@pytest.mark.parametrize("offset", [(0.1, 0.0), (0.3, -0.4), (0.9, 1.2)])
@pytest.mark.parametrize(
    ("fibres", "fwhm", "disc", "snr"),
    [(127, 6.4, 4.0, 50), (127, 2.54, 4.0, 10), (37, 6.4, 3.0, 30), (19, 2.54, 2.5, 30)],
    ids=["127 to 6.4", "outskirts", "37 to 6.4", "19 at its own PSF"],
)
def test_fit_band__finds_the_offset(offset, fibres, fwhm, disc, snr):
    case = scene(galaxy(disc=disc), offset=offset, fibres=fibres, fwhm=(2.54, fwhm), snr=snr)
    found = fit_band(noisy(case, 1))
    assert STATUS[found.status] == "ok"
    np.testing.assert_allclose(found.term[:2], offset, atol=0.05)
    assert np.all(found.error[:2] < 0.05)
    assert found.term[2] == pytest.approx(SCALE, abs=max(0.02, 3 * found.error[2]))
    assert found.correlation > 0.99


def test_fit_band__small_bundle_at_a_broad_psf():
    # 6.4 arcsec on a bundle of 12: most of the light beyond it is made of what is around
    errors = []
    for offset in ((0.1, 0.0), (0.5, -0.4), (1.0, -1.1)):
        found = fit_band(scene(galaxy(disc=3.0), offset=offset, fibres=19, image_snr=500))
        assert STATUS[found.status] == "ok"
        errors.append(found.term[:2] - offset)
    assert np.abs(errors).max() < 0.05


@pytest.mark.parametrize(("at", "offset"), [((3.0, 2.0), (0.5, 0.0)), ((-2.0, 4.0), (-0.7, 0.7))])
def test_fit_band__galaxy_off_the_centre_of_the_bundle(at, offset):
    found = fit_band(scene(galaxy(at=at, disc=3.0), offset=offset, image_snr=200))
    np.testing.assert_allclose(found.term[:2], offset, atol=0.05)


@pytest.mark.parametrize("true_fwhm", [2.2, 3.2])
def test_fit_band__scale_sky_and_width(true_fwhm):
    case = scene(galaxy(), fibres=127, fwhm=(2.54, 4.0), true_fwhm=true_fwhm, image_snr=200)
    found = fit_band(noisy(case, 2), Limits(psf_error=0.5))
    width = np.sqrt(4.0**2 + true_fwhm**2 - 2.54**2) - 4.0
    assert found.term[4] == pytest.approx(width, abs=0.06)
    assert found.term[2] == pytest.approx(SCALE, abs=0.02)
    assert found.term[3] == pytest.approx(-SCALE * PEDESTAL, abs=0.001)
    assert found.residual < 0.02
    # where the PSFs are known well, the noise may not move the width
    held = fit_band(noisy(case, 2), Limits(psf_error=0.002))
    assert abs(held.term[4]) < 0.5 * abs(width)


def test_fit_band__other_colours_in_the_uncovered_part_of_a_band():
    parts, other = galaxy(), galaxy(bulge=0.25)
    found = fit_band(noisy(scene(parts, offset=(0.4, 0.2), image_parts=other), 4))
    np.testing.assert_allclose(found.term[:2], (0.4, 0.2), atol=0.05)


def with_star(case, parts, *, masked):
    """Put a star in image and cube; masked, its spaxels are bad and hold nonsense."""
    star = [(0.3, 4.0, -3.0, 0.05, 1.0, 0.0)]
    both = scene(parts + star, offset=(0.4, 0.2), fibres=127)
    near = both.flux - case.flux > 0.02 * (both.flux - case.flux).max()
    flux = np.where(near, 1e3, both.flux) if masked else both.flux
    return replace(
        both, flux=flux, foreground=near & masked, good=case.good & ~(near & masked),
        variance=case.variance, error=case.error, region=case.region,
    )  # fmt: skip


@pytest.mark.parametrize("masked", [True, False])
def test_fit_band__foreground_star(masked):
    parts = galaxy()
    case = scene(parts, offset=(0.4, 0.2), fibres=127)
    found = fit_band(noisy(with_star(case, parts, masked=masked), 5))
    assert STATUS[found.status] == "ok"
    np.testing.assert_allclose(found.term[:2], (0.4, 0.2), atol=0.05)


def test_fit_band__cosmic_rays_of_the_image_are_left_out():
    case = noisy(scene(galaxy(), offset=(0.4, 0.2), fibres=127), 6)
    hit = np.random.default_rng(1).random(case.image.shape) < 0.02
    found = fit_band(replace(case, image=case.image + 3.0 * case.image.max() * hit))
    np.testing.assert_allclose(found.term[:2], (0.4, 0.2), atol=0.05)


def test_fit_band__unknown_pixels_of_the_image():
    case = noisy(scene(galaxy(), offset=(0.4, 0.2)), 7)
    image = case.image.copy()
    image[18:21, 16:18] = np.nan
    found = fit_band(replace(case, image=image))
    np.testing.assert_allclose(found.term[:2], (0.4, 0.2), atol=0.05)
    assert np.isnan(found.image).any()


# -- errors


def pulls(case, n):
    fits = [fit_band(noisy(case, 100 + k)) for k in range(n)]
    assert all(f.status == OK for f in fits)
    return np.array([f.term for f in fits]), np.array([f.error for f in fits]), fits


def test_fit_band__errors_are_those_of_many_draws():
    case = scene(galaxy(disc=2.5), offset=(0.5, -0.4), fibres=19, fwhm=(2.54, 2.54), snr=30)
    term, error, fits = pulls(case, 28)
    pull = (term[:, :2] - (0.5, -0.4)) / error[:, :2]
    assert 0.8 < pull.std() < 1.2
    assert np.abs(pull.mean(axis=0)).max() < 0.5
    assert np.median([f.chi2 for f in fits]) == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize(
    ("fibres", "fwhm", "disc", "snr", "image_snr", "n_draw"),
    [
        (127, 6.4, 4.0, 50, 50, 30),
        *(
            pytest.param(*case, 80, marks=pytest.mark.slow)
            for case in ((127, 6.4, 4.0, 50, 50), (127, 2.54, 4.0, 50, 50), (127, 6.4, 4.0, 10, 20),
                         (37, 6.4, 3.0, 10, 50))
        ),
    ],
)  # fmt: skip
def test_fit_band__pulls(fibres, fwhm, disc, snr, image_snr, n_draw):
    case = scene(galaxy(disc=disc), offset=(0.5, -0.4), fibres=fibres, fwhm=(2.54, fwhm), snr=snr,
                 image_snr=image_snr)  # fmt: skip
    term, error, _ = pulls(case, n_draw)
    pull = (term[:, :2] - (0.5, -0.4)) / error[:, :2]
    assert np.all((pull.std(axis=0) > 0.8) & (pull.std(axis=0) < 1.2))
    assert np.abs(term[:, :2].mean(axis=0) - (0.5, -0.4)).max() < 0.02


def test_look__is_the_operator():
    case = noisy(scene(galaxy(), fibres=37), 8)
    move = np.array([0.3, -0.2])
    view = look(case, move, 0.0)
    shift = case.corner_shift(move)
    operator = build_operator(
        case.corner_x + shift[0], case.corner_y + shift[1], case.flux.shape, case.kernel
    )
    sums = apply_one(operator, *(a[None].astype("f4") for a in (case.flux, case.variance)),
                 case.good[None])  # fmt: skip
    row = np.searchsorted(operator.row, view.pixel)
    np.testing.assert_allclose(view.data, sums.flux[0][row], rtol=1e-4)
    np.testing.assert_allclose(view.coverage, (sums.weight[0] / operator.area)[row], rtol=1e-4)
    ratio = variance_ratio(operator, case.good, np.sqrt(case.variance), case.correlation)
    exact = np.sqrt(sums.variance[0] * ratio)[row]
    # weights rest on it, and chi-square: a mean of the neighbours' variance is enough
    assert np.median(view.sigma / exact) == pytest.approx(1.0, abs=0.05)
    assert np.abs(view.sigma / exact - 1.0).max() < 0.35


def test_quadratic__stencil_and_lags_agree():
    stencil = correlation_stencil(1.2, 2.0)
    planes = np.random.default_rng(1).normal(size=(2, 9, 8))
    reach = stencil.shape[0] // 2
    lags = [(y, x) for y in range(reach + 1) for x in range(-reach, reach + 1) if (y, x) > (0, 0)]
    y, x = np.array(lags).T
    rho = np.zeros((len(lags), 9, 8), dtype=np.float32)
    for k, (dy, dx) in enumerate(lags):
        inside = np.zeros((9, 8), dtype=bool)
        inside[: 9 - dy, max(0, -dx) : 8 - max(0, dx)] = True
        rho[k] = np.where(inside, stencil[reach + dy, reach + dx], 0.0)
    np.testing.assert_allclose(
        quadratic(planes, LagCorrelation(rho, y, x)), quadratic(planes, stencil), rtol=1e-5
    )


# -- no information


def test_fit_band__flat_field():
    case = scene(galaxy())
    flat = replace(case, flux=np.full_like(case.flux, 0.02), image=np.full_like(case.image, 0.2),
                   region=np.ones_like(case.region))  # fmt: skip
    for seed in range(4):
        found = fit_band(noisy(flat, seed))
        assert STATUS[found.status] == "no_common_structure"
    assert fit_band(flat).status == NO_STRUCTURE  # not even noise


@pytest.mark.parametrize("level", [1.0, 0.3, 0.07, 1.7e-3])
@pytest.mark.parametrize("fibres", [19, 37])
def test_fit_band__flat_image_of_a_galaxy(level, fibres):
    # image and offset are one column but for rounding, and noise taken off it leaves no matrix
    case = scene(galaxy(), fibres=fibres)
    image = np.full_like(case.image, level)
    flat = replace(case, image=image, error=0.02 * image, region=np.ones_like(case.region))
    assert fit_band(flat).status == NO_STRUCTURE
    assert fit_band(noisy(flat, 1)).status != OK


def test_fit_band__another_field():
    case, other = scene(galaxy(seed=1)), scene(galaxy(seed=2, at=(9.0, 9.0)))
    found = fit_band(noisy(replace(case, image=other.image), 1))
    assert found.status != OK


def test_fit_band__gradient_that_leads_nowhere():
    # a ramp: along it a shift is an offset of the sky, across it nothing changes
    case = scene(galaxy())
    ramp_in, ramp_out = (np.indices(a.shape).sum(axis=0) for a in (case.flux, case.image))
    ramp = replace(case, flux=0.01 + 2e-4 * ramp_in, image=0.1 + 0.01 * ramp_out,
                   region=np.ones_like(case.region))  # fmt: skip
    assert fit_band(noisy(ramp, 1)).status in (UNCERTAIN, NO_STRUCTURE)


def test_fit_band__beyond_the_search():
    found = fit_band(scene(galaxy(), offset=(2.4, 2.4), fibres=127), Limits(max_shift=2.0))
    assert STATUS[found.status] == "at_edge_of_search"


def test_fit_band__faint():
    case = scene(galaxy(), offset=(0.3, 0.0), fibres=19, snr=0.4)
    assert fit_band(noisy(case, 3)).status in (UNCERTAIN, NO_STRUCTURE)


def test_fit_band__nothing_to_compare():
    case = scene(galaxy())
    assert fit_band(replace(case, region=case.region & False)).status == FEW_PIXELS
    assert fit_band(replace(case, good=case.good & False)).status == FEW_PIXELS


def fit_of(shift, sigma, status=OK):
    blank = np.zeros((1, 1), dtype=np.float32)
    term, error = np.array([*shift, 1.0, 0.0, 0.0]), np.array([sigma, sigma, 0.1, 0.1, 0.1])
    cov = np.diag([sigma**2, sigma**2])
    return BandFit(term, error, cov, 1.0, 0.99, 0.01, status, blank, blank)


def test_combine__weights_by_covariance():
    both = combine([fit_of((0.1, 0.0), 0.01), fit_of((0.13, 0.02), 0.02)], Limits())
    np.testing.assert_allclose(both.shift, (0.106, 0.004))
    # they differ by 1.4 sigma of the difference in east and 0.9 in north: nothing to widen
    np.testing.assert_allclose(both.covariance, np.eye(2) * 1e-4 / 1.25, rtol=0.4)
    assert both.status == OK


def test_combine__bands_that_disagree_widen_the_error():
    both = combine([fit_of((0.0, 0.0), 0.01), fit_of((0.2, 0.0), 0.01)], Limits())
    assert both.shift[0] == pytest.approx(0.1)
    assert np.sqrt(both.covariance[0, 0]) == pytest.approx(0.2 / np.sqrt(8.0), rel=0.01)


def test_combine__says_why_nothing_was_found():
    none = combine([], Limits())
    assert (none.status, none.shift.tolist()) == (NO_BAND, [0.0, 0.0])
    lost = combine([fit_of((0.1, 0.0), 0.01, NO_STRUCTURE)], Limits())
    assert (lost.status, lost.shift.tolist()) == (NO_STRUCTURE, [0.0, 0.0])
    vague = combine([fit_of((0.1, 0.0), 0.3, UNCERTAIN)], Limits())
    assert (vague.status, vague.shift.tolist()) == (UNCERTAIN, [0.0, 0.0])
    assert np.isnan(vague.covariance).all()
    # two that are too vague alone may do together
    vague = combine([fit_of((0.1, 0.0), 0.12, UNCERTAIN)] * 2, Limits())
    assert vague.status == OK


# -- the verb

OFFSET = (0.6, -0.8)
BANDS = {"sdss_g": 4702.0, "sdss_r": 6176.0, "sdss_i": 7490.0}


def observed(*, offset=OFFSET, chunks=16, **attrs):
    """Cube whose WCS is wrong by the offset, and images of the same galaxy in three bands."""
    n_in, n_out = 42, 38
    wcs_in, wcs_out = tan_wcs((n_in, n_in), 0.5), tan_wcs((n_out, n_out), 1.5, angle=15.0)
    parts = galaxy(disc=3.0)
    light = SCALE * render(parts, wcs_in, (n_in, n_in), 2.54, moved=(-offset[0], -offset[1]))
    good = hexagon(wcs_in, (n_in, n_in), 8.0) < 1
    noise = np.random.default_rng(1).normal(size=(57, n_in, n_in))
    sigma = 0.1 * np.median(light[good])
    wave = np.linspace(3600.0, 9200.0, 57)
    ifs = spatial_cases.cube(
        light + sigma * noise, wcs_in, wave=wave, variance=sigma**2, chunks=chunks,
        mask=np.broadcast_to(~good, noise.shape), ebv_corrected=True, **attrs,
    )  # fmt: skip
    image = render(parts, wcs_out, (n_out, n_out), 6.4, sub=5)
    region = image > 0.01 * image.max()
    flux = np.where(region, image, np.nan)
    photometry = spatial_cases.images(
        np.stack([flux] * 3), wcs_out, region=region, bands=tuple(BANDS),
        pivot=tuple(BANDS.values()),
    )  # fmt: skip
    return ifs, photometry


def computed(ds):
    with dask.config.set(scheduler="synchronous"):
        return ds.compute()


def test_register__finds_the_offset_lazily():
    ifs, photometry = observed()
    with raise_if_computes():
        lazy = register(ifs, photometry)
    out = computed(lazy)
    assert int(out["register_status"]) == OK
    assert out["register_status"].attrs["flag_meanings"].split()[0] == "ok"
    np.testing.assert_allclose(out["register_shift"], OFFSET, atol=0.05)
    assert np.all(np.diag(out["register_cov"]) < 0.05**2)
    fit = out["register_fit"].sel(register_band="sdss_r")
    assert list(fit["register_term"].values) == ["east", "north", "scale", "offset", "width"]
    assert float(fit.sel(register_term="scale")) == pytest.approx(SCALE, abs=0.05)
    assert out["register_image"].shape == (3, *photometry["photo_flux"].shape[1:])
    assert np.all(out["register_correlation"] > 0.99)
    step = out.attrs["provenance"][-1]
    assert (step["step"], step["options"]["bands"]) == ("register", list(BANDS))


@pytest.mark.parametrize("chunks", [(5, 42, 42), (57, 20, 13)])
def test_register__whatever_the_chunks(chunks):
    expected = computed(register(*observed(), bands=["sdss_r"]))["register_shift"]
    got = computed(register(*observed(chunks=chunks), bands=["sdss_r"]))["register_shift"]
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_register__of_data_in_memory():
    ifs, photometry = observed()
    expected = computed(register(ifs, photometry, bands=["sdss_r"]))
    in_memory = ifs.compute(), photometry.compute()
    got = computed(register(*in_memory, bands=["sdss_r"]))
    np.testing.assert_allclose(got["register_shift"], expected["register_shift"], atol=1e-4)
    assert int(got["register_status"]) == OK
    # the match applies it; one variable may be in memory and another not
    for loaded in (in_memory, (ifs.assign(spec_flux=ifs["spec_flux"].compute()), photometry)):
        out = computed(match_spatial(*loaded, register=True)[["register_shift", "spec_flux"]])
        np.testing.assert_allclose(out["register_shift"], OFFSET, atol=0.05)
        assert np.isfinite(out["spec_flux"]).any()


def test_find_shift__is_what_the_corners_need():
    ifs, photometry = observed()
    options = resolution_of(ifs, photometry, None, None), noise_of(ifs, None)
    found = find_shift(ifs, photometry, *options, bands=["sdss_r", "sdss_i"])
    with dask.config.set(scheduler="synchronous"):
        shift = found.shift.compute()
    right = ifs.assign_attrs(wcs=wcs_string(tan_wcs((42, 42), 0.5, shift=(1.2, 1.6))))
    wrong, true = (corners_on(frame_of(photometry), frame_of(ds)) for ds in (ifs, right))
    for k in (0, 1):
        assert np.abs(wrong[k] + shift[k] - true[k]).max() < 0.1
    # the arrays of the cube are read by tasks of their own
    keys = set(found.shift.__dask_graph__())
    assert not keys & set(ifs["spec_flux"].data.__dask_keys__()[0][0])


def test_register__sharper_images_are_brought_to_the_cube():
    ifs, photometry = observed()
    fine = tan_wcs((60, 60), 0.5, angle=15.0)
    image = render(galaxy(disc=3.0), fine, (60, 60), 1.5)
    photometry = spatial_cases.images(np.stack([image] * 3), fine, fwhm=1.5, bands=tuple(BANDS),
                                      pivot=tuple(BANDS.values()))  # fmt: skip
    out = computed(register(ifs, photometry, bands=["sdss_r"]))
    assert int(out["register_status"]) == OK
    np.testing.assert_allclose(out["register_shift"], OFFSET, atol=0.05)


def test_register__own_correlation_and_foreground():
    ifs, photometry = observed()
    east = np.zeros((42, 42), dtype=bool)
    east[5:12, 10:16] = True
    flux = ifs["spec_flux"].where(~east, 1e3)
    rho = np.where(np.isfinite(ifs["spec_flux"][0].values), 0.3, 0.0).astype(np.float32)
    ifs = ifs.assign(
        spec_flux=flux.transpose("wave", "y", "x"), foreground=(("y", "x"), east),
        spec_corr=(("lag", "y", "x"), rho[None]),
    )  # fmt: skip
    ifs = ifs.assign_coords(lag_y=("lag", [0]), lag_x=("lag", [1]))
    with raise_if_computes():
        lazy = register(ifs, photometry, bands=["sdss_r"])
    np.testing.assert_allclose(computed(lazy)["register_shift"], OFFSET, atol=0.05)


def test_register__no_band_in_common():
    ifs, photometry = observed()
    few = ifs.isel(wave=slice(0, 6))
    out = computed(register(few, photometry))
    assert STATUS[int(out["register_status"])] == "no_band_covered"
    assert out["register_shift"].values.tolist() == [0.0, 0.0]
    with pytest.raises(InputError, match="expected a band that was registered, found None"):
        plot.registration(out, Figure().subplots(1, 3))


def test_register__refuses_a_band_that_is_not_there():
    with pytest.raises(InputError, match=r"bands of the images: sdss_g.*found sdss_z"):
        register(*observed(), bands=["sdss_z"])


def test_registration__figure():
    out = register(*observed(), bands=["sdss_r"])
    axes = plot.registration(out, Figure(figsize=(13, 4)).subplots(1, 3))
    assert [ax.get_title() for ax in axes] == [
        "image, sdss r", "cube after the fit", "cube − image",
    ]  # fmt: skip
    assert "arcsec" in axes[1].texts[0].get_text()
    assert "correlation 0.99" in axes[2].texts[0].get_text()
    assert "grey: not compared" in axes[2].texts[0].get_text()
    assert np.nanmax(axes[0].images[0].get_array()) == pytest.approx(1.0)


@pytest.mark.parametrize("star", [(), ((9.0, 6.0, 17.0),)], ids=["alone", "star in front"])
def test_register__survey_files(tmp_path, star):
    truth = simulate.galaxy(seed=4, radius=4.0, mag=15.5, stars=list(star), pointing=(0.8, -0.5))
    cube = simulate.write_manga(
        tmp_path / "cube.fits", truth, fibres=127 if star else 37, snr=10.0,
        wave_range=(5300, 7100),
    )  # fmt: skip
    photo = simulate.write_photometry(tmp_path / "photo.fits", truth, bands=("sdss_g", "sdss_r"))
    ifs, photometry = specphoto.open_ifs(cube.path), specphoto.open_photometry(photo.path)
    with raise_if_computes():
        lazy = register(ifs, photometry)
    out = computed(lazy)
    assert list(out["register_band"].values) == ["sdss_r"]
    # the header has the cube's light too far east and north: it must go back
    np.testing.assert_allclose(out["register_shift"], (-0.8, 0.5), atol=0.05)
    fit = out["register_fit"][0].sel(register_term=["scale", "width"])
    np.testing.assert_allclose(fit, (1.0, 0.0), atol=0.1)


# -- observed data


@pytest.mark.realdata
def test_register__hst_image_and_muse_cube(realdata):
    folder = realdata / "muse_a478"
    # neither file states a PSF; 1.06 arcsec is where the width comes out as zero
    ifs = specphoto.open_ifs(folder / "minicube.fits", psf_fwhm=1.06)
    hst = Image(
        folder / "a478hst-cutout.fits", "hst_wfpc2_f814w", psf=0.15, noise="WHT",
        noise_kind="weight",
    )  # fmt: skip
    out = computed(register(ifs, specphoto.photometry_from_images(hst, ifs)))
    assert int(out["register_status"]) == OK
    # by eye and with other code: 0.80 west and 0.97 south
    np.testing.assert_allclose(out["register_shift"], (-0.80, -0.97), atol=0.03)
    assert float(out["register_correlation"][0]) > 0.99
    assert float(out["register_residual"][0]) < 0.03
    fit = out["register_fit"][0].sel(register_term=["scale", "offset", "width"]).values
    assert fit[0] == pytest.approx(0.906, abs=0.02)
    # the pedestal of the HST image, 0.018 of its flux per spaxel
    assert -fit[1] / fit[0] == pytest.approx(0.0175, abs=0.001)
    assert abs(fit[2]) < 0.05


@pytest.mark.realdata
def test_register__does_not_need_the_psf(realdata):
    folder = realdata / "muse_a478"
    ifs = specphoto.open_ifs(folder / "minicube.fits", psf_fwhm=0.9)
    hst = Image(folder / "a478hst-cutout.fits", "hst_wfpc2_f814w", psf=0.15, noise="WHT",
                noise_kind="weight")  # fmt: skip
    photometry = specphoto.photometry_from_images(hst, ifs)
    out = computed(register(ifs, photometry, psf_error=0.5))
    np.testing.assert_allclose(out["register_shift"], (-0.80, -0.97), atol=0.03)
    # unmasked cosmic rays make the image look too sharp already: only the sign can be trusted
    assert float(out["register_fit"][0].sel(register_term="width")) > 0.02
