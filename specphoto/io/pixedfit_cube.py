"""piXedfit's spectrophotometric FITS files to datasets (layouts in :mod:`.fits_compat`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize

from specphoto.cube import FLUX_UNIT, add_provenance, annotate, validate
from specphoto.errors import InputError
from specphoto.io import survey
from specphoto.io.fits_header import spectral_axis
from specphoto.io.fitsfile import Chunks, FitsFile, plane_chunks
from specphoto.io.images import Images, read_images
from specphoto.spectral.wavelength import air_to_vacuum

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from specphoto.io.fits_array import FitsArray

__all__ = ["is_pixedfit", "open_pixedfit"]

_CUBE = ("wave", "y", "x")
_MAP = ("y", "x")
_UNIT = 1e-17

# Surveys whose wavelengths piXedfit takes from the cube in air, and labels no further.
_AIR = ("califa",)


def is_pixedfit(file: FitsFile) -> bool:
    """Whether a file has what both of piXedfit's layouts have."""
    return all(name in file for name in ("PHOTO_FLUX", "SPEC_FLUX", "WAVE"))


def open_pixedfit(
    file: FitsFile, *, chunks: Chunks = "auto", compat: Literal["pixedfit"] | None = None
) -> xr.Dataset:
    """Open a ``specphoto_`` or ``corr_specphoto_`` file of piXedfit's lazily.

    Zeros outside the regions and its sentinels become NaN; a channel with an error of 0 has no
    data (with `compat` it is kept as it is). The model, given on the clean channels only, is put
    on all, NaN on the others.

    Parameters
    ----------
    file
        The file.
    chunks
        As for :func:`specphoto.open_cube`.
    compat
        As for :func:`specphoto.open_cube`.

    Raises
    ------
    InputError
        If an HDU is missing or has another shape, or a filter has no known curve.
    """
    file.require("SPEC_FLUX", "SPEC_FLUXERR")
    shape = file["SPEC_FLUX"].shape
    file.require("WAVE", shape=shape[:1], ndim=1)
    file.require("SPEC_REGION", "PHOTO_REGION", shape=shape[1:], ndim=2)
    header = file["PRIMARY"].header
    source = str(header.get("IFSSURVE", "")).strip().lower()
    stored = file.values("WAVE")
    air = source in _AIR
    wave = air_to_vacuum(stored) if air else stored

    ds = xr.Dataset(
        coords={
            "wave": ("wave", wave, {"units": "Angstrom", "long_name": "wavelength in vacuum"}),
            "y": np.arange(shape[1]),
            "x": np.arange(shape[2]),
        }
    )
    assumed: list[str] = []
    if air:
        survey.assume(file.path, assumed, "wavelengths in air, converted to vacuum")
    regions = {name: file.values(name.upper()) == 1 for name in ("photo_region", "spec_region")}
    ds = ds.assign({name: (_MAP, region) for name, region in regions.items()})
    images = read_images(
        file, "PHOTO_FLUX", "PHOTO_FLUXERR", "PHOTO_REGION", compat=compat, assumed=assumed
    )
    unit = images.unit
    ds, attrs = _with_photometry(ds, file, images)
    blocks = plane_chunks(shape, chunks)
    ds = _with_spectra(ds, file, blocks, unit / _UNIT, compat)
    corrected = "CORR_FACTOR" in file
    if corrected:
        ds = _with_correction(ds, file, blocks, stored, unit / _UNIT)
    axis = None
    if air:
        step = float(stored[-1] - stored[0]) / max(stored.size - 1, 1)
        axis = {"ctype": "AWAV", "crval": float(stored[0]), "cdelt": step, "crpix": 1.0}
    ds = annotate(
        ds, kind="specphoto", survey=source or "pixedfit", name=survey.object_name(file.name),
        corrected=corrected, spectral_axis=spectral_axis(wave, axis), **attrs,
    )  # fmt: skip
    validate(ds, "wave", "spec_flux", "spec_err", "photo_flux", "photo_err", verb=file.path)
    return add_provenance(
        ds, "open_cube", input=file.name, bytes=file.size, assumed=assumed,
        options={"compat": compat},
    )  # fmt: skip


