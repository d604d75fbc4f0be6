"""The lazy face of motion: a velocity of each pixel, given or measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import xarray as xr

from specphoto.blas import single_thread
from specphoto.cube import identify, rechunk
from specphoto.errors import InputError
from specphoto.spectral.lines import line_channels, sky_channels
from specphoto.spectral.motion import measure_velocities

if TYPE_CHECKING:
    from dask.delayed import Delayed
    from numpy.typing import ArrayLike, NDArray

    from specphoto.spectral.library import Library

__all__ = ["Template", "make_template", "with_given", "with_measured"]

# Bluer, in the rest frame, the steps of the continuum at 3700 to 4000 A pass for motion.
_BLUEST = 4050.0
_REDDEST = 8900.0
_MODELS = 100
# No star of a galaxy moves faster against it: such a map holds something else, c z for one.
_FASTEST = 3000.0

#: Spectrum at the galaxy's redshift, and the channels that count, ``(n_wave,)`` both.
Template = tuple["NDArray[np.float64]", "NDArray[np.bool_]"]


def make_template(
    library: Library, redshift: float, wave: NDArray[np.float64], line_window: float
) -> Template:
    """Mean of models from all over a library, and the channels of clean continuum.

    Parameters
    ----------
    library
        The library.
    redshift
        Of the galaxy.
    wave
        Wavelengths of the cube, vacuum Angstrom, ``(n_wave,)``.
    line_window
        Half width of the emission-line windows in km/s.
    """
    step = max(library.n_model // _MODELS, 1)
    models = library.observed(redshift, wave, None).spectra(np.arange(0, library.n_model, step))
    known = np.isfinite(models).all(axis=0)
    level = np.median(models[:, known], axis=1) if known.any() else np.ones(len(models))
    clean = ~(line_channels(wave, redshift, None, half_width=line_window) | sky_channels(wave))
    clean &= (wave > _BLUEST * (1.0 + redshift)) & (wave < _REDDEST)
    return (models / level[:, None]).mean(axis=0), clean & known


def with_measured(
    cube: xr.Dataset, template: Delayed, wave: NDArray[np.float64], block: int
) -> xr.Dataset:
    """Add ``spec_velocity`` and ``spec_velocity_err``, NaN where no velocity is significant.

    Parameters
    ----------
    cube
        The matched cube.
    template
        Of :func:`make_template`.
    wave
        Wavelengths of the cube, vacuum Angstrom, ``(n_wave,)``.
    block
        Pixels on a side of a task's block.
    """
    parts = rechunk(
        cube[["spec_flux", "spec_err", "spec_mask"]], {"wave": -1, "y": block, "x": block}
    )
    spectra = [parts[name].data for name in ("spec_flux", "spec_err", "spec_mask")]
    found = da.map_blocks(
        _velocities, *spectra, template, wave, dtype=np.float32,
        chunks=((2,), *spectra[0].chunks[1:]), meta=np.empty((0, 0, 0), np.float32),
        token="fit-velocity",
    )  # fmt: skip
    return cube.assign(
        spec_velocity=(("y", "x"), found[0]), spec_velocity_err=(("y", "x"), found[1])
    )


def _velocities(
    flux: Any, err: Any, bad: Any, template: Template, wave: NDArray[np.float64]
) -> NDArray[np.float32]:
    spectrum, clean = template
    good = ~bad & np.isfinite(flux) & np.isfinite(err) & (err > 0) & clean[:, None, None]
    some = good.any(axis=0)
    out = np.full((2, *some.shape), np.nan, dtype=np.float32)
    if some.any():
        use = good[:, some].T
        values = np.where(use, flux[:, some].T, 0.0).astype(np.float64)
        variance = np.where(use, err[:, some].T, 1.0).astype(np.float64) ** 2
        with single_thread():
            out[:, some] = measure_velocities(values, variance, use, spectrum, wave)
    return out


def with_given(cube: xr.Dataset, velocity: xr.DataArray | ArrayLike) -> xr.Dataset:
    """Add a velocity field as ``spec_velocity``.

    Parameters
    ----------
    cube
        The matched cube.
    velocity
        ``(y, x)`` on its pixels, km/s relative to its redshift; NaN: moves with the galaxy, and
        so does what is faster than 3000 km/s in a map that is lazy.

    Raises
    ------
    InputError
        If the map has another shape or other dimensions, or is faster than that.
    """
    if isinstance(velocity, xr.DataArray) and set(velocity.dims) == {"y", "x"}:
        velocity = velocity.transpose("y", "x")
    field = velocity.data if isinstance(velocity, xr.DataArray) else velocity
    field = field if isinstance(field, da.Array) else np.asarray(field)
    shape = (cube.sizes["y"], cube.sizes["x"])
    if field.shape != shape:
        raise InputError(
            f"{identify(cube)}: velocity", expected=f"a map (y, x) of shape {shape}",
            found=f"{field.shape}", remedy="bring it to the pixels of the matched cube",
        )  # fmt: skip
    if isinstance(field, np.ndarray) and (np.abs(np.nan_to_num(field)) > _FASTEST).any():
        raise InputError(
            f"{identify(cube)}: velocity", expected=f"at most {_FASTEST:.0f} km/s either way",
            found=f"{np.abs(np.nan_to_num(field)).max():.4g}",
            remedy="give velocities relative to the galaxy's redshift, NaN where unknown",
        )  # fmt: skip
    field = da.asarray(field).astype(np.float32)
    return cube.assign(
        spec_velocity=(("y", "x"), da.where(np.abs(field) <= _FASTEST, field, np.float32(np.nan)))
    )
