"""Images in: photometric cubes made of them, and cubes of spectra registered on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from specphoto.errors import InputError
from specphoto.io import open_ifs, open_photometry, write_fits
from specphoto.io.grid import grid_from_image
from specphoto.io.image_file import parse_image
from specphoto.photometry.match import photometry_from_images
from specphoto.spatial.inputs import source_psfs
from specphoto.spatial.psf import broadest
from specphoto.spatial.register import register

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import xarray as xr

    from specphoto.cube import Grid
    from specphoto.spatial.psf import PSF

__all__ = ["run_images", "run_register"]


def run_images(
    images: Sequence[str],
    output: str | os.PathLike[str],
    *,
    cube: str | os.PathLike[str] | None = None,
    grid: str | os.PathLike[str] | None = None,
    pixel_scale: float | None = None,
    psf: PSF | float | str | None = None,
    cube_psf: float | None = None,
    overwrite: bool = False,
) -> Path:
    """Make a photometric cube of calibrated images and write it.

    Parameters
    ----------
    images
        ``path,band=NAME,option=...`` each (:func:`specphoto.io.image_file.parse_image`).
    output
        File ending in ``.fits``; :func:`specphoto.open_photometry` reads it.
    cube, grid
        One of the two: a cube of spectra whose pixels are taken, or an image whose WCS and frame
        set the grid.
    pixel_scale, psf
        Pixel (of ``grid``) and PSF of the result; by default the broadest PSF of all.
    cube_psf
        FWHM of the cube's PSF in arcsec, where its file does not say.
    overwrite
        Whether a file already there is replaced.

    Raises
    ------
    InputError
        If a file or an option cannot be used.
    """
    parsed = [parse_image(text) for text in images]
    made = photometry_from_images(parsed, _grid(cube, grid, pixel_scale, psf, cube_psf), psf)
    write_fits(made, output, overwrite=overwrite)
    return Path(output)


def _grid(
    cube: str | os.PathLike[str] | None, grid: str | os.PathLike[str] | None,
    pixel_scale: float | None, psf: PSF | float | str | None, cube_psf: float | None,
) -> xr.Dataset | Grid:  # fmt: skip
    if cube is not None and grid is None:
        return open_ifs(cube, psf_fwhm=cube_psf)
    if cube is not None or grid is None:
        raise InputError(
            "grid", expected="either a cube or an image that sets the grid",
            found="neither" if grid is None else "both", remedy="give --on CUBE or --grid IMAGE",
        )  # fmt: skip
    if psf is None:
        raise InputError(
            str(grid), expected="the FWHM of the PSF to reach, which an image does not state",
            found=repr(psf), remedy="give one in arcsec (psf=..., --psf)",
        )  # fmt: skip
    return grid_from_image(grid, pixel_scale=pixel_scale, psf=psf)


def run_register(
    cube: str | os.PathLike[str],
    photometry: str,
    *,
    source_psf: PSF | float | str | Sequence[tuple[float, float]] | None = None,
    target_psf: PSF | float | str | None = None,
    survey: str = "auto",
    figure: str | os.PathLike[str] | None = None,
    **options: Any,
) -> xr.Dataset:
    """Find where a cube lies on images.

    Parameters
    ----------
    cube
        A survey's cube.
    photometry
        A photometric cube, or one image as ``path,band=NAME,option=...``, which is first brought
        to the cube's pixels and PSF.
    source_psf, target_psf
        PSF of the cube and of the photometric cube, where the files do not say or say it wrong,
        as for :func:`specphoto.register`.
    survey
        Of the cube, or 'auto'.
    figure
        Figure to write: the image, the cube's own, and what is left.
    **options
        Of :func:`specphoto.register`.

    Returns
    -------
    xarray.Dataset
        Computed, as :func:`specphoto.register` returns it.

    Raises
    ------
    InputError
        If a file or an option cannot be used.
    """
    fwhm = source_psf if isinstance(source_psf, int | float) else None
    ifs = open_ifs(cube, survey=survey, psf_fwhm=fwhm)
    given = source_psf if fwhm is None else None
    if ",band=" in photometry.replace(" ", ""):
        psf = None if given is None else broadest(source_psfs(ifs, given)[1])
        images = photometry_from_images(parse_image(photometry), ifs, psf)
    else:
        images = open_photometry(photometry)
    options |= {"source_psf": given, "target_psf": target_psf}
    found = register(ifs, images, **options).compute()
    if figure is not None:
        _draw(found, figure)
    return found


def _draw(found: xr.Dataset, path: str | os.PathLike[str]) -> None:
    from matplotlib.figure import Figure

    from specphoto import plot

    figure = Figure(figsize=(12.0, 3.6), layout="constrained")
    plot.registration(found, list(figure.subplots(1, 3)))
    figure.savefig(path, dpi=150)
