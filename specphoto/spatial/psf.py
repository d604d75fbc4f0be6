"""Point-spread functions and the kernels that match one to another.

A PSF is a circular model (Gaussian or Moffat) given by its FWHM, or an image of a star. The
matching kernel ``K`` on the cube's own pixel grid turns the cube's PSF into the target's,
``PSF_in * K = PSF_out``; it has odd sides, is centred on its middle pixel and sums to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from photutils.psf_matching import make_wiener_kernel
from scipy import ndimage, optimize

from specphoto.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = [
    "PSF",
    "gaussian_kernel",
    "known_psf",
    "matching_kernel",
    "moffat_image",
    "psf_attrs",
]

FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))

# Two PSFs whose FWHM differ by less than this share are the same PSF: the kernel is a delta.
_SAME = 0.005
# Wings beyond this many sigma (6e-5 of a 2-D Gaussian) are cut and the kernel renormalised.
_REACH = 4.4
# A kernel made in Fourier space is cut to the square that holds all but this share of it: a
# Moffat's wings are long, and renormalising them away would make the target too sharp.
_WINGS = 3e-4


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
        Image of a point source, ``(n_y, n_x)``, and its pixel side in arcsec.
    """

    model: Literal["gaussian", "moffat", "image"]
    fwhm: float
    beta: float | None = None
    image: NDArray[np.float64] | None = None
    scale: float | None = None

    @classmethod
    def from_attrs(cls, attrs: Mapping[str, Any], wave: float) -> PSF:
        """PSF at a wavelength in Angstrom from the ``psf`` attribute of a dataset."""
        nodes = np.asarray(attrs.get("wave") or [wave], dtype=float)
        fwhm = float(np.interp(wave, nodes, np.asarray(attrs["fwhm"], dtype=float)))
        beta = attrs.get("beta")
        if attrs["model"] == "moffat" and beta is not None:
            values = np.broadcast_to(np.asarray(beta, dtype=float), nodes.shape)
            return cls("moffat", fwhm, float(np.interp(wave, nodes, values)))
        return cls("gaussian", fwhm)

    @classmethod
    def from_image(cls, image: NDArray[np.float64], scale: float) -> PSF:
        """PSF from an image of a point source; its FWHM is that of a Gaussian of the same peak.

        The image is normalised to sum 1 and recentred on its centroid; it is not changed in place.
        """
        norm = np.array(image, dtype=float)
        if norm.ndim != 2 or not np.all(np.isfinite(norm)) or norm.sum() <= 0:
            raise InputError(
                "PSF image", expected="a finite 2-D image with a positive sum",
                found=f"shape {norm.shape} and sum {norm.sum():g}",
                remedy="mask or trim the image first",
            )  # fmt: skip
        norm /= norm.sum()
        fwhm = scale * FWHM_PER_SIGMA / np.sqrt(2.0 * np.pi * norm.max())
        return cls("image", float(fwhm), None, norm, scale)

    def sample(self, scale: float, size: int) -> NDArray[np.float64]:
        """Image of the PSF, ``(size, size)`` pixels of ``scale`` arcsec, centred, sum 1."""
        if self.image is not None and self.scale is not None:
            return _resample(self.image, self.scale / scale, size)
        if self.model == "moffat" and self.beta is not None:
            return moffat_image(self.fwhm / scale, self.beta, size)
        axis = np.arange(size) - (size - 1) // 2
        profile = np.exp(-0.5 * (axis * FWHM_PER_SIGMA * scale / self.fwhm) ** 2)
        image = np.outer(profile, profile)
        return np.asarray(image / image.sum())


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
    """``psf`` attribute of a PSF, a FWHM or an attribute; an image is told of by its FWHM."""
    if psf is None or isinstance(psf, dict):
        return psf
    if not isinstance(psf, PSF):
        psf = PSF("gaussian", float(psf))
    model = "moffat" if psf.model == "moffat" else "gaussian"
    beta = None if psf.beta is None else [psf.beta]
    return {"model": model, "wave": [], "fwhm": [psf.fwhm], "beta": beta}


