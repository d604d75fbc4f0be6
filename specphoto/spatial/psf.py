"""Point-spread functions: circular models (Gaussian or Moffat) by their FWHM, or images of a star.

A width is that of a star in the data, the pixel included. The kernels that bring one PSF to another
are in :mod:`specphoto.spatial.kernel`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import yaml

from specphoto.errors import InputError
from specphoto.spatial.psf_image import measure_star, resample

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeAlias

    from numpy.typing import ArrayLike, NDArray

    PSFOption: TypeAlias = "PSF | float | str | Mapping[str, Any]"

__all__ = [
    "PSF",
    "broadest",
    "known_psf",
    "moffat_image",
    "psf_attrs",
    "psf_nodes",
]

FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))


@dataclass(frozen=True)
class PSF:
    """A point-spread function: a circular model or an image.

    Parameters
    ----------
    model
        'gaussian', 'moffat' or 'image'.
    fwhm
        Full width at half maximum in arcsec (models).
    beta
        Moffat exponent, ``I = (1 + (r / alpha)^2)^-beta``.
    image, scale
        Image of a point source, ``(n_y, n_x)``, sum 1, and its pixel side in arcsec.
    centre
        Of the star in the image, ``(y, x)`` in pixels, 0-based; by default the middle.
    """

    model: Literal["gaussian", "moffat", "image"]
    fwhm: float
    beta: float | None = None
    image: NDArray[np.float64] | None = None
    scale: float | None = None
    centre: tuple[float, float] | None = None

    @classmethod
    def from_attrs(
        cls, attrs: Mapping[str, Any], wave: float, image: NDArray[np.float64] | None = None
    ) -> PSF:
        """PSF at a wavelength in Angstrom from the ``psf`` attribute of a dataset.

        Raises
        ------
        InputError
            If it is that of an image (the variable ``target_psf``) and there is none.
        """
        if attrs["model"] == "image":
            return cls._of_image(attrs, image)
        nodes = np.asarray(attrs.get("wave") or [wave], dtype=float)
        fwhm = float(np.interp(wave, nodes, np.asarray(attrs["fwhm"], dtype=float)))
        beta = attrs.get("beta")
        if attrs["model"] == "moffat" and beta is not None:
            values = np.broadcast_to(np.asarray(beta, dtype=float), nodes.shape)
            return cls("moffat", fwhm, float(np.interp(wave, nodes, values)))
        return cls("gaussian", fwhm)

    @classmethod
    def _of_image(cls, attrs: Mapping[str, Any], image: NDArray[np.float64] | None) -> PSF:
        if image is None:
            raise InputError(
                "PSF", expected="the image that the attribute 'psf' speaks of",
                found="no variable target_psf",
                remedy="keep that variable with the dataset, or give the PSF (PSF.from_image)",
            )  # fmt: skip
        y, x = attrs["centre"]
        values = np.asarray(image, dtype=float)
        return cls("image", float(attrs["fwhm"][0]), None, values, float(attrs["scale"]), (y, x))

    @classmethod
    def from_image(
        cls, image: ArrayLike, scale: float, *, sky: float | None = None, name: str = "PSF image"
    ) -> PSF:
        """PSF from an image of a point source, in the orientation of the data it is used on.

        The level of the sky is taken off, the image is normalised to sum 1 and its core becomes the
        centre (:func:`~specphoto.spatial.psf_image.measure_star`); it is not changed in place.

        Parameters
        ----------
        image
            ``(n_y, n_x)``, the pixel in it, as an image of a star has; some 6 FWHM wide or more.
        scale
            Side of its pixels in arcsec.
        sky
            Level of the sky in the image's unit; by default the median of the outermost pixels. It
            matters: 26% of the light of the empirical PSF of 2MASS Ks is such a level.
        name
            What the messages call it, such as a file.

        Raises
        ------
        InputError
            If it is not finite, holds no light, has its star off the middle by more than a tenth of
            the side or cut off, or if the pixel scale is unknown.
        """
        if scale is None or not np.isfinite(scale) or scale <= 0:
            raise InputError(
                name, expected="a known pixel scale in arcsec", found=f"{scale}",
                remedy="give the side of the PSF image's pixels (scale)",
            )  # fmt: skip
        star = measure_star(image, sky=sky, name=name)
        return cls("image", star.fwhm * scale, None, star.image, float(scale), star.centre)

    @classmethod
    def named(cls, band: str) -> PSF:
        """PSF of a survey's band, such as 'wise_w2': the table ``data/psf.yaml`` and its sources.

        Raises
        ------
        InputError
            If the table has no such band; the message names those nearest.

        Examples
        --------
        >>> PSF.named("wise_w2").fwhm
        6.37
        """
        table = _table()
        if band not in table:
            near = difflib.get_close_matches(str(band), table, n=3, cutoff=0.5)
            nearest = f"; the nearest known are {', '.join(near)}" if near else ""
            raise InputError(
                f"PSF of {band!r}", expected=f"one of {len(table)} bands with a known PSF",
                found=f"none of that name{nearest}", remedy="give its FWHM in arcsec, or an image",
            )  # fmt: skip
        return table[band]

    @property
    def area(self) -> float:
        """Noise-equivalent area in arcsec^2, the inverse of the integral of the PSF squared.

        By it PSFs are ordered: unlike the FWHM it counts the wings.
        """
        if self.image is not None and self.scale is not None:
            return self.scale**2 / float((self.image**2).sum())
        if self.model == "moffat" and self.beta is not None:
            alpha = self.fwhm / (2.0 * np.sqrt(2.0 ** (1.0 / self.beta) - 1.0))
            return float(np.pi * alpha**2 * (2.0 * self.beta - 1.0) / (self.beta - 1.0) ** 2)
        return float(4.0 * np.pi * (self.fwhm / FWHM_PER_SIGMA) ** 2)

    def __str__(self) -> str:
        shape = "" if self.beta is None else f", beta {self.beta:.3g}"
        kind = "PSF image" if self.model == "image" else self.model.capitalize()
        return f"{kind} of {self.fwhm:.3g} arcsec{shape}"

    def sample(self, scale: float, size: int) -> NDArray[np.float64]:
        """Image of the PSF, ``(size, size)`` pixels of ``scale`` arcsec, centred, sum 1.

        Values at pixel centres: models and images have the pixel of their data in them already,
        because widths are measured on stars. It is not integrated over pixels again.
        """
        if self.image is not None and self.scale is not None:
            image = resample(self.image, self._middle(self.image), self.scale / scale, size)
            return np.asarray(image / image.sum())
        if self.model == "moffat" and self.beta is not None:
            return moffat_image(self.fwhm / scale, self.beta, size)
        axis = np.arange(size) - (size - 1) // 2
        profile = np.exp(-0.5 * (axis * FWHM_PER_SIGMA * scale / self.fwhm) ** 2)
        image = np.outer(profile, profile)
        return np.asarray(image / image.sum())

    def _middle(self, image: NDArray[np.float64]) -> tuple[float, float]:
        return self.centre or ((image.shape[0] - 1) / 2, (image.shape[1] - 1) / 2)

    def attrs(self) -> dict[str, Any]:
        """``psf`` attribute of a dataset; the pixels of an image go into a variable."""
        beta = None if self.beta is None else [self.beta]
        about = {"model": self.model, "wave": [], "fwhm": [self.fwhm], "beta": beta}
        if self.image is None:
            return about
        return {**about, "scale": self.scale, "centre": list(self._middle(self.image))}


@cache
def _table() -> Mapping[str, PSF]:
    """PSF of every band in ``data/psf.yaml``."""
    text = files("specphoto").joinpath("data", "psf.yaml").read_text("utf-8")
    table = {}
    for group in yaml.safe_load(text):
        for band, value in group["psf"].items():
            fwhm, beta = value if isinstance(value, list) else (value, None)
            table[band] = PSF(group["model"], float(fwhm), beta)
    return table


def psf_nodes(
    option: PSFOption | Sequence[tuple[float, PSFOption]] | None, stated: Any, name: str
) -> tuple[NDArray[np.float64], tuple[PSF, ...]]:
    """PSF at the wavelengths where it is known; one if it does not vary.

    Parameters
    ----------
    option
        A :class:`PSF`, a FWHM in arcsec (of a Gaussian), a band's name (:meth:`PSF.named`), a
        ``psf`` attribute (see :mod:`specphoto.cube`), or a sequence of (wavelength in Angstrom, any
        of the first three); None takes what is stated.
    stated
        What the file says: any of these.
    name
        Of the data, for the message.

    Returns
    -------
    wave
        In Angstrom, increasing, ``(n_node,)``; 0 where there is only one.
    psfs
        The PSFs there.

    Raises
    ------
    InputError
        If neither says what the PSF is, or a value is no PSF.

    Examples
    --------
    >>> wave, psfs = psf_nodes([(9000.0, 2.4), (5000.0, 2.6)], None, "cube")
    >>> wave, [psf.fwhm for psf in psfs]
    (array([5000., 9000.]), [2.6, 2.4])
    """
    given = stated if option is None else option
    if isinstance(given, Mapping):
        nodes = [float(w) for w in given.get("wave") or [0.0]]
        pairs = [(wave, PSF.from_attrs(given, wave)) for wave in nodes]
    elif isinstance(given, Sequence) and not isinstance(given, str):
        pairs = _pairs(given, name)
    else:
        pairs = [(0.0, _psf(given, name))]
    pairs.sort(key=lambda pair: pair[0])
    wave, psfs = np.array([w for w, _ in pairs]), tuple(psf for _, psf in pairs)
    if not psfs or np.any(np.diff(wave) <= 0) or not np.all(np.isfinite(wave)):
        raise InputError(
            f"{name}: PSF", expected="one PSF at each of some wavelengths in Angstrom",
            found=", ".join(f"{w:g}" for w in wave) or "no wavelength",
            remedy="give pairs (wavelength, PSF or FWHM), each wavelength once",
        )  # fmt: skip
    if all(psf is psfs[0] or _same_model(psf, psfs[0]) for psf in psfs):
        return np.zeros(1), psfs[:1]
    return wave, psfs


def _pairs(given: Sequence[Any], name: str) -> list[tuple[float, PSF]]:
    try:
        pairs = [(float(wave), value) for wave, value in given]
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name}: PSF", expected="pairs (wavelength in Angstrom, PSF or FWHM in arcsec)",
            found=f"{given!r:.80}", remedy="give one PSF, or pairs",
        ) from error  # fmt: skip
    return [(wave, _psf(value, name)) for wave, value in pairs]


def _psf(given: Any, name: str) -> PSF:
    """One PSF of a PSF, a name or a FWHM."""
    if isinstance(given, PSF):
        return given
    if isinstance(given, str):
        return PSF.named(given)
    if not isinstance(given, int | float | np.number) or not np.isfinite(given) or given <= 0:
        raise InputError(
            f"{name}: PSF", expected="a FWHM in arcsec in the header or as an option",
            found=f"{given}", remedy="give source_psf (cube) or target_psf (images)",
        )  # fmt: skip
    return PSF("gaussian", float(given))


def _same_model(one: PSF, other: PSF) -> bool:
    """Whether two models have equal parameters; images never have."""
    known = one.image is None and other.image is None
    return known and (one.model, one.fwhm, one.beta) == (other.model, other.fwhm, other.beta)


def broadest(psfs: Iterable[PSF]) -> PSF:
    """Find the PSF of the largest noise-equivalent area: the one that the others are matched to.

    Examples
    --------
    >>> broadest([PSF("gaussian", 2.5), PSF("moffat", 2.4, 2.5)]).model
    'moffat'
    """
    return max(psfs, key=lambda psf: psf.area)


def known_psf(option: PSF | float | None, stated: Any, wave: float, name: str) -> PSF:
    """PSF at a wavelength: the one given, else the one stated.

    Parameters
    ----------
    option, stated
        A :class:`PSF`, a FWHM in arcsec (of a Gaussian), a ``psf`` attribute, or None.
    wave
        In Angstrom.
    name
        Of the data, for the message.

    Raises
    ------
    InputError
        If neither says what it is.
    """
    given = stated if option is None else option
    if isinstance(given, PSF):
        return given
    if isinstance(given, dict):
        return PSF.from_attrs(given, wave)
    if given is None or not np.isfinite(given) or given <= 0:
        raise InputError(
            f"{name}: PSF", expected="a FWHM in arcsec in the header or as an option",
            found=f"{given}", remedy="give source_psf (cube) or target_psf (images)",
        )  # fmt: skip
    return PSF("gaussian", float(given))


def psf_attrs(psf: Any) -> dict[str, Any] | None:
    """``psf`` attribute of a PSF, a FWHM or an attribute (:meth:`PSF.attrs`)."""
    if psf is None or isinstance(psf, dict):
        return psf
    return (psf if isinstance(psf, PSF) else PSF("gaussian", float(psf))).attrs()


def moffat_image(fwhm: float, beta: float, size: int) -> NDArray[np.float64]:
    """Moffat profile, FWHM in pixels, on ``(size, size)`` pixels, centred, sum 1."""
    axis = np.arange(size) - (size - 1) // 2
    alpha = fwhm / (2.0 * np.sqrt(2.0 ** (1.0 / beta) - 1.0))
    image = (1.0 + (axis[:, None] ** 2 + axis[None, :] ** 2) / alpha**2) ** -beta
    return np.asarray(image / image.sum())
