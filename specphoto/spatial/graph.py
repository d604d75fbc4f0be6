"""The tasks of one spatial match: what is built once, and what is done to each block."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np

from specphoto.blas import single_thread
from specphoto.cube import identify, rechunk
from specphoto.spatial import edges, plane
from specphoto.spatial.correlation import LagCorrelation, checked_lags
from specphoto.spatial.covariance import output_correlation
from specphoto.spatial.geometry import shifted_positions
from specphoto.spatial.varying import build_varying, interpolation
from specphoto.tasks import task

if TYPE_CHECKING:
    import xarray as xr
    from dask.delayed import Delayed
    from numpy.typing import NDArray

    from specphoto.spatial.geometry import Geometry
    from specphoto.spatial.resolution import Resolution

__all__ = ["MatchGraph", "framed", "match_graph", "noise_at"]

# A block of the output stays near this size (one layer, float32).
_BLOCK_BYTES = 12 * 2**20
_N_NODE = 5
_NODE_CHANNELS = 9


@dataclass(frozen=True)
class MatchGraph:
    """What the tasks of one match share.

    Parameters
    ----------
    ifs
        Whole planes, split in wave.
    operator, sky
        One task each.
    band_wave
        Pivot wavelengths of the images in ``sky``, or of the nodes where it is the cube's own.
    correlation
        Stencil of the cube's noise, or None where ``ifs`` has its own in ``spec_corr``.
    shape
        ``(n_y, n_x)`` of the box of output pixels that the cube reaches.
    min_coverage
        As for :func:`specphoto.match_spatial`.
    """

    ifs: xr.Dataset
    operator: Delayed
    sky: Delayed
    band_wave: NDArray[np.float64]
    correlation: NDArray[np.float64] | None
    shape: tuple[int, int]
    min_coverage: float

    def nodes(self) -> tuple[NDArray[np.float64], da.Array]:
        """Smooth terms at a few wavelengths, ``(n_node, n_field, y, x)``, whatever the chunks."""
        size, first, node_wave = _node_channels(self.ifs["wave"].values)
        layers = []
        for start, here in zip(first, node_wave, strict=True):
            layer = task("spatial", _match_node)(
                self.operator, *_channels(self.ifs, int(start), size), float(here),
                noise_at(self.ifs, self.correlation, float(here)), self.sky, self.band_wave,
            )  # fmt: skip
            shape = (len(plane.NODE_FIELDS), *self.shape)
            layers.append(da.from_delayed(layer, shape, dtype=np.float32))
        return node_wave, da.stack(layers).rechunk(-1)

    def planes(self, nodes: da.Array, node_wave: NDArray[np.float64]) -> da.Array:
        """All channels through the operator, ``(4, wave, y, x)``."""
        flux = self.ifs["spec_flux"].data
        wave = da.from_array(self.ifs["wave"].values, chunks=(flux.chunks[0],))
        options = {
            "node_wave": node_wave, "band_wave": self.band_wave, "min_coverage": self.min_coverage,
        }  # fmt: skip
        planes: da.Array = da.blockwise(
            partial(_planes_of_block, **options),
            "fwvu", flux, "wyx", self.ifs["spec_var"].data, "wyx", self.ifs["spec_mask"].data,
            "wyx", wave, "w", nodes, "nkvu", self.operator, None, self.sky, None,
            new_axes={"f": len(plane.PLANE_FIELDS)},
            concatenate=True, dtype=np.float32, meta=np.empty((0, 0, 0, 0), np.float32),
            token="spatial-planes",
        )  # fmt: skip
        return planes

    def output_correlation(
        self, lag_y: NDArray[np.int_], lag_x: NDArray[np.int_]
    ) -> tuple[float, da.Array]:
        """Wavelength in the middle, and the correlation there between output pixels by lag."""
        wave = self.ifs["wave"].values
        size = min(_NODE_CHANNELS, wave.size)
        start = (wave.size - size) // 2
        here = float(wave[start : start + size].mean())
        noise = noise_at(self.ifs, self.correlation, here)
        layer = task("spatial", _output_node)(
            self.operator, *_channels(self.ifs, start, size), here, noise, lag_y, lag_x
        )  # fmt: skip
        shape = (lag_y.size, *self.shape)
        return here, da.from_delayed(layer, shape, dtype=np.float32)

    def clipped(self) -> da.Array:
        """Largest share at which the cube's own correlation was clipped, over the nodes."""
        _, _, node_wave = _node_channels(self.ifs["wave"].values)
        noise = [noise_at(self.ifs, self.correlation, float(here)) for here in node_wave]
        share: da.Array = da.from_delayed(
            task("spatial", _largest_clip)(noise), (), dtype=np.float64
        )
        return share