def matching_kernel(source: PSF, target: PSF, scale: float) -> NDArray[np.float64]:
    r"""Kernel that brings the source PSF to the target PSF on a grid of ``scale`` arcsec.

    Two Gaussians give a Gaussian, :math:`\sigma_K^2 = \sigma_t^2 - \sigma_s^2`. Any other pair
    is matched in Fourier space with a Wiener-regularised ratio (photutils), the Laplacian
    penalty of pypher (Boucaud et al. 2016, A&A 596, A63) holding down the frequencies that the
    source does not contain.

    Parameters
    ----------
    source, target
        PSF of the cube and PSF wanted.
    scale
        Pixel side of the cube in arcsec.

    Returns
    -------
    numpy.ndarray
        ``(n, n)``, *n* odd, sum 1.

    Raises
    ------
    InputError
        If the target is sharper than the source: that would be a deconvolution.

    Examples
    --------
    >>> K = matching_kernel(PSF("gaussian", 3.0), PSF("gaussian", 5.0), 0.5)
    >>> K.shape[0] % 2, round(float(K.sum()), 12)
    (1, 1.0)
    """
    if target.fwhm < source.fwhm * (1.0 - _SAME):
        raise InputError(
            "PSF match",
            expected=f"a target PSF no sharper than the cube's {source.fwhm:.3g} arcsec",
            found=f"{target.fwhm:.3g} arcsec",
            remedy="convolve the images to the cube's PSF, or give a broader target PSF: "
            "a cube is never deconvolved",
        )  # fmt: skip
    if target.fwhm < source.fwhm * (1.0 + _SAME):
        return np.ones((1, 1))
    if source.model == target.model == "gaussian":
        sigma = np.sqrt(target.fwhm**2 - source.fwhm**2) / FWHM_PER_SIGMA / scale
        return gaussian_kernel(sigma)
    return _fourier_kernel(source, target, scale)


def gaussian_kernel(sigma: float) -> NDArray[np.float64]:
    """Sampled Gaussian whose second moment on the grid is exactly ``sigma**2`` per axis (pixels).

    A Gaussian sampled at pixel centres is narrower than its formula once it is undersampled;
    the width of the formula is solved for so that variances of PSFs still add.
    """
    reach = max(1, int(np.ceil(_REACH * sigma)))
    axis = np.arange(-reach, reach + 1)

    def excess(width: float) -> float:
        return float(_moment(axis, width) - sigma**2)

    upper = max(4.0 * sigma, 1.0)
    width = sigma
    if sigma < 1.0 or excess(upper) > 0:
        width = float(optimize.brentq(excess, 1e-2, upper)) if excess(upper) > 0 else sigma
    profile = np.exp(-0.5 * (axis / width) ** 2)
    profile /= profile.sum()
    return np.outer(profile, profile)


def _moment(axis: NDArray[np.int_], width: float) -> float:
    profile = np.exp(-0.5 * (axis / width) ** 2)
    return float((profile * axis**2).sum() / profile.sum())


def moffat_image(fwhm: float, beta: float, size: int) -> NDArray[np.float64]:
    """Moffat profile, FWHM in pixels, on ``(size, size)`` pixels, centred, sum 1."""
    axis = np.arange(size) - (size - 1) // 2
    alpha = fwhm / (2.0 * np.sqrt(2.0 ** (1.0 / beta) - 1.0))
    image = (1.0 + (axis[:, None] ** 2 + axis[None, :] ** 2) / alpha**2) ** -beta
    return np.asarray(image / image.sum())


def _fourier_kernel(source: PSF, target: PSF, scale: float) -> NDArray[np.float64]:
    """Wiener-regularised kernel, trimmed to the radius that holds its wings."""
    size = 2 * int(np.ceil(4.0 * target.fwhm / scale)) + 1
    kernel = make_wiener_kernel(
        source.sample(scale, size), target.sample(scale, size), penalty="laplacian"
    )
    middle = size // 2
    axis = np.abs(np.arange(size) - middle)
    ring = np.maximum(axis[:, None], axis[None, :])
    held = np.cumsum(np.bincount(ring.ravel(), weights=np.abs(kernel).ravel()))
    reach = int(np.searchsorted(held, (1.0 - _WINGS) * held[-1]))
    cut = slice(middle - reach, middle + reach + 1)
    trimmed = kernel[cut, cut]
    return np.asarray(trimmed / trimmed.sum())


def _resample(image: NDArray[np.float64], zoom: float, size: int) -> NDArray[np.float64]:
    """Image sampled at pixels ``1 / zoom`` times as large, centroid on the middle pixel, sum 1.

    An image of a star is the PSF with its pixel in it, so it is sampled, not averaged again.
    """
    centre = ndimage.center_of_mass(np.clip(image, 0.0, None))
    axis = (np.arange(size) - (size - 1) // 2) / zoom
    y, x = np.meshgrid(centre[0] + axis, centre[1] + axis, indexing="ij")
    out = ndimage.map_coordinates(image, [y, x], order=3, mode="constant")
    return np.asarray(out / out.sum())
