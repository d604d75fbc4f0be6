"""Dask graphs of the spectral match: blocks of pixels, the pixels of a galaxy together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import dask.array as da
import numpy as np

from specphoto.blas import single_thread
from specphoto.cube import rechunk
from specphoto.spectral import legendre
from specphoto.spectral.bins import paint
from specphoto.spectral.coherence import shrink
from specphoto.spectral.pedestal import Additive, additive_residuals
from specphoto.spectral.pixel import Pixels, correct_pixels

if TYPE_CHECKING:
    import xarray as xr
    from dask.delayed import Delayed
    from numpy.typing import NDArray

    from specphoto.spectral.bins import Bins

__all__ = [
    "Layout",
    "additive",
    "assemble",
    "bin_images",
    "correct",
    "correct_bins",
    "synthetic",
    "together",
]

# Share of a band that good channels must see for its synthetic flux.
_SEEN = 0.9


class Layout(NamedTuple):
    """How the results of a pixel are stacked along one axis."""

    n_coef: int
    n_wave: int
    n_band: int

    def parts(self) -> dict[str, tuple[slice, tuple[int, ...]]]:
        """Position and shape of each result."""
        shapes: dict[str, tuple[int, ...]] = {
            "coef": (self.n_coef,), "cov": (self.n_coef, self.n_coef),
            "noise": (self.n_coef, self.n_coef), "photo_cov": (self.n_coef, self.n_band),
            "unit": (self.n_band, self.n_coef), "model": (self.n_wave,),
            "chi2": (), "n_band": (), "n_eff": (), "best": (), "order": (),
            "closure_before": (self.n_band,), "closure_after": (self.n_band,),
            "closure_holdout": (self.n_band,), "flag": (),
        }  # fmt: skip
        out, start = {}, 0
        for name, shape in shapes.items():
            stop = start + int(np.prod(shape, dtype=int))
            out[name] = (slice(start, stop), shape)
            start = stop
        return out

    @property
    def size(self) -> int:
        """Length of the stacked axis."""
        wide = self.n_coef * (1 + 2 * self.n_coef + 2 * self.n_band)
        return wide + self.n_wave + 6 + 3 * self.n_band

    def nothing(self) -> NDArray[np.float32]:
        """Results of a pixel that has no spectrum or no photometry."""
        out, parts = np.full(self.size, np.nan, dtype=np.float32), self.parts()
        out[parts["best"][0]] = out[parts["order"][0]] = -1.0
        out[parts["n_band"][0]] = out[parts["flag"][0]] = 0.0
        return out

    def split(self, stacked: da.Array) -> dict[str, da.Array]:
        """Results by name, each with its own axes before y and x."""
        return {
            name: stacked[where].reshape(*shape, *stacked.shape[1:]) if len(shape) == 2
            else stacked[where][0] if shape == () else stacked[where]
            for name, (where, shape) in self.parts().items()
        }  # fmt: skip


def correct_bins(
    cube: xr.Dataset, bins: Bins, reference: Delayed, layout: Layout, block: int
) -> da.Array:
    """As :func:`correct`, each pixel with the results of its bin."""
    found = correct(bins.cube, reference, layout, block * block)
    return paint(found, bins, _split(cube, block), layout.nothing())


def bin_images(cube: xr.Dataset, bins: Bins, block: int) -> da.Array:
    """Photometry of the mean pixel of each pixel's bin, ``(band, y, x)``."""
    nothing = np.full(cube.sizes["band"], np.nan, dtype=np.float32)
    return paint(bins.cube["photo_flux"].data, bins, _split(cube, block), nothing)


