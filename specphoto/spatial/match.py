"""The lazy face of the spatial match."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import dask.array as da
import numpy as np
import xarray as xr

from specphoto.cube import (
    BLOCK_MULTIPLE,
    Grid,
    add_provenance,
    annotate,
    identify,
    pixel_scale,
    validate,
    wcs_string,
)
from specphoto.errors import InputError
from specphoto.photometry.galactic import band_factors, channel_factors, common_extinction
from specphoto.photometry.match import to_psf
from specphoto.spatial import plane
from specphoto.spatial.comparison import Limits
from specphoto.spatial.correlation import clipped_share, stencil_of
from specphoto.spatial.covariance import local_affine, output_lags
from specphoto.spatial.geometry import geometry_of
from specphoto.spatial.graph import framed, match_graph
from specphoto.spatial.inputs import carry_psf, frame_of, noise_of, resolution_of, wanted_psf
from specphoto.spatial.psf import psf_attrs
from specphoto.spatial.register import find_shift
from specphoto.spatial.resolution import Resolution

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from specphoto.photometry.extinction import Law
    from specphoto.photometry.galactic import Ebv, Extinction
    from specphoto.spatial.geometry import Geometry, PixelFrame
    from specphoto.spatial.graph import MatchGraph
    from specphoto.spatial.psf import PSF

__all__ = ["match_spatial"]

# Without images the bias at the edge is unknown; there coverage is all one can ask for: at the rim
# of declining discs the bias is at most the share that is missing.
_COVERAGE_WITHOUT_IMAGES = 0.98


def match_spatial(
    ifs: xr.Dataset,
    target: xr.Dataset | Grid,
    *,
    source_psf: PSF | float | str | dict[str, Any] | Sequence[tuple[float, Any]] | None = None,
    target_psf: PSF | float | str | None = None,
    correlation: dict[str, Any] | None = None,
    register: bool | Literal["report"] = False,
    max_shift: float = 3.0,
    ebv: Ebv | None = None,
    ebv_law: Law = "G23",
    compensate: bool = True,
    max_bias: float = 0.02,
    min_coverage: float = 0.1,
    coverage: Literal["map", "cube"] = "map",
    compat: Literal["pixedfit"] | None = None,
    kernel: NDArray[np.float64] | None = None,
) -> xr.Dataset:
    """Bring a cube of spectra and images to one PSF and the pixel grid of the images.

    The broadest PSF wins: usually that of the images, to which the cube is brought; where the
    cube is broader, at any wavelength, the images are brought to its PSF too. Nothing is computed:
    the operator (:mod:`specphoto.spatial.operator`, one for each wavelength at which the cube's PSF
    is known) is built once by one task and applied to blocks of whole planes.

    Parameters
    ----------
    ifs
        From :func:`specphoto.open_ifs`: ``spec_flux``, ``spec_var``, ``spec_mask`` (wave, y, x).
    target
        From :func:`specphoto.open_photometry` or :func:`specphoto.photometry_from_images`, or a
        :class:`specphoto.Grid`.
    source_psf
        PSF of the cube, by default what its file states at each wavelength: FWHM in arcsec, a
        :class:`~specphoto.spatial.psf.PSF`, a ``psf`` attribute (:mod:`specphoto.cube`), pairs of
        a wavelength in Angstrom and one of these, or 'images' for the cube's ``psf_image``.
    target_psf
        PSF of the images, by default what they state: FWHM in arcsec, a PSF, or a band's name
        ('wise_w2').
    correlation
        ``{"model": "gaussian", "scale": ..., "cutoff": ...}`` of input spaxels, in spaxels, or
        ``{"model": "none"}``; by default the cube's own ``spec_corr``, else what the survey's
        reader states.
    register
        True: find the cube's shift against the images (:func:`specphoto.register`) and undo it
        where one is found. 'report': find and deliver it, change nothing. It needs images.
    max_shift
        Largest shift looked for, in arcsec.
    ebv
        Galactic E(B-V) on the scale of Schlafly & Finkbeiner (2011); 0 applies none. By default
        what the headers state, one value for both data sets; 'cube' or 'images' brings the other
        to the value of that header.
    ebv_law
        Extinction law for both (:func:`specphoto.photometry.extinction.extinction_curve`).
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
        ``coverage``, ``edge_factor``, ``edge_bias``, ``spec_region`` (y, x), ``spec_corr`` (lag,
        y, x), the correlation between the errors of neighbouring pixels
        (:func:`specphoto.sum_spectra` uses it), ``spec_corr_clipped`` where the cube has tables of
        its own, which are clipped if they are nearly a correlation, and the target's images, all
        corrected for one Galactic extinction.

    Raises
    ------
    InputError
        If the two do not overlap on the sky, a PSF is unknown, the match would be a deconvolution,
        or a correlation is none.
    """
    validate(ifs, "spec_flux", "spec_var", "spec_mask", "wave", verb="match_spatial")
    _check(compat, coverage, register)
    if compat is not None:
        from specphoto.compat import match_spatial_pixedfit

        return match_spatial_pixedfit(ifs, _with_images(target, "compat"), kernel)
    images = None if isinstance(target, Grid) else _with_images(target, "target")
    resolution = _resolution(ifs, target, source_psf, target_psf, kernel)
    if images is not None and resolution.images_lag:
        images = to_psf(images, wanted_psf(ifs, target, target_psf), resolution.psf)
    dust = common_extinction(ifs.attrs, images.attrs if images is not None else {}, ebv, ebv_law)
    source, output = frame_of(ifs), frame_of(target)
    geometry = geometry_of(
        source, output, resolution.kernels[0], multiple=BLOCK_MULTIPLE, name=identify(ifs),
        max_shift=max_shift / pixel_scale(source.wcs) if register is True else 0.0,
    )  # fmt: skip
    stencil = noise_of(ifs, correlation)
    shift, found = _registration(ifs, images, resolution, stencil, dust, register, max_shift)
    graph = match_graph(
        ifs, images if compensate else None, geometry, resolution, stencil, shift=shift,
        min_coverage=min_coverage,
    )  # fmt: skip
    node_wave, nodes = graph.nodes()
    planes = graph.planes(nodes, node_wave)
    planes, nodes = (framed(a, geometry.box, output.shape) for a in (planes, nodes))
    out = _assemble(graph.ifs, images, planes, nodes, output, dust)
    compensated = compensate and images is not None
    largest = max_bias if compensated else None
    out["spec_region"] = _region(out, max_bias=largest, min_coverage=min_coverage)
    if coverage == "cube":
        layer = planes[plane.PLANE_FIELDS.index("coverage")]
        out["coverage"] = (("wave", "y", "x"), da.nan_to_num(layer))
    out = out.merge(found)
    out = _with_correlation(out, graph, geometry, resolution, stencil, output)
    out = carry_psf(out, resolution.psf)
    options = {
        "source_psf": [psf_attrs(psf) for psf in resolution.source],
        "psf_wave": [float(wave) for wave in resolution.wave],
        "kernels": [report.numbers for report in resolution.reports(pixel_scale(source.wcs))],
        "correlation": _correlation_name(ifs, correlation),
        "correlation_clipped": None if stencil is None else clipped_share(stencil),
        "register": register, "ebv": dust.ebv, "law": dust.law, "compensate": compensated,
        "max_bias": max_bias, "min_coverage": min_coverage,
        "images_brought_to_psf": resolution.images_lag,
    }  # fmt: skip
    attrs = _attrs(ifs, images, target, output, dust)
    return add_provenance(annotate(out, **attrs), "match_spatial", options=options)


def _check(compat: str | None, coverage: str, register: bool | str) -> None:
    for name, value, known in (
        ("compat", compat, (None, "pixedfit")), ("coverage", coverage, ("map", "cube")),
        ("register", register, (True, False, "report")),
    ):  # fmt: skip
        if value not in known:
            raise InputError(
                f"match_spatial: {name}", expected=" or ".join(map(repr, known)),
                found=repr(value), remedy="choose one",
            )  # fmt: skip


def _resolution(
    ifs: xr.Dataset, target: xr.Dataset | Grid, source_psf: Any, target_psf: Any,
    kernel: NDArray[np.float64] | None,
) -> Resolution:  # fmt: skip
    if kernel is None:
        return resolution_of(ifs, target, source_psf, target_psf)
    wanted = wanted_psf(ifs, target, target_psf)
    return Resolution(wanted, [], np.zeros(1), [np.asarray(kernel, dtype=float)], False)


def _registration(
    ifs: xr.Dataset, images: xr.Dataset | None, resolution: Resolution,
    stencil: NDArray[np.float64] | None, dust: Extinction, register: bool | str,
    max_shift: float,
) -> tuple[Any, xr.Dataset]:  # fmt: skip
    """Change of the cube's pointing in its pixels, and what is told of it."""
    if register is False:
        return (0.0, 0.0), xr.Dataset()
    if images is None:
        raise InputError(
            "match_spatial: register", expected="images to register the cube on",
            found="a Grid", remedy="give a photometric dataset as the target, or leave it out",
        )  # fmt: skip
    limits = Limits(max_shift=max_shift)
    found = find_shift(ifs, images, resolution, stencil, limits=limits, dust=dust)
    told = found.report.merge(found.maps.drop_vars(["y", "x"], errors="ignore"))
    return (found.shift if register is True else (0.0, 0.0)), told


