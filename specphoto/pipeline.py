"""One galaxy: files in, a corrected cube out, products written whole or not at all."""

from __future__ import annotations

import logging
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from dask.base import compute

from specphoto.errors import InputError
from specphoto.io import open_cube, open_ifs, open_photometry
from specphoto.io.grid import grid_from_image
from specphoto.io.products import write_products
from specphoto.spatial.match import match_spatial
from specphoto.spectral.match import match_spectral
from specphoto.stages import StageWatch

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    import xarray as xr
    from distributed import Client

    from specphoto.cube import Grid
    from specphoto.spatial.psf import PSF
    from specphoto.stages import Stage

__all__ = [
    "Products",
    "match",
    "product_name",
    "require_spectra",
    "run",
    "run_spatial",
    "run_spectral",
    "write",
]

logger = logging.getLogger(__name__)

# A look at this many channels tells a good cube from an empty one without reading it all.
_GLANCE = 32
_SPATIAL = frozenset(signature(match_spatial).parameters) - {"ifs", "target", "compat"}


@dataclass(frozen=True)
class Products:
    """What a run left on disk, and what it took.

    Parameters
    ----------
    fits, zarr
        The products; None where one was not asked for.
    stages
        Tasks and seconds by stage; empty without a distributed client.
    seconds
        Wall time by step: 'open', 'check', 'compute and write'.
    """

    fits: Path | None
    zarr: Path | None
    stages: list[Stage] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def match(
    ifs: xr.Dataset,
    photometry: xr.Dataset,
    *,
    compat: Literal["pixedfit"] | None = None,
    **options: Any,
) -> xr.Dataset:
    """Match a cube of spectra to a photometric cube, in space and then in calibration.

    Nothing is computed.

    Parameters
    ----------
    ifs
        From :func:`specphoto.open_ifs`.
    photometry
        From :func:`specphoto.open_photometry`.
    compat
        'pixedfit' for the recipe of piXedfit v1.0 in both steps, with its faults.
    **options
        Of :func:`specphoto.match_spatial` and :func:`specphoto.match_spectral`; each takes its
        own.

    Returns
    -------
    xarray.Dataset
        As :func:`specphoto.match_spectral` returns it.

    Raises
    ------
    InputError
        As the two steps do.
    """
    spatial = {name: value for name, value in options.items() if name in _SPATIAL}
    spectral = {name: value for name, value in options.items() if name not in _SPATIAL}
    cube = match_spatial(ifs, photometry, compat=compat, **spatial)
    return match_spectral(cube, compat=compat, **spectral)


def run(
    cube: str | os.PathLike[str],
    photometry: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    survey: str = "auto",
    mask_bits: Sequence[str | int] | None = None,
    redshift: float | None = None,
    name: str | None = None,
    attrs: Mapping[str, Any] | None = None,
    formats: tuple[Literal["fits", "zarr"], ...] = ("fits", "zarr"),
    overwrite: bool = False,
    cluster: AbstractContextManager[Client] | None = None,
    progress: Callable[[list[Stage]], None] | None = None,
    **options: Any,
) -> Products:
    """Open the two files, match them, and write the products in one pass.

    Parameters
    ----------
    cube, photometry
        A survey's cube and a photometric cube, FITS.
    folder
        Where the products go; made if it is not there.
    survey, mask_bits
        Of the cube, as for :func:`specphoto.open_ifs`.
    redshift
        Where neither header has one, or has a wrong one.
    name
        Of the products, without ending; by default :func:`product_name`.
    attrs
        Further attributes of the products.
    formats
        Which products to write.
    overwrite
        Whether products already there are replaced.
    cluster
        Gives the client that computes (:func:`specphoto.cluster.open`); it is entered when all
        input has been found good. By default whatever scheduler Dask uses.
    progress
        Called with the stages while the cluster computes.
    **options
        Of :func:`match`.

    Returns
    -------
    Products
        Paths, and what each stage took.

    Raises
    ------
    InputError
        If a file or an option cannot be used. Nothing is left half-written.
    """
    seconds: dict[str, float] = {}
    start = time.perf_counter()
    ifs = open_ifs(cube, survey=survey, mask_bits=mask_bits)
    images = open_photometry(photometry, compat=options.get("compat"))
    z = _redshift(redshift, f"{cube} and {photometry}", ifs, images)
    matched = match(ifs, images, redshift=z, **options).assign_attrs(attrs or {})
    seconds["open"] = time.perf_counter() - start
    start = time.perf_counter()
    require_spectra(ifs, str(cube))
    seconds["check"] = time.perf_counter() - start
    products = write(
        matched, Path(folder) / (name or product_name(cube, photometry)), formats,
        overwrite=overwrite, compat=options.get("compat"), cluster=cluster, progress=progress,
    )  # fmt: skip
    return Products(products.fits, products.zarr, products.stages, {**seconds, **products.seconds})


