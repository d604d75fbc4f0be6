"""The lazy face of :mod:`specphoto.photometry.images`: images to a PSF, images to a grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np

from specphoto.blas import single_thread
from specphoto.cube import add_provenance, annotate, celestial_wcs, identify, pixel_scale, validate
from specphoto.errors import InputError
from specphoto.photometry import images as kernels
from specphoto.spatial.covariance import stencil_of
from specphoto.spatial.kernel import matching_kernel
from specphoto.spatial.psf import PSF, known_psf, psf_attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr
    from numpy.typing import NDArray

__all__ = ["to_psf"]

# Frames larger than this are convolved in tiles that overlap by the reach of the kernel.
_TILE = 2048
_PAIR = ("photo_flux", "photo_err")
# PSFs whose FWHM differ by less than this share are taken as equally broad.
_SAME = 0.005


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
    kernel = kernel_for(psf_in, psf_out, pixel_scale(celestial_wcs(photometry)), name=name)
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
    attrs = {"psf": psf_attrs(psf_out), "psf_band": None}
    options = {
        "source": psf_attrs(psf_in), "target": psf_attrs(psf_out),
        "correlation": dict(correlation) if correlation else None, "min_coverage": min_coverage,
    }  # fmt: skip
    return add_provenance(annotate(out, **attrs), "to_psf", options=options)


def kernel_for(source: PSF, target: PSF, scale: float, *, name: str) -> NDArray[np.float64]:
    """Kernel of an image's PSF to a broader one on pixels of ``scale`` arcsec.

    Raises
    ------
    InputError
        If the image is the broader one or the two cannot be matched; ``name`` is that of the image.
    """
    if source.fwhm > target.fwhm * (1.0 + _SAME):
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
        meta=np.empty((0, 0, 0, 0)),
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
