"""Grids of simple stellar populations from files: FITS or HDF5, in the layout that follows.

Four arrays, datasets of an HDF5 file or HDUs of a FITS file (image, or table of one column; names
in capitals there, and ``FLUX`` may be the primary image), and a fifth:

===============  ====================  =========================================================
``wave``         (n_wave,)             wavelengths, with ``medium`` 'air' or 'vacuum'
``age``          (n_age,)              of the populations
``metallicity``  (n_met,)              mass fractions Z; or [M/H] with ``scale`` '[M/H]' and
                                       ``solar``, the Z of the Sun
``flux``         (n_met, n_age,        luminosity per wavelength and mass formed; in FITS NAXIS1 is
                 n_wave)               wavelength
``fwhm``         (n_wave,) or (1,)     resolution, in the unit of the wavelengths
===============  ====================  =========================================================

Units are attributes ``units`` in HDF5, cards ``BUNIT`` (``TUNIT1`` of a table) in FITS, as astropy
reads them; without them Angstrom and yr. ``medium``, ``scale`` and ``solar`` are attributes, or
cards of these names. Axes may come in any order of values.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import h5py
import numpy as np

from specphoto.errors import InputError
from specphoto.spectral.fingerprint import digest
from specphoto.spectral.ssp import SSPGrid, whole_ages
from specphoto.spectral.wavelength import air_to_vacuum

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from os import PathLike

    from numpy.typing import NDArray

__all__ = ["Medium", "read_ssp_grid"]

Medium = Literal["air", "vacuum"]


class _Part(NamedTuple):
    """One array of the file, and what the file says of it."""

    values: NDArray[np.float64]
    facts: dict[str, Any]


def read_ssp_grid(
    path: str | PathLike[str], *, medium: Medium | None = None, fwhm: float | None = None
) -> SSPGrid:
    """Read a grid of simple stellar populations.

    Parameters
    ----------
    path
        The file, FITS or HDF5; the layout is the module's.
    medium
        What the wavelengths are in, where the file does not say it.
    fwhm
        Resolution in Angstrom, where the file does not say it.

    Returns
    -------
    SSPGrid
        In vacuum, axes increasing, with ages as :func:`specphoto.spectral.ssp.whole_ages` wants
        them.

    Raises
    ------
    InputError
        If the file cannot be read, lacks an array or fact, or holds what no grid can be.
    """
    path = Path(path)
    with _opened(path) as part:
        wave, age, metallicity = part("wave"), part("age"), part("metallicity")
        flux = part("flux")
        width = part("fwhm") if fwhm is None else _Part(np.array([fwhm]), {})
    angstrom = _wavelengths(wave.values, wave.facts, path)
    if fwhm is None:
        width = _Part(_in(width, wave.facts.get("units", "Angstrom"), "Angstrom", path), {})
    years = _ages(age, path)
    mass_fraction = _metallicities(metallicity, path)
    light = _luminosities(flux, (mass_fraction.size, years.size, angstrom.size), path)
    if (medium or wave.facts.get("medium")) not in ("air", "vacuum"):
        raise _wrong(
            path, "wavelengths that say what they are in",
            f"medium {wave.facts.get('medium')!r}", "give medium: air or medium: vacuum",
        )  # fmt: skip
    if (medium or wave.facts["medium"]) == "air":
        angstrom = air_to_vacuum(angstrom)
    by_metal, by_age = np.argsort(mass_fraction), np.argsort(years)
    nodes, light = whole_ages(years[by_age], light[by_metal][:, by_age])
    return SSPGrid(
        wave=angstrom, age=nodes, metallicity=mass_fraction[by_metal], flux=light,
        fwhm=np.broadcast_to(width.values, angstrom.shape).astype(np.float64),
        identity=f"{path.name} {digest(angstrom, nodes, mass_fraction, light)[:16]}",
    )  # fmt: skip


@contextmanager
def _opened(path: Path) -> Iterator[Callable[[str], _Part]]:
    """Give what reads one array by its name; whatever is wrong with the file is an InputError."""
    try:
        if h5py.is_hdf5(path):
            with h5py.File(path) as file:
                yield lambda name: _hdf5_part(file, name)
        else:
            from astropy.io import fits

            with fits.open(path) as hdus:
                yield lambda name: _fits_part(hdus, name)
    except (OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise _wrong(
            path, "a grid of populations (FITS or HDF5 with wave, age, metallicity, flux, fwhm)",
            str(error).strip("'\""), "see the layout in specphoto.io.ssp_file",
        ) from error  # fmt: skip


def _hdf5_part(file: h5py.File, name: str) -> _Part:
    dataset = file[name]
    kind = np.float32 if name == "flux" else np.float64
    values = np.atleast_1d(dataset[()].astype(kind))
    facts = {
        key: value.decode() if isinstance(value, bytes) else value
        for key, value in dataset.attrs.items()
    }
    return _Part(values, facts)


def _fits_part(hdus: Any, name: str) -> _Part:
    hdu = hdus[0] if name == "flux" and name not in hdus else hdus[name]
    data = hdu.data if hdu.is_image else hdu.data.field(0)
    if data is None:
        raise KeyError(f"no {name.upper()}")
    kind = np.float32 if name == "flux" else np.float64
    cards = {
        "units": "BUNIT" if hdu.is_image else "TUNIT1",
        "medium": "MEDIUM", "scale": "SCALE", "solar": "SOLAR",
    }  # fmt: skip
    facts = {key: hdu.header[card] for key, card in cards.items() if card in hdu.header}
    return _Part(np.atleast_1d(np.asarray(data, dtype=kind)), facts)


def _in(part: _Part, default: str, wanted: str, path: Path) -> NDArray[np.float64]:
    """Values in a unit."""
    from astropy import units as u

    stated = str(part.facts.get("units") or default)
    try:
        return np.asarray(part.values * u.Unit(stated).to(wanted), dtype=np.float64)
    except ValueError as error:  # a unit that is none, or of something else
        raise _wrong(path, f"a unit like {wanted}", repr(stated), "correct it") from error


def _wavelengths(
    values: NDArray[np.float64], facts: dict[str, Any], path: Path
) -> NDArray[np.float64]:
    wave = _in(_Part(values, facts), "Angstrom", "Angstrom", path)
    if wave.ndim != 1 or wave.size < 2 or not (np.all(np.diff(wave) > 0) and wave[0] > 0):
        raise _wrong(path, "positive wavelengths that increase", "others", "sort them")
    return wave


def _ages(part: _Part, path: Path) -> NDArray[np.float64]:
    years = _in(part, "yr", "yr", path)
    if years.ndim != 1 or not np.all(years >= 0) or np.unique(years).size < years.size:
        raise _wrong(path, "ages of at least 0, each once", "others", "correct them")
    return years


def _metallicities(part: _Part, path: Path) -> NDArray[np.float64]:
    """Mass fractions."""
    values = part.values
    if part.facts.get("scale") == "[M/H]":
        if "solar" not in part.facts:
            raise _wrong(
                path, "the metallicity of the Sun beside [M/H]", "no 'solar'", "state its Z"
            )
        values = float(part.facts["solar"]) * 10.0**values
    if values.size < 2 or not (np.all(values > 0) and np.all(values < 0.5)):
        raise _wrong(
            path, "at least two metallicities, as mass fractions",
            ", ".join(f"{v:g}" for v in values[:8]),
            "state scale '[M/H]' and solar if that is what they are",
        )  # fmt: skip
    return np.asarray(values)


def _luminosities(part: _Part, shape: tuple[int, ...], path: Path) -> NDArray[np.float32]:
    from astropy import units as u

    if part.values.shape != shape:
        raise _wrong(
            path, f"flux of shape {shape} (metallicity, age, wavelength)",
            f"{part.values.shape}", "transpose it",
        )  # fmt: skip
    stated = part.facts.get("units")
    if stated:
        try:
            kind = u.Unit(str(stated)) * u.AA
        except ValueError as error:
            raise _wrong(path, "a unit of luminosity per wavelength", repr(stated),
                         "correct it") from error  # fmt: skip
        if not (kind.is_equivalent(u.W) or kind.is_equivalent(u.W / u.kg)):
            raise _wrong(
                path, "luminosities per wavelength", repr(stated), "convert them, or state 'units'"
            )
    if not np.all(np.isfinite(part.values)):
        raise _wrong(path, "finite luminosities", "NaN or infinity", "drop those populations")
    return part.values.astype(np.float32)


def _wrong(path: Path, expected: str, found: str, remedy: str) -> InputError:
    return InputError(str(path), expected=expected, found=found, remedy=remedy)
