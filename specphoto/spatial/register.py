"""The lazy face of the registration: where a cube lies on the images."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import is_dask_collection
from dask.blockwise import Blockwise
from dask.delayed import delayed
from dask.graph_manipulation import clone

from specphoto.blas import single_thread
from specphoto.cube import add_provenance, annotate, identify, rechunk, validate
from specphoto.errors import InputError
from specphoto.photometry.filters import load_filters
from specphoto.photometry.galactic import (
    NO_CHANGE,
    Extinction,
    band_factors,
    channel_factors,
    common_extinction,
)
from specphoto.photometry.match import to_psf
from specphoto.photometry.synthetic import photon_weights
from specphoto.spatial.comparison import Limits, Scene
from specphoto.spatial.correlation import stencil_of
from specphoto.spatial.geometry import geometry_of
from specphoto.spatial.graph import framed, noise_at
from specphoto.spatial.inputs import frame_of, noise_of, resolution_of, sky_per_pixel, wanted_psf
from specphoto.spatial.registration import LARGEST_WIDTH, fit_band
from specphoto.spatial.shifts import STATUS, TERMS, combine
from specphoto.spatial.varying import interpolation
from specphoto.tasks import task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dask.delayed import Delayed
    from numpy.typing import NDArray

    from specphoto.photometry.galactic import Ebv
    from specphoto.spatial.psf import PSF
    from specphoto.spatial.resolution import Resolution
    from specphoto.spatial.shifts import BandFit

__all__ = ["Registration", "find_shift", "register"]

# A spaxel counts where it is good in this share of a band.
_GOOD_SHARE = 0.9
# Scale in pixels below which a correlation of the images' noise is none.
_LEAST_SCALE = 0.3
# Wings of the broadest Gaussian a kernel may be convolved with, in sigma.
_REACH = 4.5
_MAPS = ("image", "synthetic")


class Registration(NamedTuple):
    """What a registration finds, all lazy.

    ``shift`` is the task that gives what is to be added to the corners of the output pixels in the
    cube's pixels, ``(x, y)``: zeros unless the status is 0. ``report`` holds the small variables
    ``register_*``, ``maps`` the images that were compared.
    """

    shift: Delayed
    report: xr.Dataset
    maps: xr.Dataset


def register(
    ifs: xr.Dataset,
    photometry: xr.Dataset,
    *,
    source_psf: PSF | float | str | dict[str, Any] | Sequence[tuple[float, Any]] | None = None,
    target_psf: PSF | float | str | None = None,
    bands: Sequence[str] | None = None,
    correlation: dict[str, Any] | None = None,
    ebv: Ebv | None = None,
    max_shift: float = 3.0,
    max_error: float = 0.1,
    min_correlation: float = 0.5,
    psf_error: float = 0.15,
    min_covered: float = 0.95,
) -> xr.Dataset:
    r"""Find the shift between a cube and images, and how else they differ.

    In each band that the cube covers, its synthetic image is fitted to the photometric one, at one
    PSF and on the images' pixels: shift, flux scale, zero of the sky and width of the PSF, masked
    and weighted with the errors of both (:mod:`specphoto.spatial.registration`). The bands' shifts
    are combined by their covariances. Nothing is computed, and nothing is changed:
    :func:`specphoto.match_spatial` with ``register=True`` does that.

    Parameters
    ----------
    ifs
        From :func:`specphoto.open_ifs`.
    photometry
        From :func:`specphoto.open_photometry` or :func:`specphoto.photometry_from_images`.
    source_psf, target_psf, correlation, ebv
        As for :func:`specphoto.match_spatial`.
    bands
        Bands to use, of those that the cube covers; by default all.
    max_shift
        Largest shift to look for, arcsec.
    max_error
        A shift whose 1-sigma error is larger than this along some direction is not applied, arcsec.
    min_correlation
        Nor is one of images that correlate less than this.
    psf_error
        How well the FWHM are known, as a share of the images': a prior of their difference.
    min_covered
        Share of a band that the cube has to cover.

    Returns
    -------
    xarray.Dataset
        ``register_shift`` (sky_axis): what is to be added to the cube's positions, arcsec east and
        north, 0 unless a shift was found, and its covariance ``register_cov``;
        ``register_status``, 0 if it was, else why not (attribute ``flag_meanings``). Per band:
        ``register_fit`` and ``register_err`` with the terms 'east' and 'north' (arcsec), 'scale'
        (cube over images), 'offset' (cube minus scaled images, flux per pixel) and 'width' (FWHM of
        the matched cube minus that of the images, arcsec); ``register_chi2`` per degree of freedom,
        ``register_correlation`` and ``register_residual`` (rms over the core's height above the
        sky) after the fit, ``register_band_status``, and the images compared,
        ``register_image`` and ``register_synthetic`` (register_band, y, x).

    Raises
    ------
    InputError
        If the two do not overlap on the sky, a PSF is unknown, or a band is.
    """
    validate(ifs, "spec_flux", "spec_var", "spec_mask", "wave", verb="register")
    validate(photometry, "photo_flux", "photo_err", "photo_region", verb="register")
    limits = Limits(max_shift, max_error, min_correlation, psf_error)
    resolution = resolution_of(ifs, photometry, source_psf, target_psf)
    images = photometry
    if resolution.images_lag:
        images = to_psf(photometry, wanted_psf(ifs, photometry, target_psf), resolution.psf)
    found = find_shift(
        ifs, images, resolution, noise_of(ifs, correlation), limits=limits, bands=bands,
        dust=common_extinction(ifs.attrs, images.attrs, ebv), min_covered=min_covered,
    )  # fmt: skip
    used = found.report.coords.get("register_band", np.empty(0))
    options = {
        **vars(limits), "bands": [str(band) for band in np.asarray(used)],
        "min_covered": min_covered,
    }  # fmt: skip
    out = xr.merge([found.report, found.maps]).assign_attrs(
        {name: images.attrs[name] for name in ("wcs", "pixel_scale") if name in images.attrs}
    )
    out = annotate(out, kind="registration", name=ifs.attrs.get("name"))
    return add_provenance(out, "register", options=options)


def find_shift(
    ifs: xr.Dataset,
    images: xr.Dataset,
    resolution: Resolution,
    correlation: NDArray[np.float64] | None,
    *,
    limits: Limits | None = None,
    bands: Sequence[str] | None = None,
    dust: Extinction = NO_CHANGE,
    min_covered: float = 0.95,
) -> Registration:
    """Lay out the tasks of a registration.

    Parameters
    ----------
    ifs
        The cube. Its voxels are read by tasks of their own: were they shared with the match, which
        waits for the shift, the whole cube would be held in memory meanwhile.
    images
        Images at the PSF of ``resolution``.
    resolution
        PSF and kernels of the match.
    correlation
        Stencil of the cube's noise, or None where ``ifs`` has ``spec_corr``.
    limits, bands, min_covered
        As for :func:`register`.
    dust
        The common extinction.
    """
    limits = limits or Limits()
    names = _bands(ifs, images, bands, min_covered)
    source, output = frame_of(ifs), frame_of(images)
    sky = (sky_per_pixel(source), sky_per_pixel(output))
    known = {"sky_axis": ["east", "north"], "sky_axis_2": ["east", "north"]}
    if not names:
        return Registration(delayed((0.0, 0.0)), _report([], [], limits, known), xr.Dataset())
    scale_in = float(np.sqrt(abs(np.linalg.det(sky[0]))))
    room = _room(resolution, limits, scale_in)
    geometry = geometry_of(source, output, room, name=identify(ifs))
    sums = _band_sums(ifs, names, dust)
    fits = []
    for k, name in enumerate(names):
        here = _pivot(images, name)
        share = interpolation(np.array([here]), resolution.wave)[0]
        place = {
            "corner_x": geometry.corners[0], "corner_y": geometry.corners[1],
            "box": geometry.box, "x": geometry.positions[0], "y": geometry.positions[1],
            "kernel": np.tensordot(share, np.stack(resolution.kernels), axes=1),
            "sky_in": sky[0], "sky_out": sky[1], "fwhm": resolution.psf.fwhm,
            "image_correlation": _noise_of_images(images, name),
        }  # fmt: skip
        plane = images[["photo_flux", "photo_err"]].sel(band=name)
        factor = float(band_factors(images.attrs, [name], dust)[0])
        fits.append(
            task("spatial", _fit_band)(
                sums[:, k], _foreground(ifs), plane["photo_flux"].data, plane["photo_err"].data,
                images["photo_region"].data, factor, noise_at(ifs, correlation, here), place,
                limits,
            )
        )  # fmt: skip
    report = _report(names, fits, limits, known)
    shift = task("spatial", _in_pixels)(report["register_shift"].data, sky[0])
    return Registration(shift, report, _maps(names, fits, geometry.box, output.shape, images))


def _bands(
    ifs: xr.Dataset, images: xr.Dataset, bands: Sequence[str] | None, min_covered: float
) -> list[str]:
    """Bands of the images that the cube covers, of those asked for."""
    known = [str(b) for b in images["band"].values]
    unknown = sorted(set(bands or ()) - set(known))
    if unknown:
        raise InputError(
            "register: bands", expected=f"bands of the images: {', '.join(known)}",
            found=", ".join(unknown), remedy="name bands of the photometric dataset",
        )  # fmt: skip
    chosen = [b for b in known if bands is None or b in bands]
    covered = photon_weights(ifs["wave"].values, load_filters(chosen))[1]
    return [b for b, share in zip(chosen, covered, strict=True) if share >= min_covered]


def _pivot(images: xr.Dataset, band: str) -> float:
    return float(images["band_wave"].sel(band=band))


def _room(resolution: Resolution, limits: Limits, scale_in: float) -> NDArray[np.float64]:
    """Kernel of zeros as large as any that a fit may come to, and the shift on top."""
    widest = LARGEST_WIDTH * resolution.psf.fwhm
    more = int(np.ceil((1.5 * limits.max_shift + _REACH * widest) / scale_in)) + 4
    return np.zeros([n + 2 * more for n in resolution.kernels[0].shape])


def _band_sums(ifs: xr.Dataset, bands: Sequence[str], dust: Extinction) -> da.Array:
    """Sums over the channels of each band, ``(3, n_band, y, x)``: see :func:`_sum_block`."""
    wave = ifs["wave"].values
    weights = photon_weights(wave, load_filters(list(bands)))[0]
    clear = channel_factors(ifs.attrs, wave, dust)
    names = ["spec_flux", "spec_var", "spec_mask"]
    again = {n: (ifs[n].dims, _read_again(ifs[n].data)) for n in names}
    blocks = rechunk(ifs[names].assign(again), {"y": -1, "x": -1})
    flux, variance, mask = (blocks[n].data for n in names)
    split = (flux.chunks[0], -1)
    sums = da.blockwise(
        _sum_block, "wfbyx", flux, "wyx", variance, "wyx", mask, "wyx",
        da.from_array(weights, chunks=split), "wb",
        da.from_array(weights * clear[:, None], chunks=split), "wb",
        new_axes={"f": 3}, adjust_chunks={"w": lambda _: 1}, dtype=np.float64,
        meta=np.empty((0, 0, 0, 0, 0)), token="spatial-band-sums",
    )  # fmt: skip
    total: da.Array = sums.sum(axis=0)
    return total


def _read_again(array: Any) -> Any:
    """Return the same array by other tasks, if its graph is one that Dask clones whole.

    A graph with slices or new chunks in it is shared: Dask's clone would lose its inputs. So is
    what is in memory already.
    """
    if not is_dask_collection(array):
        return array
    layers: dict[str, Any] = getattr(array.__dask_graph__(), "layers", {"": None})
    if all(isinstance(layer, Blockwise) for layer in layers.values()):
        return clone(array, seed="register")
    return array


def _sum_block(
    flux: NDArray[np.float32], variance: NDArray[np.float32], mask: NDArray[np.bool_],
    weights: NDArray[np.float64], dusty: NDArray[np.float64],
) -> NDArray[np.float64]:  # fmt: skip
    """Flux, variance and share of good channels of a block, ``(1, 3, n_band, y, x)``."""
    good = ~mask & np.isfinite(flux) & np.isfinite(variance) & (variance > 0)
    shape = flux.shape[1:]
    with single_thread():
        parts = [
            w.T.astype(np.float32) @ np.where(good, values, np.float32(0)).reshape(len(flux), -1)
            for w, values in ((dusty, flux), (dusty**2, variance), (weights, np.float32(1.0)))
        ]
    return np.stack(parts).reshape(1, 3, weights.shape[1], *shape).astype(np.float64)


def _noise_of_images(images: xr.Dataset, band: str) -> NDArray[np.float64]:
    """Stencil of the images' noise, where they say how it is correlated."""
    scale = (images.attrs.get("photo_correlation") or {}).get(band, 0.0)
    # a Gaussian much narrower than a pixel correlates nothing
    return stencil_of({"model": "gaussian", "scale": scale} if scale > _LEAST_SCALE else {})