def run_spatial(
    cube: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    photometry: str | os.PathLike[str] | None = None,
    grid: str | os.PathLike[str] | None = None,
    pixel_scale: float | None = None,
    psf: PSF | float | str | None = None,
    survey: str = "auto",
    mask_bits: Sequence[str | int] | None = None,
    redshift: float | None = None,
    overwrite: bool = False,
    cluster: AbstractContextManager[Client] | None = None,
    progress: Callable[[list[Stage]], None] | None = None,
    **options: Any,
) -> Products:
    """Open a cube and images, or an image that sets a grid; match in space; write one product.

    Parameters
    ----------
    cube
        A survey's cube.
    output
        File ending in ``.fits``, or folder ending in ``.zarr``.
    photometry, grid
        One of the two: a photometric cube, or an image whose WCS and frame set the grid.
    pixel_scale, psf
        Pixel of the target in arcsec, and its PSF: FWHM in arcsec, a PSF or the name of a band;
        by default those of the images.
    survey, mask_bits, redshift, overwrite, cluster, progress
        As in :func:`run`.
    **options
        Of :func:`specphoto.match_spatial`.

    Raises
    ------
    InputError
        If a file or an option cannot be used.
    """
    ifs = open_ifs(cube, survey=survey, redshift=redshift, mask_bits=mask_bits)
    target = _spatial_target(ifs, photometry, grid, pixel_scale, psf, options.get("compat"))
    if photometry is not None:
        options["target_psf"] = psf
    matched = match_spatial(ifs, target, **options)
    require_spectra(ifs, str(cube))
    return write(
        matched, *_target(output), overwrite=overwrite, compat=options.get("compat"),
        cluster=cluster, progress=progress,
    )  # fmt: skip


def _spatial_target(
    ifs: xr.Dataset, photometry: str | os.PathLike[str] | None,
    grid: str | os.PathLike[str] | None, pixel_scale: float | None, psf: PSF | float | str | None,
    compat: Literal["pixedfit"] | None,
) -> xr.Dataset | Grid:  # fmt: skip
    if photometry is not None and grid is None:
        return open_photometry(photometry, compat=compat)
    if photometry is not None or grid is None:
        raise InputError(
            "target", expected="either a photometric cube or an image that sets the grid",
            found="neither" if grid is None else "both",
            remedy="give PHOTOMETRY, or --grid IMAGE with --pixel-scale and --psf",
        )  # fmt: skip
    if psf is None:
        raise InputError(
            str(grid), expected="the FWHM of the PSF to reach, which an image does not state",
            found="none", remedy="give one in arcsec (psf=..., --psf)",
        )  # fmt: skip
    return grid_from_image(grid, pixel_scale=pixel_scale, psf=psf, around=ifs)


def run_spectral(
    file: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    redshift: float | None = None,
    overwrite: bool = False,
    compat: Literal["pixedfit"] | None = None,
    cluster: AbstractContextManager[Client] | None = None,
    progress: Callable[[list[Stage]], None] | None = None,
    **options: Any,
) -> Products:
    """Open a spatially matched cube, correct its spectra, and write one product.

    Parameters
    ----------
    file
        Product of the spatial match, FITS or Zarr, of ours or of piXedfit.
    output
        File ending in ``.fits``, or folder ending in ``.zarr``.
    redshift, overwrite, compat, cluster, progress
        As in :func:`run`.
    **options
        Of :func:`specphoto.match_spectral`.

    Raises
    ------
    InputError
        If the file or an option cannot be used.
    """
    cube = open_cube(file, compat=compat)
    z = _redshift(redshift, str(file), cube)
    corrected = match_spectral(cube, redshift=z, compat=compat, **options)
    return write(
        corrected, *_target(output), overwrite=overwrite, compat=compat, cluster=cluster,
        progress=progress,
    )  # fmt: skip


def _target(output: str | os.PathLike[str]) -> tuple[Path, tuple[Literal["fits", "zarr"], ...]]:
    path = Path(output)
    if path.suffix == ".zarr":
        return path.with_suffix(""), ("zarr",)
    if path.suffix == ".fits":
        return path.with_suffix(""), ("fits",)
    raise InputError(
        str(path), expected="an output that ends in .fits or .zarr", found=f"{path.name!r}",
        remedy="choose one of the two formats by the name's ending",
    )  # fmt: skip


