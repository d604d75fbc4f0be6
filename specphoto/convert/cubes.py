"""Spectra as objects of specutils and spectral-cube."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from specphoto.cube import FLUX_UNIT, identify, own_wcs
from specphoto.errors import InputError
from specphoto.io.fits_header import FLUX_BUNIT, axis_cards, celestial_cards, spectral_axis

if TYPE_CHECKING:
    import xarray as xr
    from spectral_cube import DaskSpectralCube
    from specutils import Spectrum

__all__ = ["to_spectral_cube", "to_specutils"]

_KEPT = ("name", "survey", "ra", "dec", "corrected", "provenance")


def to_specutils(ds: xr.Dataset) -> Spectrum:
    """See :meth:`specphoto.accessor.Accessor.to_specutils`."""
    specutils = _installed("specutils")
    from astropy import units as u
    from astropy.nddata import StdDevUncertainty, VarianceUncertainty

    _require_spectra(ds, "to_specutils")
    read = ds[[n for n in ("spec_flux", "spec_err", "spec_var", "spec_mask") if n in ds]].compute()
    flux = read["spec_flux"]
    unit = u.Unit(FLUX_UNIT)
    uncertainty = None
    if "spec_err" in read:
        uncertainty = StdDevUncertainty(read["spec_err"].values, unit=unit)
    elif "spec_var" in read:
        uncertainty = VarianceUncertainty(read["spec_var"].values, unit=unit**2)
    bad = ~np.isfinite(flux.values)
    if "spec_mask" in read:
        bad |= read["spec_mask"].values
    axis = ds["wave"].values * u.AA
    sky = {}
    if flux.dims == ("wave", "y", "x") and ds.attrs.get("wcs"):
        sky["wcs"] = _with_wavelengths(ds, specutils.Spectrum(axis, spectral_axis=axis).wcs)
    return specutils.Spectrum(
        flux=flux.values * unit, spectral_axis=axis, spectral_axis_index=flux.dims.index("wave"),
        uncertainty=uncertainty, mask=bad, redshift=ds.attrs.get("redshift"),
        meta={name: ds.attrs[name] for name in _KEPT if name in ds.attrs}, **sky,
    )  # fmt: skip


def _with_wavelengths(ds: xr.Dataset, wavelengths: Any) -> Any:
    """World coordinates of a cube: its sky, and a table of wavelengths."""
    from ndcube.wcs.wrappers import CompoundLowLevelWCS

    return CompoundLowLevelWCS(own_wcs(ds), wavelengths)


def to_spectral_cube(ds: xr.Dataset) -> DaskSpectralCube:
    """See :meth:`specphoto.accessor.Accessor.to_spectral_cube`."""
    package = _installed("spectral_cube")
    import dask.array as da
    from astropy.io import fits
    from astropy.wcs import WCS

    _require_spectra(ds, "to_spectral_cube")
    flux = ds["spec_flux"]
    if flux.dims != ("wave", "y", "x"):
        raise InputError(
            identify(ds), expected="a cube (wave, y, x)", found=f"dims {flux.dims}",
            remedy="convert the cube, or use to_specutils",
        )  # fmt: skip
    own_wcs(ds)  # which says what is wrong
    axis = spectral_axis(ds["wave"].values, ds.attrs.get("spectral_axis"))
    if axis is None:
        raise InputError(
            identify(ds), expected="a linear or logarithmic wavelength axis",
            found="channels that follow neither",
            remedy="select channels of one spacing, or use to_specutils",
        )  # fmt: skip
    cards = axis_cards(flux.dims, celestial_cards(ds), axis)
    wcs = WCS(fits.Header(cards))
    data = da.asarray(flux.data)
    good = da.isfinite(data)
    if "spec_mask" in ds:
        good &= ~da.asarray(ds["spec_mask"].data).rechunk(data.chunks)
    return package.DaskSpectralCube(
        data=data, wcs=wcs, mask=package.BooleanArrayMask(good, wcs),
        meta={"BUNIT": FLUX_BUNIT, "OBJECT": identify(ds)},
    )  # fmt: skip


def _require_spectra(ds: xr.Dataset, verb: str) -> None:
    if "spec_flux" not in ds:
        raise InputError(
            f"{identify(ds)}: {verb}", expected="a dataset with spec_flux", found="none",
            remedy="open it with specphoto.open_ifs or open_cube",
        )  # fmt: skip


def _installed(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        package = name.replace("_", "-")
        raise InputError(
            package, expected=f"the package {package}", found="none installed",
            remedy=f"pip install {package}",
        ) from error  # fmt: skip
