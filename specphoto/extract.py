"""What one pixel or one aperture holds: spectrum before and after, model, images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from specphoto.cube import identify, validate
from specphoto.errors import InputError
from specphoto.io.corr_factor import factor_now, with_factor

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

__all__ = ["Extract", "aperture_extract", "aperture_sum", "pixel_dataset", "pixel_extract"]

_CUBES = ("spec_flux", "spec_err", "spec_mask", "corr_factor", "corr_factor_err", "mod_flux")
_IMAGES = ("photo_flux", "photo_err")


@dataclass(frozen=True)
class Extract:
    """Spectrum and SED of a pixel or an aperture. NaN is unknown.

    Parameters
    ----------
    where
        The pixel or the aperture, in words.
    wave
        Angstrom, ``(n_wave,)``.
    spec_flux, spec_err
        As the dataset has them: after the factor where it is corrected, ``(n_wave,)``.
    good
        Channels that can be used, ``(n_wave,)``.
    factor, factor_err, model
        Correction factor, its 1-sigma error and the reference model ``(n_wave,)``; None before
        the spectral stage.
    bands, band_wave, photo_flux, photo_err
        Names, pivot wavelengths (Angstrom) and fluxes of the images, ``(n_band,)``; empty
        without images.
    note
        Why there is nothing to see, or what to mind; empty where all is well.
    trusted
        Whether it is in ``spec_region``.
    """

    where: str
    wave: NDArray[np.float64]
    spec_flux: NDArray[np.floating]
    spec_err: NDArray[np.floating]
    good: NDArray[np.bool_]
    factor: NDArray[np.floating] | None
    factor_err: NDArray[np.floating] | None
    model: NDArray[np.floating] | None
    bands: list[str]
    band_wave: NDArray[np.float64]
    photo_flux: NDArray[np.floating]
    photo_err: NDArray[np.floating]
    note: str = ""
    trusted: bool = True

    @property
    def observed(self) -> NDArray[np.floating]:
        """Spectrum before the factor, ``(n_wave,)``."""
        return self.spec_flux if self.factor is None else self.spec_flux / self.factor

    @property
    def masked(self) -> NDArray[np.floating]:
        """Spectrum with NaN in the channels that are not good, ``(n_wave,)``."""
        return np.asarray(np.where(self.good, self.spec_flux, np.nan))


_COEFFICIENTS, _FACTORS = ("corr_coef", "corr_cov"), ("corr_factor", "corr_factor_err")


def pixel_dataset(ds: xr.Dataset, pixel: tuple[int, int]) -> xr.Dataset:
    """One pixel of all variables; nothing is computed.

    Its factor is made of its coefficients: that of the rest of its block never is.

    Parameters
    ----------
    ds
        A matched cube, corrected or not, or a survey's.
    pixel
        Position ``(y, x)``, 0-based.

    Raises
    ------
    InputError
        If the pixel is not on the cube.
    """
    one = _pixel_of(ds, pixel)
    if "corr_coef" in one:
        few = one[[name for name in _COEFFICIENTS if name in one]]
        made = with_factor(few.assign_coords(wave=one["wave"]), chunks={"wave": -1})
        one = one.assign({name: made[name] for name in _FACTORS if name in made})
    return one.isel(y=0, x=0)


def _pixel_of(ds: xr.Dataset, pixel: tuple[int, int]) -> xr.Dataset:
    """One pixel of all variables, as a cube of one pixel."""
    validate(ds, "spec_flux", "spec_mask", "wave", verb="pixel")
    y, x = int(pixel[0]), int(pixel[1])
    n_y, n_x = ds.sizes["y"], ds.sizes["x"]
    if not (0 <= y < n_y and 0 <= x < n_x):
        raise InputError(
            f"{identify(ds)}: pixel x = {x}, y = {y}",
            expected=f"x from 0 to {n_x - 1} and y from 0 to {n_y - 1}",
            found="a pixel outside the cube", remedy="choose one inside",
        )  # fmt: skip
    # slices, not lists: Dask reads more blocks than one for a list
    return ds.isel(y=slice(y, y + 1), x=slice(x, x + 1))


def pixel_extract(ds: xr.Dataset, pixel: tuple[int, int]) -> Extract:
    """Read one pixel.

    Parameters
    ----------
    ds
        A matched cube, corrected or not.
    pixel
        Position ``(y, x)``, 0-based.

    Raises
    ------
    InputError
        If the pixel is not on the cube.
    """
    at = _in_memory(_pixel_of(ds, pixel)).isel(y=0, x=0)
    region = bool(at["spec_region"]) if "spec_region" in at else True
    y, x = pixel
    return _noted(_filled(ds, at, f"pixel x = {x}, y = {y}"), inside=region)


def aperture_sum(ds: xr.Dataset, inside: NDArray[np.bool_]) -> xr.Dataset:
    """Sum the pixels of an aperture, with errors that know how they are correlated, lazily.

    Parameters
    ----------
    ds
        A matched cube, corrected or not, or a survey's.
    inside
        Pixels of the aperture, ``(y, x)``.

    Returns
    -------
    xarray.Dataset
        As of :func:`specphoto.sum_spectra`, without the axis ``label``.

    Raises
    ------
    InputError
        If no pixel is inside, or nothing tells how noise is correlated.
    """
    from specphoto.spatial.sums import sum_spectra  # SciPy's signals: a second to import

    part, labels = _boxed(ds, inside)
    summed: xr.Dataset = sum_spectra(part, labels.astype(int)).isel(label=0, drop=True)
    return summed


def _boxed(
    ds: xr.Dataset, inside: NDArray[np.bool_]
) -> tuple[xr.Dataset, NDArray[np.bool_]]:  # fmt: skip
    """Smallest rectangle round an aperture, and the aperture on it."""
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not rows.size:
        raise InputError(
            f"{identify(ds)}: aperture", expected="at least one pixel of the cube", found="none",
            remedy="draw it over the cube",
        )  # fmt: skip
    box = {"y": slice(rows[0], rows[-1] + 1), "x": slice(columns[0], columns[-1] + 1)}
    return ds.isel(box), inside[box["y"], box["x"]]


def aperture_extract(ds: xr.Dataset, inside: NDArray[np.bool_]) -> Extract:
    """Sum the pixels of an aperture, with errors that know how they are correlated.

    The factor of the sum is the summed spectrum after it over that before it. Its error is the
    mean of the pixels', weighted with their light, as if they all erred alike: the upper bound.

    Parameters
    ----------
    ds
        A matched cube, corrected or not.
    inside
        Pixels of the aperture, ``(y, x)``; those outside ``spec_region`` are left out.

    Raises
    ------
    InputError
        If none of the pixels is in ``spec_region``, or nothing tells how noise is correlated.
    """
    validate(ds, "spec_flux", "spec_mask", "wave", verb="aperture_extract")
    chosen = np.asarray(inside, dtype=bool)
    if "spec_region" in ds:
        chosen = chosen & ds["spec_region"].values
    if not chosen.any():
        raise InputError(
            f"{identify(ds)}: aperture", expected="pixels in spec_region",
            found=f"none among {int(np.sum(inside))}", remedy="draw it over the region",
        )  # fmt: skip
    cut, labels = _boxed(ds, chosen)
    part = _in_memory(cut)
    sums = aperture_sum(part, labels).compute()
    factor, factor_err, model = _summed_factor(part, labels)
    where = f"aperture of {int(chosen.sum())} pixels"
    one = replace(
        _filled(ds, sums, where), factor=factor, factor_err=factor_err, model=model
    )  # fmt: skip
    return _noted(one, inside=True)


def _in_memory(part: xr.Dataset) -> xr.Dataset:
    """Read a few pixels; their factor is made of the coefficients, that of their blocks never."""
    names = [*_present(part), *(["spec_region"] if "spec_region" in part else [])]
    if "corr_coef" in part:
        names = [name for name in names if name not in _FACTORS]
        names += [name for name in _COEFFICIENTS if name in part]
    part = part.assign(part[names].compute().data_vars)
    if "corr_coef" not in part:
        return part
    few = part[[name for name in _COEFFICIENTS if name in part]]
    made = factor_now(few.assign_coords(wave=part["wave"]))
    return part.assign({name: (("wave", "y", "x"), values) for name, values in made.items()})


def _present(ds: xr.Dataset) -> list[str]:
    return [name for name in (*_CUBES, *_IMAGES) if name in ds]


def _filled(ds: xr.Dataset, at: xr.Dataset, where: str) -> Extract:
    empty = np.empty(0)
    unknown = np.full(ds.sizes["wave"], np.nan)

    def value(name: str, otherwise: Any) -> Any:
        return at[name].values if name in at else otherwise

    flux = at["spec_flux"].values
    return Extract(
        where=where, wave=ds["wave"].values, spec_flux=flux, spec_err=value("spec_err", unknown),
        good=~at["spec_mask"].values & np.isfinite(flux), factor=value("corr_factor", None),
        factor_err=value("corr_factor_err", None), model=value("mod_flux", None),
        bands=[str(b) for b in ds["band"].values] if "photo_flux" in ds else [],
        band_wave=ds["band_wave"].values if "photo_flux" in ds else empty,
        photo_flux=value("photo_flux", empty), photo_err=value("photo_err", empty),
    )  # fmt: skip


def _noted(one: Extract, *, inside: bool) -> Extract:
    if not one.good.any():
        note = "outside spec_region: no spectrum here" if not inside else "every channel is masked"
    elif not inside:
        note = "outside spec_region: do not trust this spectrum"
    elif one.factor is None:
        note = "no spectral stage: neither factor nor model"
    elif not np.isfinite(one.factor).any():
        note = "no factor was found here"
    else:
        note = ""
    return replace(one, note=note, trusted=inside)


def _summed_factor(
    part: xr.Dataset, labels: NDArray[np.bool_]
) -> tuple[NDArray[Any] | None, NDArray[Any] | None, NDArray[Any] | None]:
    """Factor, its error and model of a sum, ``(n_wave,)``, from cubes in memory."""
    if "corr_factor" not in part:
        return None, None, None
    flux = np.where(part["spec_mask"].values, np.nan, part["spec_flux"].values)[:, labels]
    factor = part["corr_factor"].values[:, labels]
    before = flux / factor
    light = np.abs(np.nan_to_num(before))
    with np.errstate(divide="ignore", invalid="ignore"):
        whole = np.nansum(np.where(np.isfinite(before), flux, 0.0), axis=1) / np.nansum(
            before, axis=1
        )
        error = None
        if "corr_factor_err" in part:
            errors = np.nan_to_num(part["corr_factor_err"].values[:, labels])
            error = (light * errors).sum(axis=1) / light.sum(axis=1)
    model = None
    if "mod_flux" in part:
        model = part["mod_flux"].values[:, labels].sum(axis=1)
    return whole, error, model
