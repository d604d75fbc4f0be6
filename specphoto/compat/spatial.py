"""The spatial match of piXedfit v1.0 on datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from specphoto.compat.common import map_blocks, pixedfit_photometry
from specphoto.cube import add_provenance, annotate, celestial_wcs, identify, pixel_scale, validate
from specphoto.errors import InputError
from specphoto.photometry.extinction import transmission
from specphoto.spatial import compat as kernels
from specphoto.spatial.geometry import PixelFrame, corners_on
from specphoto.spatial.inputs import stated_psf
from specphoto.spatial.kernel import matching_kernel
from specphoto.spatial.overlap import overlap_matrix
from specphoto.spatial.psf import known_psf

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["KERNEL_SCALE", "match_spatial_pixedfit"]

#: Pixel side of piXedfit's kernel images, arcsec.
KERNEL_SCALE = 0.25
# A spaxel needs this share of good channels where the survey gives no image of the bundle.
_GOOD_SHARE = 0.8


def match_spatial_pixedfit(
    ifs: xr.Dataset, target: xr.Dataset, kernel: NDArray[np.float64] | None = None
) -> xr.Dataset:
    """Spatial match as piXedfit v1.0 does it.

    Parameters
    ----------
    ifs
        What ``open_ifs`` gave.
    target
        What ``open_photometry`` gave. A rescaling of its bands is undone.
    kernel
        Image of the matching kernel, ``(n, n)`` at 0.25 arcsec per pixel, such as piXedfit's
        ``kernel_manga_to_wise_w2``; made from the two PSFs by default.

    Returns
    -------
    xarray.Dataset
        A spectrophotometric cube. Nothing is computed.

    Raises
    ------
    InputError
        If a variable, the WCS, or (without a kernel) a PSF is missing.
    """
    verb = 'match_spatial(compat="pixedfit")'
    validate(ifs, "wave", "spec_flux", "spec_var", "spec_mask", verb=verb)
    validate(target, "photo_flux", "photo_err", "photo_region", verb=verb)
    ifs = ifs.chunk({"y": -1, "x": -1})
    target = pixedfit_photometry(target)
    scale_in, scale_out = _pixel_scale(ifs), _pixel_scale(target)
    if kernel is None:
        kernel = _kernel_of_psfs(ifs, target)
    corner_x, corner_y = corners_on(_frame(target), _frame(ifs))
    average = kernels.averaging(overlap_matrix(corner_x, corner_y, _frame(ifs).shape))
    bad, bad_planes = _bad_spaxels(ifs)
    region = _map_region(bad, target["photo_region"], average)
    options = {
        "kernel": kernels.resample_kernel(kernel, KERNEL_SCALE, scale_in),
        "average": average,
        "shape_out": _frame(target).shape,
        "area_ratio": (scale_out / scale_in) ** 2,
    }
    dust = _dust_factor(ifs)
    flux = _map_planes(ifs["spec_flux"], bad_planes, options) * dust
    err = _map_planes(ifs["spec_var"], bad_planes, options) ** 0.5 * dust
    out = target.assign_coords(wave=ifs["wave"]).assign(
        spec_flux=flux.where(region).astype("f4"),
        spec_err=err.where(region).astype("f4"),
        spec_region=region,
    )
    out["spec_mask"] = ~(np.isfinite(out["spec_flux"]) & np.isfinite(out["spec_err"]))
    if "spec_lsf" in ifs and ifs["spec_lsf"].dims == ("wave",):
        out["spec_lsf"] = ifs["spec_lsf"]
    attrs = {k: ifs.attrs[k] for k in ("survey", "name", "spectral_axis") if k in ifs.attrs}
    attrs["redshift"] = target.attrs.get("redshift", ifs.attrs.get("redshift"))
    out = annotate(out, kind="specphoto", corrected=False, compat="pixedfit", **attrs)
    return add_provenance(out, "match_spatial", compat="pixedfit")


def _map_planes(cube: xr.DataArray, bad: xr.DataArray, options: dict[str, Any]) -> xr.DataArray:
    shape = options["shape_out"]
    planes = map_blocks(
        kernels.match, cube.data, bad.data, dtype=float,
        chunks=(cube.data.chunks[0], *[(n,) for n in shape]), **options,
    )  # fmt: skip
    return xr.DataArray(planes, dims=("wave", "y", "x"))


def _map_region(bad: xr.DataArray, galaxy: xr.DataArray, average: Any) -> xr.DataArray:
    whole = galaxy.chunk({"y": -1, "x": -1})
    region = map_blocks(
        _region_block, bad.data, whole.data, dtype=bool, chunks=whole.data.chunks, average=average
    )
    return xr.DataArray(region, dims=("y", "x"))


def _region_block(
    bad: NDArray[np.bool_], galaxy: NDArray[np.bool_], *, average: Any
) -> NDArray[np.bool_]:
    return kernels.region(bad, average, galaxy)


def _bad_spaxels(ifs: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Spaxels without spectrum, and what to leave out of each plane.

    MaNGA's bundle is where its broad-band image is positive, and v1.0 reads no mask there; for
    other surveys it reads the mask, and asks for 80% of the channels.
    """
    if "recon_image" in ifs:
        bad = ~(ifs["recon_image"] > 0)
        return bad, bad
    n_good = (~ifs["spec_mask"]).sum("wave")
    bad = (n_good < _GOOD_SHARE * ifs.sizes["wave"]).chunk({"y": -1, "x": -1})
    mask = ifs["spec_mask"].chunk({"wave": ifs["spec_flux"].data.chunks[0]})
    return bad, mask


def _dust_factor(ifs: xr.Dataset) -> xr.DataArray:
    """What the spectra are multiplied by for Galactic extinction, ``(n_wave,)``."""
    wave = ifs["wave"]
    ebv = ifs.attrs.get("ebv")
    if ebv is None or ifs.attrs.get("ebv_corrected", False):
        return xr.ones_like(wave, dtype=float)
    return wave.copy(data=1.0 / transmission(wave.values, float(ebv), law="pixedfit-ifs"))


def _kernel_of_psfs(ifs: xr.Dataset, target: xr.Dataset) -> NDArray[np.float64]:
    for ds in (ifs, target):
        if not ds.attrs.get("psf"):
            raise InputError(
                identify(ds), expected="a PSF (attribute 'psf')", found="none",
                remedy="give the kernel image, or the PSF's FWHM when the file is opened",
            )  # fmt: skip
    middle = float(ifs["wave"].values.mean())
    source, wanted = (known_psf(None, stated_psf(d), middle, identify(d)) for d in (ifs, target))
    return matching_kernel(source, wanted, KERNEL_SCALE)


def _frame(ds: xr.Dataset) -> PixelFrame:
    x, y = ds["x"].values, ds["y"].values
    return PixelFrame.of(celestial_wcs(ds), y, x, name=identify(ds))


def _pixel_scale(ds: xr.Dataset) -> float:
    return float(ds.attrs.get("pixel_scale") or pixel_scale(celestial_wcs(ds)))
