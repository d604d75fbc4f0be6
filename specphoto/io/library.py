"""Open population libraries: the one in the package, built ones, and piXedfit's HDF5 files."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from functools import lru_cache
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import h5py
import numpy as np
from scipy.interpolate import interp1d

from specphoto.errors import InputError
from specphoto.io.cache import Source
from specphoto.io.library_file import is_composite, read_composites
from specphoto.spectral.library import CompositeLibrary, Nebular, SSPGrid, TabulatedLibrary
from specphoto.spectral.parameters import sample_parameters

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

    from numpy.typing import NDArray

__all__ = [
    "LibraryOutline",
    "default_grid",
    "default_library",
    "open_library",
    "outline_library",
]

_DEFAULT = "bc03_miles_kroupa.h5"

# Resolution of the MILES stars (FWHM, Angstrom) and the range they cover, vacuum.
_MILES_FWHM, _MILES_RANGE = 2.5, (3526.0, 7502.0)


@lru_cache(maxsize=2)
def default_grid(*, log_u: float = -3.0) -> SSPGrid:
    """Open the population grid that ships with the package.

    BC03 (Bruzual & Charlot 2003, 2016 version), MILES, Kroupa initial mass function; the file's
    attributes say all of it, and ``tools/build_library.py`` rebuilds it.

    Parameters
    ----------
    log_u
        Ionisation parameter of the nebular emission: -3.5, -3, -2.5 or -2.

    Raises
    ------
    InputError
        If the file does not have this ionisation parameter.
    """
    content = (files("specphoto") / "data" / _DEFAULT).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    with h5py.File(BytesIO(content)) as file:
        step = float(file.attrs["log_step"])
        return SSPGrid(
            wave=file["wave"][:],
            age=file["age"][:],
            metallicity=file["metallicity"][:],
            flux=_decode(file["log_flux"][:], step),
            fwhm=file["fwhm"][:].astype(np.float64),
            nebular=_read_nebular(file["nebular"], file["wave"][:], step, log_u),
            identity=f"{Path(_DEFAULT).stem} sha256:{digest[:16]}",
        )


def _decode(steps: NDArray[np.int32], step: float) -> NDArray[np.float32]:
    """Flux from what the file holds: differences along age of log10(flux), in steps."""
    log_flux = np.cumsum(steps, axis=-2, dtype=np.int32).astype(np.float32) * np.float32(step)
    return np.asarray(np.power(np.float32(10.0), log_flux))


def _read_nebular(
    group: h5py.Group, wave: NDArray[np.float64], step: float, log_u: float
) -> Nebular:
    known = group["log_u"][:]
    if log_u not in known:
        raise InputError(
            "log_u", expected="one of " + ", ".join(f"{u:g}" for u in known),
            found=f"{log_u:g}", remedy="choose the nearest",
        )  # fmt: skip
    u = int(np.flatnonzero(known == log_u)[0])
    coarse = _decode(group["log_continuum"][u], step)
    return Nebular(
        continuum=interp1d(wave[group["wave_index"][:]], coarse)(wave).astype(np.float32),
        line_wave=group["line_wave"][:],
        line=10.0 ** group["log_line"][u].astype(np.float64),
        identity=f"log U = {log_u:g}",
    )


def default_library(
    n_model: int = 50_000, *, nebular: bool = False, log_u: float = -3.0
) -> CompositeLibrary:
    """Open the library that ships with the package: composites over :func:`default_grid`.

    Parameters
    ----------
    n_model
        Number of models; see :func:`specphoto.spectral.parameters.sample_parameters`.
    nebular
        Whether the gas round young stars shines.
    log_u
        Its ionisation parameter; see :func:`default_grid`.

    Raises
    ------
    InputError
        If the file does not have this ionisation parameter.
    """
    return CompositeLibrary(default_grid(log_u=log_u), sample_parameters(n_model), nebular=nebular)


def open_library(path: str | PathLike[str]) -> CompositeLibrary | TabulatedLibrary:
    """Open a library that ``specphoto library build`` made, or one of piXedfit's (HDF5).

    The latter: group ``mod`` with the attribute ``nmodels``, rest-frame wavelengths in
    ``mod/spec/wave``, spectra in ``mod/spec/f0`` ... and parameters in ``mod/par``. It says neither
    what its wavelengths are in nor how sharp its spectra are: vacuum is assumed, and 2.5 A FWHM
    where MILES stars reach (piXedfit's libraries are FSPS with MILES), two samples elsewhere.
    ``specphoto library check`` tells whether its lines are where the vacuum puts them.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    InputError
        If the file is not there, is not HDF5, or has another layout.
    """
    with _opened(Path(path)) as file:
        return read_composites(file) if is_composite(file) else _read_pixedfit(file, Path(path))


class LibraryOutline(NamedTuple):
    """What a library is, without its spectra: rest-frame range (vacuum Angstrom) and identity."""

    wave_range: tuple[float, float]
    identity: str


def outline_library(path: str | PathLike[str]) -> LibraryOutline:
    """Look at a library file without reading its spectra, of which there may be GBs.

    Raises
    ------
    InputError
        As :func:`open_library`, except for spectra that are missing or of another length.
    """
    with _opened(Path(path)) as file:
        return _read_outline(file, Path(path))


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """Open the file; whatever is wrong with it or its layout is an InputError."""
    try:
        with h5py.File(path) as file:
            yield file
    except (OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            str(path),
            expected="a piXedfit library (HDF5 with mod/spec/wave and mod/spec/f0 ...) or one of "
            "'specphoto library build'",
            found=str(error).strip("'\""),
            remedy="check the path, or use the default library",
        ) from error


def _wavelengths(file: h5py.File) -> NDArray[np.float64]:
    wave: NDArray[np.float64] = file["mod"]["spec"]["wave"][:].astype(np.float64)
    if wave.ndim != 1 or wave.size < 2 or not np.all(np.diff(wave) > 0):
        msg = "wavelengths in mod/spec/wave that do not increase"
        raise ValueError(msg)
    return wave


def _read_outline(file: h5py.File, path: Path) -> LibraryOutline:
    if is_composite(file):
        wave = file["grid"]["wave"]
        return LibraryOutline((float(wave[0]), float(wave[-1])), str(file.attrs["identity"]))
    wave, count = _wavelengths(file), int(file["mod"].attrs["nmodels"])
    identity = f"{path.name}, {count} models, {path.stat().st_size} bytes"
    return LibraryOutline((float(wave[0]), float(wave[-1])), identity)


def _read_pixedfit(file: h5py.File, path: Path) -> TabulatedLibrary:
    wave, outline = _wavelengths(file), _read_outline(file, path)
    group = file["mod"]
    flux = np.empty((int(group.attrs["nmodels"]), wave.size), np.float32)
    for i, row in enumerate(flux):
        group[f"spec/f{i}"].read_direct(row)
    table = group.get("par", {})
    parameters = {str(k): np.asarray(v[:], dtype=np.float64) for k, v in table.items()}
    miles = (wave >= _MILES_RANGE[0]) & (wave <= _MILES_RANGE[1])
    fwhm = np.where(miles, _MILES_FWHM, 2.0 * np.gradient(wave))
    return TabulatedLibrary(
        wave, flux, fwhm, parameters, identity=outline.identity, fingerprint=Source.of(path).key
    )
