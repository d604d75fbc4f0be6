"""What the survey readers share: headers to facts, arrays to a dataset."""

from __future__ import annotations

import logging
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import dask.array as da
import numpy as np
import xarray as xr
import yaml
from astropy.wcs import WCS, WcsError

from specphoto.cube import pixel_scale, wcs_string
from specphoto.errors import InputError
from specphoto.io.lazy_array import as_dask
from specphoto.quiet import quietly
from specphoto.spectral.wavelength import air_to_vacuum
from specphoto.tasks import task_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from astropy.io import fits
    from numpy.typing import DTypeLike, NDArray

    from specphoto.io.fitsfile import FitsFile, Hdu
    from specphoto.io.lazy_array import LazyArray

__all__ = [
    "SIGMA_PER_FWHM",
    "Headerlike",
    "assume",
    "card",
    "celestial",
    "constant_psf",
    "cube_dataset",
    "extinction_of",
    "fatal_bits",
    "first_image",
    "flagged",
    "flux_scale",
    "instrument",
    "lazily",
    "object_name",
    "place",
    "position",
    "redshift_of",
    "scaled",
    "spectral_axis",
    "vacuum_wave",
]

logger = logging.getLogger("specphoto.io")

Headerlike: TypeAlias = "fits.Header | Mapping[str, Any]"

SIGMA_PER_FWHM = float(1.0 / np.sqrt(8.0 * np.log(2.0)))
_UNIT = 1e-17
_ALL_BITS = 2**32 - 1
_LIGHT = 299792.458
_ANGSTROM = {"angstrom": 1.0, "angstroms": 1.0, "a": 1.0, "": 1.0, "nm": 10.0, "um": 1e4, "m": 1e10}


@cache
def instrument(name: str) -> Mapping[str, Any]:
    """Facts about an instrument, from ``data/instruments/<name>.yaml``."""
    text = files("specphoto").joinpath("data", "instruments", f"{name}.yaml").read_text("utf-8")
    facts: Mapping[str, Any] = yaml.safe_load(text)
    return facts


def card(headers: Sequence[Headerlike], *names: str) -> Any:
    """First of the cards that is there and has a value, header by header; else None."""
    for header in headers:
        for name in names:
            value = header.get(name)
            if value is not None and str(value).strip():
                return value
    return None


def celestial(header: fits.Header, where: str) -> WCS:
    """Celestial WCS of an image or cube header.

    Raises
    ------
    InputError
        If there is none; ``where`` (file and HDU) begins the message.
    """
    try:
        with quietly():
            # CDELT beside CD, dates, RADECSYS: archives' headers, all harmless here
            wcs = WCS(header).celestial
    except (WcsError, ValueError, KeyError, MemoryError) as error:
        raise _no_wcs(where, f"one that cannot be read ({error})") from error
    if not wcs.has_celestial:
        raise _no_wcs(where, "none")
    return wcs


def _no_wcs(where: str, found: str) -> InputError:
    return InputError(
        where, expected="a celestial WCS (cards CTYPE1, CRVAL1, CRPIX1, CD1_1, ...)", found=found,
        remedy="write the cards into the header",
    )  # fmt: skip


def spectral_axis(header: fits.Header, where: str) -> dict[str, Any]:
    """Third axis of a cube: ctype, crval, cdelt, crpix, in Angstrom.

    Raises
    ------
    InputError
        If its cards are missing or its unit is unknown.
    """
    step = card([header], "CD3_3")
    if step is None and card([header], "CDELT3") is not None:
        step = header["CDELT3"] * header.get("PC3_3", 1.0)
    if card([header], "CRVAL3") is None or step is None:
        raise InputError(
            where, expected="a wavelength axis (cards CRVAL3 and CD3_3 or CDELT3)", found="none",
            remedy="write the cards into the header",
        )  # fmt: skip
    unit = str(header.get("CUNIT3", "")).strip().lower()
    if unit not in _ANGSTROM:
        raise InputError(
            f"{where}, card CUNIT3", expected="Angstrom, nm, um or m", found=repr(unit),
            remedy="correct the card",
        )  # fmt: skip
    scale = _ANGSTROM[unit]
    return {
        "ctype": str(header.get("CTYPE3", "")).strip(),
        "crval": float(header["CRVAL3"]) * scale,
        "cdelt": float(step) * scale,
        "crpix": float(header.get("CRPIX3", 1.0)),
    }


