"""Photometric cubes as piXedfit writes them (``fluxmap_*.fits``), both layouts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from specphoto.cube import add_provenance, annotate, validate
from specphoto.errors import InputError
from specphoto.io import survey
from specphoto.io.cube_reader import open_cube
from specphoto.io.fits_layout import ATTRIBUTES
from specphoto.io.fitsfile import FitsFile, open_fits
from specphoto.io.images import read_images

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from astropy.wcs import WCS
    from numpy.typing import NDArray

__all__ = ["open_photometry"]


def open_photometry(
    path: str | os.PathLike[str],
    *,
    compat: Literal["pixedfit"] | None = None,
    err_scale: Mapping[str, float] | Sequence[float] | None = None,
) -> xr.Dataset:
    r"""Open a photometric cube lazily.

    Parameters
    ----------
    path
        FITS file, gzipped or not, with FLUX as an extension or as the primary HDU; or one that
        :func:`specphoto.write_fits` made of a photometric dataset, which comes back as it was.
    compat
        None: fluxes are multiplied, per band, by what makes them the photon-weighted mean
        :math:`F_\lambda` of the filter's curve, the quantity models are compared with
        (:func:`specphoto.photometry.filters.pixedfit_scale`). 'pixedfit': as they are.
    err_scale
        Numbers that divide the errors, by band name or in the order of the bands. piXedfit
        convolves a variance like a flux, so that its errors are several times too large for
        bands that were much sharper than the common PSF.

    Returns
    -------
    ds
        ``photo_flux``, ``photo_err`` (band, y, x), 1e-17 erg s-1 cm-2 Angstrom-1 per pixel, NaN
        outside the galaxy's region and where a band has no data; ``photo_region``,
        ``stamp_image`` (y, x); ``band`` names with ``band_wave``, the pivot in Angstrom.
        Attribute ``band_scale`` holds the factors applied, by band name.

    Raises
    ------
    InputError
        If the file is not a photometric cube, lacks extensions or a celestial WCS, or names a
        filter of no known curve.
    """
    file = open_fits(path)
    if ATTRIBUTES in file and "PHOTO_FLUX" in file and "SPEC_FLUX" not in file:
        return open_cube(path)
    flux = _flux_name(file)
    assumed: list[str] = []
    found = read_images(
        file, flux, "FLUX_ERR", "GALAXY_REGION", compat=compat, assumed=assumed,
        err_scale=lambda names: _error_scale(err_scale, names),
    )  # fmt: skip
    region = file.values("GALAXY_REGION") == 1
    dims = ("band", "y", "x")
    ds = xr.Dataset(
        {
            "photo_flux": (dims, found.flux),
            "photo_err": (dims, found.error),
            "photo_region": (("y", "x"), region),
        },
        coords={
            **found.coords(),
            "y": np.arange(region.shape[0]),
            "x": np.arange(region.shape[1]),
        },
    )
    if "STAMP_IMAGE" in file and file["STAMP_IMAGE"].shape == region.shape:
        ds["stamp_image"] = (("y", "x"), file.values("STAMP_IMAGE").astype(np.float32))
    ds = annotate(
        ds,
        kind="photometry",
        survey="pixedfit",
        name=survey.object_name(file.name),
        **survey.place([file["PRIMARY"].header], _wcs(file, flux), ("RA", "DEC")),
        **found.attrs,
    )
    validate(ds, "photo_flux", "photo_err", "photo_region", verb=file.path)
    return add_provenance(
        ds, "open_photometry", input=file.name, bytes=file.size,
        assumed=assumed, options={"compat": compat, "err_scale": _plain(err_scale)},
    )  # fmt: skip


def _flux_name(file: FitsFile) -> str:
    if "FLUX" in file:
        return "FLUX"
    if "PHOTO_FLUX" in file and "SPEC_FLUX" in file:
        raise InputError(
            file.path, expected="a photometric cube (FLUX, FLUX_ERR, GALAXY_REGION)",
            found="a spectrophotometric one (PHOTO_FLUX, SPEC_FLUX)",
            remedy="open it with open_cube",
        )  # fmt: skip
    # the older layout keeps the fluxes in the primary HDU, under no name of its own
    return "PRIMARY" if len(file.hdus[0].shape) == 3 else "FLUX"


def _error_scale(
    given: Mapping[str, float] | Sequence[float] | None, names: list[str]
) -> NDArray[np.float64]:
    if given is None:
        return np.ones(len(names))
    if isinstance(given, Mapping):
        strange = sorted(set(given) - set(names))
        if strange:
            raise InputError(
                "err_scale", expected="names out of " + ", ".join(names),
                found=", ".join(strange), remedy="name bands of the file",
            )  # fmt: skip
        given = [given.get(name, 1.0) for name in names]
    scale = np.asarray(given, dtype=np.float64)
    if scale.shape != (len(names),) or not np.all(scale > 0):
        raise InputError(
            "err_scale", expected=f"{len(names)} positive numbers, one per band",
            found=str(scale.tolist()), remedy="give them by band name",
        )  # fmt: skip
    return scale


def _plain(given: Mapping[str, float] | Sequence[float] | None) -> Any:
    if given is None or isinstance(given, Mapping):
        return None if given is None else {name: float(value) for name, value in given.items()}
    return [float(value) for value in given]


def _wcs(file: FitsFile, flux: str) -> WCS:
    """Celestial WCS: the stamp's header has the only one in piXedfit's files."""
    for name in ("STAMP_IMAGE", flux):
        if name in file and "CRVAL1" in file[name].header:
            return survey.celestial(file[name].header, f"{file.path}, {name}")
    file.require("STAMP_IMAGE", shape=file[flux].shape[1:], ndim=2)
    return survey.celestial(file["STAMP_IMAGE"].header, f"{file.path}, STAMP_IMAGE")
