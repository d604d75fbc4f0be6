"""The layout of piXedfit's own spectrophotometric files, for scripts that count HDUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from specphoto.cube import band_scale
from specphoto.errors import InputError
from specphoto.io.fits_header import celestial_cards, primary_cards
from specphoto.io.fits_layout import HduPlan, filled, hdu_name, image_dims, with_primary

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["SENTINEL", "layout_pixedfit"]

# What piXedfit writes for fluxes of images outside the galaxy: -99 in units of 1e-17. A band that
# lacks inside it is 0 there, for a negative error stops the scripts that plot it.
SENTINEL = -99.0 / 1e-17

_SPATIAL = (
    "photo_flux", "photo_err", "wave", "spec_flux", "spec_err", "spec_region", "photo_region",
    "stamp_image",
)  # fmt: skip
_CORRECTED = (
    "photo_flux", "photo_err", "wave", "spec_flux", "spec_err", "photo_region", "spec_region",
    "mod_wave", "mod_flux", "corr_factor",
)  # fmt: skip


def layout_pixedfit(ds: xr.Dataset) -> list[HduPlan]:
    """HDUs exactly as piXedfit writes them: float64, no WCS but the stamp's, no unknown values.

    The model is kept on the channels it was compared on only: those of the coordinate
    ``mod_clean`` (wave) where the dataset has one, else those where any pixel has a model (found
    by computing it).

    Raises
    ------
    InputError
        If the dataset lacks a variable that these files have.
    """
    corrected = bool(ds.attrs.get("corrected"))
    names = [n for n in (_CORRECTED if corrected else _SPATIAL) if n != "mod_wave"]
    # a corrected file of piXedfit's has lost its stamp, and piXedfit reads on without
    missing = [n for n in names if n not in ds.variables and n != "stamp_image"]
    if missing:
        raise InputError(
            'write_fits, compat="pixedfit"', expected=f"a dataset with {', '.join(names)}",
            found=f"no {', '.join(missing)}", remedy="run both stages first, or leave compat out",
        )  # fmt: skip
    plans = []
    for name in names:
        if name in ds.variables:
            plans += _plans(ds, name)
    return with_primary(plans, primary_cards(ds, compat=True))


def _plans(ds: xr.Dataset, name: str) -> list[HduPlan]:
    variable = ds.variables[name]
    if name == "stamp_image":
        dtype = np.dtype(f">f{variable.dtype.itemsize}")
        return [HduPlan(hdu_name(name), variable, dtype, celestial_cards(ds, compat=True))]
    variable = variable.transpose(*image_dims(variable.dims)).astype(np.float64)
    if name in ("photo_flux", "photo_err"):
        variable = variable / band_scale(ds).reshape(-1, 1, 1)
        known = variable.notnull()
        region = ds.variables["photo_region"].astype(bool)
        variable = filled(filled(variable, known | ~region, 0.0), known | region, SENTINEL)
    else:
        variable = filled(variable, variable.notnull(), 0.0)
    if name != "mod_flux":
        return [HduPlan(hdu_name(name), variable, np.dtype(">f8"), [])]
    clean = np.flatnonzero(_clean(ds))
    return [
        HduPlan("MOD_WAVE", ds.variables["wave"][clean].astype(np.float64), np.dtype(">f8"), []),
        HduPlan("MOD_FLUX", variable[clean], np.dtype(">f8"), []),
    ]


def _clean(ds: xr.Dataset) -> xr.Variable:
    if "mod_clean" in ds.variables:
        return ds.variables["mod_clean"]
    known: xr.Variable = ds.variables["mod_flux"].notnull().any(("y", "x")).compute()
    return known
