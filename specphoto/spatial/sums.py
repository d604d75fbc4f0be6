"""The lazy face of sums over pixels."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import is_dask_collection
from dask.delayed import delayed

from specphoto.blas import single_thread
from specphoto.cube import add_provenance, annotate, identify, rechunk, validate
from specphoto.errors import InputError
from specphoto.spatial import binning
from specphoto.spatial.correlation import LagCorrelation, checked_lags, clipped_share, stencil_of
from specphoto.spatial.varying import interpolation
from specphoto.tasks import task

if TYPE_CHECKING:
    from dask.delayed import Delayed
    from numpy.typing import NDArray

__all__ = ["sum_spectra"]

# A block of planes stays near this size (one layer, float32).
_BLOCK_BYTES = 12 * 2**20
# Channels that tell how a bin's light is spread: a few at each of a few wavelengths.
_N_NODE = 5
_NODE_CHANNELS = 9


def sum_spectra(
    cube: xr.Dataset,
    labels: NDArray[np.int_] | xr.DataArray,
    *,
    correlation: dict[str, Any] | None = None,
    min_good: float = 0.9,
) -> xr.Dataset:
    r"""Sum spectra and images over bins of pixels, with errors that know how pixels are correlated.

    Nothing is computed. The error of a sum is :math:`\sqrt{s^T \rho s}` in each channel, with *s*
    the errors of the bin's pixels and *rho* their correlation: ``spec_corr`` where the cube has
    it (every matched cube, and MaNGA's with correlation tables), else its ``correlation``
    attribute.

    Where some of a bin's pixels are bad in a channel, the sum of the others is divided by the
    share that they have of the bin's light, as if the missing pixels had the bin's mean spectrum;
    its error is divided alike. Where too few are left (``min_good``) the sum is unknown. Pixels
    that hold no data at all (outside the bundle) count as missing too: bins are best drawn inside
    ``spec_region``.

    Parameters
    ----------
    cube
        From :func:`specphoto.open_ifs`, :func:`specphoto.match_spatial`,
        :func:`specphoto.match_spectral` or :func:`specphoto.open_cube`: ``spec_flux``,
        ``spec_mask``, and ``spec_err`` or ``spec_var``.
    labels
        Integers ``(y, x)`` on the cube's pixels: equal numbers are one bin (apertures, Voronoi
        bins), 0 and negative numbers are no bin.
    correlation
        ``{"model": "gaussian", "scale": ..., "cutoff": ...}`` in pixels, or
        ``{"model": "none"}``, instead of the cube's own.
    min_good
        Sums are unknown (NaN, masked) in channels in which less than this share of the bin's
        pixels, or of its light, is good; 1 makes up nothing.

    Returns
    -------
    xarray.Dataset
        ``spec_flux``, ``spec_err``, ``spec_mask`` (label, wave) and ``n_pixel`` (label);
        ``spec_lsf`` (wave) or (label, wave); ``photo_flux``, ``photo_err`` (label, band) where the
        cube has images. How the noise of image pixels is correlated is not known, so
        ``photo_err`` is the sum of the pixels' errors: the upper bound, right for pixels much
        smaller than the PSF.

    Raises
    ------
    InputError
        If the labels are not integers on the cube's pixels, or hold no bin; if nothing says how
        the pixels are correlated.
    """
    validate(cube, "spec_flux", "spec_mask", "wave", verb="sum_spectra")
    error = _error_name(cube)
    if not 0.0 <= min_good <= 1.0:
        raise InputError(
            "sum_spectra: min_good", expected="a share, 0 to 1", found=f"{min_good:g}",
            remedy="give the least share of good pixels",
        )  # fmt: skip
    label_map = _label_map(cube, labels)
    bins = binning.bins_of(label_map)
    corr_wave, blocks, stated = _correlation(cube, bins, correlation)
    cube = _in_planes(cube)
    light = _light(cube, error)
    out = _sums(cube, error, bins, blocks, corr_wave, light, min_good)
    if "spec_lsf" in cube:
        out["spec_lsf"] = _lsf(cube, bins, light)
    if "photo_flux" in cube:
        out = out.merge(_images(cube, bins))
    out.attrs = {k: v for k, v in cube.attrs.items() if k not in ("wcs", "correlation")}
    out = annotate(out, kind="sums")
    options = {"n_label": int(bins.label.size), "min_good": min_good, **stated}
    return add_provenance(out, "sum_spectra", options=options)


def _error_name(cube: xr.Dataset) -> str:
    for name in ("spec_err", "spec_var"):
        if name in cube:
            return name
    raise InputError(
        "sum_spectra", expected="a dataset with spec_err or spec_var", found="neither",
        remedy="open the file with specphoto.open_ifs or open_cube",
    )  # fmt: skip


def _label_map(cube: xr.Dataset, labels: NDArray[np.int_] | xr.DataArray) -> NDArray[np.int_]:
    """Labels as an integer array on the cube's pixels."""
    if is_dask_collection(labels):
        raise InputError(
            "sum_spectra: labels", expected="integers in memory", found="a Dask array",
            remedy="give labels.compute()",
        )  # fmt: skip
    if isinstance(labels, xr.DataArray):
        labels = labels.transpose(*(d for d in ("y", "x") if d in labels.dims), ...)
        for axis in ("y", "x"):
            if axis in labels.coords and not labels[axis].equals(
                cube[axis].reset_coords(drop=True)
            ):
                raise InputError(
                    f"sum_spectra: labels, {axis}", expected="the cube's pixel numbers",
                    found="others", remedy="make the labels on this cube, not on a part or another",
                )  # fmt: skip
    found = np.asarray(labels)
    shape = (cube.sizes["y"], cube.sizes["x"])
    expected = remedy = ""
    if found.dtype.kind not in "iu":
        expected, remedy = "integers", "convert with astype(int); 0 is no bin"
    elif found.shape != shape:
        expected, remedy = f"shape (y, x) = {shape}", "make the labels on the cube's pixels"
    elif not (found > 0).any():
        expected, remedy = "a positive label", "0 and negative labels are no bin"
    if expected:
        raise InputError(
            "sum_spectra: labels", expected=expected, remedy=remedy,
            found=f"{found.dtype} of shape {found.shape}, largest {found.max(initial=0)}",
        )  # fmt: skip
    return found.astype(np.int64)


