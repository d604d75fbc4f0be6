"""What a FITS product holds: which HDUs, in which order, with which values and headers.

The names and the order up to the extra HDUs are piXedfit's. Unknown values (NaN) are 0 outside
the regions in its HDUs, as its readers expect; the bits of ``SPEC_MASK`` and ``PHOTO_MASK`` keep
where, and ``ATTRIBUTES`` (JSON text as bytes) keeps what else a dataset has and FITS has not.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from dask.base import is_dask_collection

from specphoto.cube import SCHEMA_VERSION, VARIABLES
from specphoto.errors import InputError
from specphoto.io.attributes import plain_attributes
from specphoto.io.fits_header import (
    FLUX_BUNIT,
    Cards,
    axis_cards,
    celestial_cards,
    primary_cards,
    spectral_axis,
)

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

__all__ = [
    "ATTRIBUTES",
    "MASKS",
    "HduPlan",
    "filled",
    "hdu_name",
    "image_dims",
    "layout",
    "with_primary",
]

ATTRIBUTES = "ATTRIBUTES"

_NAMES = {
    "photo_err": "PHOTO_FLUXERR",
    "spec_err": "SPEC_FLUXERR",
    "corr_factor_err": "CORR_FACTORERR",
}
_SPATIAL_ORDER = (
    "photo_flux", "photo_err", "wave", "spec_flux", "spec_err", "spec_region", "photo_region",
    "stamp_image",
)  # fmt: skip
_CORRECTED_ORDER = (
    "photo_flux", "photo_err", "wave", "spec_flux", "spec_err", "photo_region", "spec_region",
    "mod_wave", "mod_flux", "corr_factor", "stamp_image",
)  # fmt: skip

# Bits of the mask HDUs, by the variable they speak of; the region outside which unknown is 0.
MASKS: Mapping[str, tuple[str, Mapping[str, int]]] = {
    "SPEC_MASK": (
        "spec_region",
        {
            "spec_mask": 0,
            "spec_flux": 1,
            "spec_err": 2,
            "mod_flux": 3,
            "corr_factor": 4,
            "corr_factor_err": 5,
        },
    ),
    "PHOTO_MASK": ("photo_region", {"photo_flux": 0, "photo_err": 1}),
}

_FITS_UNITS = {
    VARIABLES["spec_flux"].unit: FLUX_BUNIT,
    VARIABLES["spec_var"].unit: "10**(-34) erg2 s-2 cm-4 Angstrom-2",
}

# How values of a kind and size are stored; FITS has no unsigned integers above one byte.
_STORED = {
    "b1": "u1", "u1": "u1", "i1": ">i2", "i2": ">i2", "u2": ">i4", "i4": ">i4", "u4": ">i8",
    "i8": ">i8", "f2": ">f4", "f4": ">f4", "f8": ">f8",
}  # fmt: skip


@dataclass(frozen=True)
class HduPlan:
    """One image HDU to be written: name, values (in memory, lazy, or none), stored dtype, cards."""

    name: str
    values: xr.Variable | None
    dtype: np.dtype[Any]
    cards: Cards

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the image, numpy order; empty without one."""
        return () if self.values is None else self.values.shape

    @property
    def bitpix(self) -> int:
        """FITS's code of the stored dtype."""
        size = 8 * self.dtype.itemsize
        return -size if self.dtype.kind == "f" else size


def image_dims(dims: Iterable[Hashable]) -> list[str]:
    """Dims in the order of an image's axes: bands and the like, then wave, y, x."""
    return sorted(
        (str(d) for d in dims),
        key=lambda d: ("wave", "y", "x").index(d) if d in ("wave", "y", "x") else -1,
    )


def hdu_name(name: Hashable) -> str:
    """HDU name of a variable."""
    return _NAMES.get(str(name), str(name).upper())


def layout(ds: xr.Dataset) -> list[HduPlan]:
    """All HDUs of a product, the primary first; nothing is computed.

    Raises
    ------
    InputError
        For attributes or variables that FITS cannot keep.
    """
    described = {str(name): _describe(ds, str(name)) for name in ds.variables}
    stored = [name for name, entry in described.items() if "hdu" in entry]
    order = _CORRECTED_ORDER if ds.attrs.get("corrected") else _SPATIAL_ORDER
    first = [n for n in order if n in stored or (n == "mod_wave" and "mod_flux" in stored)]
    rest = [n for n in stored if n not in first and n != "spec_mask"]

    values = [(hdu_name(name), _values(ds, name)) for name in first]
    values += [(mask, flags) for mask in MASKS if (flags := _mask(ds, mask)) is not None]
    values += [(hdu_name(name), _values(ds, name)) for name in rest]
    values.append((ATTRIBUTES, _text(ds, described)))

    celestial = celestial_cards(ds)
    spectral = None
    if "wave" in ds.coords:
        spectral = spectral_axis(ds["wave"].values, ds.attrs.get("spectral_axis"))
    plans = []
    for name, variable in values:
        if variable.ndim == 0:  # an image has an axis
            variable = xr.Variable("value", variable.data[None], variable.attrs)
        dims = image_dims(variable.dims)
        cards = _notes(name) + axis_cards(dims, celestial, spectral)
        dtype = np.dtype(_STORED[variable.dtype.str[1:]])
        plans.append(HduPlan(name, variable.transpose(*dims), dtype, cards))
    return with_primary(plans, primary_cards(ds))