def vacuum_wave(axis: Mapping[str, Any], n_wave: int) -> NDArray[np.float64]:
    """Vacuum wavelengths ``(n_wave,)`` in Angstrom of a :func:`spectral_axis`.

    Linear, or logarithmic where the type ends in ``-LOG`` (Greisen et al. 2006, A&A 446, 747);
    from air, by :func:`specphoto.spectral.wavelength.air_to_vacuum`, unless the type is ``WAVE``.
    """
    offset = (np.arange(n_wave) + 1.0 - axis["crpix"]) * axis["cdelt"]
    if axis["ctype"].upper().endswith("-LOG"):
        wave = axis["crval"] * np.exp(offset / axis["crval"])
    else:
        wave = axis["crval"] + offset
    return wave if axis["ctype"].upper().startswith("WAVE") else air_to_vacuum(wave)


def flux_scale(header: fits.Header, default: float) -> float:
    """Return the factor from file units to 1e-17 erg s-1 cm-2 Angstrom-1.

    The power of ten in ``BUNIT`` (``1E-17 erg/...``, ``10**(-20)*erg/...``, ``10^-16 ...``) times
    ``FSCALE``; where ``BUNIT`` is missing or has no power, ``default``.
    """
    text = str(header.get("BUNIT", "")).lower().replace(" ", "")
    number = text.split("erg")[0].rstrip("*").replace("**", "^").strip("()")
    power = number.replace("10^", "1e").replace("(", "").replace(")", "")
    try:
        value = float(power)
    except ValueError:
        return default / _UNIT
    return value * float(header.get("FSCALE", 1.0)) / _UNIT


def constant_psf(fwhm: float, wave: float, model: str, beta: float | None) -> dict[str, Any]:
    """PSF attribute with one FWHM (arcsec), the same at all wavelengths."""
    return {
        "model": model, "wave": [float(wave)], "fwhm": [float(fwhm)],
        "beta": None if beta is None else [float(beta)],
    }  # fmt: skip


def assume(path: str, assumed: list[str], what: str) -> None:
    """Note, in the log and for the provenance, what the file does not say and the reader takes."""
    logger.info("%s: %s", path, what)
    assumed.append(what)


def object_name(path: str, *names: Any) -> str:
    """First name given, else the file's without its suffixes."""
    for name in names:
        if name is not None and str(name).strip():
            return str(name).strip()
    stem = Path(path).name
    for suffix in (".gz", ".fits", ".fit"):
        stem = stem.removesuffix(suffix)
    return stem


def place(headers: Sequence[Headerlike], wcs: WCS, *pairs: tuple[str, str]) -> dict[str, Any]:
    """Attributes ``ra``, ``dec`` (degrees; else the WCS reference), ``wcs``, ``pixel_scale``."""
    ra, dec = position(headers, *pairs) or (float(value) for value in wcs.wcs.crval)
    return {"ra": ra, "dec": dec, "wcs": wcs_string(wcs), "pixel_scale": pixel_scale(wcs)}


def position(headers: Sequence[Headerlike], *pairs: tuple[str, str]) -> tuple[float, float] | None:
    """Right ascension and declination of the first pair of cards that has both, in degrees."""
    for pair in pairs:
        found = card(headers, pair[0]), card(headers, pair[1])
        if all(isinstance(value, int | float) and -90 <= value <= 360 for value in found):
            return float(found[0]), float(found[1])
    return None


def redshift_of(
    headers: Sequence[Headerlike], facts: Mapping[str, Any], given: float | None
) -> float | None:
    """Redshift: the one given, else the header's (or its c z in km/s), else None."""
    if given is not None:
        return float(given)
    value = card(headers, *facts.get("redshift_cards", ()))
    velocity = card(headers, *facts.get("velocity_cards", ()))
    if isinstance(value, int | float) and value > -1:
        return float(value)
    if isinstance(velocity, int | float) and velocity > -_LIGHT:
        return float(velocity) / _LIGHT
    return None


