"""The simulator against what it says of its own files."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from scipy.ndimage import gaussian_filter
from scipy.special import gammaincinv

import specphoto
from specphoto import InputError
from specphoto.photometry.extinction import transmission
from specphoto.photometry.filters import cwave_filters, load_filters, pixedfit_scale
from specphoto.photometry.galactic import channel_factors, common_extinction
from specphoto.photometry.synthetic import photon_weights
from specphoto.simulate import (
    Component,
    Miscalibration,
    PixelGrid,
    Profile,
    Psf,
    Truth,
    galaxy,
    make_sky,
    manga_grid,
    patchwork,
    simulate_galaxy,
    write_califa,
    write_manga,
    write_muse,
    write_photometry,
)
from specphoto.simulate.noise import fibre_positions, isophote, shepard, unit_noise
from specphoto.simulate.populations import LIGHT_SPEED, LINES, population_library
from specphoto.simulate.profile import image, surface_brightness

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from specphoto.simulate import SimulatedCube, SimulatedGalaxy

GRI = ("sdss_g", "sdss_r", "sdss_i")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SimulatedGalaxy:
    """A 19-fibre MaNGA cube behind dust, tilted, with its images."""
    return simulate_galaxy(tmp_path_factory.mktemp("sky"), seed=5, size=19, ebv=0.1)


def noiseless(cube: SimulatedCube) -> NDArray[np.float64]:
    return np.concatenate([cube.exposure.noiseless(a, b) for a, b in cube.exposure.blocks()])


def star(flux: float = 100.0, centre: tuple[float, float] = (0.0, 0.0), **sight: object) -> Truth:
    population = Component(17, flux, Profile("point", centre=centre))
    return Truth(components=(population,), **sight)  # type: ignore[arg-type]


# light and PSF


@pytest.mark.parametrize("index", [1.0, 2.5, 4.0])
def test_profile__holds_half_its_light_within_its_radius(index: float) -> None:
    weight, cov = Profile(radius=3.0, index=index).gaussians()
    assert weight.sum() == pytest.approx(1.0)
    sigma = np.sqrt(cov[:, 0, 0])
    inside = weight * (1.0 - np.exp(-0.5 * (3.0 / sigma) ** 2))
    assert inside.sum() == pytest.approx(0.5, abs=0.02)
    r = np.array([0.3, 1.0, 3.0, 6.0, 9.0])
    law = np.exp(-gammaincinv(2.0 * index, 0.5) * ((r / 3.0) ** (1.0 / index)))
    seen = surface_brightness(Profile(radius=3.0, index=index), Psf(1e-3), r, 0.0 * r)
    assert seen / seen[2] == pytest.approx(law / law[2], rel=0.12)


def test_profile__follows_axis_ratio_angle_and_centre() -> None:
    tilted = Profile(radius=2.0, axis_ratio=0.5, angle=30.0, centre=(1.0, -2.0))
    grid = PixelGrid((161, 161), 0.25)
    light = image(tilted, Psf(0.8), grid)
    east, north = grid.offsets()
    mean = (light * east).sum() / light.sum(), (light * north).sum() / light.sum()
    assert mean == pytest.approx((1.0, -2.0), abs=0.01)
    cov = np.cov(np.vstack([east.ravel(), north.ravel()]), aweights=light.ravel())
    values, vectors = np.linalg.eigh(cov)
    assert np.rad2deg(np.arctan2(*vectors[:, 1])) % 180.0 == pytest.approx(30.0, abs=0.5)
    assert values[0] < 0.35 * values[1]


@pytest.mark.parametrize(("fwhm", "beta"), [(2.5, None), (2.5, 1.73), (0.7, 2.8), (1.0, 4.765)])
def test_psf__falls_to_half_at_half_its_width(fwhm: float, beta: float | None) -> None:
    r = np.array([0.0, 0.5 * fwhm])
    seen = surface_brightness(Profile("point"), Psf(fwhm, beta), r, 0.0 * r)
    assert seen[1] / seen[0] == pytest.approx(0.5, rel=2e-3)


def test_image__of_a_star_has_the_width_of_psf_and_pixel() -> None:
    grid = PixelGrid((61, 61), 0.5)
    light = image(Profile("point"), Psf(2.5), grid)
    east, _ = grid.offsets()
    assert light.sum() == pytest.approx(1.0, abs=1e-6)
    expected = (2.5 / np.sqrt(8 * np.log(2))) ** 2 + 0.5**2 / 12
    assert (light * east**2).sum() == pytest.approx(expected, rel=1e-4)


def test_image__of_large_pixels_is_the_sum_of_small_ones() -> None:
    disc, psf = Profile(radius=2.0, axis_ratio=0.6, angle=40.0), Psf(2.5, 2.8)
    large = PixelGrid((21, 23), 1.5, rotation=20.0)
    small = large.subdivided(3)
    sums = image(disc, psf, small).reshape(21, 3, 23, 3).sum(axis=(1, 3))
    assert image(disc, psf, large) == pytest.approx(sums, abs=1e-5 * sums.max())


@pytest.mark.parametrize("flipped", [False, True])
def test_pixels__header_says_where_the_pixels_are(flipped: bool) -> None:
    grid = PixelGrid((12, 9), 1.5, (3.25, 7.0), 33.0, flipped)
    wcs = WCS(grid.header(205.4, 27.0))
    sky = wcs.pixel_to_world(*np.meshgrid(np.arange(9), np.arange(12)))
    centre = wcs.pixel_to_world(3.25, 7.0)
    east, north = (a.arcsec for a in centre.spherical_offsets_to(sky))
    for stated, measured in zip(grid.offsets(), (east, north), strict=True):
        # the tangent plane against spherical offsets: parts in 1e5 at this distance
        assert stated == pytest.approx(measured, abs=2e-3)
    again = PixelGrid.from_wcs(wcs, (12, 9), ra=205.4, dec=27.0)
    assert again.flipped == flipped
    assert np.array(again.offsets()) == pytest.approx(np.array(grid.offsets()), abs=1e-6)


# noise


def test_shepard__rows_sum_to_one_inside_the_bundle() -> None:
    grid = manga_grid(19)
    positions = fibre_positions(19, rng=np.random.default_rng(1))
    assert positions.shape == (19 * 9, 2)
    weights, total = shepard(positions, grid)
    sums = np.asarray(weights.sum(axis=1))
    assert set(np.unique(sums.round(12))) == {0.0, 1.0}
    assert np.array_equal(sums > 0, total > 0)
    # hexagon of five 2.5 arcsec fibres across, 1.6 arcsec more on each side
    span = np.ptp(grid.offsets()[0].ravel()[total > 0])
    assert 12.0 < span < 16.0


def test_fibre_positions__unknown_bundle_is_refused() -> None:
    with pytest.raises(InputError, match="fibres: expected one of 19, 37, 61, 91, 127, found 20"):
        fibre_positions(20, rng=np.random.default_rng(1))


def test_noise__is_correlated_as_manga_states(tmp_path: Path) -> None:
    cube = write_manga(
        tmp_path / "c.fits", star(), fibres=61, wave_range=(5000.0, 8000.0), snr=20.0
    )
    with fits.open(cube.path) as hdus:
        noise = (hdus["FLUX"].data - noiseless(cube)) * np.sqrt(hdus["IVAR"].data)
        table = hdus["GCORREL"].data
    seen = cube.observed
    n_wave = len(noise)
    assert noise[:, seen].var() == pytest.approx(1.0, abs=3e-3)
    # the stated sigma holds in every spaxel, not only on average
    spread = noise[:, seen].var(axis=0).std()
    assert spread == pytest.approx(np.sqrt(2.0 / n_wave), rel=0.15)
    inner = np.s_[:, 17:37, 17:37]
    scale = []
    for step in (1, 2, 3):
        rho = (noise[inner] * np.roll(noise, step, axis=2)[inner]).mean()
        scale.append(step / np.sqrt(-2.0 * np.log(rho)))
    assert np.mean(scale) == pytest.approx(1.92, rel=0.1)
    # independent between channels
    assert abs((noise[1:, seen] * noise[:-1, seen]).mean()) < 5e-3
    # and the file's own table says the same
    row = table[np.argmax((table["INDXI_C1"] == 27) & (table["INDXI_C2"] == 27)
                          & (table["INDXJ_C1"] == 28) & (table["INDXJ_C2"] == 27))]  # fmt: skip
    measured = (noise[:, 27, 27] * noise[:, 27, 28]).mean()
    assert row["RHOIJ"] == pytest.approx(measured, abs=4.0 / np.sqrt(n_wave))


def test_noise__independent_has_no_correlation() -> None:
    noise = unit_noise(np.random.default_rng(3), 400, 900, None).reshape(400, 30, 30)
    assert noise.var() == pytest.approx(1.0, abs=0.01)
    assert abs((noise[:, :, 1:] * noise[:, :, :-1]).mean()) < 0.01


def test_isophote__holds_half_the_light() -> None:
    light = image(Profile("point"), Psf(4.0), PixelGrid((81, 81), 0.25))
    level = isophote(light)
    assert light[light >= level].sum() == pytest.approx(0.5, abs=0.02)


def test_snr__is_what_was_asked_for(small: SimulatedGalaxy, tmp_path: Path) -> None:
    cube = write_manga(tmp_path / "c.fits", star(), fibres=19, snr=8.0, wave_range=(6000, 6400))
    at = int(np.argmin(abs(cube.wave - 6200.0)))
    plane = np.where(cube.observed, cube.exposure.noiseless(at, at + 1)[0], np.nan)
    assert isophote(plane) / np.nanmedian(cube.exposure.sigma_map) == pytest.approx(8.0)
    truth = patchwork(manga_grid(19), seed=2)
    cube = write_manga(
        tmp_path / "p.fits", truth, fibres=19, snr=(3.0, 30.0), wave_range=(6000, 6400)
    )
    ratio = cube.exposure.noiseless(at, at + 1)[0] / cube.exposure.sigma(at, at + 1)[0]
    assert np.nanmin(ratio) > 2.9
    assert np.nanmax(ratio) < 31.0


# the same sky in cube and images


def test_sky__cube_and_images_have_the_same_colours() -> None:
    truth = galaxy(seed=3, radius=4.0, speed=200.0)
    sky, psf, grid = make_sky(truth), Psf(2.5), manga_grid(19)
    wave = 10.0 ** np.arange(np.log10(3600.0), np.log10(10300.0), 1e-4)
    cube = sky.cube(grid, ((6000.0, psf),), wave, wave / 2000.0 / 2.355)
    filters = load_filters(GRI)
    weights, covered = photon_weights(wave, filters)
    assert covered == pytest.approx(1.0)
    synthetic = np.tensordot(weights, cube.planes(0, wave.size), (0, 0))
    assert synthetic == pytest.approx(sky.images(grid, psf, filters), rel=1e-3)


def test_sky__flux_is_the_same_through_any_instrument(tmp_path: Path) -> None:
    truth = galaxy(seed=3, radius=1.5, mag=15.0, halpha=100.0, centre=(1.0, -0.5))
    sky, filters = make_sky(truth), load_filters(GRI)
    sharp = sky.images(PixelGrid((220, 220), 0.5), Psf(2.5, 2.8), filters).sum(axis=(1, 2))
    blurred = sky.images(PixelGrid((75, 75), 1.5, rotation=15.0), Psf(6.37), filters)
    assert blurred.sum(axis=(1, 2)) == pytest.approx(sharp, rel=2e-3)
    continuum = sum(c.flux for c in truth.components)
    pivot = filters[1].pivot
    assert continuum * 1e-17 * pivot**2 / 2.99792458e18 == pytest.approx(
        10 ** (-0.4 * (15.0 + 48.6))
    )
    assert sharp[1] > continuum


def test_sky__lines_have_their_width_place_and_strength() -> None:
    disc = Component(40, 50.0, Profile(radius=3.0), halpha=80.0)
    dark = Component(40, 50.0, Profile(radius=3.0), halpha=0.0)
    wave = np.arange(6600.0, 6900.0, 0.5)
    lsf = np.full(wave.size, 1.2)
    spectra = []
    for component in (disc, dark):
        sky = make_sky(Truth(components=(component,), redshift=0.03, dispersion=60.0))
        planes = sky.cube(PixelGrid((9, 9), 2.0), ((6000.0, Psf(3.0)),), wave, lsf).planes(0, 600)
        spectra.append(planes.sum(axis=(1, 2)))
    lines, continuum = spectra[0] - spectra[1], spectra[1]
    halpha = LINES[[name for name, _, _ in LINES].index("Halpha")][1] * 1.03
    near = np.abs(wave - halpha) < 8.0
    sigma = np.sqrt((lines * (wave - halpha) ** 2)[near].sum() / lines[near].sum())
    assert sigma == pytest.approx(np.hypot(1.2, halpha * 60.0 / LIGHT_SPEED), rel=0.03)
    width = lines[near].sum() * 0.5 / continuum[np.abs(np.abs(wave - halpha) - 50.0) < 15.0].mean()
    assert width == pytest.approx(80.0 * 1.03, rel=0.05)


def test_sky__gas_and_stars_rotate() -> None:
    truth = galaxy(seed=3, radius=5.0, speed=250.0, inclination=60.0, angle=90.0, halpha=200.0)
    wave = 10.0 ** np.arange(np.log10(6650.0), np.log10(6900.0), 2e-5)
    grid = PixelGrid((3, 31), 1.0)
    cube = make_sky(truth).cube(grid, ((6000.0, Psf(0.5)),), wave, np.full(wave.size, 1.0))
    planes = cube.planes(0, wave.size)[:, 1]
    halpha = 6564.61 * 1.03
    near = np.abs(wave - halpha) < 10.0
    light = planes[near] - planes[near].min(axis=0)
    light = np.where(light > 0.3 * light.max(axis=0), light, 0.0)
    centre = (light * wave[near, None]).sum(axis=0) / light.sum(axis=0)
    velocity = (centre / halpha - 1.0) * LIGHT_SPEED
    stated = truth.rotation.velocity(*grid.offsets())[1]
    # the receding side is in the east, which is at small x
    assert velocity[0] > 180.0
    assert velocity[-1] < -180.0
    outer = np.abs(np.arange(31) - 15) > 6
    assert velocity[outer] == pytest.approx(stated[outer], abs=12.0)


def test_mean_velocity__is_that_of_the_light_through_the_psf() -> None:
    truth = galaxy(seed=3, radius=5.0, speed=250.0, inclination=60.0, angle=70.0)
    found = make_sky(truth).mean_velocity(PixelGrid((21, 21), 1.5), Psf(5.0))
    # the same by brute force: light and light times velocity, blurred and summed over pixels
    fine = PixelGrid((21, 21), 1.5).subdivided(6, 6)
    light = sum(c.flux * image(c.profile, Psf(0.6), fine) for c in truth.components)
    sigma = np.sqrt(5.0**2 - 0.6**2) / np.sqrt(8.0 * np.log(2.0)) / fine.scale
    moment = light * truth.rotation.velocity(*fine.offsets())
    sums = [
        gaussian_filter(a, sigma).reshape(33, 6, 33, 6).sum(axis=(1, 3))[6:-6, 6:-6]
        for a in (moment, light)
    ]
    np.testing.assert_allclose(found, sums[0] / sums[1], atol=1.0)
    assert found.max() > 130.0


def test_mean_velocity__none_of_what_does_not_move(tmp_path: Path) -> None:
    pixels = manga_grid(19)
    still = patchwork(pixels)
    assert not make_sky(still).mean_velocity(pixels, Psf(2.5)).any()
    made = simulate_galaxy(
        tmp_path, size=19, stars=((2.0, 0.0, 15.0),), speed=0.0,
        cube_options={"wave_range": (6000, 6100)},
    )  # fmt: skip
    assert made.velocity().shape == made.photometry.pixels.shape
    assert not np.nan_to_num(made.velocity()).any()


def test_pointing__moves_the_content_against_the_header(tmp_path: Path) -> None:
    cube = write_manga(
        tmp_path / "c.fits", star(pointing=(1.0, -0.7)), fibres=37, wave_range=(6000, 6100),
        noise="none",
    )  # fmt: skip
    plane = noiseless(cube)[0]
    east, north = cube.pixels.offsets()
    centre = (plane * east).sum() / plane.sum(), (plane * north).sum() / plane.sum()
    assert centre == pytest.approx((1.0, -0.7), abs=1e-3)


# MaNGA


def test_manga__is_read_as_it_was_written(small: SimulatedGalaxy) -> None:
    cube, ds = small.cube, specphoto.open_ifs(small.cube.path)
    assert ds.attrs["survey"] == "manga"
    assert ds.attrs["ebv"] == pytest.approx(0.1)
    assert ds["wave"].values == pytest.approx(cube.wave, rel=1e-9)
    psf = ds.attrs["psf"]
    assert list(zip(psf["wave"], psf["fwhm"], strict=True)) == [
        (w, pytest.approx(p.fwhm)) for w, p in cube.psf
    ]
    part = ds.isel(wave=slice(2000, 2040)).compute()
    good = ~part["spec_mask"].values
    assert not good[:, ~cube.observed].any()
    assert good[:, 17, 17].all()
    sigma = cube.exposure.sigma(2000, 2040)
    assert np.sqrt(part["spec_var"].values)[good] == pytest.approx(sigma[good], rel=1e-5)
    residual = (part["spec_flux"].values - cube.exposure.noiseless(2000, 2040))[good] / sigma[good]
    assert residual.std() == pytest.approx(1.0, abs=0.1)
    assert part["spec_lsf"].values[:, 17, 17] == pytest.approx(cube.lsf[2000:2040], rel=1e-5)


def test_manga__flux_is_true_times_dust_over_factor(small: SimulatedGalaxy) -> None:
    cube = small.cube
    got = cube.exposure.noiseless(1000, 1010)[:, 17, 17]
    true = cube.exposure.true(1000, 1010)[:, 17, 17]
    dust = transmission(cube.wave[1000:1010], 0.1 * 0.86, law="G23")
    assert got == pytest.approx(true * dust / cube.factor()[1000:1010], rel=1e-6)


def test_manga__images_are_those_of_its_cube(small: SimulatedGalaxy) -> None:
    with fits.open(small.cube.path) as hdus:
        filters = load_filters(["sdss_r"])
        weights, _ = photon_weights(small.cube.wave, filters)
        flux = np.tensordot(weights[:, 0], hdus["FLUX"].data.astype(float), (0, 0))
        nanomaggies = flux * 1e-17 * filters[0].pivot ** 2 / 2.99792458e18 / 3.631e-29
        assert hdus["RIMG"].data == pytest.approx(nanomaggies, rel=1e-4, abs=1e-6)
        assert hdus["GPSF"].data.sum() == pytest.approx(1.0, abs=1e-4)


def test_manga__gzip_is_read_by_others(small: SimulatedGalaxy) -> None:
    with gzip.open(small.cube.path) as handle:
        first = handle.read(2880)
    assert first.startswith(b"SIMPLE  =")
    with fits.open(small.cube.path) as hdus:
        hdus.verify("exception")


def test_manga__hdus_and_cards_are_the_surveys(small: SimulatedGalaxy, realdata: Path) -> None:
    model = realdata / "header_skeletons" / "sdss_datamodel" / "mangaCube.json"
    hdus = json.loads(model.read_text())["releases"]["DR17"]["hdus"]
    # how the survey's software came to the file, and where it is in the Galaxy
    exempt = {"AUTHOR", "VERSIDL", "DATASUM", "CHECKSUM", "IFUGLON", "IFUGLAT", "LONGSTRN"}
    exempt |= {"COMMENT", "XTENSION", ""}
    with fits.open(small.cube.path) as written:
        assert [h.name for h in written] == [h["name"] for h in hdus.values()]
        for hdu in hdus.values():
            if hdu["name"] == "OBSINFO":
                continue
            cards = {c["key"] for c in hdu["header"]} - exempt
            ours = set(written[hdu["name"]].header)
            images = {"IFURA", "IFUDEC", "OBJRA", "OBJDEC", "BSCALE", "BZERO"}
            missing = cards - ours - (images if hdu["name"][1:] in ("IMG", "PSF") else set())
            assert not missing, hdu["name"]


@pytest.mark.parametrize("release", ["DR13", "DR15", "DR17"])
@pytest.mark.parametrize("axis", ["log", "linear"])
def test_manga__other_layouts_open_too(tmp_path: Path, release: str, axis: str) -> None:
    cube = write_manga(
        tmp_path / "c.fits.gz", star(), fibres=19, release=release, axis=axis,
        wave_range=(5000.0, 5200.0),
    )  # fmt: skip
    ds = specphoto.open_ifs(cube.path)
    assert ds["wave"].values == pytest.approx(cube.wave, rel=1e-9)
    lsf = ds["spec_lsf"].values if ds["spec_lsf"].ndim == 1 else ds["spec_lsf"].values[:, 17, 17]
    assert lsf == pytest.approx(cube.lsf, rel=1e-4)
    with fits.open(cube.path) as hdus:
        assert ("DISP" in hdus) == (release == "DR15")
        assert ("GCORREL" in hdus) == (release != "DR13")


def test_manga__dead_channels_and_fibres_cannot_be_used(tmp_path: Path) -> None:
    cube = write_manga(
        tmp_path / "c.fits", star(), fibres=19, wave_range=(5000, 5200), dead_channels=[(3, 6)],
        dead_fibre=9,
    )  # fmt: skip
    mask = specphoto.open_ifs(cube.path)["spec_mask"].values
    assert mask[3:6].all()
    assert not mask[6, 17, 24:26].all()
    with fits.open(cube.path) as hdus:
        assert (hdus["IVAR"].data[3:6] == 0).all()
        dead = hdus["MASK"].data[0] & 4 > 0
        assert 10 < dead.sum() < 60
        assert mask[:, dead].all()


def test_manga__star_in_front_is_flagged_where_it_is_seen(tmp_path: Path) -> None:
    truth = galaxy(
        seed=4, radius=4.0, mag=15.5, stars=[(-3.0, 2.0, 15.0)], pointing=(0.8, 0.0), speed=100.0
    )
    about: dict[str, Any] = {"fibres": 37, "wave_range": (6000, 6060), "noise": "none"}
    cube = write_manga(tmp_path / "a.fits", truth, star_radius=3.0, **about)
    without = write_manga(tmp_path / "b.fits", truth.alone(), **about)
    with fits.open(cube.path) as hdus:
        flagged = hdus["MASK"].data[0] & 8 > 0
        assert (hdus["MASK"].data[:, flagged] & 1024 > 0).all()
    light = noiseless(cube) - noiseless(without)
    east, north = cube.pixels.offsets()
    # 28 square arcsec of 0.25 each
    assert flagged.sum() == pytest.approx(np.pi * 9.0 / 0.25, rel=0.03)
    assert (east[flagged].mean(), north[flagged].mean()) == pytest.approx((-2.2, 2.0), abs=0.05)
    assert light[:, flagged].sum() == pytest.approx(light.sum(), rel=0.03)
    assert (light > -1e-4 * light.max()).all()
    # nothing else changes: the star has no part in the noise
    assert cube.exposure.sigma_map[~flagged] == pytest.approx(
        without.exposure.sigma_map[~flagged], rel=0.2, nan_ok=True
    )


def test_manga__psf_varies_with_wavelength(tmp_path: Path) -> None:
    widths = {"g": 2.9, "r": 2.6, "i": 2.4, "z": 2.3}
    cube = write_manga(tmp_path / "c.fits", star(), fibres=19, fwhm=widths, wave_range=(6000, 6050))
    ds = specphoto.open_ifs(cube.path)
    assert ds.attrs["psf"]["fwhm"] == list(widths.values())
    with fits.open(cube.path) as hdus:
        peaks = [hdus[f"{band}PSF"].data.max() for band in "GRIZ"]
    assert np.array(peaks) / peaks[0] == pytest.approx(
        (2.9 / np.array([*widths.values()])) ** 2, rel=0.02
    )


def test_photometry__with_and_without_the_star_in_front(tmp_path: Path) -> None:
    truth = galaxy(seed=4, radius=4.0, mag=15.5, stars=[(-3.0, 2.0, 15.0)])
    about: dict[str, Any] = {"bands": GRI, "psf": Psf(1.3), "psf_band": "sdss_r"}
    about["pixels"] = PixelGrid((61, 61), 0.5)
    seen = write_photometry(tmp_path / "a.fits", truth, **about)
    clean = write_photometry(tmp_path / "b.fits", truth, foreground=False, **about)
    light = (seen.flux - clean.flux)[1]
    y, x = np.unravel_index(np.argmax(light), light.shape)
    assert (x, y) == (36, 34)
    assert -2.5 * np.log10(light.sum() / clean.flux[1].sum()) == pytest.approx(-0.5, abs=0.1)
    assert specphoto.open_photometry(clean.path).attrs["psf"]["fwhm"] == [1.3]


def test_manga__is_the_same_every_time(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_manga(tmp_path / name, star(seed=seed), fibres=19, wave_range=(6000, 6050))
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_manga__whole_or_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="snr: expected S/N above 0"):
        write_manga(tmp_path / "c.fits", star(), fibres=19, snr=-1.0, wave_range=(6000, 6050))
    assert list(tmp_path.iterdir()) == []


# CALIFA and MUSE


def test_califa__is_read_as_it_was_written(tmp_path: Path) -> None:
    truth = galaxy(seed=2, radius=12.0, mag=13.0, ebv=0.05)
    cube = write_califa(tmp_path / "c.fits.gz", truth, n_wave=80, bad_channels=((5, 8),))
    ds = specphoto.open_ifs(cube.path)
    assert ds["spec_flux"].shape == (80, 73, 78)
    assert ds.attrs["survey"] == "califa"
    assert ds.attrs["redshift"] == pytest.approx(0.03)
    assert ds["wave"].values == pytest.approx(cube.wave, rel=1e-9)
    mask, flux, var = (ds[f"spec_{k}"].values for k in ("mask", "flux", "var"))
    assert mask[5:8].all()
    assert np.array_equal(~mask[0], cube.observed)
    good = ~mask
    sigma = cube.exposure.sigma(0, 80)[good]
    assert np.sqrt(var[good]) == pytest.approx(sigma, rel=1e-5)
    assert ((flux - noiseless(cube))[good] / sigma).std() == pytest.approx(1.0, abs=0.01)
    # undoing the survey's correction and redoing the true one leaves no dust
    restored = cube.exposure.throughput * channel_factors(
        ds.attrs, ds["wave"].values, common_extinction(ds.attrs, {}, None)
    )
    assert restored == pytest.approx(1.0, abs=1e-4)


def test_muse__is_read_as_it_was_written(tmp_path: Path) -> None:
    truth = galaxy(seed=2, radius=2.0, mag=17.0)
    cube = write_muse(tmp_path / "c.fits", truth, shape=(30, 40), n_wave=120)
    ds = specphoto.open_ifs(cube.path)
    assert ds["spec_flux"].shape == (120, 30, 40)
    assert ds["wave"].values == pytest.approx(cube.wave, rel=1e-9)
    assert ds.attrs["psf"]["beta"][0] == pytest.approx(2.8)
    stated = np.interp(cube.wave[60], ds.attrs["psf"]["wave"], ds.attrs["psf"]["fwhm"])
    assert stated == pytest.approx(0.95 - 3e-5 * cube.wave[60], rel=1e-3)
    sigma = cube.exposure.sigma(0, 120)
    assert np.sqrt(ds["spec_var"].values) == pytest.approx(sigma, rel=1e-5)
    residual = (ds["spec_flux"].values - noiseless(cube)) / sigma
    assert residual.std() == pytest.approx(1.0, abs=0.01)


def test_muse__without_fsf_cards_has_no_psf(tmp_path: Path) -> None:
    cube = write_muse(tmp_path / "c.fits", star(), shape=(9, 9), n_wave=20, fsf=False)
    assert "psf" not in specphoto.open_ifs(cube.path).attrs


# photometry


@pytest.mark.parametrize("layout", ["old", "new"])
def test_photometry__is_read_as_it_was_written(tmp_path: Path, layout: str) -> None:
    truth = galaxy(seed=2, ebv=0.1)
    made = write_photometry(
        tmp_path / "f.fits", truth, pixels=PixelGrid((41, 31), 1.5, rotation=15.0), layout=layout,
        noisy=False,
    )  # fmt: skip
    ds = specphoto.open_photometry(made.path)
    assert ds.attrs["ebv"] == pytest.approx(0.1 * 0.86)
    assert ds.attrs["redshift"] == pytest.approx(0.03)
    assert ds.attrs["psf"]["fwhm"] == [pytest.approx(6.37)]
    assert np.array_equal(ds["photo_region"].values, made.region)
    r = made.region
    # the reader undoes the flux convention; piXedfit's correction for dust stays
    expected = made.stored * pixedfit_scale(made.bands)[:, None, None]
    assert ds["photo_flux"].values[:, r] == pytest.approx(expected[:, r], rel=1e-6)
    corrected = transmission(np.array(cwave_filters(list(made.bands))), 0.086, law="pixedfit")
    assert made.flux == pytest.approx(expected * corrected[:, None, None], rel=1e-6)
    wcs = specphoto.cube.celestial_wcs(ds)
    x, y = wcs.world_to_pixel_values(truth.ra, truth.dec)
    assert (float(x), float(y)) == pytest.approx((15.0, 20.0), abs=1e-6)


def test_photometry__has_sentinels_outside_and_the_peers_cards(tmp_path: Path) -> None:
    made = write_photometry(tmp_path / "f.fits", star(), pixels=PixelGrid((31, 31), 1.5))
    with fits.open(made.path) as hdus:
        assert [h.name for h in hdus][1:] == ["FLUX", "FLUX_ERR", "GALAXY_REGION", "STAMP_IMAGE"]
        outside = hdus["GALAXY_REGION"].data == 0
        assert (hdus["FLUX"].data[:, outside] == -9.9e18).all()
        assert (hdus["FLUX_ERR"].data[:, outside] == -9.9e18).all()
        header = hdus[0].header
        assert header["UNIT"] == 1e-17
        assert [header[f"FIL{i}"] for i in range(header["NFILTERS"])] == list(made.bands)
        assert "CTYPE1" not in header
        assert WCS(hdus["STAMP_IMAGE"].header).has_celestial


def test_photometry__noise_is_as_stated(tmp_path: Path) -> None:
    made = write_photometry(tmp_path / "f.fits", galaxy(seed=2), error=0.02)
    with fits.open(made.path) as hdus:
        r = made.region
        pull = ((hdus["FLUX"].data - made.stored) / made.sigma)[:, r]
        assert hdus["FLUX_ERR"].data[:, r] == pytest.approx(made.sigma[:, r])
    assert pull.std() == pytest.approx(1.0, abs=0.02)
    assert np.median((made.sigma / made.stored)[:, r]) == pytest.approx(0.02, rel=0.2)


# independent populations, families, the whole


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> SimulatedGalaxy:
    return simulate_galaxy(
        tmp_path_factory.mktemp("patches"), mode="independent", seed=9, size=19,
        cube_options={"snr": (3.0, 30.0)},
    )  # fmt: skip


def test_patchwork__is_a_library_model_per_pixel(patches: SimulatedGalaxy) -> None:
    cube = patches.cube
    sky = make_sky(patches.truth)
    assert len(set(sky.index)) > 500
    library = population_library("library")
    models = library.observed(0.03, cube.wave, cube.lsf)
    pixel = 17 * 34 + 15
    spectrum = models.spectra(sky.index[[pixel]])[0]
    true = cube.exposure.true(0, cube.wave.size)[:, 17, 15]
    assert true / true.mean() == pytest.approx(spectrum / spectrum.mean(), rel=1e-5)


def test_patchwork__images_are_the_librarys_photometry(patches: SimulatedGalaxy) -> None:
    sky, bands = make_sky(patches.truth), patches.photometry.bands
    some = np.flatnonzero(patches.cube.observed)[::10]
    library = population_library("library")
    expected = library.photometry(0.03, load_filters(bands))[sky.index[some]]
    got = patches.photometry.flux.reshape(len(bands), -1)[:, some].T
    ratio = got / expected
    assert ratio / ratio[:, [4]] == pytest.approx(1.0, rel=2e-3)


def test_patchwork__cube_and_images_share_grid_and_psf(patches: SimulatedGalaxy) -> None:
    ifs = specphoto.open_ifs(patches.cube.path)
    photo = specphoto.open_photometry(patches.photometry.path)
    corners = np.array([[0.0, 33.0, 7.0], [0.0, 20.0, 33.0]])
    # as places on the sky: the cube's header is in FK5, the images' in ICRS
    a, b = (specphoto.cube.celestial_wcs(ds).pixel_to_world(*corners) for ds in (ifs, photo))
    assert a.separation(b).arcsec.max() < 1e-4
    assert set(ifs.attrs["psf"]["fwhm"]) == set(photo.attrs["psf"]["fwhm"]) == {2.5}


def test_patchwork__insists_on_its_grid() -> None:
    truth = patchwork(manga_grid(19), seed=1)
    with pytest.raises(InputError, match="a patchwork: expected its own grid"):
        make_sky(truth).images(manga_grid(37), Psf(2.5), load_filters(GRI))


def test_two_burst__is_no_family_of_the_library() -> None:
    library = population_library("two_burst")
    wave = np.arange(3700.0, 9000.0, 5.0)
    spectra = library.observed(0.03, wave, None).spectra(np.arange(20))
    assert np.isfinite(spectra).all()
    assert (spectra > 0).all()
    truth = galaxy(seed=4, family="two_burst")
    assert all(c.population < library.n_model for c in truth.components)


def test_miscalibration__varies_over_the_field() -> None:
    tilt = Miscalibration((1.0, 0.1), gradient=(0.0, 0.05))
    wave = np.linspace(3600.0, 10300.0, 5)
    p = tilt.factor(wave, east=np.array([-10.0, 0.0, 10.0]), wave_range=(3600.0, 10300.0))
    assert p.shape == (5, 3)
    assert p[-1] == pytest.approx([1.05, 1.1, 1.15])
    assert p[0] == pytest.approx([0.95, 0.9, 0.85])


def test_miscalibration__gradient_reaches_the_file(tmp_path: Path) -> None:
    truth = star(factor=Miscalibration((1.0,), gradient=(0.1,)))
    cube = write_manga(tmp_path / "c.fits", truth, fibres=19, wave_range=(6000, 6050))
    ratio = cube.exposure.true(0, 2) / cube.exposure.noiseless(0, 2)
    east = cube.pixels.offsets()[0]
    assert ratio[0] == pytest.approx(1.0 + 0.01 * east, rel=1e-6)


def test_simulate_galaxy__knows_the_spectra_at_the_target(small: SimulatedGalaxy) -> None:
    matched, wave = small.matched(), small.cube.wave
    weights, _ = photon_weights(wave, load_filters(["sdss_r"]))
    dust = transmission(wave, 0.1 * 0.86, law="G23")
    total = 0.0
    for start in range(0, wave.size, 500):
        planes = matched.planes(start, min(start + 500, wave.size))
        part = slice(start, start + len(planes))
        total = total + np.tensordot(weights[part, 0] * dust[part], planes, (0, 0))
    assert total == pytest.approx(small.photometry.flux[4], rel=1e-3)
    assert small.factor().shape == (wave.size, 101, 101)


def test_simulate_galaxy__unknown_choices_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="survey: expected manga, califa or muse, found 'sauron'"):
        simulate_galaxy(tmp_path, survey="sauron")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="size: expected fibres of a MaNGA bundle"):
        simulate_galaxy(tmp_path, size=20)


def test_truth__without_light_is_refused() -> None:
    with pytest.raises(InputError, match=r"Truth.components: expected at least one Component"):
        Truth(components=())
