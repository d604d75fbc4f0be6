"""Target grids made from an image's WCS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales

from specphoto.cube import Grid, celestial_wcs
from specphoto.errors import InputError
from specphoto.io.fitsfile import open_fits
from specphoto.quiet import quietly
from specphoto.spatial.psf import PSF

if TYPE_CHECKING:
    import os

    import xarray as xr
    from astropy.io import fits
    from numpy.typing import NDArray

__all__ = ["grid_from_image"]


def grid_from_image(
    path: str | os.PathLike[str],
    *,
    psf: PSF | float | str | dict[str, Any],
    pixel_scale: float | None = None,
    around: xr.Dataset | None = None,
) -> Grid:
    """Target grid with the projection and orientation of an image.

    The image's first HDU with a celestial WCS and two axes counts; only its header is read.
    Corners of the new pixels start at the image's corner: at a multiple of its pixel scale they
    are blocks of its pixels. Distortion terms are left out.

    Parameters
    ----------
    path
        FITS image, gzipped or not.
    psf
        Target PSF: FWHM in arcsec, a :class:`~specphoto.spatial.psf.PSF`, a band's name, or a PSF
        attribute dictionary (:mod:`specphoto.cube`).
    pixel_scale
        Pixel side in arcsec; by default the image's own.
    around
        Cube from :func:`specphoto.open_ifs` that the frame is to hold, with one FWHM of the PSF
        around it, be it within the image or not. By default the frame is the image's.

    Returns
    -------
    Grid

    Raises
    ------
    InputError
        If the file has no such HDU, the cube lies off the image, or a number is not positive.
    """
    psf = PSF.named(psf) if isinstance(psf, str) else psf
    fwhm = _positive("psf", _fwhm(psf))
    wcs, shape = _image_wcs(path)
    own = proj_plane_pixel_scales(wcs) * 3600.0
    zoom = np.ones(2) if pixel_scale is None else _positive("pixel scale", pixel_scale) / own
    scaled = _scaled(wcs, zoom)
    size = np.array([shape[1], shape[0]]) / zoom
    first, last = np.zeros(2), np.ceil(size - 1e-6)
    if around is not None:
        first, last = _footprint(scaled, around, margin=fwhm / (own * zoom))
        if np.any(last <= 0) or np.any(first >= size):
            raise InputError(
                str(path), expected=f"an image that shows {around.attrs.get('name', 'the cube')}",
                found="a cube beyond its frame", remedy="check that both are of one galaxy",
            )  # fmt: skip
    scaled.wcs.crpix = scaled.wcs.crpix - first
    n_x, n_y = (last - first).astype(int)
    return Grid(scaled, (int(n_y), int(n_x)), psf)


def _fwhm(psf: PSF | float | dict[str, Any]) -> float:
    if isinstance(psf, PSF):
        return psf.fwhm
    return float(np.max(psf["fwhm"])) if isinstance(psf, dict) else psf


def _positive(name: str, value: float) -> float:
    if not (np.isfinite(value) and value > 0):
        raise InputError(
            f"grid: {name}", expected="a positive number of arcsec", found=f"{value}",
            remedy="give another",
        )  # fmt: skip
    return float(value)


def _image_wcs(path: str | os.PathLike[str]) -> tuple[WCS, tuple[int, int]]:
    """Celestial WCS and shape of the first image that has one."""
    file = open_fits(path)
    for hdu in file.hdus:
        if len(hdu.shape) == 2:
            wcs = _celestial(hdu.header)
            if wcs is not None:
                return wcs, (hdu.shape[0], hdu.shape[1])
    raise InputError(
        file.path, expected="a 2-D image with a celestial WCS",
        found="the HDUs " + ", ".join(f"{hdu.name} {hdu.shape}" for hdu in file.hdus),
        remedy="give the image whose pixels the grid is to follow",
    )  # fmt: skip


def _celestial(header: fits.Header) -> WCS | None:
    with quietly():
        # archive headers are fixed as they are read; only the linear terms are used
        wcs = WCS(_without_distortion(header), naxis=2)
    return wcs if wcs.has_celestial else None


def _without_distortion(header: fits.Header) -> fits.Header:
    plain = header.copy()
    for card in ("A_ORDER", "B_ORDER", "AP_ORDER", "BP_ORDER", "CPDIS1", "CPDIS2", "D2IMDIS1",
                 "D2IMDIS2"):  # fmt: skip
        plain.remove(card, ignore_missing=True)
    for card in ("CTYPE1", "CTYPE2"):
        if str(plain.get(card, "")).endswith("-SIP"):
            plain[card] = plain[card][:-4]
    return plain


def _scaled(wcs: WCS, zoom: NDArray[np.float64]) -> WCS:
    """WCS of pixels ``zoom`` times as large, with the image's corner where it was."""
    out = WCS(naxis=2)
    out.wcs.ctype, out.wcs.crval = list(wcs.wcs.ctype), wcs.wcs.crval
    out.wcs.cunit = ["deg", "deg"]
    out.wcs.lonpole, out.wcs.latpole = wcs.wcs.lonpole, wcs.wcs.latpole
    out.wcs.radesys, out.wcs.equinox = wcs.wcs.radesys, wcs.wcs.equinox
    out.wcs.cd = wcs.pixel_scale_matrix * zoom
    out.wcs.crpix = (wcs.wcs.crpix - 0.5) / zoom + 0.5
    out.wcs.set()
    return out


def _footprint(
    wcs: WCS, ifs: xr.Dataset, margin: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """First and last + 1 pixel ``(x, y)`` that hold a cube and a margin, whole pixels."""
    y, x = (ifs[axis].values for axis in ("y", "x"))
    edge_x, edge_y = np.array([x[0] - 0.5, x[-1] + 0.5]), np.array([y[0] - 0.5, y[-1] + 0.5])
    corner_x, corner_y = (c.ravel() for c in np.meshgrid(edge_x, edge_y))
    sky = celestial_wcs(ifs).pixel_to_world(corner_x, corner_y)
    corners = np.stack(wcs.world_to_pixel(sky), axis=1) + 0.5
    return np.floor(corners.min(axis=0) - margin), np.ceil(corners.max(axis=0) + margin)
