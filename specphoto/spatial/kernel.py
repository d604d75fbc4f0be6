r"""Kernels that bring one PSF to another, and how well they do.

The kernel ``K`` on the pixel grid of the data turns their PSF into the target's,
``PSF_in * K = PSF_out``; it has odd sides, is centred on its middle pixel and sums to 1. Two
Gaussians give a Gaussian. Any other pair is matched in Fourier space with a regularised ratio,

.. math:: \hat K = \frac{\hat T \hat S^*}{|\hat S|^2 + \lambda |\hat L|^2}

*S* and *T* being the PSFs and *L* the Laplacian (Boucaud et al. 2016, A&A 596, A63). The strength
:math:`\lambda` is not fixed: of those that amplify no frequency by more than :data:`MAX_GAIN`, the
one with the least residual is taken. What this leaves of a deconvolution is a residual, and by the
residual a match is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import fft, optimize

from specphoto.errors import InputError
from specphoto.spatial.psf import FWHM_PER_SIGMA

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from specphoto.spatial.psf import PSF

__all__ = [
    "MAX_GAIN",
    "MAX_RESIDUAL",
    "SAME_FWHM",
    "KernelReport",
    "gaussian_kernel",
    "kernel_report",
    "matching_kernel",
]

# Two Gaussians whose FWHM differ by less than this share are the same PSF: the kernel is a delta.
SAME_FWHM = 0.005
# So are any two PSFs that differ nowhere by more than this share of the peak.
_SAME_PEAK = 0.002
# No frequency is amplified by more than this, and the result is the target to within this share of
# its peak; else the match is refused. See `matching_kernel` for what was measured.
MAX_GAIN = 1.5
MAX_RESIDUAL = 0.05

# Wings beyond this many sigma (6e-5 of a 2-D Gaussian) are cut and the kernel renormalised.
_REACH = 4.4
# A kernel made in Fourier space is cut to the square that holds all but this share of it: a
# Moffat's wings are long, and renormalising them away would make the target too sharp.
_WINGS = 3e-4
# PSFs are sampled out to this many FWHM of the broader one.
_FRAME = 6.0
# Strengths of the regularisation that are tried, the strongest first, until the residual is small.
_STRENGTHS = 10.0 ** np.array([3.0, 2.0, 1.0, 0.0, *np.arange(-1.0, -8.25, -0.5)])
_SMALL = 3e-4
# Noise counts too: a residual of 1% of the peak is as bad as twice the noise that the target's own
# PSF would leave of independent pixels.
_NOISE = 0.01
_LAPLACIAN = np.array([[0.0, -1.0, 0.0], [-1.0, 4.0, -1.0], [0.0, -1.0, 0.0]])


@dataclass(frozen=True, eq=False)
class KernelReport:
    """How well a kernel brings one PSF to another.

    Attributes
    ----------
    residual_power
        Sum of the squares of result minus target, over that of the target.
    worst_residual
        Largest difference of result and target, over the target's peak.
    negative_share
        Absolute sum of the kernel's negative pixels over that of all.
    largest_gain
        Largest factor by which the kernel multiplies the amplitude of a frequency; above 1 the
        noise there is amplified.
    noise
        Factor on the error of a pixel where pixels are independent, the root of the sum of squares.
    radius
        In arcsec, ``(n,)``.
    encircled_result, encircled_target
        Share of the light within these radii, ``(n,)``.
    residual
        Result minus target over the target's peak, ``(n_y, n_x)``, in pixels of ``scale`` arcsec.
    scale
        Pixel side in arcsec.
    """

    residual_power: float
    worst_residual: float
    negative_share: float
    largest_gain: float
    noise: float
    radius: NDArray[np.float64]
    encircled_result: NDArray[np.float64]
    encircled_target: NDArray[np.float64]
    residual: NDArray[np.float64]
    scale: float

    @property
    def encircled_residual(self) -> float:
        """Largest difference of the encircled energies."""
        return float(np.abs(self.encircled_result - self.encircled_target).max())

    @property
    def accepted(self) -> bool:
        """Whether it is no deconvolution: gain and residual within their limits."""
        # a thousandth more than was allowed in making it: the frames may differ
        gain = self.largest_gain <= 1.001 * MAX_GAIN
        return gain and self.worst_residual <= MAX_RESIDUAL

    @property
    def numbers(self) -> dict[str, float]:
        """What is kept of it with the data, to three digits."""
        names = (
            "worst_residual", "residual_power", "encircled_residual", "negative_share",
            "largest_gain",
        )  # fmt: skip
        return {name: float(f"{getattr(self, name):.3g}") for name in names}

    @property
    def verdict(self) -> str:
        """One line: whether the kernel does, and the numbers."""
        return (
            f"{'matched' if self.accepted else 'not matched'}: differs from the target by at most "
            f"{self.worst_residual:.2%} of the peak (power {self.residual_power:.1e}), encircled "
            f"energy by {self.encircled_residual:.2%}; kernel {self.negative_share:.1%} negative, "
            f"largest gain {self.largest_gain:.2f}"
        )


def matching_kernel(source: PSF, target: PSF, scale: float) -> NDArray[np.float64]:
    r"""Kernel that brings the source PSF to the target PSF on a grid of ``scale`` arcsec.

    Two Gaussians give a Gaussian, :math:`\sigma_K^2 = \sigma_t^2 - \sigma_s^2`; for any other pair
    see the module. The same PSF gives a single pixel; PSFs of one FWHM but another shape are not
    the same, and get the kernel that their shapes need or are refused.

    A match is refused as a deconvolution if, of Gaussians, the target is the narrower, or else if
    the result differs from the target by more than 5% of its peak although no frequency is
    amplified by more than 1.5. The limits lie in a gap of what was measured on the surveys'
    empirical PSFs at 0.5 and 0.2 arcsec per pixel, in % of the peak:

    ====================================================================  =========
    target much broader (SDSS, MaNGA, MUSE to 2MASS, GALEX, WISE)         below 0.4
    broader (2MASS to GALEX, FUV to NUV, GALEX to WISE)                   below 0.6
    about as broad (SDSS r and g, z to i; 2MASS J to Ks; W1 to W2)        below 2.5
    Gaussian to the Moffat of its FWHM with beta 4 and 2.5                1.7, 3.1
    3% sharper (2MASS Ks to J)                                            4.0
    sharper (W2 to W1; NUV to FUV; SDSS r to i)                           15 and up
    that Moffat of beta 2.5 to the Gaussian, which has no wings           39 and up
    much sharper (NUV to 2MASS J)                                         64 and up
    ====================================================================  =========

    Parameters
    ----------
    source, target
        PSF of the data and PSF wanted; images in the orientation of the data.
    scale
        Pixel side of the data in arcsec.

    Returns
    -------
    numpy.ndarray
        ``(n, n)``, *n* odd, sum 1.

    Raises
    ------
    InputError
        If it would be a deconvolution; the message says by how much the target is missed.

    Examples
    --------
    >>> from specphoto.spatial.psf import PSF
    >>> K = matching_kernel(PSF("gaussian", 3.0), PSF("gaussian", 5.0), 0.5)
    >>> K.shape[0] % 2, round(float(K.sum()), 12)
    (1, 1.0)
    """
    if source.model == target.model == "gaussian":
        return _of_gaussians(source, target, scale)
    size = _frame(source, target, scale)
    S, T = source.sample(scale, size), target.sample(scale, size)
    if np.abs(S - T).max() < _SAME_PEAK * T.max():
        return np.ones((1, 1))
    kernel, residual = _fourier_kernel(S, T)
    if residual > MAX_RESIDUAL:
        raise InputError(
            "PSF match",
            expected=f"a target PSF no sharper than the data's ({source}): a kernel that reaches "
            f"it to within {MAX_RESIDUAL:.0%} of the peak and amplifies no frequency by more than "
            f"{MAX_GAIN:g}",
            found=f"{target}, missed by {residual:.0%} of the peak",
            remedy="match the other way round, or give a broader target PSF: data are never "
            "deconvolved",
        )  # fmt: skip
    return kernel


def kernel_report(
    source: PSF, target: PSF, kernel: NDArray[np.float64], scale: float
) -> KernelReport:
    """Measure how well a kernel brings the source PSF to the target PSF.

    Parameters
    ----------
    source, target, scale
        As for :func:`matching_kernel`.
    kernel
        ``(n, n)``, *n* odd: from :func:`matching_kernel` or elsewhere.

    Returns
    -------
    KernelReport

    Examples
    --------
    >>> from specphoto.spatial.psf import PSF
    >>> source, target = PSF("gaussian", 2.5), PSF.named("wise_w2")
    >>> report = kernel_report(source, target, matching_kernel(source, target, 0.5), 0.5)
    >>> report.accepted, report.worst_residual < 0.001
    (True, True)
    """
    size = max(_frame(source, target, scale), kernel.shape[0])
    S, T = source.sample(scale, size), target.sample(scale, size)
    result, gain = _Convolution(S, 2 * size).result(kernel)
    difference = (result - T) / T.max()
    return KernelReport(
        residual_power=float((difference**2).sum() * T.max() ** 2 / (T**2).sum()),
        worst_residual=float(np.abs(difference).max()),
        negative_share=_negative_share(kernel),
        largest_gain=gain,
        noise=float(np.sqrt((kernel**2).sum())),
        radius=(np.arange(size // 2 + 1) + 0.5) * scale,
        encircled_result=_encircled(result),
        encircled_target=_encircled(T),
        residual=difference,
        scale=scale,
    )


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


def _of_gaussians(source: PSF, target: PSF, scale: float) -> NDArray[np.float64]:
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
    return gaussian_kernel(np.sqrt(target.fwhm**2 - source.fwhm**2) / FWHM_PER_SIGMA / scale)


def _frame(source: PSF, target: PSF, scale: float) -> int:
    """Odd number of pixels that holds both PSFs and that the Fourier transform is fast at."""
    size = 2 * int(np.ceil(_FRAME * max(source.fwhm, target.fwhm) / scale)) + 1
    while fft.next_fast_len(size) != size:
        size += 2
    return size


def _fourier_kernel(
    S: NDArray[np.float64], T: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Best regularised kernel of limited gain, and its worst residual over the peak."""
    source, target = _centred_otf(S, S.shape[0]), _centred_otf(T, S.shape[0])
    penalty = np.abs(_centred_otf(_LAPLACIAN, S.shape[0])) ** 2
    wide = _Convolution(S, 2 * S.shape[0])
    best, least = np.ones((1, 1)), np.inf
    missed = float(np.abs(S - T).max() / T.max())
    for strength in _STRENGTHS:
        ratio = target * source.conj() / (np.abs(source) ** 2 + strength * penalty)
        kernel = _trimmed(_inverse(ratio, S.shape[0]))
        result, gain = wide.result(kernel)
        if gain > MAX_GAIN:
            break
        residual = float(np.abs(result - T).max() / T.max())
        score = residual + _NOISE * float(np.sqrt((kernel**2).sum() / (T**2).sum()))
        if score < least:
            best, least, missed = kernel, score, residual
        if residual < _SMALL:
            break
    return best, missed


