"""One calibrated image: what the user says of it, what its header says, its pixels on demand."""

from __future__ import annotations

import os
from dataclasses import KW_ONLY, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from astropy.io import fits
from astropy.wcs.utils import proj_plane_pixel_scales
from dask.base import is_dask_collection

from specphoto.errors import InputError
from specphoto.io import survey
from specphoto.io.fitsfile import open_fits
from specphoto.io.image_unit import flux_factor
from specphoto.io.psf_file import read_psf_image
from specphoto.photometry.filters import Filter, load_filter
from specphoto.spatial.geometry import PixelFrame
from specphoto.spatial.psf import PSF, known_psf, psf_attrs

if TYPE_CHECKING:
    from astropy.wcs import WCS
    from numpy.typing import NDArray

    from specphoto.io.fits_array import FitsArray
    from specphoto.io.fitsfile import FitsFile, Hdu

__all__ = ["CalibratedImage", "Image", "NoiseKind", "parse_image", "read_image"]

NoiseKind = Literal["error", "variance", "inverse variance", "weight"]

# Kernels are made for square pixels; sides may differ by this share.
_SQUARE = 0.02


@dataclass(frozen=True, eq=False)
class Image:
    """A calibrated image and what is known of it, for :func:`specphoto.photometry_from_images`.

    Parameters
    ----------
    data
        Path of a FITS file, or the pixels, ``(n_y, n_x)``, of numpy or Dask. NaN is unknown.
    band
        Filter name (:func:`specphoto.photometry.filters.load_filter`).
    wcs
        Celestial WCS; by default the header's. Needed for pixels without a file.
    hdu
        Name of the image's HDU; by default SCI, else the first of two axes.
    unit
        Unit of a pixel; by default the card BUNIT. F_lambda, F_nu, nanomaggies, per pixel or per
        solid angle (``"MJy/sr"``); or counts or electrons, per second or not, which a
        ``photflam`` calibrates.
    zero_point
        AB magnitude of one unit per pixel.
    photflam
        Mean F_lambda of one count per second, erg s-1 cm-2 Angstrom-1; by default the card
        PHOTFLAM.
    noise
        Map of the noise: pixels, the name of an HDU of the same file, or the path of another one.
        ``"estimate"`` takes the scatter of the border for all pixels. By default errors are
        unknown (NaN).
    noise_kind
        What the map is: 'error' (1 sigma), 'variance', 'inverse variance', in the unit of the
        image; or 'weight', an inverse variance of unknown scale (exposure time), which the scatter
        of the border sets. Pixels of no positive, finite noise or weight are unknown.
    psf
        FWHM in arcsec, a :class:`~specphoto.spatial.psf.PSF`, a ``psf`` attribute, the name of a
        band of known PSF, or the path of an image of the PSF.
    sky
        Pedestal to be subtracted, in the image's unit; ``"estimate"`` takes the mode of the
        border; ``"none"`` subtracts nothing.
    mask
        Pixels not to be used (non-zero): as ``noise``.
    name
        What messages call it; by default the file's name.
    """

    data: str | os.PathLike[str] | NDArray[Any]
    band: str
    _: KW_ONLY
    wcs: WCS | None = None
    hdu: str | None = None
    unit: str | None = None
    zero_point: float | None = None
    photflam: float | None = None
    noise: str | os.PathLike[str] | NDArray[Any] | None = None
    noise_kind: NoiseKind = "error"
    psf: PSF | float | str | os.PathLike[str] | dict[str, Any] | None = None
    sky: float | str = "none"
    mask: str | os.PathLike[str] | NDArray[Any] | None = None
    name: str | None = None


@dataclass(frozen=True, eq=False)
class CalibratedImage:
    """What :func:`read_image` finds; pixels are arrays, or read when a task asks for them.

    Attributes
    ----------
    name
        For messages.
    curve
        The filter.
    frame
        WCS and shape.
    psf
        None where unknown.
    factor
        Flux of one image unit in 1e-17 erg s-1 cm-2 Angstrom-1 per pixel.
    flux, noise, mask
        ``(n_y, n_x)`` in image units; None where there is none.
    noise_kind
        As in :class:`Image`, or 'none', or 'estimate'.
    sky
        Pedestal in image units, or 'estimate'.
    about
        What is known of it, for the provenance.
    """

    name: str
    curve: Filter
    frame: PixelFrame
    psf: PSF | None
    factor: float
    flux: FitsArray | NDArray[Any]
    noise: FitsArray | NDArray[Any] | None
    mask: FitsArray | NDArray[Any] | None
    noise_kind: str
    sky: float | Literal["estimate"]
    about: dict[str, Any] = field(default_factory=dict)


