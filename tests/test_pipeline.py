"""One galaxy from files to products."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import dask
import numpy as np
import pytest
import xarray as xr
from galaxy_files import computing, small_galaxy
from lazy import raise_if_computes

import specphoto
from specphoto import pipeline
from specphoto.errors import InputError
from specphoto.stages import STAGES, stages_of

if TYPE_CHECKING:
    from distributed import Client


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> pipeline.Products:
    folder = tmp_path_factory.mktemp("run") / "made" / "here"
    galaxy = small_galaxy()
    with dask.config.set(scheduler="threads"):
        return pipeline.run(galaxy.cube.path, galaxy.photometry.path, folder)


def _ifs() -> xr.Dataset:
    return specphoto.open_ifs(small_galaxy().cube.path)


def test_match__lazy_and_equal_to_its_two_steps() -> None:
    images = specphoto.open_photometry(small_galaxy().photometry.path)
    with raise_if_computes():
        both = specphoto.match(_ifs(), images, max_bias=0.05, order=2)
        cube = specphoto.match_spatial(_ifs(), images, max_bias=0.05)
        expected = specphoto.match_spectral(cube, order=2)
    assert both.attrs == expected.attrs
    assert both.sizes["order"] == 3
    with dask.config.set(scheduler="synchronous"):
        column = {"x": 15, "y": 15}
        xr.testing.assert_identical(
            both.isel(column).compute(), expected.isel(column).compute()
        )  # fmt: skip


def test_match__unknown_option() -> None:
    images = specphoto.open_photometry(small_galaxy().photometry.path)
    with pytest.raises(InputError, match="wobble"):
        specphoto.match(_ifs(), images, wobble=3)


def test_run__two_equal_products_with_the_peers_name(
    products: pipeline.Products,
) -> None:
    name = "corr_specphoto_fluxmap_manga-sim3_manga-sim3-LOGCUBE"
    assert products.fits is not None
    assert products.zarr is not None
    assert (products.fits.name, products.zarr.name) == (f"{name}.fits", f"{name}.zarr")
    assert sorted(p.name for p in products.fits.parent.iterdir()) == [
        products.fits.name, products.zarr.name,
    ]  # fmt: skip
    from_fits, from_zarr = (
        specphoto.open_cube(p).compute(scheduler="threads") for p in (products.fits, products.zarr)
    )
    xr.testing.assert_allclose(from_fits, from_zarr, rtol=1e-6)
    assert from_zarr.attrs["corrected"] is True
    assert from_zarr["spec_region"].sum() > 20
    assert set(products.seconds) == {"open", "check", "compute and write"}


def test_run__refuses_to_replace_unless_told(products: pipeline.Products) -> None:
    galaxy = small_galaxy()
    assert products.fits is not None
    with pytest.raises(InputError, match="a product already there"):
        pipeline.run(galaxy.cube.path, galaxy.photometry.path, products.fits.parent)


def test_run__one_format_stages_counted(tmp_path: Path, two_workers: Client) -> None:
    galaxy = small_galaxy()
    seen: list[int] = []
    made = pipeline.run(
        galaxy.cube.path, galaxy.photometry.path, tmp_path, formats=("zarr",),
        cluster=computing(two_workers), progress=lambda stages: seen.append(len(stages)),
    )  # fmt: skip
    assert made.fits is None
    assert [p.name for p in tmp_path.iterdir()] == [made.zarr.name if made.zarr else ""]
    assert [stage.name for stage in made.stages] == list(STAGES)
    # what the dashboard groups and colours by
    groups = two_workers.run_on_scheduler(lambda dask_scheduler: [*dask_scheduler.task_prefixes])
    assert {"read-spec-flux", "spatial-planes", "fit-pixels", "correct-factor", "write"} <= set(
        groups
    )
    assert all(0 <= stage.done <= stage.total for stage in made.stages)
    assert sum(stage.seconds for stage in made.stages) > 0.5
    assert seen


def test_run__bad_folder(tmp_path: Path) -> None:
    galaxy = small_galaxy()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="expected a folder that can be made"):
        pipeline.run(galaxy.cube.path, galaxy.photometry.path, tmp_path / "file" / "under")


def test_run_steps__same_as_the_whole(tmp_path: Path, products: pipeline.Products) -> None:
    galaxy = small_galaxy()
    with dask.config.set(scheduler="threads"):
        pipeline.run_spatial(
            galaxy.cube.path, tmp_path / "a.zarr", photometry=galaxy.photometry.path
        )
        pipeline.run_spectral(tmp_path / "a.zarr", tmp_path / "b.fits")
        stepwise = specphoto.open_cube(tmp_path / "b.fits").compute()
        whole = specphoto.open_cube(products.zarr or "").compute()
    for name in ("spec_flux", "spec_err", "corr_coef", "closure_after"):
        np.testing.assert_allclose(
            stepwise[name], whole[name], rtol=2e-5, atol=1e-5 * float(np.nanmax(whole[name]))
        )


def test_run_spatial__grid_of_an_image(tmp_path: Path) -> None:
    galaxy = small_galaxy()
    with dask.config.set(scheduler="threads"):
        made = pipeline.run_spatial(
            galaxy.cube.path, tmp_path / "a.fits", grid=galaxy.photometry.path, pixel_scale=2.0,
            psf=5.0,
        )  # fmt: skip
    assert made.zarr is None
    ds = specphoto.open_cube(made.fits or "")
    assert ds.attrs["pixel_scale"] == pytest.approx(2.0)
    assert "photo_flux" not in ds


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "found neither"),
        ({"photometry": "a.fits", "grid": "b.fits"}, "found both"),
        ({"grid": "b.fits"}, "FWHM of the PSF to reach"),
    ],
)
def test_run_spatial__target_unclear(options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        pipeline.run_spatial(small_galaxy().cube.path, "a.fits", **options)  # type: ignore[arg-type]


def test_run_spatial__output_of_no_known_format() -> None:
    galaxy = small_galaxy()
    with pytest.raises(InputError, match=r"ends in \.fits or \.zarr, found 'a\.txt'"):
        pipeline.run_spatial(galaxy.cube.path, "a.txt", photometry=galaxy.photometry.path)


def test_redshift__absent(tmp_path: Path) -> None:
    from astropy.io import fits

    galaxy = small_galaxy()
    images = tmp_path / "fluxmap.fits"
    images.write_bytes(galaxy.photometry.path.read_bytes())
    fits.delval(images, "Z")
    with pytest.raises(InputError, match=r"fluxmap\.fits: expected a redshift .*--redshift"):
        pipeline.run(galaxy.cube.path, images, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ds: ds.assign(spec_flux=ds["spec_flux"] * np.float32(np.nan)), "no finite flux"),
        (
            lambda ds: ds.assign(spec_var=ds["spec_var"] * np.float32(np.nan)),
            "an inverse variance of 0",
        ),
        (lambda ds: ds.assign(spec_mask=ds["spec_mask"] | True), "every one of them masked"),
        (
            lambda ds: ds.assign(spec_mask=np.isfinite(ds["spec_var"])),
            "none that is finite, unmasked",
        ),
    ],
)
def test_require_spectra__nothing_there(change: object, message: str) -> None:
    with pytest.raises(InputError, match=rf"cube\.fits: expected a cube with good.*{message}"):
        pipeline.require_spectra(change(_ifs()), "cube.fits")  # type: ignore[operator]


def test_require_spectra__one_good_channel_is_enough() -> None:
    ds = _ifs()
    masked = ds["spec_mask"].copy()
    pipeline.require_spectra(ds.assign(spec_mask=masked | (masked["wave"] != ds["wave"][7])), "c")


@pytest.mark.parametrize(
    ("cube", "images", "name"),
    [
        ("a/b.fits.gz", "c/d.fits", "corr_specphoto_d_b"),
        ("b.rscube.fits", Path("d.fits.gz"), "corr_specphoto_d_b.rscube"),
    ],
)
def test_product_name__folders_and_endings_dropped(
    cube: str, images: str | Path, name: str
) -> None:
    assert pipeline.product_name(cube, images) == name


def test_stages__sums_by_stage_in_order() -> None:
    found = stages_of({
        "write": (1, 2, 3.0), "rechunk-merge": (1, 1, 0.5), "rechunk-split": (2, 3, 0.25),
        "read-flux-spatial-planes": (0, 4, 0.0), "read-mask": (1, 1, 1.0),
    })  # fmt: skip
    assert [s.name for s in found] == ["read", "arrange", "spatial", "write"]
    assert (found[1].done, found[1].total, found[1].seconds) == (3, 4, 0.75)
