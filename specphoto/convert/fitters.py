"""Pixels as observations of SED-fitting codes, in their own units."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from specphoto.errors import InputError
from specphoto.io.staging import staged
from specphoto.photometry.filters import load_filters
from specphoto.photometry.synthetic import flux_nu

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import NDArray

    from specphoto.extract import Extract
    from specphoto.photometry.filters import Filter

__all__ = ["Which", "to_bagpipes", "to_prospector"]

Which = Literal["observed", "corrected"]

_OBS = (
    "filters", "maggies", "maggies_unc", "phot_mask", "phot_wave",
    "wavelength", "spectrum", "unc", "mask",
)  # fmt: skip
_FLUX = 1e-17  # erg s-1 cm-2 Angstrom-1
_MAGGY = 3631e-23  # erg s-1 cm-2 Hz-1, as in prospector
_MICROJANSKY = 1e-29
# What Bagpipes gives to masked data, and knows them by.
_MASKED = 9.9e99


class _Observed(NamedTuple):
    """What is to be fitted of a pixel, in 1e-17 erg s-1 cm-2 Angstrom-1; None for nothing."""

    spectrum: tuple[NDArray[np.float64], NDArray[np.float64]] | None
    good: NDArray[np.bool_]
    images: tuple[NDArray[np.float64], NDArray[np.float64]] | None
    known: NDArray[np.bool_]


def to_prospector(one: Extract, spectrum: Which = "observed") -> dict[str, Any]:
    """See :meth:`specphoto.accessor.Accessor.to_prospector`."""
    from sedpy.observate import Filter as SedpyFilter

    data = _observed(one, spectrum)
    obs: dict[str, Any] = dict.fromkeys(_OBS)
    if data.images is not None:
        curves = load_filters(one.bands)
        flux, error = _per_frequency(data.images, _pivots(curves), _MAGGY)
        obs |= {
            "filters": [SedpyFilter(c.name, data=(c.wave, c.response)) for c in curves],
            "maggies": flux, "maggies_unc": error, "phot_mask": data.known,
            "phot_wave": _pivots(curves),
        }  # fmt: skip
    if data.spectrum is not None:
        flux, error = _per_frequency(data.spectrum, one.wave, _MAGGY)
        obs |= {
            "wavelength": np.array(one.wave, float), "spectrum": flux, "unc": error,
            "mask": data.good,
        }  # fmt: skip
    return obs


def to_bagpipes(
    one: Extract, spectrum: Which = "observed", *, name: str, folder: str | PathLike[str]
) -> dict[str, Any]:
    """See :meth:`specphoto.accessor.Accessor.to_bagpipes`."""
    data = _observed(one, spectrum)
    parts, paths = [], None
    if data.spectrum is not None:
        flux, error = (_FLUX * values for values in data.spectrum)
        parts.append(np.column_stack([one.wave, *_without_unknown(flux, error, data.good)]))
    if data.images is not None:
        curves = load_filters(one.bands)
        paths = [str(_written(curve, Path(folder))) for curve in curves]
        flux, error = _per_frequency(data.images, _pivots(curves), _MICROJANSKY)
        parts.append(np.column_stack(_without_unknown(flux, error, data.known)))
    return {
        "ID": name, "load_data": partial(_loaded, parts), "filt_list": paths,
        "spectrum_exists": data.spectrum is not None,
        "photometry_exists": data.images is not None,
        "spec_units": "ergscma", "phot_units": "mujy",
    }  # fmt: skip


def _loaded(parts: list[NDArray[np.float64]], _name: str) -> Any:
    # Bagpipes changes what it is given
    copies = [part.copy() for part in parts]
    return copies if len(copies) > 1 else copies[0]


def _observed(one: Extract, which: Which) -> _Observed:
    """Spectrum before the factor and images, or the corrected spectrum alone."""
    _check(one, which)
    factor = one.factor if which == "observed" and one.factor is not None else 1.0
    flux, error = (np.asarray(v / factor, float) for v in (one.spec_flux, one.spec_err))
    good = one.good & np.isfinite(flux) & np.isfinite(error) & (error > 0) & one.trusted
    photo_flux, photo_err = (np.asarray(v, float) for v in (one.photo_flux, one.photo_err))
    known = np.isfinite(photo_flux) & np.isfinite(photo_err) & (photo_err > 0)
    spectrum = (flux, error) if good.any() else None
    images = (photo_flux, photo_err) if known.any() and which == "observed" else None
    if spectrum is None and images is None:
        raise InputError(
            one.where, expected="something to fit", found=one.note or "neither",
            remedy="choose a pixel of spec_region",
        )  # fmt: skip
    return _Observed(spectrum, good, images, known)


def _check(one: Extract, which: Which) -> None:
    if which not in get_args(Which):
        raise InputError(
            "spectrum", expected=" or ".join(map(repr, get_args(Which))), found=repr(which),
            remedy="choose one",
        )  # fmt: skip
    if which == "corrected" and one.factor is None:
        raise InputError(
            one.where, expected="a corrected cube", found="no factor",
            remedy="run match_spectral first, or ask for the observed spectrum",
        )  # fmt: skip


def _pivots(curves: list[Filter]) -> NDArray[np.float64]:
    return np.array([curve.pivot for curve in curves])


def _per_frequency(
    values: tuple[NDArray[np.float64], NDArray[np.float64]], wave: NDArray[np.float64], unit: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    flux, error = (flux_nu(v, wave) / unit for v in values)
    return flux, error


def _without_unknown(
    flux: NDArray[np.float64], error: NDArray[np.float64], good: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.where(good, flux, 0.0), np.where(good, error, _MASKED)


def _written(curve: Filter, folder: Path) -> Path:
    """File of a curve: wavelength in Angstrom, detector signal per photon."""
    path = folder.absolute() / f"{curve.name}.txt"
    lines = (f"{wave:.8g} {r:.8g}\n" for wave, r in zip(curve.wave, curve.response, strict=True))
    text = "".join(lines)
    if not (path.exists() and path.read_text() == text):
        path.parent.mkdir(parents=True, exist_ok=True)
        with staged(path, overwrite=True) as aside:
            aside.write_text(text)
    return path
