"""The lazy face of the spatial match."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import delayed

from specphoto.blas import single_thread
from specphoto.cube import (
    BLOCK_MULTIPLE,
    Grid,
    add_provenance,
    annotate,
    celestial_wcs,
    identify,
    pixel_scale,
    rechunk,
    validate,
    wcs_string,
)
from specphoto.errors import InputError
from specphoto.photometry.galactic import LAW, band_factors, channel_factors, common_ebv
from specphoto.spatial import edges, plane
from specphoto.spatial.covariance import stencil_of
from specphoto.spatial.geometry import PixelFrame, geometry_of
from specphoto.spatial.kernel import matching_kernel
from specphoto.spatial.psf import PSF, known_psf, psf_attrs
from specphoto.spatial.varying import build_varying

if TYPE_CHECKING:
    from dask.delayed import Delayed
    from numpy.typing import NDArray

    from specphoto.spatial.geometry import Geometry

__all__ = ["match_spatial"]

# A block of the output stays near this size (one layer, float32).
_BLOCK_BYTES = 12 * 2**20
_N_NODE = 5
_NODE_CHANNELS = 9
# Without images the bias at the edge is unknown; there coverage is all one can ask for.
_COVERAGE_WITHOUT_IMAGES = 0.95


def match_spatial(
    ifs: xr.Dataset,
    target: xr.Dataset | Grid,
    *,
    source_psf: PSF | float | None = None,
    target_psf: PSF | float | None = None,
    correlation: dict[str, Any] | None = None,
    ebv: float | None = None,
    compensate: bool = True,
    max_bias: float = 0.02,
    min_coverage: float = 0.1,
    coverage: Literal["map", "cube"] = "map",
    compat: Literal["pixedfit"] | None = None,
    kernel: NDArray[np.float64] | None = None,
) -> xr.Dataset:
    """Bring a cube of spectra to the PSF and the pixel grid of the images.

    Nothing is computed: the operator (:mod:`specphoto.spatial.operator`) is built once by one
    task and applied to blocks of whole planes.

    Parameters
    ----------
    ifs
        From :func:`specphoto.open_ifs`: ``spec_flux``, ``spec_var``, ``spec_mask`` (wave, y, x).
    target
        From :func:`specphoto.open_photometry`, or a :class:`specphoto.Grid`.
    source_psf, target_psf
        PSF of the cube and PSF wanted: FWHM in arcsec or a :class:`~specphoto.spatial.psf.PSF`.
        By default what the files state, at the middle of the cube's range.
    correlation
        ``{"model": "gaussian", "scale": ..., "cutoff": ...}`` of input spaxels, in spaxels, or
        ``{"model": "none"}``; by default what the survey's reader states.
    ebv
        Galactic E(B-V) on the scale of Schlafly & Finkbeiner (2011); 0 applies none. By default
        what the headers state, one value for both data sets.
    compensate
        Take the light that the convolution misses beyond the bundle from the images
        (:mod:`specphoto.spatial.edges`).
    max_bias
        ``spec_region`` is where the estimated residual bias of the edge is below this.
    min_coverage
        Spectra of pixels covered less than this are unknown (NaN, masked).
    coverage
        'map' delivers the coverage as (y, x), the mean of a few wavelengths; 'cube' as
        (wave, y, x).
    compat
        'pixedfit' for the recipe of piXedfit v1.0, with its faults.
    kernel
        PSF-matching kernel on the cube's grid (odd sides, sum 1) instead of one from the PSFs;
        for ``compat`` the kernel image as piXedfit's files hold it.

    Returns
    -------
    xarray.Dataset
        ``spec_flux``, ``spec_err``, ``spec_mask`` (wave, y, x) on the target's grid, ``spec_lsf``,
        ``coverage``, ``edge_factor``, ``edge_bias``, ``spec_region`` (y, x), and the target's
        images, all corrected for one Galactic extinction.

    Raises
    ------
    InputError
        If the two do not overlap on the sky, a PSF is unknown, or the target's PSF is sharper.
    """
    validate(ifs, "spec_flux", "spec_var", "spec_mask", "wave", verb="match_spatial")
    _check(compat, coverage)
    if compat is not None:
        from specphoto.compat import match_spatial_pixedfit

        return match_spatial_pixedfit(ifs, _with_images(target), kernel)
    images = None if isinstance(target, Grid) else _with_images(target)
    source, output = _frame(ifs), _frame(target)
    if kernel is None:
        kernel = _kernel(ifs, target, source_psf, target_psf)
    ebv = common_ebv(ifs.attrs, images.attrs if images is not None else {}, ebv)
    geometry = geometry_of(source, output, kernel, multiple=BLOCK_MULTIPLE, name=identify(ifs))
    operator = delayed(build_varying, pure=True)(
        *geometry.corners, source.shape, np.zeros(1), [kernel], min_coverage=min_coverage
    )
    sky, band_wave = _sky(operator, images if compensate else None, ifs, geometry)
    stencil = stencil_of(correlation or ifs.attrs.get("correlation", {}))
    ifs = _in_blocks(ifs, geometry.shape)
    node_wave, nodes = _nodes(ifs, operator, stencil, sky, band_wave, geometry.shape)
    planes = _planes(ifs, operator, nodes, node_wave, sky, band_wave, min_coverage)
    planes, nodes = (_framed(a, geometry.box, output.shape) for a in (planes, nodes))
    out = _assemble(ifs, images, planes, nodes, output, ebv)
    largest = max_bias if band_wave.size > 0 else None
    out["spec_region"] = _region(out, max_bias=largest, min_coverage=min_coverage)
    if coverage == "cube":
        layer = planes[plane.PLANE_FIELDS.index("coverage")]
        out["coverage"] = (("wave", "y", "x"), da.nan_to_num(layer))
    options = {
        "correlation": correlation or ifs.attrs.get("correlation"), "ebv": ebv, "law": LAW,
        "compensate": band_wave.size > 0, "max_bias": max_bias, "min_coverage": min_coverage,
    }  # fmt: skip
    attrs = _attrs(ifs, images, target, target_psf, output, ebv)
    return add_provenance(annotate(out, **attrs), "match_spatial", options=options)


def _check(compat: str | None, coverage: str) -> None:
    for name, value, known in (
        ("compat", compat, (None, "pixedfit")), ("coverage", coverage, ("map", "cube")),
    ):  # fmt: skip
        if value not in known:
            raise InputError(
                f"match_spatial: {name}", expected=" or ".join(map(repr, known)),
                found=repr(value), remedy="choose one",
            )  # fmt: skip


def _frame(ds: xr.Dataset | Grid) -> PixelFrame:
    if isinstance(ds, Grid):
        return PixelFrame(ds.wcs.celestial, 0, 0, ds.shape)
    x, y = ds["x"].values, ds["y"].values
    return PixelFrame.of(celestial_wcs(ds), y, x, name=identify(ds))


def _kernel(
    ifs: xr.Dataset, target: xr.Dataset | Grid, source_psf: PSF | float | None,
    target_psf: PSF | float | None,
) -> NDArray[np.float64]:  # fmt: skip
    """Kernel from the cube's PSF to the target's, at the middle of the cube's range."""
    middle = float(np.median(ifs["wave"].values))
    name = "grid" if isinstance(target, Grid) else identify(target)
    source = known_psf(source_psf, ifs.attrs.get("psf"), middle, identify(ifs))
    wanted = known_psf(target_psf, _stated_psf(target), middle, name)
    return matching_kernel(source, wanted, pixel_scale(celestial_wcs(ifs)))


