"""One image on a grid as a Dask array: a task per tile of pixels, with its cut of the image."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
from scipy.ndimage import gaussian_filter

from specphoto.blas import single_thread
from specphoto.cube import BLOCK_MULTIPLE, pixel_scale
from specphoto.errors import InputError
from specphoto.io.fits_array import FitsArray
from specphoto.photometry import calibrate
from specphoto.photometry import images as kernels
from specphoto.spatial.geometry import corners_on
from specphoto.spatial.kernel import SAME_FWHM, kernel_report, matching_kernel
from specphoto.tasks import task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dask.delayed import Delayed
    from numpy.typing import NDArray

    from specphoto.io.image_file import CalibratedImage
    from specphoto.spatial.geometry import PixelFrame
    from specphoto.spatial.kernel import KernelReport
    from specphoto.spatial.psf import PSF

__all__ = ["image_kernel", "image_plane", "kernel_for", "source_psf"]

# A task's cut of an image has about this side, besides the reach of the kernel.
_CUT = 1024
_TILE_SIDES = (16, 512)


def kernel_for(source: PSF, target: PSF, scale: float, *, name: str) -> NDArray[np.float64]:
    """Kernel of an image's PSF to a broader one on pixels of ``scale`` arcsec.

    Raises
    ------
    InputError
        If the image is the broader one or the two cannot be matched; ``name`` is that of the image.
    """
    if source.fwhm > target.fwhm * (1.0 + SAME_FWHM):
        raise InputError(
            name, expected=f"images no broader than the PSF wanted ({target.fwhm:.3g} arcsec)",
            found=f"a PSF of {source.fwhm:.3g} arcsec",
            remedy="ask for a broader PSF, or bring the cube to the images instead (match_spatial):"
            " nothing is deconvolved",
        )  # fmt: skip
    try:
        return matching_kernel(source, target, scale)
    except InputError as error:
        raise InputError(
            name, expected="a PSF that a kernel can bring to the one wanted",
            found=str(error).rstrip("."), remedy="give the image another PSF, or a broader target",
        ) from error  # fmt: skip


def source_psf(image: CalibratedImage, pixels: float | None) -> tuple[PSF, PSF]:
    """PSF of an image, and as it will be for the pixels of ``pixels`` arcsec alone."""
    if image.psf is None:
        raise InputError(
            image.name, expected="the PSF of the image", found="none",
            remedy="give psf: FWHM in arcsec, a specphoto PSF, a band's name or a PSF image",
        )  # fmt: skip
    if pixels is None:
        return image.psf, image.psf
    # the rebinned image is that of squares of both sizes; a uniform one has side^2 / 12
    spread = (pixels**2 + pixel_scale(image.frame.wcs) ** 2) / 12.0
    return image.psf, _blurred(image.psf, np.sqrt(spread))


def _blurred(psf: PSF, sigma: float) -> PSF:
    """PSF convolved with something much narrower, of 1-sigma width ``sigma`` (arcsec)."""
    fwhm = float(np.hypot(psf.fwhm, np.sqrt(8.0 * np.log(2.0)) * sigma))
    if psf.image is None or psf.scale is None:
        return replace(psf, fwhm=fwhm)
    return replace(psf, fwhm=fwhm, image=gaussian_filter(psf.image, sigma / psf.scale))


def image_kernel(
    image: CalibratedImage, source: tuple[PSF, PSF], wanted: PSF
) -> tuple[NDArray[np.float64], KernelReport]:
    """Kernel of an image to the PSF wanted, and how well it does.

    Parameters
    ----------
    image
        The image.
    source
        From :func:`source_psf`.
    wanted
        PSF of the result.

    Raises
    ------
    InputError
        If the image is broader than wanted.
    """
    # where the pixels alone make it broader than wanted, they do, and no kernel besides
    fits = source[1].fwhm <= wanted.fwhm * (1.0 + SAME_FWHM)
    own, scale = source[1] if fits else source[0], pixel_scale(image.frame.wcs)
    kernel = kernel_for(own, wanted, scale, name=image.name)
    return kernel, kernel_report(own, wanted, kernel, scale)


def image_plane(
    image: CalibratedImage,
    kernel: NDArray[np.float64],
    frame: PixelFrame,
    *,
    min_coverage: float,
) -> da.Array:
    """One image on the grid, lazily: flux and 1-sigma error, ``(2, n_y, n_x)``.

    Parameters
    ----------
    image
        The image.
    kernel
        From :func:`image_kernel`.
    frame
        The grid.
    min_coverage
        As for :func:`specphoto.photometry.images.bring_to_grid`.

    Raises
    ------
    InputError
        If the two do not overlap on the sky.
    """
    corner_x, corner_y = corners_on(frame, image.frame)
    reach = kernel.shape[0] // 2, kernel.shape[1] // 2
    if kernels.near_box(corner_x, corner_y, image.frame.shape, (0, 0)) is None:
        raise _elsewhere(image, frame)
    statistics = _statistics(image)
    side = _tile_side(corner_x, corner_y)
    rows = []
    for y in range(0, frame.shape[0], side):
        row = []
        for x in range(0, frame.shape[1], side):
            around = slice(y, y + side + 1), slice(x, x + side + 1)
            corners = corner_x[around], corner_y[around]
            shape = (2, corners[0].shape[0] - 1, corners[0].shape[1] - 1)
            box = kernels.near_box(*corners, image.frame.shape, reach)
            if box is None:
                row.append(da.full(shape, np.nan, chunks=shape))
                continue
            tile = task("spatial", _image_tile)(
                *(_part(pixels, box) for pixels in (image.flux, image.noise, image.mask)),
                statistics, corners[0] - box[1].start, corners[1] - box[0].start, kernel,
                kind=image.noise_kind, factor=image.factor, sky=image.sky,
                min_coverage=min_coverage,
            )  # fmt: skip
            row.append(da.from_delayed(tile, shape, dtype=np.float64))
        rows.append(row)
    plane: da.Array = da.block(rows)
    return plane


def _elsewhere(image: CalibratedImage, frame: PixelFrame) -> InputError:
    middle = [
        f.wcs.pixel_to_world(f.first_x + f.shape[1] / 2, f.first_y + f.shape[0] / 2)
        for f in (image.frame, frame)
    ]
    return InputError(
        image.name, expected="an image of the grid's sky",
        found=f"no overlap, centres {middle[0].separation(middle[1]).arcsec:.4g} arcsec apart",
        remedy="check that both are of one galaxy and that their WCS are right",
    )  # fmt: skip


def _tile_side(corner_x: NDArray[np.float64], corner_y: NDArray[np.float64]) -> int:
    """Side of a tile in output pixels, so that its cut of the image is of bounded size."""
    step = [np.abs(np.diff(c, axis=k)) for c in (corner_x, corner_y) for k in (0, 1)]
    largest = max(float(np.nanmax(s, initial=0.0)) for s in step)
    side = int(np.clip(_CUT / max(largest, 1e-3), *_TILE_SIDES))
    return side // BLOCK_MULTIPLE * BLOCK_MULTIPLE


def _part(pixels: Any, box: tuple[slice, slice]) -> Any:
    """Cut of an image: by a task where it is in a file."""
    if isinstance(pixels, FitsArray):
        return task("read", _cut)(pixels, box)
    return None if pixels is None else pixels[box]


def _cut(pixels: FitsArray, box: tuple[slice, slice]) -> NDArray[Any]:
    return np.asarray(pixels[box])


def _statistics(image: CalibratedImage) -> Delayed | None:
    """Sky level and scatter of the border by one task, where the image needs them."""
    if image.sky != "estimate" and image.noise_kind not in ("weight", "estimate"):
        return None
    boxes = calibrate.border(image.frame.shape)
    parts = [
        [_part(pixels, box) for pixels in (image.flux, image.noise, image.mask)] for box in boxes
    ]
    return task("spatial", _border_statistics)(parts, image.noise_kind, image.sky)


def _border_statistics(
    parts: Sequence[Sequence[NDArray[Any] | None]], kind: str, sky: float | str
) -> tuple[float, float]:
    """Sky level, and scatter at relative variance 1, in image units."""
    flux, variance = [], []
    for values, noise, mask in parts:
        assert values is not None
        relative = calibrate.relative_variance(values, noise, kind)
        bad = np.isinf(relative) if mask is None else np.isinf(relative) | (mask != 0)
        flux.append(np.where(bad, np.nan, values).ravel())
        variance.append(relative.ravel())
    pixels = np.concatenate(flux)
    level = calibrate.background(pixels)[0] if sky == "estimate" else float(sky)
    scaled = (pixels - level) / np.sqrt(np.concatenate(variance))
    return level, calibrate.background(scaled)[1]


def _image_tile(
    flux: NDArray[Any],
    noise: NDArray[Any] | None,
    mask: NDArray[Any] | None,
    statistics: tuple[float, float] | None,
    corner_x: NDArray[np.float64],
    corner_y: NDArray[np.float64],
    kernel: NDArray[np.float64],
    *,
    kind: str,
    factor: float,
    sky: float | str,
    min_coverage: float,
) -> NDArray[np.float64]:
    level, scatter = statistics or (float(sky), np.nan)
    values, variance = calibrate.calibrated(
        flux, noise, mask, kind, factor=factor, sky=level, scatter=scatter
    )
    with single_thread():
        return kernels.bring_to_grid(
            values, variance, corner_x, corner_y, kernel, min_coverage=min_coverage
        )