def _correlation_name(ifs: xr.Dataset, correlation: dict[str, Any] | None) -> Any:
    if correlation is None and "spec_corr" in ifs:
        return "spec_corr of the cube"
    return correlation or ifs.attrs.get("correlation")


def _with_correlation(
    out: xr.Dataset, graph: MatchGraph, geometry: Geometry, resolution: Resolution,
    stencil: NDArray[np.float64] | None, output: PixelFrame,
) -> xr.Dataset:  # fmt: skip
    """Add the correlation between output pixels, where its lags are few enough to keep.

    And how much of the input's was clipped, which only tasks can know of tables.
    """
    if stencil is None:
        out["spec_corr_clipped"] = ((), graph.clipped())
    near = stencil_of(graph.ifs.attrs.get("correlation", {})) if stencil is None else stencil
    lag_y, lag_x = output_lags(resolution.kernels, near, local_affine(*geometry.corners))
    if lag_y.size == 0:
        return out
    wave, layer = graph.output_correlation(lag_y, lag_x)
    layer = framed(layer, geometry.box, output.shape)
    out["spec_corr"] = (("lag", "y", "x"), layer)
    return out.assign_coords(lag_y=("lag", lag_y), lag_x=("lag", lag_x), corr_wave=wave)


def _with_images(target: xr.Dataset | Grid, option: str) -> xr.Dataset:
    if isinstance(target, Grid):
        raise InputError(
            f"match_spatial: {option}", expected="a photometric dataset as the target",
            found="a Grid", remedy="open a photometric cube with open_photometry",
        )  # fmt: skip
    validate(target, "photo_flux", "photo_err", "photo_region", verb="match_spatial")
    return target