def _stated_psf(target: xr.Dataset | Grid) -> Any:
    return target.psf if isinstance(target, Grid) else target.attrs.get("psf")


def _with_images(target: xr.Dataset | Grid) -> xr.Dataset:
    if isinstance(target, Grid):
        raise InputError(
            "match_spatial: compat", expected="a photometric dataset as the target",
            found="a Grid", remedy="open a photometric cube with open_photometry",
        )  # fmt: skip
    validate(target, "photo_flux", "photo_err", "photo_region", verb="match_spatial")
    return target


def _sky(
    operator: Delayed, images: xr.Dataset | None, ifs: xr.Dataset, geometry: Geometry
) -> tuple[Delayed | None, NDArray[np.float64]]:
    """Images in the cube's range as one delayed :class:`~specphoto.spatial.edges.Sky`."""
    if images is None:
        return None, np.empty(0)
    wave, pivot = ifs["wave"].values, np.asarray(images["band_wave"].values, dtype=float)
    near = np.flatnonzero((pivot > wave[0]) & (pivot < wave[-1]))
    if near.size == 0:
        near = np.array([int(np.argmin(np.abs(pivot - np.median(wave))))])
    image, error = (images[v].isel(band=near).data for v in ("photo_flux", "photo_err"))
    sky = delayed(edges.sky_from_images, pure=True)(
        operator, image, error, *geometry.positions, geometry.box
    )
    return sky, pivot[near]


