"""Photometric cubes as piXedfit writes them (``fluxmap_*.fits``), both layouts."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from specphoto.cube import add_provenance, annotate, validate
from specphoto.errors import InputError
from specphoto.io import survey
from specphoto.io.fitsfile import FitsFile, open_fits
from specphoto.photometry.filters import known_filters, load_filters, pixedfit_scale

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import dask.array as da
    from astropy.io import fits
    from astropy.wcs import WCS
    from numpy.typing import NDArray

    from specphoto.photometry.filters import Filter

__all__ = ["open_photometry"]

_UNIT = 1e-17
_SENTINEL = -99.0
_CHUNK_PIXELS = 2048


def open_photometry(
    path: str | os.PathLike[str],
    *,
    compat: Literal["pixedfit"] | None = None,
    err_scale: Mapping[str, float] | Sequence[float] | None = None,
) -> xr.Dataset:
    r"""Open a photometric cube lazily.

    Parameters
    ----------
    path
        FITS file, gzipped or not, with FLUX as an extension or as the primary HDU.
    compat
        None: fluxes are multiplied, per band, by what makes them the photon-weighted mean
        :math:`F_\lambda` of the filter's curve, the quantity models are compared with
        (:func:`specphoto.photometry.filters.pixedfit_scale`). 'pixedfit': as they are.
    err_scale
        Numbers that divide the errors, by band name or in the order of the bands. piXedfit
        convolves a variance like a flux, so that its errors are several times too large for
        bands that were much sharper than the common PSF.

    Returns
    -------
    ds
        ``photo_flux``, ``photo_err`` (band, y, x), 1e-17 erg s-1 cm-2 Angstrom-1 per pixel, NaN
        outside the galaxy's region and where a band has no data; ``photo_region``,
        ``stamp_image`` (y, x); ``band`` names with ``band_wave``, the pivot in Angstrom.
        Attribute ``band_scale`` holds the factors applied to the bands.

    Raises
    ------
    InputError
        If the file is not a photometric cube, lacks extensions or a celestial WCS, or names a
        filter of no known curve.
    """
    file = open_fits(path)
    flux = _flux_name(file)
    file.require(flux, "FLUX_ERR")
    shape = file[flux].shape
    file.require("GALAXY_REGION", shape=shape[1:], ndim=2)
    header = file["PRIMARY"].header
    assumed: list[str] = []
    names = _bands(header, shape[0], file.path)
    curves = _curves(names, file.path)
    scale = np.ones(len(names)) if compat else pixedfit_scale(names)
    unit = _unit(header, file.path, assumed)
    cubes = _cubes(file, flux, unit, scale, _error_scale(err_scale, names))
    region = file.values("GALAXY_REGION") == 1
    pivots = np.array([curve.pivot for curve in curves])
    ds = _dataset(*cubes, region, names, pivots)
    if "STAMP_IMAGE" in file and file["STAMP_IMAGE"].shape == region.shape:
        ds["stamp_image"] = (("y", "x"), file.values("STAMP_IMAGE").astype(np.float32))
    ds = annotate(
        ds,
        kind="photometry",
        survey="pixedfit",
        name=survey.object_name(file.path),
        **survey.place([header], _wcs(file, flux), ("RA", "DEC")),
        **_state(header, dict(zip(names, pivots, strict=True))),
        band_scale=scale.tolist(),
    )
    validate(ds, "photo_flux", "photo_err", "photo_region", verb=file.path)
    return add_provenance(
        ds, "open_photometry", input=Path(file.path).name, bytes=file.source.size,
        assumed=assumed, options={"compat": compat, "err_scale": _plain(err_scale)},
    )  # fmt: skip


def _flux_name(file: FitsFile) -> str:
    if "FLUX" in file:
        return "FLUX"
    if "PHOTO_FLUX" in file and "SPEC_FLUX" in file:
        raise InputError(
            file.path, expected="a photometric cube (FLUX, FLUX_ERR, GALAXY_REGION)",
            found="a spectrophotometric one (PHOTO_FLUX, SPEC_FLUX)",
            remedy="open it with open_cube",
        )  # fmt: skip
    # the older layout keeps the fluxes in the primary HDU, under no name of its own
    return "PRIMARY" if len(file.hdus[0].shape) == 3 else "FLUX"


def _bands(header: fits.Header, n_band: int, path: str) -> list[str]:
    count = header.get("NFILTERS", n_band)
    names = [str(header.get(f"FIL{i}", "")).strip() for i in range(n_band)]
    if count != n_band or "" in names:
        found = [f"FIL{i} = {name}" for i, name in enumerate(names) if name]
        raise InputError(
            path, expected=f"cards NFILTERS = {n_band} and FIL0 to FIL{n_band - 1}, one per image",
            found=f"NFILTERS = {count} and {', '.join(found) or 'no FIL cards'}",
            remedy="correct the primary header",
        )  # fmt: skip
    if len(set(names)) != n_band:
        twice = sorted({name for name in names if names.count(name) > 1})
        raise InputError(
            path, expected="every filter once", found=f"{', '.join(twice)} more than once",
            remedy="drop the repeated images, or give their curves names of their own",
        )  # fmt: skip
    return names


def _curves(names: list[str], path: str) -> list[Filter]:
    known = known_filters()
    for i, name in enumerate(names):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            nearest = f" (the nearest known are {', '.join(near)})" if near else ""
            raise InputError(
                f"{path}, card FIL{i}", expected="a filter of a known curve",
                found=f"{name!r}{nearest}",
                remedy="register its curve with specphoto.photometry.filters.register_filter",
            )  # fmt: skip
    return load_filters(names)


def _unit(header: fits.Header, path: str, assumed: list[str]) -> float:
    """Return the flux of one file unit in erg s-1 cm-2 Angstrom-1."""
    text = header.get("UNIT")
    if text is None:
        survey.assume(path, assumed, f"no card UNIT: fluxes in {_UNIT:g} erg s-1 cm-2 Angstrom-1")
        return _UNIT
    try:
        unit = float(text)
    except (TypeError, ValueError):
        unit = np.nan
    if not unit > 0:
        raise InputError(
            f"{path}, card UNIT", expected="the flux unit as a number (1e-17)", found=repr(text),
            remedy="correct the card",
        )  # fmt: skip
    return unit


def _error_scale(
    given: Mapping[str, float] | Sequence[float] | None, names: list[str]
) -> NDArray[np.float64]:
    if given is None:
        return np.ones(len(names))
    if isinstance(given, Mapping):
        strange = sorted(set(given) - set(names))
        if strange:
            raise InputError(
                "err_scale", expected="names out of " + ", ".join(names),
                found=", ".join(strange), remedy="name bands of the file",
            )  # fmt: skip
        given = [given.get(name, 1.0) for name in names]
    scale = np.asarray(given, dtype=np.float64)
    if scale.shape != (len(names),) or not np.all(scale > 0):
        raise InputError(
            "err_scale", expected=f"{len(names)} positive numbers, one per band",
            found=str(scale.tolist()), remedy="give them by band name",
        )  # fmt: skip
    return scale


def _plain(given: Mapping[str, float] | Sequence[float] | None) -> Any:
    if given is None or isinstance(given, Mapping):
        return None if given is None else {name: float(value) for name, value in given.items()}
    return [float(value) for value in given]


def _cubes(
    file: FitsFile,
    flux_name: str,
    unit: float,
    scale: NDArray[np.float64],
    err_scale: NDArray[np.float64],
) -> tuple[da.Array, da.Array]:
    chunks = (-1, _CHUNK_PIXELS, _CHUNK_PIXELS)
    flux = file.dask(flux_name, chunks, dtype=np.float64)
    error = file.dask("FLUX_ERR", chunks, dtype=np.float64)
    region = file.dask("GALAXY_REGION", chunks[1:], dtype=np.float64)
    factor = scale * unit / _UNIT
    # images are small: float64 as stored, so that nothing is lost on the way to FITS and back
    return (
        survey.lazily(
            _known, flux, error, region[None], factor=factor, unit=unit, dtype=np.float64
        ),
        survey.lazily(
            _known_error, error, region[None], factor=factor / err_scale, unit=unit,
            dtype=np.float64,
        ),
    )  # fmt: skip


def _sentinel(values: NDArray[np.float64], unit: float) -> NDArray[np.bool_]:
    """Whether values are piXedfit's mark of no data: -99 in either unit, or no number."""
    mark = np.zeros(values.shape, dtype=bool)
    for sentinel in (_SENTINEL, _SENTINEL / unit):
        mark |= np.isclose(values, sentinel, rtol=1e-6, atol=0.0)
    return mark | ~np.isfinite(values)