def write(
    ds: xr.Dataset,
    stem: Path,
    formats: tuple[Literal["fits", "zarr"], ...] = ("fits", "zarr"),
    *,
    overwrite: bool = False,
    compat: Literal["pixedfit"] | None = None,
    cluster: AbstractContextManager[Client] | None = None,
    progress: Callable[[list[Stage]], None] | None = None,
) -> Products:
    """Compute a dataset once and write it under `stem` with ``.fits`` and ``.zarr``.

    Parameters
    ----------
    ds
        A spectrophotometric dataset.
    stem
        Name without suffix; its folder is made if it is not there.
    formats, overwrite, compat, cluster, progress
        As in :func:`run`.

    Raises
    ------
    InputError
        If a product is there already, or cannot be written.
    """
    paths = {name: stem.with_name(f"{stem.name}.{name}") for name in formats}
    _make_folder(stem.parent)
    with nullcontext() if cluster is None else cluster as client:
        start = time.perf_counter()
        with nullcontext() if client is None else StageWatch(client, progress) as seen:
            write_products(
                ds, fits=paths.get("fits"), zarr=paths.get("zarr"), overwrite=overwrite,
                compat=compat,
            )  # fmt: skip
        took = time.perf_counter() - start
    stages = [] if seen is None else seen.stages
    for stage in stages:
        logger.info("%s: %d tasks, %.1f s", stage.name, stage.done, stage.seconds)
    logger.info("%s: computed and written in %.1f s", stem.name, took)
    return Products(paths.get("fits"), paths.get("zarr"), stages, {"compute and write": took})


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            str(folder), expected="a folder that can be made",
            found=(error.strerror or str(error)).lower(), remedy="choose another",
        ) from error  # fmt: skip


def product_name(cube: str | os.PathLike[str], photometry: str | os.PathLike[str]) -> str:
    """Return ``corr_specphoto_<photometric cube>_<cube>``, as piXedfit names its product.

    >>> product_name("sky/manga-1-2-LOGCUBE.fits.gz", "fluxmap_ngc1.fits")
    'corr_specphoto_fluxmap_ngc1_manga-1-2-LOGCUBE'
    """
    return f"corr_specphoto_{_stem(photometry)}_{_stem(cube)}"


def _stem(path: str | os.PathLike[str]) -> str:
    return Path(path).name.removesuffix(".gz").removesuffix(".fits")


def _redshift(given: float | None, what: str, *sources: xr.Dataset) -> float:
    stated = [given, *(ds.attrs.get("redshift") for ds in sources)]
    known = [float(z) for z in stated if z is not None and np.isfinite(z) and z > -1.0]
    if not known:
        raise InputError(
            what, expected="a redshift in a header, or as an option",
            found="none", remedy="give one (redshift=..., --redshift)",
        )  # fmt: skip
    return known[0]


def require_spectra(ifs: xr.Dataset, what: str) -> None:
    """Refuse a cube without any information, before anything long begins.

    A few channels are looked at; all of them only where those are empty.

    Parameters
    ----------
    ifs
        From :func:`specphoto.open_ifs`.
    what
        The file, for the message.

    Raises
    ------
    InputError
        If no channel of any spaxel is finite, unmasked and of known variance.
    """
    step = max(1, ifs.sizes["wave"] // _GLANCE)
    glance, *_ = _information(ifs.isel(wave=slice(None, None, step)))
    if glance:
        return
    some, finite, variance, unmasked = _information(ifs)
    if some:
        return
    found = (
        "no finite flux" if not finite
        else "no finite variance (an inverse variance of 0 everywhere?)" if not variance
        else "every one of them masked" if not unmasked
        else "none that is finite, unmasked and of known variance at once"
    )  # fmt: skip
    raise InputError(
        what, expected="a cube with good channels",
        found=f"{found} in {ifs.sizes['wave']} x {ifs.sizes['y']} x {ifs.sizes['x']} of them",
        remedy="check that the file is the survey's final cube and that it is whole",
    )  # fmt: skip


def _information(ifs: xr.Dataset) -> tuple[bool, ...]:
    """Whether there is any good channel, finite flux, known variance, unmasked channel."""
    finite = np.isfinite(ifs["spec_flux"])
    known = np.isfinite(ifs["spec_var"]) & (ifs["spec_var"] > 0)
    unmasked = ~ifs["spec_mask"]
    some = (finite & known & unmasked).any(), finite.any(), known.any(), unmasked.any()
    # here and now: a cluster is not worth starting for an empty cube
    return tuple(bool(value) for value in compute(*some, scheduler="threads"))