def correct(cube: xr.Dataset, reference: Delayed, layout: Layout, block: int) -> da.Array:
    """All results of all pixels, ``(layout.size, y, x)``: whole spectra, split in the sky."""
    cube = rechunk(cube, {"wave": -1, "band": -1, **_split(cube, block)})
    arrays: list[Any] = []
    for name, index in (("photo_flux", "byx"), ("photo_err", "byx"), ("spec_flux", "wyx"),
                        ("spec_err", "wyx"), ("spec_mask", "wyx")):  # fmt: skip
        arrays += [cube[name].data, index]
    moving = "spec_velocity" in cube
    arrays += [cube["spec_velocity"].data, "yx"] if moving else [None, None]
    corrected: da.Array = da.blockwise(
        _correct_block, "ryx", *arrays, reference, None, layout, None,
        new_axes={"r": layout.size}, concatenate=True, dtype=np.float32,
        meta=np.empty((0, 0, 0), np.float32), token="fit-pixels",
    )  # fmt: skip
    return corrected


def _split(cube: xr.Dataset, block: int) -> dict[str, tuple[int, ...]]:
    """Chunks of at most ``block`` pixels a side that respect those of the spectra.

    The spatial stage keeps the frame's empty border in chunks of its own: merging them with the
    rest would move nothing but NaN.
    """
    out = {}
    for axis in ("y", "x"):
        sizes = cube["spec_flux"].chunksizes.get(axis, (cube.sizes[axis],))
        out[axis] = tuple(min(block, n - k) for n in sizes for k in range(0, n, block))
    return out


def _correct_block(
    photo_flux: Any,
    photo_err: Any,
    flux: Any,
    err: Any,
    bad: Any,
    velocity: Any,
    reference: Any,
    layout: Layout,
) -> NDArray[np.float32]:
    """Correct the pixels of a block that have both spectrum and photometry."""
    nothing = layout.nothing()
    out = np.broadcast_to(nothing[:, None, None], (layout.size, *flux.shape[1:])).copy()
    some = (~bad & np.isfinite(flux) & (err > 0)).any(axis=0)
    some &= (np.isfinite(photo_flux) & (photo_err > 0)).any(axis=0)
    if not some.any():
        return out
    with single_thread():
        found = (a[:, some].T for a in (photo_flux, photo_err, flux, err, bad))
        pixels = Pixels(*found)
        if velocity is not None:
            pixels = pixels._replace(velocity=velocity[some])
        result = correct_pixels(pixels, reference)
    for name, (where, _) in layout.parts().items():
        out[where, some] = getattr(result, name).reshape(int(some.sum()), -1).T
    return out


def additive(
    cube: xr.Dataset, weights: NDArray[np.float64], beam: float, block: int
) -> dict[str, da.Array]:
    """Additive residuals of each band over the galaxy, ``(band,)``; NaN for uncovered bands.

    Parameters
    ----------
    cube
        The matched cube; pixels of ``spec_region`` count.
    weights
        Photon weights of the bands that the cube covers, ``(n_wave, n_band)``; 0 for the others.
    beam
        Pixels that share their noise.
    block
        Pixels on a side of a task's block.

    Returns
    -------
    dict
        'slope', 'slope_err', 'pedestal' and 'pedestal_err', see :mod:`~.pedestal`.
    """
    cube = rechunk(cube, {"wave": -1, "band": -1, **_split(cube, block)})
    maps = [
        synthetic(cube, weights, block),
        cube["photo_flux"].data,
        cube["photo_err"].data,
        _region(cube)[None],
    ]
    whole = da.concatenate([a.rechunk(-1) for a in maps]).rechunk(-1)
    found = da.map_blocks(
        _additive_block, whole, beam, dtype=np.float64, drop_axis=[2],
        chunks=((len(Additive._fields),), (weights.shape[1],)), token="correct-additive-residuals",
    )  # fmt: skip
    return dict(zip(Additive._fields, found, strict=True))