def _assemble(
    ifs: xr.Dataset, images: xr.Dataset | None, planes: da.Array, nodes: da.Array,
    output: PixelFrame, dust: Extinction,
) -> xr.Dataset:  # fmt: skip
    """Cubes, maps and images as one dataset, corrected for Galactic extinction."""
    cube, sky_map = ("wave", "y", "x"), ("y", "x")
    wave = ifs["wave"].values
    clear = channel_factors(ifs.attrs, wave, dust).astype(np.float32)[:, None, None]
    out = xr.Dataset(
        {
            "spec_flux": (cube, planes[0] * clear),
            "spec_err": (cube, planes[1] * clear),
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
            layer.map_blocks(_mean_known, drop_axis=0, dtype=np.float32, token="spatial-mean"),
        )
    out["coverage"] = out["coverage"].fillna(0.0)
    if "spec_lsf" in ifs:
        out["spec_lsf"] = _mean_lsf(ifs)
    if images is not None:
        factor = band_factors(images.attrs, list(images["band"].values), dust)
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
    """Line-spread width per channel: the mean over good spaxels.

    An output pixel is a mean over many spaxels anyway, and one that is 30% sharper or blunter has
    a factor that differs by 0.3% rms, less than 0.05% in the mean (``benchmarks/accuracy``).
    """
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
    output: PixelFrame, dust: Extinction,
) -> dict[str, Any]:  # fmt: skip
    """Attributes of the matched dataset; where both have one, the images' tells of the grid."""
    known = {name: value for name, value in ifs.attrs.items() if value is not None}
    merged = {**(images.attrs if images is not None else {}), **known}
    # what it is now is known already
    merged.pop("psf", None)
    if not isinstance(target, Grid):
        merged["photo_ebv"] = target.attrs.get("ebv")
    # it is told of the cube's spaxels, which are gone
    merged["correlation"] = None
    # the law and the scale of one source say nothing of the other
    merged.update({name: ifs.attrs.get(name) for name in ("ebv", "ebv_scale", "ebv_law")})
    if dust.ebv is not None:
        merged.update(ebv=dust.ebv, ebv_scale="SF11", ebv_law=dust.law, ebv_corrected=True)
    merged.update(
        kind="specphoto", corrected=False, wcs=wcs_string(output.wcs),
        pixel_scale=pixel_scale(output.wcs),
        provenance=[
            *ifs.attrs.get("provenance", []),
            *(images.attrs.get("provenance", []) if images is not None else []),
        ],
    )  # fmt: skip
    return merged
