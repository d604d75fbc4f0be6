"""Opening, matching and looking at a pixel compute no more than they need: tasks are counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dask
import numpy as np
import pytest
from galaxy_files import small_galaxy
from lazy import Run, number, planned, raise_if_computes
from matplotlib.figure import Figure

import specphoto
from specphoto import plot

if TYPE_CHECKING:
    import xarray as xr

X, Y = 15, 16
BLOCK = 8  # 16 blocks of pixels


@pytest.fixture(scope="module")
def spatial() -> xr.Dataset:
    """Return a cube that waits to be matched on its images."""
    made = small_galaxy()
    with raise_if_computes():
        return specphoto.match_spatial(
            specphoto.open_ifs(made.cube.path), specphoto.open_photometry(made.photometry.path)
        )


def test_pixel__images_wait_for_no_spectrum(spatial: xr.Dataset) -> None:
    with raise_if_computes():
        lazy = specphoto.match_spectral(spatial).specphoto.pixel(X, Y)
    names = planned(lazy[["photo_flux", "photo_err"]])
    assert 2 <= names.total() <= 16
    assert number(names, "match") == number(names, "prepare") == number(names, "ivar") == 0


def test_pixel__plot_matches_each_plane_once(spatial: xr.Dataset) -> None:
    n_block = len(spatial["spec_flux"].chunks[0])
    with dask.config.set(scheduler="synchronous"), Run() as run:
        ax = plot.pixel_sed(spatial, Figure().subplots(), pixel=(Y, X))
    assert ax.get_title().startswith(f"pixel x = {X}, y = {Y}")
    assert number(run.names, "spatial-planes") == n_block
    one = spatial.specphoto.pixel(X, Y)
    names = planned(one[["spec_flux", "spec_err", "spec_mask", "photo_flux", "photo_err"]])
    # spec_region comes on top, from a few tasks that the edges need too
    assert run.names.total() <= 1.1 * names.total()
    whole = planned(spatial[["spec_flux", "spec_err", "spec_mask", "photo_flux", "photo_err"]])
    assert names.total() <= 1.05 * whole.total()


@pytest.mark.parametrize("coherent", [False, True])
def test_pixel__corrects_the_block_it_is_in(spatial: xr.Dataset, coherent: bool) -> None:
    with raise_if_computes():
        cube = specphoto.match_spectral(spatial, coherent=coherent, block=BLOCK)
        lazy = cube.specphoto.pixel(X, Y)
    n_block = int(np.prod([len(c) for c in cube["corr_coef"].chunks[1:]]))
    assert n_block == 16
    names = planned(lazy[["spec_flux", "spec_err", "spec_mask", "mod_flux", "corr_factor"]])
    # pixels that are taken together speak together
    assert number(names, "fit-pixels") == (n_block if coherent else 1)
    assert number(names, "correct-pixels-together") == (1 if coherent else 0)
    assert number(names, "fit-prepare-reference") == number(names, "fit-prepare-library") == 1
    assert number(names, "factor") <= 3
    assert number(names, "additive-residuals") == number(names, "closure") == 0
    whole = planned(cube[["spec_flux", "spec_err", "spec_mask", "mod_flux", "corr_factor"]])
    assert number(whole, "fit-pixels") == n_block
    assert names.total() < whole.total()


def test_pixel__coefficients_make_the_factor_of_one_pixel(spatial: xr.Dataset) -> None:
    cube = specphoto.match_spectral(spatial, coherent=False, block=BLOCK)
    lazy = cube.specphoto.pixel(X, Y)["corr_factor"]
    assert number(planned(lazy.to_dataset()), "fit-pixels") == 1
