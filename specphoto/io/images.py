"""Images and their header as piXedfit writes them, in photometric and matched files alike."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from specphoto.errors import InputError
from specphoto.io import survey
from specphoto.photometry.filters import known_filters, load_filters, pixedfit_scale
from specphoto.spatial.psf import PSF

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import dask.array as da
    from astropy.io import fits
    from numpy.typing import NDArray

    from specphoto.io.fitsfile import FitsFile
    from specphoto.photometry.filters import Filter

__all__ = ["Images", "read_images"]

_UNIT = 1e-17
_SENTINEL = -99.0
_CHUNK_PIXELS = 2048


class Images(NamedTuple):
    """What :func:`read_images` finds.

    ``flux`` and ``error`` are lazy, ``(n_band, n_y, n_x)`` in 1e-17 erg s-1 cm-2 Angstrom-1 per
    pixel; ``names`` and ``pivots`` (Angstrom) of the bands; ``unit`` is that of the file in
    erg s-1 cm-2 Angstrom-1; ``attrs`` are attributes of the dataset.
    """

    flux: da.Array
    error: da.Array
    names: list[str]
    pivots: NDArray[np.float64]
    unit: float
    attrs: dict[str, Any]

    def coords(self) -> dict[str, Any]:
        """Coordinates of the band axis."""
        about = {"units": "Angstrom", "long_name": "pivot wavelength"}
        # fixed-width strings are no part of Zarr format 3
        return {
            "band": np.array(self.names, dtype=object),
            "band_wave": ("band", self.pivots, about),
        }


def read_images(
    file: FitsFile,
    flux: str,
    error: str,
    region: str,
    *,
    compat: Literal["pixedfit"] | None,
    assumed: list[str],
    err_scale: Callable[[list[str]], NDArray[np.float64]] | None = None,
) -> Images:
    """Read the images of a file lazily, and now what its primary header says of them.

    Parameters
    ----------
    file
        The file.
    flux, error, region
        Names of the HDUs.
    compat
        None: fluxes are multiplied, per band, by what makes them photon-weighted means
        (:func:`specphoto.photometry.filters.pixedfit_scale`). 'pixedfit': as they are.
    assumed
        Gets what the file does not say.
    err_scale
        Gives the numbers that divide the errors, from the names of the bands.

    Raises
    ------
    InputError
        If HDUs are missing or have other shapes, cards contradict them, or a filter has no known
        curve.
    """
    file.require(flux, error)
    shape, header = file[flux].shape, file["PRIMARY"].header
    file.require(region, shape=shape[1:], ndim=2)
    names = _bands(header, shape[0], file.path)
    pivots = np.array([curve.pivot for curve in _curves(names, file.path)])
    scale = np.ones(len(names)) if compat else pixedfit_scale(names)
    unit = _unit(header, file.path, assumed)
    divisor = np.ones(len(names)) if err_scale is None else err_scale(names)
    cubes = _cubes(file, (flux, error, region), unit, scale, divisor)
    attrs = {
        **_state(header),
        "psf": _psf(header, dict(zip(names, pivots, strict=True)), file.path, assumed),
        "band_scale": {name: float(factor) for name, factor in zip(names, scale, strict=True)},
    }
    return Images(*cubes, names, pivots, unit, attrs)


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


def _cubes(
    file: FitsFile,
    hdus: tuple[str, str, str],
    unit: float,
    scale: NDArray[np.float64],
    err_scale: NDArray[np.float64],
) -> tuple[da.Array, da.Array]:
    chunks = (-1, _CHUNK_PIXELS, _CHUNK_PIXELS)
    flux, error = (file.dask(name, chunks, dtype=np.float64) for name in hdus[:2])
    region = file.dask(hdus[2], chunks[1:], dtype=np.float64)
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


def _number(header: fits.Header, name: str, above: float) -> float | None:
    """Value of a card, None if it is no number or not above a limit."""
    value = header.get(name)
    return float(value) if isinstance(value, int | float) and value > above else None


def _state(header: fits.Header) -> dict[str, Any]:
    """Redshift, Galactic extinction and bands that set the grid; None where unknown."""
    ebv = _number(header, "GALEBV", -1e-9)
    return {
        "redshift": _number(header, "Z", -1.0),
        "ebv": ebv,
        "ebv_scale": None if ebv is None else "SF11",
        "ebv_corrected": True,
        "ebv_law": "pixedfit",
        "psf_band": survey.card([header], "FPSFMTCH"),
        "fsamp": survey.card([header], "FSAMP"),
    }


def _psf(
    header: fits.Header, pivots: Mapping[str, float], path: str, assumed: list[str]
) -> dict[str, Any] | None:
    """PSF of all images: of the FWHM in the header, else of the band they were matched to."""
    band = str(survey.card([header], "FPSFMTCH") or "").strip()
    middle = float(pivots.get(band, np.median(list(pivots.values()))))
    fwhm = _number(header, "PSFFWHM", 0.0)
    if fwhm is not None:
        return survey.constant_psf(fwhm, middle, "gaussian", None)
    if not band:
        return None
    try:
        psf = PSF.named(band)
    except InputError as error:
        survey.assume(path, assumed, f"no card PSFFWHM, and PSF unknown: {error}")
        return None
    survey.assume(path, assumed, f"no card PSFFWHM: {psf}, that of {band}")
    return survey.constant_psf(psf.fwhm, middle, psf.model, psf.beta)