def _known(
    flux: NDArray[np.float64],
    error: NDArray[np.float64],
    region: NDArray[np.float64],
    factor: NDArray[np.float64],
    unit: float,
) -> NDArray[np.float64]:
    bad = _sentinel(flux, unit) | _sentinel(error, unit) | (region != 1)
    return np.where(bad, np.nan, flux) * factor[:, None, None]


def _known_error(
    error: NDArray[np.float64],
    region: NDArray[np.float64],
    factor: NDArray[np.float64],
    unit: float,
) -> NDArray[np.float64]:
    bad = _sentinel(error, unit) | ~(error > 0) | (region != 1)
    return np.where(bad, np.nan, error) * factor[:, None, None]


def _dataset(
    flux: da.Array,
    error: da.Array,
    region: NDArray[np.bool_],
    names: list[str],
    pivots: NDArray[np.float64],
) -> xr.Dataset:
    dims = ("band", "y", "x")
    ds = xr.Dataset(
        {
            "photo_flux": (dims, flux),
            "photo_err": (dims, error),
            "photo_region": (("y", "x"), region),
        },
        coords={
            # fixed-width strings are no part of Zarr format 3
            "band": np.array(names, dtype=object),
            "band_wave": ("band", pivots),
            "y": np.arange(region.shape[0]),
            "x": np.arange(region.shape[1]),
        },
    )
    ds["band_wave"].attrs.update(units="Angstrom", long_name="pivot wavelength")
    return ds


