"""Grids of populations as files: what somebody else's set looks like, with a known truth."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from astropy.io import fits

from specphoto.io.library import default_grid
from specphoto.spectral.wavelength import vacuum_to_air

if TYPE_CHECKING:
    from pathlib import Path


@lru_cache(maxsize=1)
def emiles_like() -> dict[str, np.ndarray]:
    """Arrays in the manner of E-MILES: air, Gyr from 0.063 on, [M/H], no population younger."""
    grid = default_grid()
    kept = np.flatnonzero((grid.wave > 3600.0) & (grid.wave < 7400.0))
    old = np.flatnonzero(grid.age > 6e7)
    return {
        "wave": vacuum_to_air(grid.wave[kept]), "age": grid.age[old] / 1e9,
        "metallicity": np.log10(grid.metallicity[2:5] / 0.02),
        "flux": grid.flux[2:5][:, old][:, :, kept], "fwhm": np.full(kept.size, 2.51),
    }  # fmt: skip


FACTS: dict[str, dict[str, Any]] = {
    "wave": {"units": "Angstrom", "medium": "air"}, "age": {"units": "Gyr"},
    "metallicity": {"scale": "[M/H]", "solar": 0.02}, "flux": {"units": "Lsun / Angstrom"},
    "fwhm": {},
}  # fmt: skip


def write_hdf5(path: Path, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
            file[name].attrs.update(facts.get(name, {}))
    return path


def write_fits(path: Path, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> Path:
    """Flux as the primary image, ages as a table, the others as images."""
    hdus = fits.HDUList([fits.PrimaryHDU(arrays["flux"])])
    for name, values in arrays.items():
        if name == "age":
            column = fits.Column(name, "D", array=values, unit=facts.get(name, {}).get("units"))
            hdus.append(fits.BinTableHDU.from_columns([column], name=name))
        elif name != "flux":
            hdus.append(fits.ImageHDU(values, name=name))
        for key, value in facts.get(name, {}).items():
            card = "BUNIT" if key == "units" else key
            if not (name == "age" and key == "units"):
                hdus[0 if name == "flux" else name].header[card] = value
    hdus.writeto(path)
    return path