def _correlation(
    cube: xr.Dataset, bins: binning.Bins, correlation: dict[str, Any] | None
) -> tuple[NDArray[np.float64], Delayed, dict[str, Any]]:
    """Wavelengths of the correlation, its blocks in the bins (tasks), and what to tell of it.

    No wavelengths: one stencil for all.
    """
    if correlation is None and "spec_corr" in cube:
        lags = cube["spec_corr"]
        survey = "corr_wave" in lags.dims
        wave = lags["corr_wave"].values if survey else np.zeros(1)
        parts = [lags.isel(corr_wave=k) for k in range(wave.size)] if survey else [lags]
        blocks = [
            task("spatial", _blocks_of_lags)(
                bins, part.data, lags["lag_y"].values, lags["lag_x"].values, identify(cube), survey
            )
            for part in parts
        ]
        return wave, delayed(blocks), {"correlation": "spec_corr of the cube"}
    stated = correlation if correlation is not None else cube.attrs.get("correlation")
    if stated is None:
        raise InputError(
            identify(cube), expected="the correlation of its pixels (spec_corr)", found="none",
            remedy="match onto pixels that oversample the PSF less, or give the option correlation",
        )  # fmt: skip
    stencil = stencil_of(stated)
    blocks = [task("spatial", binning.correlation_blocks)(bins, stencil)]
    told = {"correlation": stated, "clipped": clipped_share(stencil)}
    return np.empty(0), delayed(blocks), told


def _blocks_of_lags(
    bins: binning.Bins, rho: NDArray[np.float32], lag_y: NDArray[np.int_],
    lag_x: NDArray[np.int_], name: str, survey: bool,
) -> list[binning.Block]:  # fmt: skip
    # ours is a product A C A^T, and positive but for its smallest values, which are left out
    lags = (checked_lags(rho, lag_y, lag_x, name=name) if survey
            else LagCorrelation(rho, lag_y, lag_x))  # fmt: skip
    return binning.correlation_blocks(bins, lags)


