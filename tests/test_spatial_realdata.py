"""The spatial match on a real MUSE cube, onto a grid made from a real HST image of the field.

Measured: flux conserved to 1e-7, in a frame of zeros to 3e-7; equal to ``convolve_fft`` and
``reproject_exact`` to 1.5e-4 ... 3.4e-4 of the peak where coverage >= 0.99 (210 pixels).
"""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from astropy.convolution import convolve_fft
from reproject import reproject_exact
from scipy import ndimage
from test_spatial_overlap import area, clip_polygon

import specphoto
from specphoto.cube import Grid, celestial_wcs
from specphoto.io.grid import grid_from_image
from specphoto.spatial.correlation import stencil_of
from specphoto.spatial.kernel import matching_kernel
from specphoto.spatial.match import match_spatial
from specphoto.spatial.psf import PSF

pytestmark = pytest.mark.realdata

SEEING, TARGET, PIXEL = 1.05, 1.5, 0.4
KERNEL = matching_kernel(PSF("gaussian", SEEING), PSF("gaussian", TARGET), 0.2)
# every 60th channel is enough: the operator is the same for all
EVERY = 60


@pytest.fixture(scope="module")
def muse(realdata):
    ifs = specphoto.open_ifs(realdata / "muse_a478/minicube.fits", psf_fwhm=SEEING)
    return ifs.isel(wave=slice(None, None, EVERY)).load()


@pytest.fixture(scope="module")
def grid(realdata, muse):
    image = realdata / "muse_a478/a478hst-cutout.fits"
    return grid_from_image(image, pixel_scale=PIXEL, psf=TARGET, around=muse)


def match_all(ifs, grid):
    # min_coverage=0: conservation is over all that the frame holds
    with dask.config.set(scheduler="synchronous"):
        return match_spatial(ifs, grid, min_coverage=0.0, coverage="cube").compute()


@pytest.fixture(scope="module")
def matched(muse, grid):
    return match_all(muse, grid)


def frame_share(ifs, grid, pad):
    """Share of each spaxel, on the cube's grid padded by ``pad``, inside the output frame."""
    n_y, n_x = grid.shape
    ring_x = np.array([-0.5, n_x - 0.5, n_x - 0.5, -0.5])
    ring_y = np.array([-0.5, -0.5, n_y - 0.5, n_y - 0.5])
    sky = grid.wcs.pixel_to_world(ring_x, ring_y)
    x, y = celestial_wcs(ifs).world_to_pixel(sky)
    ring = [(float(a) + pad, float(b) + pad) for a, b in zip(x, y, strict=True)]
    shape = (ifs.sizes["y"] + 2 * pad, ifs.sizes["x"] + 2 * pad)
    share = np.zeros(shape)
    for j_y, j_x in np.ndindex(*shape):
        clipped = clip_polygon(ring, j_x - 0.5, j_x + 0.5, j_y - 0.5, j_y + 0.5)
        share[j_y, j_x] = area(clipped) if clipped else 0.0
    return share


def test_muse__is_in_vacuum_and_on_the_grid_of_the_image(muse, matched, grid):
    # air 4749.890625 A is 4751.218 A in vacuum (Ciddor / Morton agree to 0.01 A)
    assert muse["wave"].values[0] == pytest.approx(4751.22, abs=0.01)
    assert matched["spec_flux"].shape == (muse.sizes["wave"], *grid.shape)
    assert matched.attrs["pixel_scale"] == pytest.approx(PIXEL, rel=1e-6)
    assert matched.attrs["psf"]["fwhm"] == [TARGET]
    # the HST image lies 57 degrees from north
    matrix = celestial_wcs(matched).pixel_scale_matrix
    assert matrix[0, 1] == pytest.approx(-2.338650794e-5 * 4, rel=1e-6)