def _wcs(file: FitsFile, flux: str) -> WCS:
    """Celestial WCS: the stamp's header has the only one in piXedfit's files."""
    for name in ("STAMP_IMAGE", flux):
        if name in file and "CRVAL1" in file[name].header:
            return survey.celestial(file[name].header, f"{file.path}, {name}")
    file.require("STAMP_IMAGE", shape=file[flux].shape[1:], ndim=2)
    return survey.celestial(file["STAMP_IMAGE"].header, f"{file.path}, STAMP_IMAGE")


def _state(header: fits.Header, pivots: Mapping[str, float]) -> dict[str, Any]:
    """Redshift, Galactic extinction, PSF and sampling band; None where the file does not say."""

    def number(name: str, above: float) -> float | None:
        value = header.get(name)
        return float(value) if isinstance(value, int | float) and value > above else None

    redshift, ebv, fwhm = number("Z", -1.0), number("GALEBV", -1e-9), number("PSFFWHM", 0.0)
    psf_band = survey.card([header], "FPSFMTCH")
    middle = pivots.get(str(psf_band), float(np.median(list(pivots.values()))))
    return {
        "redshift": redshift,
        "ebv": ebv,
        "ebv_scale": None if ebv is None else "SF11",
        "ebv_corrected": True,
        "ebv_law": "pixedfit",
        "psf": None if fwhm is None else survey.constant_psf(fwhm, middle, "gaussian", None),
        "psf_band": psf_band,
        "fsamp": survey.card([header], "FSAMP"),
    }
