"""Kernels that bring one PSF to another.

The kernel ``K`` on the cube's own pixel grid turns the cube's PSF into the target's,
``PSF_in * K = PSF_out``; it has odd sides, is centred on its middle pixel and sums to 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from photutils.psf_matching import make_wiener_kernel
from scipy import optimize

from specphoto.errors import InputError
from specphoto.spatial.psf import FWHM_PER_SIGMA

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from specphoto.spatial.psf import PSF

__all__ = ["SAME_FWHM", "gaussian_kernel", "matching_kernel"]

# Two PSFs whose FWHM differ by less than this share are the same PSF: the kernel is a delta.
SAME_FWHM = 0.005
# Wings beyond this many sigma (6e-5 of a 2-D Gaussian) are cut and the kernel renormalised.
_REACH = 4.4
# A kernel made in Fourier space is cut to the square that holds all but this share of it: a
# Moffat's wings are long, and renormalising them away would make the target too sharp.
_WINGS = 3e-4


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
    >>> from specphoto.spatial.psf import PSF
    >>> K = matching_kernel(PSF("gaussian", 3.0), PSF("gaussian", 5.0), 0.5)
    >>> K.shape[0] % 2, round(float(K.sum()), 12)
    (1, 1.0)
    """
    if target.fwhm < source.fwhm * (1.0 - SAME_FWHM):
        raise InputError(
            "PSF match",
            expected=f"a target PSF no sharper than the cube's {source.fwhm:.3g} arcsec",
            found=f"{target.fwhm:.3g} arcsec",
            remedy="convolve the images to the cube's PSF, or give a broader target PSF: "
            "a cube is never deconvolved",
        )  # fmt: skip
    if target.fwhm < source.fwhm * (1.0 + SAME_FWHM):
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