def read_image(image: Image) -> CalibratedImage:
    """Header and calibration of an image now, its pixels when they are asked for.

    Raises
    ------
    InputError
        If there is no such file, HDU, filter, WCS or unit, or maps have another shape.
    """
    if not isinstance(image, Image):
        raise InputError(
            "photometry_from_images", expected="specphoto.Image objects",
            found=f"a {type(image).__name__}",
            remedy="describe each image: specphoto.Image(path, band, psf=...)",
        )  # fmt: skip
    file, hdu = _opened(image)
    name = image.name or (Path(file.path).name if file else f"image in {image.band}")
    where = f"{file.path}, {hdu.name}" if file and hdu else name
    header = _header(file, hdu)
    curve = load_filter(image.band)
    wcs = _wcs(image, hdu, where)
    flux = _pixels(image.data, hdu, file, where)
    shape = (int(flux.shape[0]), int(flux.shape[1]))
    assumed: list[str] = []
    side = proj_plane_pixel_scales(wcs) * 3600.0
    factor, unit = flux_factor(
        header, curve.pivot, float(side[0] * side[1]), where, assumed,
        unit=image.unit, zero_point=image.zero_point, photflam=image.photflam,
    )  # fmt: skip
    estimated = isinstance(image.noise, str) and image.noise == "estimate"
    noise = None if estimated else _map(image.noise, file, shape, f"{where}: noise")
    kind = "estimate" if estimated else "none" if noise is None else _kind(image, where)
    psf = _psf(image.psf, curve.pivot, where)
    about = {
        "input": name, "band": image.band, "unit": unit, "factor": factor,
        "hdu": hdu.name if hdu else None, "noise": kind,
        "noise_from": None if estimated else _said(image.noise),
        "mask": _said(image.mask), "sky": image.sky,
        "psf": psf_attrs(psf), "pixel_scale": float(np.sqrt(side[0] * side[1])),
        "assumed": assumed,
    }  # fmt: skip
    return CalibratedImage(
        name, curve, PixelFrame(wcs, 0, 0, shape), psf, factor, flux, noise,
        _map(image.mask, file, shape, f"{where}: mask"), kind, _sky(image, where), about,
    )  # fmt: skip


def _opened(image: Image) -> tuple[FitsFile | None, Hdu | None]:
    if not isinstance(image.data, str | os.PathLike):
        return None, None
    file = open_fits(image.data)
    if image.hdu is not None:
        return file, file[image.hdu.strip().upper()]
    if "SCI" in file:
        return file, file["SCI"]
    return file, survey.first_image(file)


def _header(file: FitsFile | None, hdu: Hdu | None) -> fits.Header:
    """Header of the image; what it does not say, that of the primary HDU does."""
    if file is None or hdu is None:
        return fits.Header()
    header = hdu.header.copy()
    header.extend(file.hdus[0].header, unique=True, strip=True)
    return header


def _wcs(image: Image, hdu: Hdu | None, where: str) -> WCS:
    if image.wcs is not None:
        wcs = image.wcs.celestial
    elif hdu is not None:
        wcs = survey.celestial(hdu.header, where)
    else:
        raise InputError(
            where, expected="a celestial WCS beside the pixels", found="none",
            remedy="give it: Image(pixels, band, wcs=...)",
        )  # fmt: skip
    side = proj_plane_pixel_scales(wcs) * 3600.0
    if not np.all(np.isfinite(side)) or abs(side[0] / side[1] - 1.0) > _SQUARE:
        raise InputError(
            f"{where}: WCS", expected="square pixels",
            found=f"{side[0]:.4g} by {side[1]:.4g} arcsec", remedy="resample the image first",
        )  # fmt: skip
    return wcs


def _pixels(
    data: Any, hdu: Hdu | None, file: FitsFile | None, where: str
) -> FitsArray | NDArray[Any]:
    """Pixels of two axes, not read where they are in a file."""
    if file is not None and hdu is not None:
        file.require(hdu.name, ndim=2)
        return file.array(hdu.name, dtype=np.float64)
    pixels = data if is_dask_collection(data) else np.asarray(data)
    if pixels.ndim != 2 or pixels.dtype.kind not in "fiub":
        raise InputError(
            where, expected="numbers of two axes (y, x)",
            found=f"{pixels.dtype} of shape {pixels.shape}", remedy="take one plane",
        )  # fmt: skip
    return pixels


