"""Header cards of a FITS product: keys of the primary HDU, world coordinates, units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits

import specphoto
from specphoto.cube import own_wcs
from specphoto.spectral.wavelength import vacuum_to_air

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from numpy.typing import NDArray

__all__ = [
    "CREATOR",
    "FLUX_BUNIT",
    "Cards",
    "axis_cards",
    "celestial_cards",
    "header_of",
    "primary_cards",
    "spectral_axis",
]

FLUX_BUNIT = "10**(-17) erg s-1 cm-2 Angstrom-1"
CREATOR = f"specphoto {specphoto.__version__}"
_PEER_BUNIT = "erg/s/cm^2/A"
_UNIT = 1e-17

# Channels may stray this far, in pixels, from the axis written in the header.
_AXIS_TOLERANCE = 0.02

Cards = list[tuple[str, Any, str]]


def primary_cards(ds: xr.Dataset, *, compat: bool = False) -> Cards:
    """Keys of the primary HDU, as piXedfit writes them; what is unknown is absent."""
    attrs = ds.attrs
    bands = [str(b) for b in ds["band"].values] if "band" in ds.coords else []
    fwhm = (attrs.get("psf") or {}).get("fwhm") or []
    cards: Cards = [
        ("NFILTERS", len(bands), "number of bands"),
        ("Z", attrs.get("redshift"), "redshift"),
        ("RA", attrs.get("ra"), "[deg] right ascension"),
        ("DEC", attrs.get("dec"), "[deg] declination"),
        ("GALEBV", attrs.get("photo_ebv", attrs.get("ebv")), "[mag] Galactic E(B-V)"),
        ("UNIT", _UNIT, "multiply the values by this"),
        ("BUNIT", _PEER_BUNIT if compat else FLUX_BUNIT, "unit of the values"),
        ("STRUCTPH", "(band,y,x)", "axes of the photometry"),
        ("STRUCTSP", "(wavelength,y,x)", "axes of the spectra"),
        ("FSAMP", attrs.get("fsamp"), "band that set the grid"),
        ("PIXSIZE", _rounded(attrs.get("pixel_scale")), "[arcsec] pixel side"),
        ("FPSFMTCH", attrs.get("psf_band"), "band whose PSF all were matched to"),
        ("PSFFWHM", fwhm[0] if len(fwhm) == 1 else None, "[arcsec] FWHM of the PSF"),
        ("SPECPHOT", 1, "1 = spectrophotometric cube"),
        ("IFSSURVE", attrs.get("survey"), "IFS survey"),
        *[(f"FIL{i}", band, f"band {i}") for i, band in enumerate(bands)],
        ("CREATOR", None if compat else CREATOR, "what wrote this file"),
    ]
    return [card for card in cards if card[1] is not None]


def _rounded(scale: float | None) -> float | None:
    # found from a matrix, 1.5 comes as 1.4999999999999967
    return None if scale is None else round(scale, 10)


def celestial_cards(ds: xr.Dataset, *, compat: bool = False) -> Cards:
    """Celestial WCS of the dataset's own pixels (a slice knows its sky), as a CD matrix.

    Empty when the dataset has no WCS. With `compat` as a PC matrix, and complete.

    Raises
    ------
    InputError
        If the pixel numbers in ``x`` or ``y`` are not evenly spaced.
    """
    if not ds.attrs.get("wcs"):
        return []
    wcs = own_wcs(ds)
    header = wcs.to_header(relax=True)
    cards: Cards = [(card.keyword, card.value, card.comment) for card in header.cards]
    if compat:
        return cards
    cards = [c for c in cards if not c[0].startswith(("PC", "CD", "WCSAXES"))]
    matrix = wcs.pixel_scale_matrix
    cards += [
        (f"CD{i + 1}_{j + 1}", float(matrix[i, j]), "[deg/pixel] transformation matrix")
        for i in range(2)
        for j in range(2)
    ]
    return cards


def axis_cards(dims: Sequence[str], celestial: Cards, spectral: dict[str, Any] | None) -> Cards:
    """World coordinates of one HDU with these dims (numpy order): sky, wavelength, or an index.

    Parameters
    ----------
    dims
        Dimensions in array order, such as ``("wave", "y", "x")``.
    celestial
        What :func:`celestial_cards` gave.
    spectral
        What :func:`spectral_axis` gave.
    """
    sky = tuple(dims[-2:]) == ("y", "x")
    if not (sky and celestial) and "wave" not in dims:
        return []
    cards: Cards = [("WCSAXES", len(dims), "number of world coordinate axes")]
    cards += celestial if sky else []
    for number, dim in enumerate(reversed(dims), start=1):
        if dim == "wave" and spectral:
            cards += _linear(number, **spectral, cunit="Angstrom")
        elif dim not in ("y", "x"):
            name = "WAVE_IDX" if dim == "wave" else dim.upper()[:8]
            cards += _linear(number, ctype=name, crval=0.0, cdelt=1.0, crpix=1.0)
    return cards


def _linear(
    number: int, *, ctype: str, crval: float, cdelt: float, crpix: float, cunit: str = ""
) -> Cards:
    unit = [(f"CUNIT{number}", cunit, "unit of the axis")] if cunit else []
    return [
        (f"CTYPE{number}", ctype, "kind of the axis"),
        *unit,
        (f"CRPIX{number}", float(crpix), "reference pixel"),
        (f"CRVAL{number}", float(crval), "value at the reference pixel"),
        (f"CD{number}_{number}", float(cdelt), "step at the reference pixel"),
    ]


def spectral_axis(
    wave: NDArray[np.float64], axis: dict[str, Any] | None = None
) -> dict[str, Any] | None:
    r"""Spectral axis of these channels: the survey's own where it holds, else found from them.

    A logarithmic axis is :math:`\lambda = \lambda_0 \exp[\Delta (p - p_0) / \lambda_0]`
    (``WAVE-LOG``), a linear one :math:`\lambda = \lambda_0 + \Delta (p - p_0)` (``WAVE``, or
    ``AWAV`` in air).

    Parameters
    ----------
    wave
        Vacuum wavelengths (n_wave,), Angstrom, increasing.
    axis
        ``{"ctype", "crval", "cdelt", "crpix"}`` of the survey's cube, of which `wave` may be a
        slice.

    Returns
    -------
    dict
        The same keys for these channels; None where they follow neither law.
    """
    guesses = [axis] if axis else []
    step = (wave[-1] - wave[0]) / max(wave.size - 1, 1) or 1.0
    ratio = np.log(wave[-1] / wave[0]) / max(wave.size - 1, 1)
    guesses.append({"ctype": "WAVE", "crval": wave[0], "cdelt": step, "crpix": 1.0})
    if ratio > 0:
        log = {"ctype": "WAVE-LOG", "crval": wave[0], "cdelt": wave[0] * ratio, "crpix": 1.0}
        guesses.append(log)
    for guess in guesses:
        found = _reindexed(wave, guess)
        if found:
            return found
    return None


def _reindexed(wave: NDArray[np.float64], axis: dict[str, Any]) -> dict[str, Any] | None:
    """Return the axis with its reference pixel counted in these channels, None if they stray."""
    crval, cdelt, crpix = (float(axis[key]) for key in ("crval", "cdelt", "crpix"))
    kind = str(axis["ctype"]).upper()
    log, vacuum = kind.endswith("-LOG"), kind.startswith("WAVE")
    value = wave if vacuum else vacuum_to_air(wave)
    steps = np.log(value / crval) * crval if log else value - crval
    pixel = crpix + steps / cdelt
    stride = round((pixel[-1] - pixel[0]) / (wave.size - 1)) if wave.size > 1 else 1
    first = round(float(pixel[0]))
    if stride < 1 or np.abs(pixel - first - stride * np.arange(wave.size)).max() > _AXIS_TOLERANCE:
        return None
    return {
        "ctype": ("WAVE" if vacuum else "AWAV") + ("-LOG" if log else ""),
        "crval": crval,
        "cdelt": cdelt * stride,
        "crpix": (crpix - first) / stride + 1.0,
    }


def header_of(
    cards: Cards, *, name: str, shape: tuple[int, ...], bitpix: int, primary: bool
) -> fits.Header:
    """Complete header of an image HDU: the mandatory cards, the name, then `cards`."""
    header = fits.Header()
    if primary:
        header["SIMPLE"] = (True, "conforms to FITS standard")
    else:
        header["XTENSION"] = ("IMAGE", "image extension")
    header["BITPIX"] = (bitpix, "array data type")
    header["NAXIS"] = (len(shape), "number of array dimensions")
    for number, size in enumerate(reversed(shape), start=1):
        header[f"NAXIS{number}"] = size
    if primary:
        header["EXTEND"] = True
    else:
        header["PCOUNT"] = (0, "number of parameters")
        header["GCOUNT"] = (1, "number of groups")
    for card in cards:
        header.append(card, end=True)
    header["EXTNAME"] = (name, "extension name")
    return header