def _foreground(ifs: xr.Dataset) -> Any:
    return ifs["foreground"].data if "foreground" in ifs else None


def _fit_band(
    sums: NDArray[np.float64], foreground: Any, image: Any, error: Any, region: Any,
    factor: float, correlation: Any, place: dict[str, Any], limits: Limits,
) -> BandFit:  # fmt: skip
    """One band: the task."""
    flux, variance, share = sums
    good = (share >= _GOOD_SHARE) & (variance > 0)
    front = np.zeros_like(good) if foreground is None else np.asarray(foreground, dtype=bool)
    good &= ~front
    share = np.where(good, share, 1.0)
    scene = Scene(
        flux=flux / share, variance=variance / share**2, good=good,
        foreground=front,
        image=np.asarray(image, dtype=float) * factor,
        error=np.asarray(error, dtype=float) * factor,
        region=np.asarray(region, dtype=bool), correlation=correlation, **place,
    )  # fmt: skip
    with single_thread():
        return fit_band(scene, limits)


def _in_pixels(shift: NDArray[np.float64], sky_in: NDArray[np.float64]) -> tuple[float, float]:
    """What a shift of the cube on the sky adds to the corners of output pixels."""
    x, y = -np.linalg.solve(sky_in, shift)
    return float(x), float(y)


