"""Which PSF wins, at which wavelength, and what is done to the cube and to the images."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from galaxy_files import small_galaxy
from lazy import raise_if_computes
from scipy import signal
from spatial_cases import cube, gaussian_sky, images, tan_wcs

import specphoto
from specphoto.cube import Grid, wcs_string
from specphoto.errors import InputError
from specphoto.photometry.match import to_psf
from specphoto.spatial.correlation import clipped_share, correlation_stencil
from specphoto.spatial.kernel import kernel_report, matching_kernel
from specphoto.spatial.match import match_spatial
from specphoto.spatial.psf import PSF
from specphoto.spatial.resolution import common_resolution
from specphoto.spatial.sums import sum_spectra

SHAPE, SHAPE_OUT = (60, 58), (31, 33)
WCS_IN, WCS_OUT = tan_wcs(SHAPE, 0.5), tan_wcs(SHAPE_OUT, 1.0)
WAVE = np.linspace(4000.0, 9000.0, 41)
NODES = [4702.5, 6176.6, 7496.1, 8946.7]
SKY = 6.0  # FWHM of the blob before any PSF


def blob(wcs, shape, psf, scale):
    """Gaussian source of unit flux per arcsec2 at its peak before the PSF, per pixel."""
    fwhm = np.hypot(SKY, psf)
    return scale**2 * (SKY / fwhm) ** 2 * gaussian_sky(wcs, shape, fwhm)


def rebinned(psf):
    """The blob as the cube's own pixels see it, summed to the output's: four to one."""
    fine = (2 * SHAPE_OUT[0], 2 * SHAPE_OUT[1])
    flux = blob(tan_wcs(fine, 0.5), fine, psf, 0.5)
    return flux.reshape(SHAPE_OUT[0], 2, SHAPE_OUT[1], 2).sum(axis=(1, 3))


def observation(fwhm_at, nodes=NODES):
    """Cube whose PSF has the FWHM ``fwhm_at(wave)``, told of at the nodes."""
    planes = [blob(WCS_IN, SHAPE, fwhm_at(wave), 0.5) for wave in WAVE]
    psf = {"model": "gaussian", "wave": list(nodes), "fwhm": [fwhm_at(w) for w in nodes],
           "beta": None}  # fmt: skip
    return cube(np.stack(planes), WCS_IN, wave=WAVE, psf=psf)


def photometry(fwhm):
    return images(np.stack([blob(WCS_OUT, SHAPE_OUT, fwhm, 1.0)] * 3), WCS_OUT, fwhm=fwhm)


def computed(ds, *names):
    with dask.config.set(scheduler="synchronous"):
        return ds[[*names, "spec_region"]].compute()


def linear(wave):
    return float(np.interp(wave, [4702.5, 8946.7], [2.9, 2.3]))


# -- the choice


def test_common_resolution__the_images_psf_is_the_usual_end():
    psf = common_resolution([0.0], [PSF("gaussian", 2.5)], PSF("gaussian", 6.4), 0.5, images=True)
    assert psf.psf.fwhm == 6.4
    assert not psf.images_lag
    assert psf.kernels[0].shape[0] > 1


def test_common_resolution__a_broader_cube_takes_the_images_along():
    sources = [PSF("gaussian", 2.9), PSF("gaussian", 2.5)]
    found = common_resolution([5e3, 8e3], sources, PSF("gaussian", 1.3), 0.5, images=True)
    assert found.psf.fwhm == 2.9
    assert found.images_lag
    sharp, other = (np.square(k[k.shape[0] // 2]).sum() for k in found.kernels)
    assert sharp == 1.0  # the broadest stays as it is
    assert other < 1.0
    assert found.kernels[0].shape == found.kernels[1].shape


def crossed():
    """Two elongated PSFs, one along x and one along y: neither reaches the other."""
    y, x = np.indices((81, 81)) - 40.0
    along = PSF.from_image(np.exp(-0.5 * ((x / 5.0) ** 2 + (y / 3.0) ** 2)), 0.5)
    return along, PSF.from_image(along.image.T, 0.5)


@pytest.mark.parametrize("turned", [False, True])
def test_match_spatial__crossed_psfs_of_cube_and_images_are_refused(turned):
    cubes, target = crossed()[:: -1 if turned else 1]
    refused = r"cube.fits: PSF match: expected a target PSF no sharper .* missed by \d\d% of"
    ifs = observation(linear)
    with pytest.raises(InputError, match=refused):
        match_spatial(ifs, photometry(5.0), source_psf=cubes, target_psf=target)
    # a cube that is the broader by area takes images along only if they can follow
    broad = PSF.from_image(cubes.image, 0.52)
    with pytest.raises(InputError, match=r"a PSF that a kernel can bring to the one wanted"):
        match_spatial(ifs, photometry(5.0), source_psf=broad, target_psf=target)


def test_common_resolution__without_images_a_cube_is_not_deconvolved():
    with pytest.raises(InputError, match=r"PSF match: expected .* 2.9 arcsec, found 1.3 arcsec"):
        common_resolution([0.0], [PSF("gaussian", 2.9)], PSF("gaussian", 1.3), 0.5, images=False)


def test_match_spatial__a_grid_sharper_than_the_cube_is_refused():
    with pytest.raises(InputError, match=r"expected a target PSF no sharper .* found 1.3 arcsec"):
        match_spatial(observation(linear), Grid(WCS_OUT, SHAPE_OUT, 1.3))


# -- a PSF that varies with wavelength


def test_match_spatial__every_channel_reaches_the_target_psf():
    out = computed(match_spatial(observation(linear), photometry(5.0)), "spec_flux")
    want = rebinned(5.0)
    inside = out["spec_region"].values & (want > 0.05 * want.max())
    assert inside.sum() > 50
    error = np.abs(out["spec_flux"].values / want - 1.0)[:, inside]
    assert error.max() < 0.004
    # one PSF for all wavelengths does not do it
    one = match_spatial(observation(linear), photometry(5.0), source_psf=linear(6500.0))
    wrong = np.abs(computed(one, "spec_flux")["spec_flux"].values / want - 1.0)[:, inside]
    assert wrong.max() > 5.0 * error.max()


def test_match_spatial__is_smooth_across_a_node():
    def kinked(wave):
        return float(np.interp(wave, NODES, [2.9, 2.3, 2.8, 2.2]))

    out = computed(match_spatial(observation(kinked), photometry(5.0)), "spec_flux", "spec_err")
    middle = out.isel(y=15, x=16)
    steps = np.abs(np.diff(middle["spec_flux"].values / middle["spec_flux"].values.mean()))
    assert steps.max() < 0.003
    # errors follow the operator, and the operator is piecewise linear
    bends = np.abs(np.diff(middle["spec_err"].values, 2)) / middle["spec_err"].values.mean()
    assert bends.max() < 0.06


def test_match_spatial__pairs_of_wavelength_and_psf_are_a_psf():
    pairs = [(w, linear(w)) for w in NODES]
    stated = computed(match_spatial(observation(linear), photometry(5.0)), "spec_flux")
    ifs = observation(linear)
    ifs.attrs["psf"] = None
    given = computed(match_spatial(ifs, photometry(5.0), source_psf=pairs), "spec_flux")
    np.testing.assert_array_equal(stated["spec_flux"], given["spec_flux"])


def test_match_spatial__psf_images_of_the_survey_are_an_option():
    ifs = observation(linear)
    stars = np.stack([gaussian_sky(tan_wcs((41, 41), 0.5), (41, 41), linear(w)) for w in NODES])
    told = ifs.assign(psf_image=(("psf_wave", "psf_y", "psf_x"), stars.astype("f4")))
    told = told.assign_coords(psf_wave=NODES)
    out = computed(match_spatial(told, photometry(5.0), source_psf="images"), "spec_flux")
    plain = computed(match_spatial(ifs, photometry(5.0)), "spec_flux")
    inside = plain["spec_region"].values & (rebinned(5.0) > 0.05)
    ratio = (out["spec_flux"] / plain["spec_flux"]).values[:, inside]
    np.testing.assert_allclose(ratio, 1.0, atol=5e-3)
    dark = told.assign(psf_image=told["psf_image"] * (told["psf_wave"] < 7000.0).astype("f4"))
    with pytest.raises(InputError, match=r"cube.fits: psf_image at 7496.1 A: expected light"):
        match_spatial(dark, photometry(5.0), source_psf="images")
    with pytest.raises(InputError, match=r"expected images of the PSF \(variable psf_image\)"):
        match_spatial(ifs, photometry(5.0), source_psf="images")


# -- images sharper than the cube


def test_match_spatial__sharper_images_are_brought_to_the_cube():
    with raise_if_computes():
        lazy = match_spatial(observation(lambda _: 2.6), photometry(1.3))
    assert lazy.attrs["psf"]["fwhm"] == [2.6]
    assert lazy.attrs["provenance"][-1]["options"]["images_brought_to_psf"]
    out = computed(lazy, "spec_flux", "photo_flux", "photo_err")
    want = blob(WCS_OUT, SHAPE_OUT, 2.6, 1.0)
    inside = out["spec_region"].values & (want > 0.1 * want.max())
    assert inside.sum() > 40
    np.testing.assert_allclose(out["photo_flux"].values[:, inside] / want[inside], 1.0, atol=0.006)
    want = rebinned(2.6)
    np.testing.assert_allclose(out["spec_flux"].values[:, inside] / want[inside], 1.0, atol=0.002)
    before = photometry(1.3)["photo_err"].values
    # the mean of many independent pixels is better known than one
    middle = out["photo_err"].values[:, 15, 16] / before[:, 15, 16]
    assert (middle < 0.7).all()


def test_match_spatial__where_psfs_cross_the_broadest_wins():
    lazy = match_spatial(observation(linear), photometry(2.6))
    assert lazy.attrs["psf"]["fwhm"] == [2.9]
    out = computed(lazy, "spec_flux", "photo_flux")
    inside = out["spec_region"].values & (out["photo_flux"].values[0] > 0.1)
    assert inside.sum() > 40
    images = blob(WCS_OUT, SHAPE_OUT, 2.9, 1.0)
    for name, want in (("spec_flux", rebinned(2.9)), ("photo_flux", images)):
        np.testing.assert_allclose(out[name].values[:, inside] / want[inside], 1.0, atol=0.006)


# -- a PSF that is an image


def lopsided():
    """Star of 0.4 arcsec pixels with a long wing and a bump on one side, off the middle."""
    y, x = np.mgrid[:121, :121] - 60.0
    core = (1.0 + ((x - 1.3) ** 2 + (y + 2.1) ** 2) / 6.5**2) ** -2.2
    return PSF.from_image(core + 0.12 * np.exp(-0.5 * ((x - 14) ** 2 + (y - 6) ** 2) / 6**2), 0.4)


def star_observed(psf):
    """A star seen by a cube at 2.5 arcsec, and by images at 1.5 brought to a PSF."""
    shape_in, shape_out = (121, 119), (41, 43)
    wcs_in, wcs_out = tan_wcs(shape_in, 0.5), tan_wcs(shape_out, 1.0)
    star = gaussian_sky(wcs_in, shape_in, 2.5)
    ifs = cube(np.stack([star / star.sum()] * 5), wcs_in, wave=WAVE[::10], fwhm=2.5)
    sharp = gaussian_sky(wcs_in, shape_in, 1.5)
    image = specphoto.Image(
        sharp / sharp.sum(), "sdss_r", wcs=wcs_in, psf=1.5, photflam=1e-17, unit="count / s",
        noise=np.full(shape_in, 1e-4),
    )  # fmt: skip
    photo = specphoto.photometry_from_images(image, Grid(wcs_out, shape_out, 9.0), psf=psf)
    fine = psf.sample(0.5, 87)
    share = np.convolve([1.0, 1.0], [0.5, 0.5])
    seen = signal.convolve2d(fine, np.outer(share, share), mode="same")
    return ifs, photo, seen[3:84:2, 1:86:2]


def check_star(out, want):
    peak = want.max()
    assert np.abs(out["photo_flux"].values[0] - want).max() < 0.02 * peak
    assert np.abs(out["spec_flux"].values - want).max() < 0.01 * peak


def test_match_spatial__the_image_of_a_psf_stays_with_the_images():
    psf = lopsided()
    ifs, photo, want = star_observed(psf)
    with raise_if_computes():
        lazy = match_spatial(ifs, photo)
    out = computed(lazy, "spec_flux", "photo_flux")
    check_star(out, want)
    assert lazy.attrs["psf"]["model"] == photo.attrs["psf"]["model"] == "image"
    np.testing.assert_array_equal(lazy["target_psf"], psf.image)
    # the Gaussian of its FWHM is another PSF
    plain = computed(match_spatial(ifs, photo, target_psf=psf.fwhm), "spec_flux")["spec_flux"]
    assert np.abs(plain.values - want).max() > 0.1 * want.max()


def test_match_spatial__the_image_of_a_psf_is_not_forgotten_with_its_variable():
    ifs, photo, _ = star_observed(lopsided())
    with pytest.raises(InputError, match=r"attribute 'psf'.*no variable target_psf.*from_image"):
        match_spatial(ifs, photo.drop_vars("target_psf"))


def test_to_psf__takes_the_image_of_a_psf_along():
    psf = lopsided()
    _, photo, want = star_observed(psf)
    _, sharp, _ = star_observed(PSF("gaussian", 3.0))
    brought = to_psf(sharp, 3.0, psf)
    np.testing.assert_array_equal(brought["target_psf"], psf.image)
    found = brought["photo_flux"].isel(band=0).compute(scheduler="synchronous")
    assert np.nanmax(np.abs(found - want)) < 0.02 * want.max()
    # and away again, by a broader one
    assert "target_psf" not in to_psf(photo, psf, 20.0)


@pytest.mark.parametrize("kind", ["fits", "zarr"])
def test_match_spatial__the_image_of_a_psf_is_kept_in_products(tmp_path, kind):
    ifs, photo, want = star_observed(lopsided())
    with dask.config.set(scheduler="synchronous"):
        specphoto.write_fits(photo, tmp_path / "photo.fits")
        made = match_spatial(ifs, specphoto.open_photometry(tmp_path / "photo.fits"))
        path = tmp_path / f"matched.{kind}"
        (specphoto.write_fits if kind == "fits" else specphoto.write_zarr)(made, path)
        back = specphoto.open_cube(path)
        check_star(back.compute(), want)
    xr.testing.assert_identical(back["target_psf"], made["target_psf"])
    assert back.attrs["psf"] == photo.attrs["psf"]
    # what comes back can be matched to
    again = match_spatial(ifs, back[["photo_flux", "photo_err", "photo_region", "target_psf"]])
    check_star(computed(again, "spec_flux", "photo_flux"), want)


def test_match_spatial__a_file_that_names_only_the_band_of_its_psf(tmp_path):
    galaxy = small_galaxy()
    ifs = specphoto.open_ifs(galaxy.cube.path).isel(wave=slice(500, 540))
    with fits.open(galaxy.photometry.path) as hdus:
        assert hdus[0].header["FPSFMTCH"] == "wise_w2"
        del hdus[0].header["PSFFWHM"]
        hdus.writeto(tmp_path / "images.fits")
    images = specphoto.open_photometry(tmp_path / "images.fits")
    lazy = match_spatial(ifs, images)
    assert (lazy.attrs["psf"]["model"], lazy.attrs["psf"]["fwhm"]) == ("moffat", [6.37])
    out = computed(lazy, "spec_flux", "spec_err")
    named = computed(match_spatial(ifs, images, target_psf="wise_w2"), "spec_flux", "spec_err")
    xr.testing.assert_equal(out, named)
    assert out["spec_region"].sum() > 20
    assert np.isfinite(out["spec_flux"].values[:, out["spec_region"].values]).mean() > 0.9


# -- how well the kernels do is told


def test_match_spatial__tells_of_its_kernels():
    psf = lopsided()
    ifs, photo, _ = star_observed(psf)
    ifs = ifs.assign_attrs(psf={**ifs.attrs["psf"], "wave": [4e3, 9e3], "fwhm": [2.5, 2.1]})
    told = match_spatial(ifs, photo).attrs["provenance"][-1]["options"]["kernels"]
    for fwhm, numbers in zip((2.5, 2.1), told, strict=True):
        source = PSF("gaussian", fwhm)
        report = kernel_report(source, psf, matching_kernel(source, psf, 0.5), 0.5)
        assert set(numbers) == {"worst_residual", "residual_power", "encircled_residual",
                                "negative_share", "largest_gain"}  # fmt: skip
        for name, value in numbers.items():
            assert value == pytest.approx(getattr(report, name), rel=0.01), name
        assert numbers["worst_residual"] < 0.01
    assert told[0] != told[1]


def test_photometry__tells_of_its_kernels():
    psf = lopsided()
    _, photo, _ = star_observed(psf)
    brought = to_psf(photo, psf, PSF("gaussian", 14.0))
    for ds, source, target, scale in (
        (photo, PSF("gaussian", 1.5), psf, 0.5),
        (brought, psf, PSF("gaussian", 14.0), 1.0),
    ):
        report = kernel_report(source, target, matching_kernel(source, target, scale), scale)
        told = ds.attrs["provenance"][-1]["options"]["kernel"]
        assert told == report.numbers
        assert told["largest_gain"] > 0.9


# -- correlation of what comes out


def test_match_spatial__delivers_the_correlation_of_its_pixels():
    ifs = observation(linear)
    ifs.attrs["correlation"] = {"model": "gaussian", "scale": 1.92, "cutoff": 6.4}
    with raise_if_computes():
        lazy = match_spatial(ifs, photometry(5.0))
    corr = computed(lazy, "spec_corr")["spec_corr"]
    assert corr.dims == ("lag", "y", "x")
    assert float(corr["corr_wave"]) == pytest.approx(6500.0, abs=200.0)
    here = corr.isel(y=15, x=16)
    next_to = here[(here["lag_y"] == 0) & (here["lag_x"] == 1)]
    assert 0.8 < float(next_to[0]) < 1.0
    assert float(np.abs(here).min()) < 0.03


def test_match_spatial__the_cubes_own_correlation_goes_before_the_model():
    ifs = observation(linear)
    lag_y, lag_x = np.array([0, 1, 1, 1]), np.array([1, -1, 0, 1])
    rho = np.full((2, 4, *SHAPE), 0.2, "f4")
    told = ifs.assign(spec_corr=(("corr_wave", "lag", "y", "x"), rho)).assign_coords(
        corr_wave=[5000.0, 8000.0], lag_y=("lag", lag_y), lag_x=("lag", lag_x)
    )
    plain = computed(match_spatial(ifs, photometry(5.0)), "spec_err")["spec_err"]
    more = computed(match_spatial(told, photometry(5.0)), "spec_err")["spec_err"]
    none = match_spatial(told, photometry(5.0), correlation={"model": "none"})
    # eight neighbours at 0.2, under weights that hardly change from one to the next
    ratio = (more / plain).isel(y=15, x=16)
    np.testing.assert_allclose(ratio, np.sqrt(1.0 + 8 * 0.2), rtol=0.04)
    np.testing.assert_array_equal(computed(none, "spec_err")["spec_err"], plain)
    assert none.attrs["provenance"][-1]["options"]["correlation"] == {"model": "none"}


@pytest.mark.parametrize(
    ("end", "target", "limit"),
    [(slice(0, 3), 5.0, 0.025), (slice(-3, None), 6.4, 0.01)],
    ids=["blue", "red"],
)
def test_sum_spectra__errors_are_nearly_right_at_the_ends_of_the_range(end, target, limit):
    # the correlation delivered is that of the middle; a cube of an end alone has its own
    ifs = observation(linear)
    ifs.attrs["correlation"] = {"model": "gaussian", "scale": 1.92, "cutoff": 6.4}
    y, x = np.indices(SHAPE_OUT)
    pairs = [(wave, linear(wave)) for wave in NODES]
    sums = []
    for cut, of in ((ifs, end), (ifs.isel(wave=end), slice(None))):
        out = match_spatial(cut, photometry(target), source_psf=pairs).isel(wave=of)
        with dask.config.set(scheduler="synchronous"):
            made = sum_spectra(out, 1 + y // 7 * 10 + x // 7, min_good=1.0).compute()
        sums.append(made["spec_err"].values)
    known = np.isfinite(sums[1])
    assert known.sum() > 50
    ratio = sums[0][known] / sums[1][known]
    np.testing.assert_allclose(ratio, 1.0, atol=limit)
    assert np.abs(ratio - 1.0).max() > 0.4 * limit


def test_match_spatial__tells_how_much_of_the_cubes_correlation_was_clipped(tmp_path):
    # a Gaussian that is cut, as tables: the matrix has negative eigenvalues
    stencil = correlation_stencil(1.92, 5.7)
    reach = stencil.shape[0] // 2
    half = [(y, x) for y in range(reach + 1) for x in range(-reach, reach + 1) if (y, x) > (0, 0)]
    rho = np.array([np.full(SHAPE, stencil[y + reach, x + reach], "f4") for y, x in half])
    lag_y, lag_x = np.array(half).T
    told = observation(linear).assign(spec_corr=(("corr_wave", "lag", "y", "x"), rho[None]))
    told = told.assign_coords(corr_wave=[6e3], lag_y=("lag", lag_y), lag_x=("lag", lag_x))
    with raise_if_computes():
        lazy = match_spatial(told, photometry(5.0))
    with dask.config.set(scheduler="synchronous"):
        specphoto.write_zarr(lazy, tmp_path / "matched.zarr")
        clipped = float(specphoto.open_cube(tmp_path / "matched.zarr")["spec_corr_clipped"])
    # of an endless plane it is the most negative value of the power spectrum
    assert clipped == pytest.approx(clipped_share(stencil), rel=0.1)
    assert clipped > 0.003
    assert "spec_corr_clipped" not in match_spatial(observation(linear), photometry(5.0))


# -- pointing


def moved(arcsec_east, arcsec_north):
    """The observation with headers that put the cube elsewhere than it is."""
    ifs = observation(linear)
    header = tan_wcs(SHAPE, 0.5)
    header.wcs.crval = [
        header.wcs.crval[0] + arcsec_east / 3600.0 / np.cos(np.deg2rad(header.wcs.crval[1])),
        header.wcs.crval[1] + arcsec_north / 3600.0,
    ]
    return ifs.assign_attrs(wcs=wcs_string(header))


def test_match_spatial__undoes_a_pointing_offset():
    true = computed(match_spatial(observation(linear), photometry(5.0)), "spec_flux")
    off = moved(0.9, -0.6)
    with raise_if_computes():
        lazy = match_spatial(off, photometry(5.0), register=True)
        told = match_spatial(off, photometry(5.0), register="report")
    out = computed(lazy, "spec_flux", "register_shift", "register_status")
    assert int(out["register_status"]) == 0
    np.testing.assert_allclose(out["register_shift"], [-0.9, 0.6], atol=0.03)
    inside = true["spec_region"].values & out["spec_region"].values & (rebinned(5.0) > 0.2)
    assert inside.sum() > 50
    ratio = (out["spec_flux"] / true["spec_flux"]).values[:, inside]
    np.testing.assert_allclose(ratio, 1.0, atol=0.01)
    only = computed(told, "spec_flux", "register_shift")
    np.testing.assert_allclose(only["register_shift"], out["register_shift"], atol=1e-6)
    left = (only["spec_flux"] / true["spec_flux"]).values[:, inside]
    assert np.abs(left - 1.0).max() > 0.1


def test_match_spatial__what_is_not_found_is_not_applied():
    flat = images(np.ones((3, *SHAPE_OUT)), WCS_OUT, fwhm=5.0)
    ifs = observation(linear)
    plain = computed(match_spatial(ifs, flat), "spec_flux")
    asked = computed(match_spatial(ifs, flat, register=True), "spec_flux", "register_status",
                     "register_shift")  # fmt: skip
    assert int(asked["register_status"]) != 0
    np.testing.assert_array_equal(asked["register_shift"], 0.0)
    # the frame has room for a shift, so its products are rounded otherwise
    np.testing.assert_allclose(asked["spec_flux"], plain["spec_flux"], rtol=1e-5)


def test_match_spatial__registration_needs_images():
    with pytest.raises(InputError, match=r"register: expected images .*, found a Grid"):
        match_spatial(observation(linear), Grid(WCS_OUT, SHAPE_OUT, 5.0), register=True)


@pytest.mark.parametrize("kind", ["fits", "zarr"])
def test_match_spatial__what_registration_found_is_kept_in_the_product(tmp_path, kind):
    made = match_spatial(moved(0.4, 0.0), photometry(5.0), register="report")
    path = tmp_path / f"matched.{kind}"
    with dask.config.set(scheduler="threads"):
        (specphoto.write_fits if kind == "fits" else specphoto.write_zarr)(made, path)
        back = specphoto.open_cube(path)
        names = [name for name in made.data_vars if name.startswith("register")] + ["spec_corr"]
        xr.testing.assert_equal(back[names].compute(), made[names].compute())
    assert back["register_status"].attrs["flag_meanings"].startswith("ok ")


def test_register__errors_know_that_convolved_images_have_correlated_noise():
    # images sharper than the cube, and so noisy that they alone decide
    ifs = observation(lambda _: 2.6)
    ifs["spec_var"] = ifs["spec_var"] * 1e-6
    rng = np.random.default_rng(5)
    clean = blob(WCS_OUT, SHAPE_OUT, 1.3, 1.0)
    shifts, errors = [], []
    for _ in range(48):
        noisy = clean + rng.normal(0.0, 0.03, (3, *SHAPE_OUT))
        photo = images(noisy, WCS_OUT, fwhm=1.3)
        photo["photo_err"] = photo["photo_err"].dims, np.full(noisy.shape, 0.03, "f4")
        found = computed_registration(specphoto.register(ifs, photo.isel(band=[1])))
        assert int(found["register_status"]) == 0
        shifts.append(found["register_shift"].values)
        errors.append(np.sqrt(np.diag(found["register_cov"].values)))
    pull = np.array(shifts) / np.array(errors)
    # as if the noise were independent it is 2.3
    assert 0.8 < pull.std() < 1.2
    assert np.abs(shifts).max() < 0.3


def computed_registration(ds):
    with dask.config.set(scheduler="synchronous"):
        return ds[["register_shift", "register_cov", "register_status"]].compute()