def _with_photometry(
    ds: xr.Dataset, file: FitsFile, images: Images
) -> tuple[xr.Dataset, dict[str, Any]]:
    """Bands, images and what their header says, as :func:`specphoto.open_photometry` has them."""
    shape, header = images.flux.shape, file["PRIMARY"].header
    dims = ("band", *_MAP)
    ds = ds.assign(photo_flux=(dims, images.flux), photo_err=(dims, images.error))
    ds = ds.assign_coords(images.coords())
    attrs = {**images.attrs, "flux_unit": FLUX_UNIT}
    if "STAMP_IMAGE" in file and file["STAMP_IMAGE"].shape == shape[1:]:
        stamp = file.values("STAMP_IMAGE").astype(np.float32)
        ds = ds.assign(stamp_image=(_MAP, stamp))
    if "STAMP_IMAGE" in file and "CRVAL1" in file["STAMP_IMAGE"].header:
        wcs = survey.celestial(file["STAMP_IMAGE"].header, f"{file.path}, STAMP_IMAGE")
        attrs |= survey.place([header], wcs, ("RA", "DEC"))
    else:
        # a corrected file has lost its stamp and with it the WCS: what the keys say remains
        for name, key in (("ra", "RA"), ("dec", "DEC"), ("pixel_scale", "PIXSIZE")):
            attrs[name] = float(header[key]) if header.get(key) is not None else None
    return ds, attrs


def _with_spectra(
    ds: xr.Dataset, file: FitsFile, blocks: tuple[Any, ...], scale: float, compat: str | None
) -> xr.Dataset:
    flux, err = (file.dask(name, blocks) for name in ("SPEC_FLUX", "SPEC_FLUXERR"))
    region = file.dask("SPEC_REGION", blocks[1:], dtype=np.float32)[None]
    mask = survey.lazily(_unusable, flux, err, region, dtype=bool, compat=compat)
    return ds.assign(
        spec_flux=(_CUBE, survey.lazily(_where_known, flux, mask, scale=scale, dtype=np.float32)),
        spec_err=(_CUBE, survey.lazily(_where_known, err, mask, scale=scale, dtype=np.float32)),
        spec_mask=(_CUBE, mask),
    )


def _with_correction(
    ds: xr.Dataset,
    file: FitsFile,
    blocks: tuple[Any, ...],
    stored: NDArray[np.float64],
    scale: float,
) -> xr.Dataset:
    """Factor on all channels, model on the clean ones, both NaN outside the region."""
    shape = file["SPEC_FLUX"].shape
    file.require("CORR_FACTOR", shape=shape)
    file.require("MOD_WAVE", ndim=1)
    file.require("MOD_FLUX", shape=(*file["MOD_WAVE"].shape, *shape[1:]))
    clean = np.searchsorted(stored, file.values("MOD_WAVE"))
    if clean.size and (clean.max() >= stored.size or not _equal(stored[clean], file, "MOD_WAVE")):
        raise InputError(
            f"{file.path}, MOD_WAVE", expected="wavelengths of WAVE", found="others",
            remedy="check that the file is whole",
        )  # fmt: skip
    outside = file.dask("SPEC_REGION", blocks[1:], dtype=np.float32)[None] != 1
    factor = survey.lazily(
        _where_known, file.dask("CORR_FACTOR", blocks), outside, scale=1.0, dtype=np.float32
    )
    spread = _Spread(file.array("MOD_FLUX"), clean, shape)
    model = da.from_array(
        spread, chunks=blocks, name=f"mod-flux-{tokenize(spread.model, clean, blocks)}",
        meta=np.empty((0, 0, 0), np.float32), inline_array=True,
    )  # fmt: skip
    model = survey.lazily(_where_known, model, outside, scale=scale, dtype=np.float32)
    flag = np.zeros(stored.size, dtype=bool)
    flag[clean] = True
    ds = ds.assign(mod_flux=(_CUBE, model), corr_factor=(_CUBE, factor))
    return ds.assign_coords(mod_clean=("wave", flag))


@dataclass(frozen=True)
class _Spread:
    """A model given on some channels, read slice by slice on all; NaN between them."""

    model: FitsArray
    clean: NDArray[np.intp]
    shape: tuple[int, ...]

    dtype = np.dtype(np.float32)
    ndim = 3

    def __getitem__(self, key: tuple[slice, slice, slice]) -> NDArray[np.float32]:
        start, stop, _ = key[0].indices(self.shape[0])
        first, last = np.searchsorted(self.clean, (start, stop))
        known = self.model[first:last, key[1], key[2]]
        out = np.full((stop - start, *known.shape[1:]), np.nan, dtype=np.float32)
        out[self.clean[first:last] - start] = known
        return out


def _equal(wave: NDArray[np.float64], file: FitsFile, name: str) -> bool:
    return bool(np.allclose(wave, file.values(name), rtol=1e-9, atol=0.0))


def _unusable(
    flux: NDArray[np.float32],
    err: NDArray[np.float32],
    region: NDArray[np.float32],
    compat: str | None,
) -> NDArray[np.bool_]:
    bad = np.asarray((region != 1) | ~np.isfinite(flux))
    # the peer's channels without data have an error of 0; its recipe goes on with them
    return bad if compat else bad | ~(err > 0)


def _where_known(
    values: NDArray[np.float32], unknown: NDArray[np.bool_], scale: float
) -> NDArray[np.float32]:
    return np.where(unknown, np.float32(np.nan), values * np.float32(scale))
