"""Maps of any per-pixel quantity, by name: for figures, reports and the viewer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr

from specphoto.cube import FLUX_LABEL, FLUX_UNIT, identify, validate
from specphoto.errors import InputError
from specphoto.io.corr_factor import with_factor
from specphoto.photometry.filters import Filter, load_filter
from specphoto.photometry.synthetic import photon_weights
from specphoto.spectral.graph import synthetic
from specphoto.spectral.reference import COVERED

__all__ = [
    "QUANTITIES",
    "Quantity",
    "channel_at",
    "known_quantities",
    "quantity_map",
    "synthetic_map",
]

# Pixels on a side of a task's block.
_BLOCK = 16


@dataclass(frozen=True)
class Quantity:
    """A quantity that has a map.

    Parameters
    ----------
    name
        By which it is asked for.
    label
        In words, for people.
    needs
        Variables it is made of.
    per
        What else chooses the map: a wavelength, a band, or nothing.
    centre
        Value that a diverging colour scale has in its middle; None for a sequential one.
    unit
        For people; empty where it is a number.
    """

    name: str
    label: str
    needs: tuple[str, ...]
    per: Literal["wave", "band"] | None = None
    centre: float | None = None
    unit: str = ""


QUANTITIES = {
    quantity.name: quantity
    for quantity in [
        Quantity("spec_flux", "flux of the spectrum", ("spec_flux",), "wave", unit=FLUX_LABEL),
        Quantity("spec_sn", "signal to noise per channel", ("spec_flux", "spec_err"), "wave"),
        Quantity("corr_factor", "correction factor", ("corr_coef",), "wave", 1.0),
        Quantity("corr_factor_err", "error of the factor", ("corr_cov",), "wave"),
        Quantity("mod_flux", "flux of the model", ("mod_flux",), "wave", unit=FLUX_LABEL),
        Quantity("photo_flux", "flux of the image", ("photo_flux",), "band", unit=FLUX_LABEL),
        Quantity("photo_sn", "signal to noise of the image", ("photo_flux", "photo_err"), "band"),
        Quantity("closure_before", "closure before", ("closure_before",), "band", 0.0, "mag"),
        Quantity("closure_after", "closure after", ("closure_after",), "band", 0.0, "mag"),
        Quantity("chi2", "chi-square of the SED fit", ("chi2",)),
        Quantity("n_band", "bands in the SED fit", ("n_band",)),
        Quantity("n_eff", "effective number of models", ("n_eff",)),
        Quantity("coverage", "coverage by good spaxels", ("coverage",)),
        Quantity("edge_factor", "compensation at the edge", ("edge_factor",), None, 1.0),
        Quantity("edge_bias", "bias left at the edge", ("edge_bias",)),
    ]
}


def known_quantities(ds: xr.Dataset) -> list[Quantity]:
    """Quantities that a dataset has maps of.

    Parameters
    ----------
    ds
        A matched cube, corrected or not.
    """
    return [q for q in QUANTITIES.values() if all(name in ds.data_vars for name in q.needs)]


def quantity_map(
    ds: xr.Dataset, name: str, *, wave: float | None = None, band: str | None = None
) -> xr.DataArray:
    """Map of a quantity; nothing is computed.

    Parameters
    ----------
    ds
        A matched cube, corrected or not.
    name
        One of :data:`QUANTITIES`.
    wave
        Angstrom; the nearest channel is taken, by default the one in the middle.
    band
        By default the one in the middle.

    Returns
    -------
    xarray.DataArray
        ``(y, x)``, with ``label`` and ``unit`` in its attributes.

    Raises
    ------
    InputError
        If the dataset has no such quantity, or no such band.
    """
    known = {q.name: q for q in known_quantities(ds)}
    if name not in known:
        raise InputError(
            f"{identify(ds)}: map", expected="one of " + ", ".join(known), found=repr(name),
            remedy="name one of them, or run the stage that makes it",
        )  # fmt: skip
    quantity = known[name]
    label = quantity.label
    if quantity.per == "wave":
        channel = channel_at(ds, wave)
        values = _at_channel(ds, name, channel)
        label += f", {float(ds['wave'][channel]):.0f} Å"
    elif quantity.per == "band":
        chosen = _band(ds, band)
        values = _at_band(ds, name, chosen)
        label += f", {chosen.replace('_', ' ')}"
    else:
        values = ds[name]
    return values.assign_attrs(label=label, unit=quantity.unit)


def synthetic_map(
    ds: xr.Dataset, band: str | Filter, *, min_covered: float = COVERED
) -> xr.DataArray:
    """Map of synthetic photometry, lazily; see :meth:`specphoto.accessor.Accessor.synthetic`."""
    validate(ds, "spec_flux", "spec_mask", "wave", verb="synthetic")
    curve = band if isinstance(band, Filter) else load_filter(band)
    weights, covered = photon_weights(ds["wave"].values, [curve])
    if covered[0] < min_covered:
        raise InputError(
            f"{identify(ds)}: band {curve.name!r}",
            expected=f"one of which the cube covers {min_covered:.0%}",
            found=f"{covered[0]:.1%} of it covered",
            remedy="choose a band inside the spectra, or a lower min_covered",
        )  # fmt: skip
    place = {dim: ds[dim] for dim in ("y", "x") if dim in ds.coords}
    return xr.DataArray(
        synthetic(ds, weights, _BLOCK)[0], dims=("y", "x"), name="synthetic",
        coords=place | {"band": curve.name},
        attrs={"long_name": f"synthetic flux in {curve.name}", "units": FLUX_UNIT},
    )  # fmt: skip


def channel_at(ds: xr.Dataset, wave: float | None) -> int:
    """Channel nearest to a wavelength in Angstrom; the one in the middle for None."""
    if wave is None:
        return ds.sizes["wave"] // 2
    return int(np.argmin(np.abs(ds["wave"].values - wave)))


def _at_channel(ds: xr.Dataset, name: str, channel: int) -> xr.DataArray:
    if name in ("corr_factor", "corr_factor_err"):
        # from the coefficients: the cube of factors would be made for one of its planes
        few = ds[[n for n in ("corr_coef", "corr_cov") if n in ds]]
        few = few.assign_coords(wave=ds["wave"].isel(wave=[channel]))
        return with_factor(few, chunks={"wave": 1})[name].isel(wave=0)
    at = ds[list(QUANTITIES[name].needs)].isel(wave=channel)
    if name == "spec_sn":
        return at["spec_flux"] / at["spec_err"].where(at["spec_err"] > 0)
    return at[name]


def _band(ds: xr.Dataset, band: str | None) -> str:
    known = [str(b) for b in ds["band"].values]
    if band is None:
        return known[len(known) // 2]
    if band not in known:
        raise InputError(
            f"{identify(ds)}: band", expected="one of " + ", ".join(known), found=repr(band),
            remedy="name a band of the dataset",
        )  # fmt: skip
    return band


def _at_band(ds: xr.Dataset, name: str, band: str) -> xr.DataArray:
    at = ds[list(QUANTITIES[name].needs)].isel(band=[str(b) for b in ds["band"].values].index(band))
    if name == "photo_sn":
        return at["photo_flux"] / at["photo_err"].where(at["photo_err"] > 0)
    return at[name]