def _in_blocks(ifs: xr.Dataset, shape_out: tuple[int, int]) -> xr.Dataset:
    """Whole planes, split in wave so that a block of the output stays small."""
    plane_size = 4 * max(shape_out[0] * shape_out[1], ifs.sizes["y"] * ifs.sizes["x"])
    n_wave = max(1, min(ifs.sizes["wave"], _BLOCK_BYTES // plane_size))
    return rechunk(ifs, {"wave": n_wave, "y": -1, "x": -1})


def _nodes(
    ifs: xr.Dataset, operator: Delayed, stencil: NDArray[np.float64], sky: Delayed | None,
    band_wave: NDArray[np.float64], shape: tuple[int, int],
) -> tuple[NDArray[np.float64], da.Array]:  # fmt: skip
    """Smooth terms at a few wavelengths, ``(n_node, 5, y, x)``; the same whatever the chunks."""
    wave = ifs["wave"].values
    size = min(_NODE_CHANNELS, wave.size)
    middle = np.linspace(0.06, 0.94, min(_N_NODE, wave.size)) * (wave.size - 1)
    first = np.unique(np.clip(np.round(middle).astype(int) - size // 2, 0, wave.size - size))
    layers = []
    for start in first:
        few = ifs.isel(wave=slice(int(start), int(start) + size))
        layer = delayed(match_node, pure=True)(
            operator, few["spec_flux"].data, few["spec_var"].data, few["spec_mask"].data,
            float(wave[start : start + size].mean()), stencil, sky, band_wave,
        )  # fmt: skip
        layers.append(da.from_delayed(layer, (len(plane.NODE_FIELDS), *shape), dtype=np.float32))
    node_wave = np.array([wave[s : s + size].mean() for s in first])
    return node_wave, da.stack(layers).rechunk(-1)


def match_node(
    operator: Any, flux: Any, variance: Any, mask: Any, *args: Any
) -> NDArray[np.float32]:
    with single_thread():
        return plane.match_node(operator, variance, _good(flux, variance, mask), *args)


def _good(
    flux: NDArray[np.float32], variance: NDArray[np.float32], mask: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Voxels that hold information: not masked, finite, of positive variance."""
    return ~mask & np.isfinite(flux) & np.isfinite(variance) & (variance > 0)


def _planes(
    ifs: xr.Dataset, operator: Delayed, nodes: da.Array, node_wave: NDArray[np.float64],
    sky: Delayed | None, band_wave: NDArray[np.float64], min_coverage: float,
) -> da.Array:  # fmt: skip
    """All channels through the operator, ``(4, wave, y, x)``."""
    flux = ifs["spec_flux"].data
    wave = da.from_array(ifs["wave"].values, chunks=(flux.chunks[0],))
    planes: da.Array = da.blockwise(
        partial(_planes_of_block, node_wave=node_wave, band_wave=band_wave,
                min_coverage=min_coverage),
        "fwvu", flux, "wyx", ifs["spec_var"].data, "wyx", ifs["spec_mask"].data, "wyx",
        wave, "w", nodes, "nkvu", operator, None, sky, None,
        new_axes={"f": len(plane.PLANE_FIELDS)},
        concatenate=True, dtype=np.float32, meta=np.empty((0, 0, 0, 0), np.float32),
        token="match-planes",
    )  # fmt: skip
    return planes


def _planes_of_block(
    flux: Any, variance: Any, mask: Any, wave: Any, nodes: Any, operator: Any, sky: Any,
    **options: Any,
) -> NDArray[np.float32]:  # fmt: skip
    with single_thread():
        good = _good(flux, variance, mask)
        return plane.match_planes(
            operator, flux, variance, good, wave, nodes, options["node_wave"], sky,
            options["band_wave"], min_coverage=options["min_coverage"],
        )  # fmt: skip


def _framed(array: da.Array, box: tuple[slice, slice], shape: tuple[int, int]) -> da.Array:
    """Put a box into the output frame; beyond the cube's reach all is unknown.

    The box stays a chunk of its own: the stages that follow move only what holds data.
    """
    width = [(s.start, n - s.stop) for s, n in zip(box, shape, strict=True)]
    padded: da.Array = da.pad(
        array, [(0, 0)] * (array.ndim - 2) + width, mode="constant", constant_values=np.nan
    )
    return padded


def _assemble(
    ifs: xr.Dataset, images: xr.Dataset | None, planes: da.Array, nodes: da.Array,
    output: PixelFrame, ebv: float | None,
) -> xr.Dataset:  # fmt: skip
    """Cubes, maps and images as one dataset, corrected for Galactic extinction."""
    cube, sky_map = ("wave", "y", "x"), ("y", "x")
    wave = ifs["wave"].values
    dust = channel_factors(ifs.attrs, wave, ebv).astype(np.float32)[:, None, None]
    out = xr.Dataset(
        {
            "spec_flux": (cube, planes[0] * dust),
            "spec_err": (cube, planes[1] * dust),
            # NaN beyond the reach of the cube is bad too
            "spec_mask": (cube, ~(planes[2] < 0.5)),
        },
        coords={
            "wave": ifs["wave"],
            "y": np.arange(output.shape[0]) + output.first_y,
            "x": np.arange(output.shape[1]) + output.first_x,
        },
    )
    for name in ("coverage", "edge_factor", "edge_bias"):
        layer = nodes[:, plane.NODE_FIELDS.index(name)]
        out[name] = (
            sky_map,
            layer.map_blocks(_mean_known, drop_axis=0, dtype=np.float32, token="mean-of-nodes"),
        )
    out["coverage"] = out["coverage"].fillna(0.0)
    if "spec_lsf" in ifs:
        out["spec_lsf"] = _mean_lsf(ifs)
    if images is not None:
        factor = band_factors(images.attrs, list(images["band"].values), ebv)
        out = out.merge(images.drop_attrs(deep=False), join="exact")
        for name in ("photo_flux", "photo_err"):
            scaled = images[name] * xr.DataArray(factor, dims="band")
            out[name] = scaled.astype(images[name].dtype)
    return out


def _mean_known(layers: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean over nodes where known, NaN where none is."""
    known = np.isfinite(layers)
    count = known.sum(axis=0)
    total = np.where(known, layers, 0.0).sum(axis=0, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def _mean_lsf(ifs: xr.Dataset) -> xr.DataArray:
    """Line-spread width per channel: the mean over good spaxels."""
    lsf = ifs["spec_lsf"]
    if lsf.dims == ("wave",):
        return lsf
    good = ~ifs["spec_mask"] & (lsf > 0)
    return lsf.where(good).mean(("y", "x")).astype(np.float32)


def _region(ds: xr.Dataset, *, max_bias: float | None, min_coverage: float) -> xr.DataArray:
    """Pixels with a trustworthy spectrum, inside the galaxy where the images say where that is."""
    if max_bias is None:
        trusted = ds["coverage"] >= max(_COVERAGE_WITHOUT_IMAGES, min_coverage)
    else:
        trusted = (ds["edge_bias"] < max_bias) & (ds["coverage"] >= min_coverage)
    return trusted & ds["photo_region"] if "photo_region" in ds else trusted


def _attrs(
    ifs: xr.Dataset, images: xr.Dataset | None, target: xr.Dataset | Grid,
    target_psf: PSF | float | None, output: PixelFrame, ebv: float | None,
) -> dict[str, Any]:  # fmt: skip
    """Attributes of the matched dataset; where both have one, the images' tells of the grid."""
    known = {name: value for name, value in ifs.attrs.items() if value is not None}
    merged = {**(images.attrs if images is not None else {}), **known}
    merged["psf"] = psf_attrs(_stated_psf(target) if target_psf is None else target_psf)
    if not isinstance(target, Grid):
        merged["photo_ebv"] = target.attrs.get("ebv")
    # it is told of the cube's spaxels, which are gone
    merged["correlation"] = None
    # the law and the scale of one source say nothing of the other
    merged.update({name: ifs.attrs.get(name) for name in ("ebv", "ebv_scale", "ebv_law")})
    if ebv is not None:
        merged.update(ebv=ebv, ebv_scale="SF11", ebv_law=LAW, ebv_corrected=True)
    merged.update(
        kind="specphoto", corrected=False, wcs=wcs_string(output.wcs),
        pixel_scale=pixel_scale(output.wcs),
        provenance=[
            *ifs.attrs.get("provenance", []),
            *(images.attrs.get("provenance", []) if images is not None else []),
        ],
    )  # fmt: skip
    return merged