def filled(variable: xr.Variable, keep: xr.Variable, value: float) -> xr.Variable:
    """Return the variable with `value` where `keep` is False, in its own dtype."""
    out: xr.Variable = variable.where(keep, variable.dtype.type(value))
    return out


def with_primary(plans: list[HduPlan], keys: Cards) -> list[HduPlan]:
    """Put the keys on the primary HDU: the photometry, or a bare one where there is none."""
    if plans[0].name != "PHOTO_FLUX":
        return [HduPlan("PRIMARY", None, np.dtype("u1"), keys), *plans]
    taken = {key for key, _, _ in keys}
    rest = [card for card in plans[0].cards if card[0] not in taken]
    return [replace(plans[0], cards=keys + rest), *plans[1:]]


def _describe(ds: xr.Dataset, name: str) -> dict[str, Any]:
    """Describe one variable for ``ATTRIBUTES``: where its values are, and how to get them back."""
    variable = ds.variables[name]
    entry: dict[str, Any] = {
        "dims": list(variable.dims),
        "dtype": variable.dtype.str if variable.dtype.kind in "biuf" else "object",
        "coordinate": name in ds.coords,
        "attrs": plain_attributes(variable.attrs, name),
    }
    kind, code = variable.dtype.kind, variable.dtype.str[1:]
    small = kind in "OUT" or (kind in "biu" and variable.ndim < 2) or variable.ndim == 0
    if small and not is_dask_collection(variable.data):
        # texts, pixel numbers and single values: small, and not images
        return {**entry, "values": plain_attributes({name: variable.values}, name)[name]}
    if code not in _STORED:
        raise InputError(
            f"variable {name}", expected="a dtype FITS can hold (bool, int, float)",
            found=f"{variable.dtype}", remedy="convert it with astype before writing",
        )  # fmt: skip
    entry["hdu"] = "SPEC_MASK" if name == "spec_mask" else hdu_name(name)
    for mask, (_, bits) in MASKS.items():
        if name in bits:
            entry |= {"mask": mask, "bit": bits[name]}
    return entry


def _values(ds: xr.Dataset, name: str) -> xr.Variable:
    """Return the values to store: 0 for what is unknown outside the region."""
    variable = ds.variables["wave" if name == "mod_wave" else name]
    for region, bits in MASKS.values():
        if name in bits and region in ds.variables and variable.dtype.kind == "f":
            inside = ds.variables[region].astype(bool)
            variable = filled(variable, variable.notnull() | inside, 0.0)
    return variable


def _mask(ds: xr.Dataset, mask: str) -> xr.Variable | None:
    """Return the bits of a mask HDU: the dataset's own mask, and what is unknown in which HDU."""
    total: xr.Variable | None = None
    for name, bit in MASKS[mask][1].items():
        if name in ds.variables:
            variable = ds.variables[name]
            flag = variable if variable.dtype.kind == "b" else variable.isnull()
            part = flag.astype(np.uint8) * np.uint8(1 << bit)
            total = part if total is None else total + part
    return total


def _text(ds: xr.Dataset, described: dict[str, Any]) -> xr.Variable:
    document = {
        "specphoto_schema": SCHEMA_VERSION,
        "attrs": plain_attributes(ds.attrs, "dataset"),
        "variables": described,
    }
    text = json.dumps(document, allow_nan=False).encode("ascii")
    return xr.Variable(("byte",), np.frombuffer(text, dtype=np.uint8))


def _notes(name: str) -> Cards:
    """Unit and meaning of one HDU."""
    if name in MASKS:
        return [
            (f"BIT{bit}", hdu_name(variable), "do not use" if bit == 0 and variable == "spec_mask"
             else "unknown")
            for variable, bit in MASKS[name][1].items()
        ]  # fmt: skip
    if name in ("WAVE", "MOD_WAVE"):
        return [("BUNIT", "Angstrom", "vacuum wavelength")]
    if name == ATTRIBUTES:
        return [("CONTENT", "JSON", "what the other HDUs do not hold, ASCII")]
    for variable in VARIABLES.values():
        if hdu_name(variable.name) == name and variable.unit:
            return [("BUNIT", _FITS_UNITS.get(variable.unit, variable.unit), "unit of the values")]
    return []