class _Convolution:
    """Convolution of a PSF with kernels, in a frame that is wide enough for light not to wrap."""

    def __init__(self, S: NDArray[np.float64], side: int) -> None:
        self.side = fft.next_fast_len(side, real=True)
        self.source = _centred_otf(S, self.side)
        first = self.side // 2 - S.shape[0] // 2
        self.inside = slice(first, first + S.shape[0])

    def result(self, kernel: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
        """PSF after the kernel, in the frame of the PSF, and the kernel's largest gain."""
        response = _centred_otf(kernel, self.side)
        image = _inverse(self.source * response, self.side)[self.inside, self.inside]
        return image, float(np.abs(response).max())


def _trimmed(kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Middle square of a kernel that holds all but a little of it, sum 1."""
    middle = kernel.shape[0] // 2
    axis = np.abs(np.arange(kernel.shape[0]) - middle)
    ring = np.maximum(axis[:, None], axis[None, :])
    held = np.cumsum(np.bincount(ring.ravel(), weights=np.abs(kernel).ravel()))
    reach = int(np.searchsorted(held, (1.0 - _WINGS) * held[-1]))
    cut = slice(middle - reach, middle + reach + 1)
    return np.asarray(kernel[cut, cut] / kernel[cut, cut].sum())


def _negative_share(kernel: NDArray[np.float64]) -> float:
    return float(np.clip(-kernel, 0.0, None).sum() / np.abs(kernel).sum())


def _centred_otf(image: NDArray[np.float64], side: int) -> NDArray[np.complex128]:
    """Fourier transform of an odd-sided image about its middle pixel, in a frame of ``side``."""
    padded = np.zeros((side, side))
    padded[: image.shape[0], : image.shape[1]] = image
    middle = (-(image.shape[0] // 2), -(image.shape[1] // 2))
    return np.asarray(fft.rfft2(np.roll(padded, middle, (0, 1))))


def _inverse(transform: NDArray[np.complex128], side: int) -> NDArray[np.float64]:
    """Image of a transform about the middle pixel."""
    image = fft.irfft2(transform, (side, side))
    return np.asarray(np.roll(image, (side // 2, side // 2), (0, 1)))


def _encircled(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Light within 0.5, 1.5, ... pixels of the middle, out to the frame's edge."""
    middle = image.shape[0] // 2
    axis = np.arange(image.shape[0]) - middle
    ring = np.hypot(axis[:, None], axis[None, :]).round().astype(np.intp)
    light = np.bincount(ring.ravel(), weights=image.ravel())
    return np.asarray(np.cumsum(light)[: middle + 1], dtype=float)