def _report(
    bands: Sequence[str], fits: Sequence[Delayed], limits: Limits, coords: dict[str, Any]
) -> xr.Dataset:
    """Build the variables of a registration that are small."""
    both = task("spatial", combine)(list(fits), limits)
    out = xr.Dataset(
        {
            "register_shift": ("sky_axis", _lazy(both, "shift", (2,))),
            "register_cov": (("sky_axis", "sky_axis_2"), _lazy(both, "covariance", (2, 2))),
            "register_status": ((), _lazy(both, "status", (), np.int16)),
        },
        coords=coords,
    )
    if bands:
        out = out.assign_coords(
            register_band=np.array(bands, dtype=object), register_term=list(TERMS)
        )
        for name, field in (("fit", "term"), ("err", "error")):
            layers = da.stack([_lazy(fit, field, (len(TERMS),)) for fit in fits])
            out[f"register_{name}"] = (("register_band", "register_term"), layers)
        for name in ("chi2", "correlation", "residual"):
            layers = da.stack([_lazy(fit, name, ()) for fit in fits])
            out[f"register_{name}"] = ("register_band", layers)
        layers = da.stack([_lazy(fit, "status", (), np.int16) for fit in fits])
        out["register_band_status"] = ("register_band", layers)
    out = annotate(out)
    flags = {"flag_values": list(range(len(STATUS))), "flag_meanings": " ".join(STATUS)}
    for name in ("register_status", "register_band_status"):
        if name in out:
            out[name] = out[name].assign_attrs(flags)
    return out


def _maps(
    bands: Sequence[str], fits: Sequence[Delayed], box: tuple[slice, slice],
    shape: tuple[int, int], images: xr.Dataset,
) -> xr.Dataset:  # fmt: skip
    """Build the images that were compared, on the images' frame."""
    inner = tuple(s.stop - s.start for s in box)
    dims = ("register_band", "y", "x")
    layers = {
        f"register_{name}": (
            dims,
            framed(da.stack([_lazy(fit, name, inner, np.float32) for fit in fits]), box, shape),
        )
        for name in _MAPS
    }
    coords = {"register_band": np.array(bands, dtype=object), "y": images["y"], "x": images["x"]}
    return annotate(xr.Dataset(layers, coords=coords))


def _lazy(source: Delayed, field: str, shape: tuple[int, ...], dtype: Any = np.float64) -> da.Array:
    value = task("spatial", partial(_field, name=field, dtype=dtype))(source)
    array: da.Array = da.from_delayed(value, shape, dtype=dtype)
    return array


def _field(source: Any, name: str, dtype: Any) -> NDArray[Any]:
    return np.asarray(getattr(source, name), dtype=dtype)
