"""The lazy face of :mod:`specphoto.photometry.images`: images to a PSF, images to a grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import xarray as xr

from specphoto.blas import single_thread
from specphoto.cube import (
    Grid,
    add_provenance,
    annotate,
    celestial_wcs,
    identify,
    pixel_scale,
    validate,
    wcs_string,
)
from specphoto.errors import InputError
from specphoto.io.image_file import Image, read_image
from specphoto.photometry import images as kernels
from specphoto.photometry.tiles import image_kernel, image_plane, kernel_for, source_psf
from specphoto.spatial.covariance import stencil_of
from specphoto.spatial.geometry import PixelFrame
from specphoto.spatial.inputs import carry_psf, stated_psf
from specphoto.spatial.kernel import kernel_report
from specphoto.spatial.psf import PSF, broadest, known_psf, psf_attrs, psf_nodes
from specphoto.tasks import task_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from astropy.wcs import WCS
    from numpy.typing import NDArray

    from specphoto.io.image_file import CalibratedImage

__all__ = ["photometry_from_images", "to_psf"]

# Frames larger than this are convolved in tiles that overlap by the reach of the kernel.
_TILE = 2048
_PAIR = ("photo_flux", "photo_err")


def to_psf(
    photometry: xr.Dataset,
    source: PSF | float,
    target: PSF | float,
    *,
    correlation: Mapping[str, Any] | None = None,
    min_coverage: float = 0.95,
) -> xr.Dataset:
    """Bring photometric images, their errors and their region to a broader PSF, lazily.

    The grid stays; the mathematics is that of the cube
    (:func:`specphoto.photometry.images.bring_to_psf`). Pixels without a value are not zeros: where
    known ones make up ``min_coverage`` of the kernel the flux is divided by that share, elsewhere
    it is unknown and the pixel leaves the region.

    Parameters
    ----------
    photometry
        From :func:`specphoto.open_photometry` or :func:`specphoto.photometry_from_images`.
    source, target
        PSF of the images and PSF wanted: FWHM in arcsec or a :class:`~specphoto.spatial.psf.PSF`.
    correlation
        Of the images' own noise, ``{"model": "gaussian", "scale": ..., "cutoff": ...}`` in
        pixels. By default pixels are independent, and the variance is the sum over ``K^2``. Images
        that were resampled or convolved before are not: without it their errors come out too
        small.
    min_coverage
        Share of the kernel that must fall on known pixels, 0 to 1.

    Returns
    -------
    xarray.Dataset
        The dataset with new ``photo_flux``, ``photo_err`` (band, y, x) and ``photo_region``, and
        the new ``psf``. The errors are those of single pixels; neighbours are now correlated.

    Raises
    ------
    InputError
        If the target PSF is sharper than the source.
    """
    validate(photometry, "photo_flux", "photo_err", "photo_region", verb="to_psf")
    name = identify(photometry)
    middle = float(np.median(np.asarray(photometry["band_wave"].values, dtype=float)))
    psf_in, psf_out = (known_psf(p, None, middle, f"to_psf: {name}") for p in (source, target))
    pixel = pixel_scale(celestial_wcs(photometry))
    kernel = kernel_for(psf_in, psf_out, pixel, name=name)
    stencil = stencil_of(correlation or {})
    both = _convolved(photometry, kernel, stencil if stencil.size > 1 else None, min_coverage)
    dims = ("band", "y", "x")
    lost = np.isfinite(photometry["photo_flux"].data) & ~np.isfinite(both[0])
    flux, error = (both[k].astype(photometry[v].dtype) for k, v in enumerate(_PAIR))
    out = photometry.assign(
        photo_flux=(dims, flux),
        photo_err=(dims, error),
        photo_region=(("y", "x"), photometry["photo_region"].data & ~lost.any(axis=0)),
    )
    before = photometry.attrs.get("photo_correlation") or {}
    own = (correlation or {}).get("scale", 0.0)
    grown = {
        str(band): _correlated(psf_in, psf_out, pixel, before.get(str(band), own))
        for band in photometry["band"].values
    }
    attrs = {"psf_band": None, "photo_correlation": grown}
    options = {
        "source": psf_attrs(psf_in), "target": psf_attrs(psf_out),
        "correlation": dict(correlation) if correlation else None, "min_coverage": min_coverage,
        "kernel": kernel_report(psf_in, psf_out, kernel, pixel).numbers,
    }  # fmt: skip
    return add_provenance(annotate(carry_psf(out, psf_out), **attrs), "to_psf", options=options)


def _correlated(source: PSF, target: PSF, pixel: float, before: float = 0.0) -> float:
    r"""Scale in pixels of the noise's correlation after a convolution from one PSF to another.

    A Gaussian kernel of :math:`\sigma_K` gives independent pixels a Gaussian correlation of scale
    :math:`\sqrt{2} \sigma_K`; its area :math:`4 \pi \sigma_K^2` is the difference of the PSFs'.
    ``pixel`` is in arcsec, ``before`` the scale there was, in pixels.
    """
    grown = max(0.0, target.area - source.area) / (2.0 * np.pi * pixel**2)
    return float(np.sqrt(before**2 + grown))


def _convolved(
    photometry: xr.Dataset,
    kernel: NDArray[np.float64],
    stencil: NDArray[np.float64] | None,
    min_coverage: float,
) -> da.Array:
    """Flux and error on their own grid, ``(2, band, y, x)``, one task per band and tile."""
    far = [n // 2 for n in kernel.shape]
    if stencil is not None:
        # a product of two pixels is convolved where the further one still counts
        far = [n + m // 2 for n, m in zip(far, stencil.shape, strict=True)]
    size = {"band": 1, **{k: _even(photometry.sizes[k], n) for k, n in zip("yx", far, strict=True)}}
    pair = [
        photometry[name].astype(np.float64).chunk(size).data
        for name in _PAIR
    ]  # fmt: skip
    chunks = pair[0].chunks
    tiled = [k + 1 for k in (0, 1) if len(chunks[k + 1]) > 1]
    depth = {k: far[k - 1] if k in tiled else 0 for k in (1, 2)}
    if tiled:
        pair = [da.overlap.overlap(p, {0: 0, **depth}, {1: np.nan, 2: np.nan}) for p in pair]
    convolved: da.Array = da.map_blocks(
        _convolve_block, *pair, kernel=kernel, stencil=stencil, min_coverage=min_coverage,
        trim=(depth[1], depth[2]), new_axis=0, chunks=((2,), *chunks), dtype=np.float64,
        meta=np.empty((0, 0, 0, 0)), token=task_name("spatial", _convolve_block),
    )  # fmt: skip
    return convolved


def _even(n_pixel: int, far: int) -> int:
    """Side of equal tiles, none smaller than the reach of the kernel."""
    return -(-n_pixel // max(1, n_pixel // max(_TILE, far + 1)))


def _convolve_block(
    flux: NDArray[np.float64], error: NDArray[np.float64], *, trim: tuple[int, int], **options: Any
) -> NDArray[np.float64]:
    with single_thread():
        out = kernels.bring_to_psf(flux, error, **options)
    y, x = (slice(n, size - n) for n, size in zip(trim, out.shape[-2:], strict=True))
    return out[..., y, x]


def photometry_from_images(
    images: Image | Sequence[Image],
    grid: Grid | xr.Dataset,
    psf: PSF | float | str | dict[str, Any] | None = None,
    *,
    region: NDArray[np.bool_] | None = None,
    min_coverage: float = 0.95,
    name: str | None = None,
) -> xr.Dataset:
    """Make a photometric dataset of calibrated images, on one grid and at one PSF, lazily.

    The operator is the cube's (:mod:`specphoto.photometry.images`): each image is convolved on its
    own pixels and shared out by exact area, so that flux is conserved; errors are the exact ones
    of independent pixels. Headers are read now, pixels by the tasks, each of which needs no more
    than its own cut of the image. Nothing is corrected for Galactic extinction.

    Parameters
    ----------
    images
        One :class:`~specphoto.io.image_file.Image` per band.
    grid
        Pixel grid: a :class:`specphoto.Grid`, or an IFS cube from :func:`specphoto.open_ifs`. The
        PSF of a cube has the spaxel in it, so that on a cube's own grid the kernel is made
        narrower by what the pixels add.
    psf
        PSF of the result: FWHM in arcsec, a :class:`~specphoto.spatial.psf.PSF`, a band's name or
        a ``psf`` attribute. By default that of the grid; on a cube, the broadest of all images' and
        of the cube's at any wavelength.
    region
        Pixels of the galaxy, ``(y, x)``; by default all with known flux in every band.
    min_coverage
        Pixels of which the image shows less than this share, seen through the kernel, are unknown.
    name
        Of the object; by default the cube's.

    Returns
    -------
    xarray.Dataset
        As of :func:`specphoto.open_photometry`: ``photo_flux``, ``photo_err`` (band, y, x),
        1e-17 erg s-1 cm-2 Angstrom-1 per pixel; ``photo_region``, ``stamp_image`` (the first
        image); ``band`` and ``band_wave``.

    Raises
    ------
    InputError
        If an image cannot be read or calibrated, lies elsewhere on the sky, has no known PSF or
        one that is broader than the one wanted, or a band comes twice.
    """
    listed = [images] if isinstance(images, Image) else list(images)
    found = [read_image(image) for image in listed]
    _check_bands(found)
    frame = _frame(grid)
    pixels = pixel_scale(frame.wcs) if isinstance(grid, xr.Dataset) else None
    sources = [source_psf(image, pixels) for image in found]
    wanted = _wanted_psf(psf, grid, sources)
    matched = [
        image_kernel(image, source, wanted) for image, source in zip(found, sources, strict=True)
    ]
    planes = da.stack(
        [
            image_plane(image, kernel, frame, min_coverage=min_coverage)
            for image, (kernel, _) in zip(found, matched, strict=True)
        ],
        axis=1,
    )
    ds = _photometry(planes, found, frame, region)
    facts = grid.attrs if isinstance(grid, xr.Dataset) else {}
    pixel = pixel_scale(frame.wcs)
    ds = annotate(
        carry_psf(ds, wanted), kind="photometry", survey="images",
        name=name or facts.get("name") or found[0].name,
        **_place(facts, frame.wcs), redshift=None, ebv=None, ebv_scale=None, ebv_corrected=False,
        ebv_law=None, psf_band=None, fsamp=None,
        band_scale={image.curve.name: 1.0 for image in found},
        photo_correlation={
            image.curve.name: _correlated(own, wanted, pixel)
            for image, (own, _) in zip(found, sources, strict=True)
        },
    )  # fmt: skip
    validate(ds, "photo_flux", "photo_err", "photo_region", verb="photometry_from_images")
    for image, (_, report) in zip(found, matched, strict=True):
        options = {
            "psf": psf_attrs(wanted), "min_coverage": min_coverage, "kernel": report.numbers,
        }  # fmt: skip
        ds = add_provenance(ds, "photometry_from_images", **image.about, options=options)
    return ds


def _check_bands(images: Sequence[CalibratedImage]) -> None:
    bands = [image.curve.name for image in images]
    if not bands or len(set(bands)) < len(bands):
        twice = sorted({band for band in bands if bands.count(band) > 1})
        raise InputError(
            "photometry_from_images", expected="at least one image, and each band once",
            found=f"{', '.join(twice)} more than once" if twice else "none",
            remedy="give one image per band",
        )  # fmt: skip


def _frame(grid: Grid | xr.Dataset) -> PixelFrame:
    if isinstance(grid, Grid):
        return PixelFrame(grid.wcs.celestial, 0, 0, grid.shape)
    if not isinstance(grid, xr.Dataset) or not {"y", "x"} <= set(grid.coords):
        raise InputError(
            "photometry_from_images: grid", expected="a specphoto.Grid or an IFS cube",
            found=f"a {type(grid).__name__}", remedy="open the cube with specphoto.open_ifs",
        )  # fmt: skip
    y, x = grid["y"].values, grid["x"].values
    return PixelFrame.of(celestial_wcs(grid), y, x, name=identify(grid))


def _wanted_psf(
    psf: PSF | float | str | dict[str, Any] | None,
    grid: Grid | xr.Dataset,
    sources: Sequence[tuple[PSF, PSF]],
) -> PSF:
    if psf is not None:
        return broadest(psf_nodes(psf, None, "photometry_from_images")[1])
    if isinstance(grid, Grid):
        return broadest(psf_nodes(grid.psf, None, "photometry_from_images: grid")[1])
    if grid.attrs.get("psf") is None:
        raise InputError(
            f"{identify(grid)}: PSF", expected="a PSF to bring the images to", found="none",
            remedy="give psf (FWHM in arcsec), or open the cube with psf_fwhm",
        )  # fmt: skip
    own = psf_nodes(None, stated_psf(grid), identify(grid))[1]
    return broadest([*own, *(effective for _, effective in sources)])


def _photometry(
    planes: da.Array,
    images: Sequence[CalibratedImage],
    frame: PixelFrame,
    region: NDArray[np.bool_] | None,
) -> xr.Dataset:
    """Variables and coordinates of a photometric dataset."""
    dims, sky_map = ("band", "y", "x"), ("y", "x")
    if region is None:
        inside: Any = da.isfinite(planes[0]).all(axis=0)
    else:
        inside = np.asarray(region, dtype=bool)
        if inside.shape != frame.shape:
            raise InputError(
                "photometry_from_images: region", expected=f"the grid's shape {frame.shape}",
                found=f"{inside.shape}", remedy="draw it on the grid",
            )  # fmt: skip
    about = {"units": "Angstrom", "long_name": "pivot wavelength"}
    return xr.Dataset(
        {
            "photo_flux": (dims, planes[0]),
            "photo_err": (dims, planes[1]),
            "photo_region": (sky_map, inside),
            "stamp_image": (sky_map, planes[0, 0].astype(np.float32)),
        },
        coords={
            "band": np.array([image.curve.name for image in images], dtype=object),
            "band_wave": ("band", np.array([image.curve.pivot for image in images]), about),
            "y": np.arange(frame.shape[0]) + frame.first_y,
            "x": np.arange(frame.shape[1]) + frame.first_x,
        },
    )


def _place(facts: Mapping[str, Any], wcs: WCS) -> dict[str, Any]:
    """Position of the object: the cube's, else the reference point of the grid."""
    ra, dec = (float(value) for value in wcs.wcs.crval)
    return {
        "ra": facts.get("ra", ra), "dec": facts.get("dec", dec),
        "wcs": wcs_string(wcs), "pixel_scale": pixel_scale(wcs),
    }  # fmt: skip