def synthetic(cube: xr.Dataset, weights: NDArray[np.float64], block: int) -> da.Array:
    """Synthetic photometry of each pixel over its good channels, ``(band, y, x)``, float32.

    NaN where good channels see less than 90% of a band.

    Parameters
    ----------
    cube
        ``spec_flux`` and ``spec_mask`` (wave, y, x).
    weights
        Photon weights, ``(n_wave, n_band)``; 0 for bands that the cube does not cover.
    block
        Pixels on a side of a task's block.
    """
    spectra = rechunk(cube[["spec_flux", "spec_mask"]], {"wave": -1, **_split(cube, block)})
    maps: da.Array = da.blockwise(
        _synthetic_block, "byx", spectra["spec_flux"].data, "wyx", spectra["spec_mask"].data, "wyx",
        weights, None, new_axes={"b": weights.shape[1]}, concatenate=True, dtype=np.float32,
        meta=np.empty((0, 0, 0), np.float32), token="correct-synthetic-photometry",
    )  # fmt: skip
    return maps


def _region(cube: xr.Dataset) -> da.Array:
    """Pixels that are trusted, as float32 ``(y, x)``."""
    region = cube["spec_region"].data if "spec_region" in cube else np.True_
    shape = (cube.sizes["y"], cube.sizes["x"])
    mask: da.Array = da.broadcast_to(da.asarray(region), shape).astype(np.float32)
    return mask


def _synthetic_block(flux: Any, bad: Any, weights: NDArray[np.float64]) -> NDArray[np.float32]:
    """Synthetic photometry over the good channels; NaN where they see too little of a band."""
    good = ~bad & np.isfinite(flux)
    share = np.tensordot(weights, good, axes=(0, 0))
    light = np.tensordot(weights, np.where(good, flux, 0.0), axes=(0, 0))
    return np.where(share > _SEEN, light / np.maximum(share, _SEEN), np.nan).astype(np.float32)


def _additive_block(stacked: NDArray[np.float32], beam: float) -> NDArray[np.float64]:
    n_band = len(stacked) // 3
    flat = stacked.reshape(len(stacked), -1)
    synthetic, image, error = (flat[k * n_band : (k + 1) * n_band] for k in range(3))
    return np.stack(additive_residuals(synthetic, image, error, flat[-1] > 0, beam))


def together(
    cube: xr.Dataset, part: dict[str, da.Array], image: da.Array, beam: float
) -> dict[str, da.Array]:
    """Replace each pixel's coefficients by what all pixels say together.

    Parameters
    ----------
    cube
        The matched cube; pixels of ``spec_region`` shape the field.
    part
        Results of all pixels, see :meth:`Layout.split`.
    image
        Photometry that they were found from, ``(band, y, x)``.
    beam
        Pixels that share their noise.

    Returns
    -------
    dict
        The results with ``coef``, ``cov``, ``photo_cov`` and ``closure_after`` of the field, the
        pixels' own ``coef_pixel`` and ``cov_pixel``, and ``scatter`` and ``terms`` ``(order,)``.
    """
    coef, cov, noise = part["coef"], part["cov"], part["noise"]
    n, chunks = coef.shape[0], coef.chunks[1:]
    flat = [a.reshape(-1, *coef.shape[1:]) for a in (coef, cov, noise)]
    whole = da.concatenate([*flat, _region(cube)[None]]).rechunk(-1)
    size = n + 2 * n * n + 2 * n
    found = da.map_blocks(
        _shrink_block, whole, n, beam, dtype=np.float32, chunks=((size,), *whole.chunks[1:]),
        token="correct-pixels-together",
    )  # fmt: skip
    found = found.rechunk((-1, *chunks), method="tasks")
    new, own = found[:n], found[n + n * n : n + 2 * n * n].reshape(n, n, *coef.shape[1:])
    change = new - coef
    lit = part["unit"] * change[None]
    return part | {
        "coef": new,
        "cov": found[n : n + n * n].reshape(cov.shape),
        "photo_cov": (own[:, :, None] * part["photo_cov"][None]).sum(axis=1),
        "closure_after": _moved(part["closure_after"], lit.sum(axis=1), image),
        "coef_pixel": coef,
        "cov_pixel": cov,
        "scatter": found[-2 * n : -n, 0, 0],
        "terms": found[-n:, 0, 0].astype(np.int16),
    }


