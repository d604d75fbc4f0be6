"""Small cubes, images and grids of a known sky, for the tests of the spatial stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import xarray as xr
from astropy.wcs import WCS
from scipy import signal

from specphoto.cube import wcs_string
from specphoto.spatial.kernel import gaussian_kernel
from specphoto.spatial.varying import Matched, VaryingOperator, apply

if TYPE_CHECKING:
    from specphoto.spatial.operator import Operator

RA, DEC = 150.0, 2.0


def tan_wcs(
    shape: tuple[int, int],
    scale: float,
    *,
    angle: float = 0.0,
    flip: bool = False,
    shift: tuple[float, float] = (0.0, 0.0),
) -> WCS:
    """TAN WCS, pixels of ``scale`` arcsec, centred on the object plus a shift in pixels (x, y)."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.crval = [RA, DEC]
    wcs.wcs.crpix = [(shape[1] + 1) / 2 + shift[0], (shape[0] + 1) / 2 + shift[1]]
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    east = 1.0 if flip else -1.0
    wcs.wcs.cd = scale / 3600.0 * np.array([[east * c, -s], [east * s, c]])
    return wcs


def offsets(wcs: WCS, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Arcsec east and north of the object, of every pixel centre, in the tangent plane."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    step = np.stack([x + 1 - wcs.wcs.crpix[0], y + 1 - wcs.wcs.crpix[1]])
    east, north = np.tensordot(wcs.wcs.cd * 3600.0, step, axes=1)
    return east, north


def gaussian_sky(
    wcs: WCS, shape: tuple[int, int], fwhm: float, *, at: tuple[float, float] = (0.0, 0.0)
) -> np.ndarray:
    """Gaussian blob of unit peak: flux per arcsec2 at the pixel centres."""
    east, north = offsets(wcs, shape)
    sigma = fwhm / np.sqrt(8.0 * np.log(2.0))
    return np.exp(-0.5 * ((east - at[0]) ** 2 + (north - at[1]) ** 2) / sigma**2)


def hexagon(wcs: WCS, shape: tuple[int, int], apothem: float) -> np.ndarray:
    """Where the bundle's hexagon is, apothem in arcsec; values are the hexagonal radius."""
    east, north = offsets(wcs, shape)
    radius = np.zeros(shape)
    for angle in np.deg2rad([0.0, 60.0, 120.0]):
        radius = np.maximum(radius, np.abs(east * np.cos(angle) + north * np.sin(angle)))
    return radius / apothem


def cube(
    flux: np.ndarray,
    wcs: WCS,
    *,
    wave: np.ndarray | None = None,
    variance: np.ndarray | float = 1e-4,
    mask: np.ndarray | None = None,
    fwhm: float = 2.54,
    chunks: Any = 16,
    **attrs: Any,
) -> xr.Dataset:
    """IFS dataset as a reader gives it; ``chunks`` in wave or for all axes."""
    n_wave, n_y, n_x = flux.shape
    dims = ("wave", "y", "x")
    split = chunks if isinstance(chunks, tuple) else (chunks, -1, -1)

    def lazy(values: Any, dtype: str) -> Any:
        full = np.ascontiguousarray(np.broadcast_to(values, flux.shape)).astype(dtype)
        return (dims, da.from_array(full, chunks=split))

    return xr.Dataset(
        {
            "spec_flux": lazy(flux, "f4"),
            "spec_var": lazy(variance, "f4"),
            "spec_mask": lazy(False if mask is None else mask, "?"),
        },
        coords={
            "wave": np.linspace(4000.0, 9000.0, n_wave) if wave is None else wave,
            "y": np.arange(n_y),
            "x": np.arange(n_x),
        },
        attrs={
            "name": "cube.fits",
            "kind": "ifs",
            "wcs": wcs_string(wcs),
            "psf": {"model": "gaussian", "wave": [], "fwhm": [fwhm], "beta": None},
            "correlation": {"model": "none"},
            "ebv_corrected": False,
            **attrs,
        },
    )


def images(
    flux: np.ndarray,
    wcs: WCS,
    *,
    bands: tuple[str, ...] = ("sdss_g", "sdss_r", "sdss_i"),
    pivot: tuple[float, ...] = (4702.0, 6176.0, 7490.0),
    region: np.ndarray | None = None,
    fwhm: float = 6.4,
    rel_err: float = 0.01,
    **attrs: Any,
) -> xr.Dataset:
    """Photometric dataset as a reader gives it; ``flux`` is (band, y, x)."""
    shape = flux.shape[1:]
    dims = ("band", "y", "x")
    return xr.Dataset(
        {
            "photo_flux": (dims, da.from_array(flux.astype("f4"), chunks=(1, -1, -1))),
            "photo_err": (
                dims,
                da.from_array((rel_err * np.abs(flux)).astype("f4"), chunks=(1, -1, -1)),
            ),
            "photo_region": (("y", "x"), np.ones(shape, bool) if region is None else region),
        },
        coords={
            "band": np.array(bands, dtype=object),
            "band_wave": ("band", np.array(pivot)),
            "y": np.arange(shape[0]),
            "x": np.arange(shape[1]),
        },
        attrs={
            "name": "images.fits",
            "kind": "photometry",
            "wcs": wcs_string(wcs),
            "psf": {"model": "gaussian", "wave": [], "fwhm": [fwhm], "beta": None},
            "ebv_corrected": True,
            "ebv_law": "pixedfit",
            **attrs,
        },
    )


def apply_one(
    operator: Operator, flux: np.ndarray, variance: np.ndarray, good: np.ndarray
) -> Matched:
    """Planes through an operator that is the same at all wavelengths."""
    planes = (flux, variance, good)
    return apply(VaryingOperator.constant(operator), np.zeros(len(flux)), *planes)


def blurred(sky: np.ndarray, fwhm: float) -> np.ndarray:
    """Sky on pixels of 0.5 arcsec through a Gaussian PSF of a FWHM in arcsec."""
    sigma = fwhm / np.sqrt(8.0 * np.log(2.0)) / 0.5
    return np.asarray(signal.fftconvolve(sky, gaussian_kernel(sigma), mode="same"))