def extinction_of(headers: Sequence[fits.Header], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes ``ebv`` (None where unknown), ``ebv_scale``, ``ebv_corrected``, ``ebv_law``."""
    about = facts["extinction"]
    value = card(headers, *about["cards"])
    known = isinstance(value, int | float) and value >= 0
    return {
        "ebv": float(value) if known else None,
        "ebv_scale": about["scale"] if known else None,
        "ebv_corrected": bool(about["corrected"]),
        "ebv_law": about.get("law"),
    }


def fatal_bits(about: Mapping[str, Any], given: Sequence[str | int] | str | int | None) -> int:
    """Flags that make a voxel useless, as one number whose bits they are.

    Parameters
    ----------
    about
        Facts of the survey's mask: ``name``, its ``bits`` by name, and those that are ``fatal``
        where nobody says otherwise (a list of names, or 'all': any bit, known or not).
    given
        Names or numbers (0 to 31) of bits to use instead; none of them: no flag is fatal.

    Raises
    ------
    InputError
        If a name is unknown or a number out of range.

    Examples
    --------
    >>> about = {"name": "DQ", "bits": {"HOT": 8, "LOST": 30}, "fatal": "all"}
    >>> fatal_bits(about, None) == 2**32 - 1, fatal_bits(about, ["HOT", 1])
    (True, 258)
    """
    if given is None:
        given = about["fatal"]
        if given == "all":
            return _ALL_BITS
    known = about["bits"]
    fatal = 0
    for bit in [given] if isinstance(given, str | int) else given:
        number = known.get(bit.strip().upper()) if isinstance(bit, str) else bit
        if number is None or isinstance(number, bool) or not 0 <= number < 32:
            names = ", ".join(f"{name} ({n})" for name, n in known.items())
            raise InputError(
                "mask_bits", expected=f"bits of {about['name']}, by number or out of {names}",
                found=repr(bit), remedy="leave it out to take the survey's advice",
            )  # fmt: skip
        fatal |= 1 << int(number)
    return fatal


def flagged(bits: NDArray[np.uint32], fatal: int) -> NDArray[np.bool_]:
    """Whether any of the fatal bits is set."""
    return np.asarray((bits & np.uint32(fatal)) != 0)


def lazily(
    function: Callable[..., NDArray[Any]], *arrays: da.Array, dtype: DTypeLike, **options: Any
) -> da.Array:
    """Apply a numpy function to arrays block by block, when they are computed."""
    out: da.Array = da.map_blocks(
        function, *arrays, dtype=dtype, token=task_name("read", function), **options
    )
    return out


def first_image(file: FitsFile) -> Hdu:
    """First HDU of two axes; InputError where there is none."""
    for hdu in file.hdus:
        if len(hdu.shape) == 2:
            return hdu
    raise InputError(
        file.path, expected="a 2-D image",
        found="the HDUs " + ", ".join(f"{hdu.name} {hdu.shape}" for hdu in file.hdus),
        remedy="name the HDU (hdu), or cut the plane out of the cube",
    )  # fmt: skip


def scaled(values: NDArray[np.float32], scale: np.float32) -> NDArray[np.float32]:
    """Values in another unit."""
    return values if scale == 1 else values * scale


def cube_dataset(
    flux: LazyArray,
    var: LazyArray,
    mask: LazyArray,
    wave: NDArray[np.float64],
    lsf: LazyArray | NDArray[np.float32] | None,
    chunks: tuple[Any, ...],
) -> xr.Dataset:
    """Dataset of an IFS cube; nothing is read.

    Parameters
    ----------
    flux, var, mask
        ``(n_wave, n_y, n_x)``, 1e-17 erg s-1 cm-2 Angstrom-1 per spaxel, its square, and bool
        (True = do not use).
    wave
        ``(n_wave,)``, Angstrom, vacuum.
    lsf
        1-sigma line-spread width in Angstrom, ``(n_wave,)`` or like ``flux``.
    chunks
        Of Dask along wave, y and x.
    """
    dims = ("wave", "y", "x")
    cubes = {"spec_flux": flux, "spec_var": var, "spec_mask": mask}
    if lsf is not None and len(lsf.shape) == 3:
        cubes["spec_lsf"] = lsf
    variables: dict[str, Any] = {
        name: (dims, as_dask(cube, chunks, name)) for name, cube in cubes.items()
    }
    if lsf is not None and len(lsf.shape) == 1:
        variables["spec_lsf"] = ("wave", lsf)
    coords = {"wave": wave, "y": np.arange(flux.shape[1]), "x": np.arange(flux.shape[2])}
    ds = xr.Dataset(variables, coords=coords)
    ds["wave"].attrs.update(units="Angstrom", long_name="wavelength in vacuum")
    return ds