def noise_at(ifs: xr.Dataset, stencil: NDArray[np.float64] | None, wave: float) -> Any:
    """Correlation of a cube's noise at a wavelength: the stencil, or a task that gives its lags."""
    if stencil is not None:
        return stencil
    lags = ifs["spec_corr"]
    nodes = np.atleast_1d(np.asarray(lags.coords.get("corr_wave", wave), dtype=float))
    share = interpolation(np.array([wave]), nodes)[0]
    return task("spatial", _lags_at)(
        lags.data, share, lags["lag_y"].values, lags["lag_x"].values, identify(ifs)
    )


def match_graph(
    ifs: xr.Dataset,
    images: xr.Dataset | None,
    geometry: Geometry,
    resolution: Resolution,
    correlation: NDArray[np.float64] | None,
    *,
    shift: Any = (0.0, 0.0),
    min_coverage: float,
) -> MatchGraph:
    """Lay out the tasks that come once.

    Parameters
    ----------
    ifs, geometry, resolution
        The cube, where it lies, and the kernels.
    images
        What compensates the edge; None for nothing.
    correlation
        Stencil, or None to use the cube's ``spec_corr``.
    shift
        Change of the cube's pointing in its pixels, ``(x, y)``, or the task that finds it.
    min_coverage
        As for :func:`specphoto.match_spatial`.
    """
    shape_in = (ifs.sizes["y"], ifs.sizes["x"])
    operator = task("spatial", build_varying)(
        *geometry.corners, shape_in, resolution.wave, resolution.kernels,
        min_coverage=min_coverage, pad=geometry.pad, shift=shift,
    )  # fmt: skip
    blocks = _in_blocks(_without_foreground(ifs), geometry.shape)
    sky, band_wave = _sky(operator, images, blocks, geometry, shift)
    return MatchGraph(blocks, operator, sky, band_wave, correlation, geometry.shape, min_coverage)


def framed(array: da.Array, box: tuple[slice, slice], shape: tuple[int, int]) -> da.Array:
    """Put a box into the output frame; beyond the cube's reach all is unknown.

    The box stays a chunk of its own: the stages that follow move only what holds data.
    """
    width = [(s.start, n - s.stop) for s, n in zip(box, shape, strict=True)]
    padded: da.Array = da.pad(
        array, [(0, 0)] * (array.ndim - 2) + width, mode="constant", constant_values=np.nan
    )
    return padded


def _sky(
    operator: Delayed, images: xr.Dataset | None, ifs: xr.Dataset, geometry: Geometry, shift: Any
) -> tuple[Delayed, NDArray[np.float64]]:
    """Images in the cube's range, or its own light, as :class:`~specphoto.spatial.edges.Sky`."""
    wave = ifs["wave"].values
    size, first, node_wave = _node_channels(wave)
    cube = [task("spatial", _seen_at)(*_channels(ifs, int(start), size)) for start in first]
    if images is None:
        return task("spatial", _sky_without_images)(operator, cube), node_wave
    pivot = np.asarray(images["band_wave"].values, dtype=float)
    near = np.flatnonzero((pivot > wave[0]) & (pivot < wave[-1]))
    if near.size == 0:
        near = np.array([int(np.argmin(np.abs(pivot - np.median(wave))))])
    image, error = (images[v].isel(band=near).data for v in ("photo_flux", "photo_err"))
    foreground = ifs["foreground"].data if "foreground" in ifs else None
    sky = task("spatial", _sky_at)(
        operator, image, error, geometry.positions, shift, geometry.box, cube,
        interpolation(node_wave, pivot[near]), foreground,
    )  # fmt: skip
    return sky, pivot[near]