def _map(
    given: Any, file: FitsFile | None, shape: tuple[int, int], where: str
) -> FitsArray | NDArray[Any] | None:
    """Map of noise or mask: an array, an HDU of the image's file, or another file."""
    if given is None:
        return None
    if not isinstance(given, str | os.PathLike):
        found = _pixels(given, None, None, where)
    else:
        name = str(given).strip().upper()
        if file is not None and name in file:
            found = _pixels(None, file[name], file, where)
        else:
            found = _other_file(given, file, where)
    if tuple(found.shape) != shape:
        raise InputError(
            where, expected=f"a map of the image's shape {shape}", found=f"{tuple(found.shape)}",
            remedy="give the one that belongs to the image",
        )  # fmt: skip
    return found


def _other_file(
    given: str | os.PathLike[str], file: FitsFile | None, where: str
) -> FitsArray | NDArray[Any]:
    if not Path(given).is_file():
        names = "the array has none" if file is None else ", ".join(h.name for h in file.hdus)
        raise InputError(
            where, expected="an HDU of the image's file, or a file", found=f"{str(given)!r}",
            remedy=f"give one of the HDUs ({names}) or the path of a FITS image",
        )  # fmt: skip
    other = open_fits(given)
    return other.array(survey.first_image(other).name, dtype=np.float64)


def _kind(image: Image, where: str) -> str:
    if image.noise_kind not in get_args(NoiseKind):
        raise InputError(
            f"{where}: noise_kind", expected=" or ".join(map(repr, get_args(NoiseKind))),
            found=repr(image.noise_kind), remedy="choose one",
        )  # fmt: skip
    return image.noise_kind


def _sky(image: Image, where: str) -> float | Literal["estimate"]:
    if image.sky == "none":
        return 0.0
    if image.sky == "estimate":
        return "estimate"
    if isinstance(image.sky, str) or not np.isfinite(image.sky):
        raise InputError(
            f"{where}: sky", expected="a number in the image's unit, 'estimate' or 'none'",
            found=repr(image.sky), remedy="choose one",
        )  # fmt: skip
    return float(image.sky)


def _psf(given: Any, wave: float, where: str) -> PSF | None:
    if given is None:
        return None
    if isinstance(given, str | os.PathLike):
        return read_psf_image(given) if Path(given).is_file() else PSF.named(str(given))
    return known_psf(given, None, wave, where)


def _said(given: Any) -> str | None:
    """What was given for a map, as a text."""
    if given is None:
        return None
    return Path(given).name if isinstance(given, str | os.PathLike) else "array"


_NUMBERS = ("zero_point", "photflam", "psf", "sky")
_TEXTS = ("band", "hdu", "unit", "noise", "noise_kind", "mask", "name")


def parse_image(text: str) -> Image:
    """Image from one line of text, ``path,band=...,option=...``, as a command line has it.

    Raises
    ------
    InputError
        If an option is unknown, has no value or is given twice, or the band is missing.

    Examples
    --------
    >>> image = parse_image("a478.fits, band=hst_wfpc2_f814w, psf=0.12, noise=WHT, sky=estimate")
    >>> image.data, image.band, image.psf, image.noise, image.sky
    ('a478.fits', 'hst_wfpc2_f814w', 0.12, 'WHT', 'estimate')
    """
    path, *rest = (part.strip() for part in text.split(","))
    options: dict[str, Any] = {}
    for part in rest:
        key, equal, value = (piece.strip() for piece in part.partition("="))
        if not equal or not value or key in options or key not in (*_NUMBERS, *_TEXTS):
            raise InputError(
                f"image {text!r}", expected="path,band=...,option=... with each option once, out "
                "of " + ", ".join(f.name for f in fields(Image) if f.name in (*_NUMBERS, *_TEXTS)),
                found=repr(part), remedy="correct the option",
            )  # fmt: skip
        options[key] = _number(value) if key in _NUMBERS else value
    if "band" not in options:
        raise InputError(
            f"image {text!r}", expected="the filter of the image", found="none",
            remedy="add ,band=NAME (sdss_r, hst_wfpc2_f814w, ...)",
        )  # fmt: skip
    return Image(path, options.pop("band"), **options)


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
