"""Flux of one image unit, from BUNIT, PHOTFLAM or a zero point."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
from astropy import units

from specphoto.errors import InputError
from specphoto.io import survey
from specphoto.quiet import quietly

if TYPE_CHECKING:
    from astropy.io import fits

__all__ = ["flux_factor"]

_F_LAMBDA = 1e-17 * units.erg / units.s / units.cm**2 / units.AA
_LIGHT_SPEED = 2.99792458e18  # Angstrom / s
_AB_ZERO = 48.6

# Words of headers that astropy takes for something else (A, S) or does not know.
_WORDS = {
    "count": "ct", "counts": "ct", "cts": "ct", "dn": "ct", "adu": "ct", "electrons": "electron",
    "e": "electron", "a": "Angstrom", "ang": "Angstrom", "angstroms": "Angstrom", "s": "s",
    "sec": "s", "second": "s", "seconds": "s", "ergs": "erg", "pixel": "pix", "pixels": "pix",
    "spaxel": "pix", "beam": "beam", "jy": "Jy", "hz": "Hz", "sr": "sr", "erg": "erg", "cm": "cm",
    "pix": "pix", "maggy": "AB", "maggies": "AB", "mgy": "AB", "nanomaggy": "1e-9 AB",
    "nanomaggies": "1e-9 AB", "nmgy": "1e-9 AB",
}  # fmt: skip


def flux_factor(
    header: fits.Header,
    pivot: float,
    area: float,
    where: str,
    assumed: list[str],
    *,
    unit: str | None = None,
    zero_point: float | None = None,
    photflam: float | None = None,
) -> tuple[float, str]:
    r"""Photon-weighted mean F_lambda of one image unit in a pixel.

    A flux density per frequency is the one of an AB magnitude,
    :math:`\langle F_\lambda\rangle = F_\nu c / \lambda_p^2`, exact for any spectrum. PHOTFLAM is
    the mean F_lambda of one count per second already.

    Parameters
    ----------
    header
        Of the image; may be empty.
    pivot
        Of the filter, Angstrom.
    area
        Of a pixel, arcsec2.
    where
        File and HDU, for messages.
    assumed
        Gets what the header does not say.
    unit, zero_point, photflam
        As in :class:`specphoto.io.image_file.Image`.

    Returns
    -------
    factor, text
        In 1e-17 erg s-1 cm-2 Angstrom-1 per image unit; and the calibration in words.

    Raises
    ------
    InputError
        If no unit is known, two are given, or it is no flux.
    """
    if zero_point is not None:
        if unit is not None or photflam is not None or not np.isfinite(zero_point):
            raise InputError(
                f"{where}: zero_point", expected="one finite calibration",
                found=f"zero_point {zero_point}, unit {unit}, photflam {photflam}",
                remedy="give zero_point alone, or unit and photflam",
            )  # fmt: skip
        f_nu = 10.0 ** (-0.4 * (float(zero_point) + _AB_ZERO))
        factor = f_nu * _LIGHT_SPEED / pivot**2 / 1e-17
        return factor, f"AB zero point {float(zero_point):g} mag"
    text = unit or survey.card([header], "BUNIT")
    if text is None and photflam is not None:
        text = "count/s"
    if text is None:
        raise InputError(
            where, expected="the unit of the image (card BUNIT)", found="none",
            remedy="give unit ('nanomaggy', 'MJy/sr', 'count/s' with photflam) or zero_point (AB)",
        )  # fmt: skip
    parsed = _parse(str(text), where)
    if {units.ct, units.electron} & set(parsed.bases):
        return _counts(parsed, str(text), header, photflam, where, assumed)
    if photflam is not None:
        raise InputError(
            f"{where}: photflam", expected="an image in counts per second",
            found=f"one in {text}", remedy="leave photflam out, or give unit='count/s'",
        )  # fmt: skip
    return _flux(parsed, str(text), pivot, area, where), str(text)


def _parse(text: str, where: str) -> units.UnitBase:
    # a letter that follows a digit is an exponent's; 'e-' is an electron
    plain = re.sub(r"(?<![0-9.])[eE]-(?![0-9])", "electron", text)
    plain = re.sub(r"(?<![0-9.A-Za-z])[A-Za-z]+", lambda m: _word(m.group()), plain)
    try:
        with quietly(units.UnitsWarning):
            return units.Unit(plain)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{where}: unit", expected="a unit that can be read",
            found=repr(text), remedy="give unit ('MJy/sr', 'nanomaggy', 'count/s', ...) or "
            "zero_point (AB)",
        ) from error  # fmt: skip


def _word(word: str) -> str:
    # headers in capitals: MJY is in practice mega, not milli
    if word in ("MJY", "MJy"):
        return "MJy"
    return _WORDS.get(word.lower(), word)


def _counts(
    parsed: units.UnitBase, text: str, header: fits.Header, photflam: float | None, where: str,
    assumed: list[str],
) -> tuple[float, str]:  # fmt: skip
    """Counts or electrons, calibrated by PHOTFLAM for one of them per second."""
    number = survey.card([header], "PHOTFLAM") if photflam is None else photflam
    if not isinstance(number, int | float) or not 0 < number < np.inf:
        raise InputError(
            where, expected=f"what one {text} is worth (card PHOTFLAM)", found=repr(number),
            remedy="give photflam (erg s-1 cm-2 A-1 of one count per second) or zero_point (AB)",
        )  # fmt: skip
    one = next(u for u in (units.ct, units.electron) if u in parsed.bases)
    worth = f"{text}, PHOTFLAM {float(number):g}"
    if parsed.is_equivalent(one / units.s):
        return float(number) * parsed.to(one / units.s) / 1e-17, worth
    time = survey.card([header], "EXPTIME")
    if not (parsed.is_equivalent(one) and isinstance(time, int | float) and time > 0):
        raise InputError(
            where, expected="counts per second, or counts and the time (card EXPTIME)",
            found=f"unit {text}, EXPTIME {time!r}", remedy="give zero_point (AB) instead",
        )  # fmt: skip
    survey.assume(where, assumed, f"{text} summed over EXPTIME = {float(time):g} s")
    return float(number) * parsed.to(one) / float(time) / 1e-17, worth


def _flux(parsed: units.UnitBase, text: str, pivot: float, area: float, where: str) -> float:
    """Flux density per pixel, or per solid angle times the pixel's."""
    density = units.spectral_density(pivot * units.AA)
    for whole, size in (
        (parsed, 1.0),
        (parsed * units.pix, 1.0),
        (parsed * units.arcsec**2, area),
    ):
        try:
            return float(whole.to(_F_LAMBDA, equivalencies=density)) * size
        except units.UnitConversionError:
            continue
    raise InputError(
        f"{where}: unit", expected="a flux density per pixel or per solid angle", found=repr(text),
        remedy="convert the image (fluxes per beam have no pixel), or give unit or zero_point",
    )  # fmt: skip