def _sky_at(
    operator: Any, image: Any, error: Any, positions: Any, shift: Any, box: Any, cube: Any,
    share: Any, foreground: Any,
) -> edges.Sky:  # fmt: skip
    x, y = shifted_positions(positions, shift)
    seen = edges.Seen(share, np.stack(cube))
    with single_thread():
        return edges.sky_from_images(
            operator, image, error, x, y, box, seen=seen, foreground=foreground
        )


def _sky_without_images(operator: Any, cube: Any) -> edges.Sky:
    return edges.sky_from_cube(operator, np.stack(cube))


def _node_channels(
    wave: NDArray[np.float64],
) -> tuple[int, NDArray[np.int_], NDArray[np.float64]]:
    """Number of channels of a node, the first channel of each, and their wavelengths."""
    size = min(_NODE_CHANNELS, wave.size)
    middle = np.linspace(0.06, 0.94, min(_N_NODE, wave.size)) * (wave.size - 1)
    first = np.unique(np.clip(np.round(middle).astype(int) - size // 2, 0, wave.size - size))
    return size, first, np.array([wave[s : s + size].mean() for s in first])


def _channels(ifs: xr.Dataset, start: int, size: int) -> list[da.Array]:
    few = ifs.isel(wave=slice(start, start + size))
    return [few[name].data for name in ("spec_flux", "spec_var", "spec_mask")]


def _seen_at(flux: Any, variance: Any, mask: Any) -> NDArray[np.float32]:
    return plane.mean_light(flux, variance, _good(flux, variance, mask))


def _without_foreground(ifs: xr.Dataset) -> xr.Dataset:
    """The cube with spaxels of foreground objects masked."""
    if "foreground" not in ifs:
        return ifs
    mask = ifs["spec_mask"] | ifs["foreground"]
    return ifs.assign(spec_mask=mask.transpose("wave", "y", "x"))


def _in_blocks(ifs: xr.Dataset, shape_out: tuple[int, int]) -> xr.Dataset:
    """Whole planes, split in wave so that a block of the output stays small."""
    plane_size = 4 * max(shape_out[0] * shape_out[1], ifs.sizes["y"] * ifs.sizes["x"])
    n_wave = max(1, min(ifs.sizes["wave"], _BLOCK_BYTES // plane_size))
    return rechunk(ifs, {"wave": n_wave, "y": -1, "x": -1})


def _lags_at(
    rho: Any, share: Any, lag_y: NDArray[np.int_], lag_x: NDArray[np.int_], name: str
) -> LagCorrelation:
    mean = np.tensordot(share, rho, axes=1) if rho.ndim == 4 else rho
    return checked_lags(mean, lag_y, lag_x, name=name)


def _largest_clip(noise: list[LagCorrelation]) -> NDArray[np.float64]:
    return np.asarray(max(lags.clipped for lags in noise))


def _match_node(
    operator: Any, flux: Any, variance: Any, mask: Any, *args: Any
) -> NDArray[np.float32]:
    with single_thread():
        return plane.match_node(operator, variance, _good(flux, variance, mask), *args)


def _output_node(
    operator: Any, flux: Any, variance: Any, mask: Any, wave: float, correlation: Any,
    lag_y: NDArray[np.int_], lag_x: NDArray[np.int_],
) -> NDArray[np.float32]:  # fmt: skip
    with single_thread():
        usual, sigma = plane.usual_noise(variance, _good(flux, variance, mask))
        rows = output_correlation(operator.at(wave), usual, sigma, correlation, lag_y, lag_x)
        return np.asarray(operator.common.scatter(rows))


def _good(
    flux: NDArray[np.float32], variance: NDArray[np.float32], mask: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Voxels that hold information: not masked, finite, of positive variance."""
    return ~mask & np.isfinite(flux) & np.isfinite(variance) & (variance > 0)


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