@pytest.mark.parametrize("cut", [0, 9], ids=["whole", "cut"])
def test_muse__flux_is_conserved(muse, grid, cut):
    wcs = grid.wcs.deepcopy()
    wcs.wcs.crpix = wcs.wcs.crpix - cut
    frame = Grid(wcs, (grid.shape[0] - 2 * cut, grid.shape[1] - 2 * cut), TARGET)
    out = match_all(muse, frame)
    flux = muse["spec_flux"].where(~muse["spec_mask"], 0.0).values.astype(float)
    # s_j = sum_o A_oj from the frame's own outline, by polygon clipping, through the kernel
    pad = KERNEL.shape[0] // 2
    share = frame_share(muse, frame, pad)
    s = ndimage.correlate(share, KERNEL, mode="constant")[pad:-pad, pad:-pad]
    assert s.max() == pytest.approx(1.0, abs=1e-6)
    assert s.min() < (0.01 if cut else 1.0)
    # the flux delivered is A (w f) / c
    got = np.nansum(out["spec_flux"] * out["coverage"].astype(float), axis=(1, 2))
    np.testing.assert_allclose(got, (s * flux).sum(axis=(1, 2)), rtol=1e-4)


def test_muse__flux_is_conserved_in_a_frame_of_zeros(realdata, muse):
    margin = 25
    wide = {}
    for name, value in (("spec_flux", 0.0), ("spec_var", 1.0), ("spec_mask", False)):
        array = muse[name].where(~muse["spec_mask"], 0.0) if name == "spec_flux" else muse[name]
        edge = ((0, 0), (margin, margin), (margin, margin))
        padded = np.pad(array.values, edge, constant_values=value)
        wide[name] = (("wave", "y", "x"), da.from_array(padded.astype(muse[name].dtype)))
    wide["spec_var"] = (wide["spec_var"][0], da.ones_like(wide["spec_var"][1]))
    number = np.arange(-margin, 40 + margin)
    ifs = xr.Dataset(wide, {"wave": muse["wave"], "y": number, "x": number}, muse.attrs)
    ifs["spec_mask"] = xr.zeros_like(ifs["spec_mask"])
    image = realdata / "muse_a478/a478hst-cutout.fits"
    frame = grid_from_image(image, pixel_scale=PIXEL, psf=TARGET, around=ifs)
    with dask.config.set(scheduler="synchronous"):
        flux = match_spatial(ifs, frame)["spec_flux"].compute()
    total = ifs["spec_flux"].sum(("y", "x"), dtype=float).values
    assert (total > 0).all()
    np.testing.assert_allclose(np.nansum(flux, axis=(1, 2), dtype=float), total, rtol=5e-3)


@pytest.mark.parametrize("wave", [4900.0, 5600.0, 7000.0, 9000.0])
def test_muse__equals_convolve_fft_then_reproject_exact(muse, matched, grid, wave):
    plane = muse.sel(wave=wave, method="nearest")
    out = matched.sel(wave=wave, method="nearest")
    flux = plane["spec_flux"].where(~plane["spec_mask"]).values.astype(float)
    # beyond the cube nothing is known: convolve_fft interpolates over NaN, as A w f / A w does
    smooth = convolve_fft(
        flux, KERNEL, boundary="fill", fill_value=np.nan, nan_treatment="interpolate"
    )
    source = celestial_wcs(muse)
    mean, _ = reproject_exact((smooth, source), grid.wcs, grid.shape, parallel=False)
    wanted = mean * (PIXEL / 0.2) ** 2
    inside = out["coverage"].values >= 0.99
    assert inside.sum() > 150
    difference = (out["spec_flux"].values - wanted)[inside]
    assert np.abs(difference).max() < 1e-3 * np.nanmax(wanted)


def test_muse__noise_of_neighbours_is_correlated_as_stated(realdata):
    # between sky lines, without what varies slowly in wavelength: the noise
    ifs = specphoto.open_ifs(realdata / "muse_a478/minicube.fits", psf_fwhm=SEEING)
    stencil = stencil_of(ifs.attrs["correlation"])
    middle = stencil.shape[0] // 2
    for first, last in ((5000, 5500), (6050, 6250), (6650, 6830), (8050, 8250)):
        some = ifs.sel(wave=slice(first, last)).compute()
        flux, sigma = some["spec_flux"].values, np.sqrt(some["spec_var"].values)
        noise = (flux - ndimage.uniform_filter1d(flux, 15, axis=0)) / sigma
        noise -= np.nanmedian(noise, axis=(1, 2), keepdims=True)
        noise = np.where(np.abs(noise) < 6.0, noise, 0.0)
        power = (noise**2).mean()
        for dy, dx in ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0)):
            one = noise[:, dy:, dx:]
            other = noise[:, : noise.shape[1] - dy, : noise.shape[2] - dx]
            found = (one * other).mean() / power
            assert found == pytest.approx(stencil[middle + dy, middle + dx], abs=0.025)