def _shrink_block(stacked: NDArray[np.float32], n: int, beam: float) -> NDArray[np.float32]:
    """Coefficients, covariance, own weight of all pixels; scatter and terms on every pixel."""
    shape = stacked.shape[1:]
    pixels = stacked.reshape(len(stacked), -1).T.astype(np.float64)
    y, x = (a.ravel().astype(float) for a in np.indices(shape))
    square = pixels[:, n : n + 2 * n * n].reshape(-1, 2, n, n)
    with single_thread():
        out = shrink(pixels[:, :n], square[:, 0], square[:, 1], x, y, beam, pixels[:, -1] > 0)
    all_pixels = np.broadcast_to(np.concatenate([out.scatter, out.terms]), (len(pixels), 2 * n))
    flat = [a.reshape(len(pixels), -1) for a in (out.coef, out.cov, out.own, all_pixels)]
    return np.concatenate(flat, axis=1).T.reshape(-1, *shape).astype(np.float32)


def _moved(closure: da.Array, change: da.Array, image: da.Array) -> da.Array:
    """Closure in magnitudes after a change of the synthetic flux."""
    image = image.rechunk(closure.chunks)
    ratio = 10.0 ** (-0.4 * closure) + change / da.where(image > 0, image, np.nan)
    moved: da.Array = (-2.5 * da.log10(da.where(ratio > 0, ratio, np.nan))).astype(np.float32)
    return moved


def assemble(
    cube: xr.Dataset, part: dict[str, da.Array], wave: NDArray[np.float64], *, holdout: bool
) -> xr.Dataset:
    """The corrected cube with all that was found, as one dataset."""
    x = legendre.normalized(wave, wave[0], wave[-1])
    factor: da.Array = da.map_blocks(
        legendre.evaluate, part["coef"], x, dtype=np.float32,
        chunks=((wave.size,), *part["coef"].chunks[1:]), token="correct-factor",
    )  # fmt: skip
    factor_err: da.Array = da.map_blocks(
        legendre.evaluate_err, part["cov"], x, dtype=np.float32, drop_axis=0,
        chunks=((wave.size,), *part["cov"].chunks[2:]), token="correct-factor-err",
    )  # fmt: skip
    cube_dims, map_dims = ("wave", "y", "x"), ("y", "x")
    out = cube.assign(
        corr_coef=(("order", *map_dims), part["coef"]),
        corr_cov=(("order", "order_2", *map_dims), part["cov"]),
        corr_photo_cov=(("order", "band", *map_dims), part["photo_cov"]),
        corr_factor=(cube_dims, factor),
        corr_factor_err=(cube_dims, factor_err),
        mod_flux=(cube_dims, part["model"]),
        chi2=(map_dims, part["chi2"]),
        n_band=(map_dims, part["n_band"].astype(np.int16)),
        n_eff=(map_dims, part["n_eff"]),
        fit_flag=(map_dims, part["flag"].astype(np.int16)),
        corr_order=(map_dims, part["order"].astype(np.int16)),
        model_index=(map_dims, part["best"].astype(np.int32)),
        closure_before=(("band", *map_dims), part["closure_before"]),
        closure_after=(("band", *map_dims), part["closure_after"]),
    )
    if holdout:
        out["closure_holdout"] = ("band", *map_dims), part["closure_holdout"]
    if "coef_pixel" in part:
        out = out.assign(
            corr_coef_pixel=(("order", *map_dims), part["coef_pixel"]),
            corr_cov_pixel=(("order", "order_2", *map_dims), part["cov_pixel"]),
            corr_scatter=(("order",), part["scatter"]),
            corr_terms=(("order",), part["terms"]),
        )
    blocks = dict(zip(cube_dims, factor.chunks, strict=True))
    spectra = rechunk(cube[["spec_flux", "spec_err", "spec_mask"]], blocks)
    out["spec_flux"] = spectra["spec_flux"] * out["corr_factor"]
    out["spec_err"] = spectra["spec_err"] * out["corr_factor"]
    out["spec_mask"] = spectra["spec_mask"] | ~np.isfinite(out["corr_coef"].isel(order=0))
    out["spec_mask"] = out["spec_mask"].transpose(*cube_dims)
    return out