def _in_planes(cube: xr.Dataset) -> xr.Dataset:
    """What is summed, as whole planes split in wave."""
    names = ("spec_flux", "spec_err", "spec_var", "spec_mask", "spec_lsf")
    cube = cube[[n for n in (*names, "photo_flux", "photo_err") if n in cube]]
    n_wave = max(1, _BLOCK_BYTES // (4 * cube.sizes["y"] * cube.sizes["x"]))
    return rechunk(cube, {"wave": min(n_wave, cube.sizes["wave"]), "y": -1, "x": -1})


def _light(cube: xr.Dataset, error: str) -> da.Array:
    """Mean image of a few channels, ``(y, x)``; the same whatever the chunks."""
    n_wave = cube.sizes["wave"]
    middle = np.linspace(0.06, 0.94, _N_NODE) * (n_wave - 1)
    channel = np.round(middle)[:, None] + np.arange(_NODE_CHANNELS) - _NODE_CHANNELS // 2
    few = cube.isel(wave=np.unique(np.clip(channel, 0, n_wave - 1).astype(int)))
    light = task("spatial", _mean_light)(*(few[n].data for n in ("spec_flux", error, "spec_mask")))
    image: da.Array = da.from_delayed(light, (cube.sizes["y"], cube.sizes["x"]), dtype=np.float32)
    return image


def _mean_light(
    flux: NDArray[np.float32], error: NDArray[np.float32], mask: NDArray[np.bool_]
) -> NDArray[np.float32]:
    return binning.mean_light(flux, _good(flux, error, mask))


def _good(
    flux: NDArray[np.float32], error: NDArray[np.float32], mask: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Voxels that hold information: not masked, finite, of positive error (or variance)."""
    return ~mask & np.isfinite(flux) & np.isfinite(error) & (error > 0)


def _sums(
    cube: xr.Dataset, error: str, bins: binning.Bins, blocks: Delayed,
    corr_wave: NDArray[np.float64], light: da.Array, min_good: float,
) -> xr.Dataset:  # fmt: skip
    """Spectra of the bins."""
    wave = cube["wave"].values
    share = interpolation(wave, corr_wave) if corr_wave.size else np.ones((wave.size, 1))
    flux = cube["spec_flux"].data
    share = da.from_array(share, chunks=(flux.chunks[0], -1))
    sums = da.blockwise(
        partial(_sum_block, variance=error == "spec_var", min_good=min_good),
        "fwl", flux, "wyx", cube[error].data, "wyx", cube["spec_mask"].data, "wyx",
        share, "wn", light, "yx", delayed(bins), None, blocks, None,
        new_axes={"f": len(binning.SUM_FIELDS), "l": bins.label.size},
        concatenate=True, dtype=np.float32, meta=np.empty((0, 0, 0), np.float32),
        token="spatial-sum-planes",
    ).transpose(0, 2, 1)  # fmt: skip
    dims = ("label", "wave")
    return xr.Dataset(
        {
            "spec_flux": (dims, sums[0]),
            "spec_err": (dims, sums[1]),
            "spec_mask": (dims, ~(sums[2] < 0.5)),
            "n_pixel": ("label", bins.n_pixel),
        },
        coords={"label": bins.label, "wave": cube["wave"].reset_coords(drop=True)},
    )


def _sum_block(
    flux: Any, error: Any, mask: Any, share: Any, light: Any, bins: Any, blocks: Any, *,
    variance: bool, min_good: float,
) -> NDArray[np.float32]:  # fmt: skip
    with single_thread():
        good = _good(flux, error, mask)
        sigma = np.sqrt(np.where(good, error, 0.0)) if variance else error
        return binning.sum_planes(bins, blocks, share, flux, sigma, good, light, min_good=min_good)


def _lsf(cube: xr.Dataset, bins: binning.Bins, light: da.Array) -> xr.DataArray:
    lsf = cube["spec_lsf"]
    if lsf.dims == ("wave",):
        return lsf.reset_coords(drop=True)
    widths = da.blockwise(
        _lsf_block, "wl", lsf.data, "wyx", cube["spec_mask"].data, "wyx", light, "yx",
        delayed(bins), None, new_axes={"l": bins.label.size}, concatenate=True,
        dtype=np.float32, meta=np.empty((0, 0), np.float32), token="spatial-sum-lsf",
    )  # fmt: skip
    return xr.DataArray(widths.T, dims=("label", "wave"))


def _lsf_block(lsf: Any, mask: Any, light: Any, bins: Any) -> NDArray[np.float32]:
    return binning.sum_lsf(bins, lsf, ~mask, light)


def _images(cube: xr.Dataset, bins: binning.Bins) -> xr.Dataset:
    """Sums of the images; of their errors too, as if the noise of a bin's pixels were one."""
    out = xr.Dataset(coords={n: c for n, c in cube.coords.items() if c.dims == ("band",)})
    for name in ("photo_flux", "photo_err"):
        sums = da.blockwise(
            _image_block, "bl", cube[name].data, "byx", delayed(bins), None,
            new_axes={"l": bins.label.size}, concatenate=True, dtype=np.float32,
            meta=np.empty((0, 0), np.float32), token="spatial-sum-images",
        )  # fmt: skip
        out[name] = (("label", "band"), sums.T)
    return out


def _image_block(image: Any, bins: Any) -> NDArray[np.float32]:
    return binning.sum_images(bins, image)
