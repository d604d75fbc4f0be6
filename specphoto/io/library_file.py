"""Library files: composites over a grid of populations, and piXedfit's tables.

Ours (HDF5, attribute ``format``) holds the grid (group ``grid``) and what defines each model (group
``parameters``), not the spectra of the models: they are mixed when they are needed, so that a file
of 50 000 models takes some MB. piXedfit's holds every spectrum: group ``mod`` with the attribute
``nmodels``, ``mod/spec/wave``, ``mod/spec/f0`` ... and ``mod/par``.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from specphoto.io.staging import staged
from specphoto.spectral.library import CompositeLibrary, Nebular, SSPGrid
from specphoto.spectral.parameters import ModelParameters

if TYPE_CHECKING:
    from os import PathLike

__all__ = ["is_composite", "read_composites", "write_composites", "write_pixedfit_library"]

_FORMAT = "specphoto library 1"
_GRID = ("wave", "age", "metallicity", "flux", "fwhm")
_GAS = ("continuum", "line_wave", "line")
_PACKED: dict[str, Any] = {"compression": "gzip", "compression_opts": 1}
_AT_ONCE = 1024  # spectra of models computed at a time


def is_composite(file: h5py.File) -> bool:
    """Whether a file holds composites as :func:`write_composites` writes them."""
    return str(file.attrs.get("format", "")) == _FORMAT


def write_composites(
    library: CompositeLibrary, path: str | PathLike[str], *, recipe: str = "",
    overwrite: bool = False,
) -> None:  # fmt: skip
    """Write a composite library, whole or not at all.

    Parameters
    ----------
    library
        What :func:`specphoto.io.library.open_library` shall give.
    path
        The file.
    recipe
        What it was built by, kept in the file for its readers.
    overwrite
        Whether a file already there is replaced.

    Raises
    ------
    InputError
        If a file is there, or its folder is not.
    """
    with staged(path, overwrite=overwrite) as aside, h5py.File(aside, "w") as file:
        file.attrs["format"] = _FORMAT
        file.attrs["identity"] = f"{Path(path).name} {library.fingerprint[:16]}"
        file.attrs["recipe"] = recipe
        file.attrs["nebular"] = library.nebular is not None
        file.attrs["dust"] = library.dust
        group = file.create_group("grid")
        group.attrs["identity"] = library.grid.identity
        for name in _GRID:
            group.create_dataset(name, data=getattr(library.grid, name), **_PACKED)
        if library.nebular is not None:
            gas = group.create_group("nebular")
            gas.attrs["identity"] = library.nebular.identity
            for name in _GAS:
                gas.create_dataset(name, data=getattr(library.nebular, name), **_PACKED)
        for name, values in vars(library.parameters).items():
            file.create_dataset(f"parameters/{name}", data=values, **_PACKED)


def read_composites(file: h5py.File) -> CompositeLibrary:
    """Read what :func:`write_composites` wrote.

    Raises
    ------
    KeyError, InputError
        If the file lacks something, or its shapes disagree.
    """
    group = file["grid"]
    nebular = None
    if file.attrs["nebular"]:
        gas = group["nebular"]
        nebular = Nebular(**{k: gas[k][()] for k in _GAS}, identity=str(gas.attrs["identity"]))
    grid = SSPGrid(
        **{name: group[name][()] for name in _GRID}, nebular=nebular,
        identity=str(group.attrs["identity"]),
    )  # fmt: skip
    table = file["parameters"]
    parameters = ModelParameters(**{f.name: table[f.name][()] for f in fields(ModelParameters)})
    return CompositeLibrary(
        grid, parameters, nebular=nebular is not None, dust=file.attrs["dust"],
        identity=str(file.attrs["identity"]),
    )  # fmt: skip


def write_pixedfit_library(
    library: CompositeLibrary, path: str | PathLike[str], *, overwrite: bool = False
) -> None:
    """Write all spectra of a composite library as piXedfit's libraries hold them.

    Rest-frame vacuum wavelengths of the grid, L_sun / Angstrom per solar mass formed, float64;
    0.1 MB per model. Lines of the gas have the resolution of the grid.

    Parameters
    ----------
    library, path, overwrite
        As for :func:`write_composites`.

    Raises
    ------
    InputError
        If a file is there, or its folder is not.
    """
    models = library.rest_frame()
    with staged(path, overwrite=overwrite) as aside, h5py.File(aside, "w") as file:
        group = file.create_group("mod")
        group.attrs["nmodels"], group.attrs["funit"] = library.n_model, "L_sun/A"
        group["spec/wave"] = library.grid.wave
        for name, values in vars(library.parameters).items():
            group[f"par/{name}"] = np.asarray(values, dtype=np.float64)
        for first in range(0, library.n_model, _AT_ONCE):
            index = np.arange(first, min(first + _AT_ONCE, library.n_model))
            for number, spectrum in zip(index, models.spectra(index), strict=True):
                group[f"spec/f{number}"] = spectrum
