"""Images of a point source: checked, centred and sampled on other pixels.

An image of a star is the PSF with its pixel in it (the "effective" PSF), known at pixel centres.
It is therefore interpolated to the pixels wanted and never averaged over them again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from specphoto.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Star", "measure_star", "resample"]

# A star further from the middle than this share of the side has lost wings on one side only.
_OFF_CENTRE = 0.1
# The frame must hold the star out to its FWHM on every side.
_MIN_SIDE = 2.0
_STEPS = 60


@dataclass(frozen=True, eq=False)
class Star:
    """What is measured on an image of a point source.

    Attributes
    ----------
    image
        ``(n_y, n_x)``, sum 1.
    centre
        Of the core, ``(y, x)`` in pixels, 0-based.
    fwhm
        In pixels: diameter of the circle as large as the area above half the maximum.
    """

    image: NDArray[np.float64]
    centre: tuple[float, float]
    fwhm: float


def measure_star(image: ArrayLike, *, sky: float | None = None, name: str = "PSF image") -> Star:
    """Check an image of a point source and find its centre and width.

    The centre is that of the core: a centroid under a Gaussian window about as wide as the star,
    iterated. The plain centroid would be ruled by noise and asymmetry of the outermost wings (it is
    0.2 arcsec off the core in the empirical PSF of GALEX NUV), and catalogues of stars, which
    images are aligned with, are made with the core.

    Parameters
    ----------
    image
        ``(n_y, n_x)``.
    sky
        Level taken off first; by default the median of the outermost pixels.
    name
        What the messages call it.

    Raises
    ------
    InputError
        If it is not finite, sums to nothing, has its star off the middle, or is too small for it.
    """
    values = np.array(image, dtype=float)
    if values.ndim != 2 or min(values.shape) < 3 or not np.all(np.isfinite(values)):
        unknown = np.count_nonzero(~np.isfinite(values))
        raise InputError(
            name, expected="a finite 2-D image of a point source",
            found=f"shape {values.shape} with {unknown} pixels that are not finite",
            remedy="mask or trim the image first",
        )  # fmt: skip
    values -= _border(values) if sky is None else sky
    total = float(values.sum())
    if total <= 0 or values.max() <= 0:
        raise InputError(
            name, expected="light: a positive sum once the sky is off",
            found=f"a sum of {total:.3g}", remedy="give the image of a star, or its sky level",
        )  # fmt: skip
    values /= total
    rough = _rough_fwhm(values)
    centre = _core(values, rough)
    _check_frame(values.shape, centre, rough, name)
    fwhm = _fwhm(values, centre, rough)
    return Star(values, _refined(values, centre, fwhm), fwhm)


def _border(values: NDArray[np.float64]) -> float:
    ring = np.concatenate([values[0], values[-1], values[1:-1, 0], values[1:-1, -1]])
    return float(np.median(ring))


def _rough_fwhm(values: NDArray[np.float64]) -> float:
    above = np.count_nonzero(values > 0.5 * values.max())
    return 2.0 * float(np.sqrt(above / np.pi))


def _core(values: NDArray[np.float64], fwhm: float) -> tuple[float, float]:
    """Centroid under a Gaussian window of 1.5 FWHM, until it stays."""
    smooth = ndimage.gaussian_filter(values, max(0.3 * fwhm, 0.5))
    y0, x0 = (float(i) for i in np.unravel_index(int(smooth.argmax()), values.shape))
    y, x = np.arange(values.shape[0])[:, None], np.arange(values.shape[1])[None, :]
    sigma = max(1.5 * fwhm, 2.0) / 2.355
    for _ in range(_STEPS):
        window = values * np.exp(-0.5 * ((y - y0) ** 2 + (x - x0) ** 2) / sigma**2)
        step_y, step_x = (2.0 * float((window * d).sum() / window.sum()) for d in (y - y0, x - x0))
        y0, x0 = y0 + step_y, x0 + step_x
        if not (0 <= y0 < values.shape[0] and 0 <= x0 < values.shape[1]):
            break
        if max(abs(step_y), abs(step_x)) < 1e-7:
            break
    return y0, x0


def _refined(
    values: NDArray[np.float64], centre: tuple[float, float], fwhm: float
) -> tuple[float, float]:
    """Centre of the core found on pixels of a tenth of the FWHM, whatever the image's are."""
    fine = resample(values, centre, 10.0 / fwhm, 61)
    y, x = _core(fine, 10.0)
    return centre[0] + (y - 30.0) * fwhm / 10.0, centre[1] + (x - 30.0) * fwhm / 10.0


def _check_frame(
    shape: tuple[int, ...], centre: tuple[float, float], fwhm: float, name: str
) -> None:
    off = [c - (n - 1) / 2 for c, n in zip(centre, shape, strict=True)]
    allowed = [max(_OFF_CENTRE * n, 1.0) for n in shape]
    if any(abs(o) > a for o, a in zip(off, allowed, strict=True)):
        raise InputError(
            name,
            expected=f"a star within {_OFF_CENTRE:.0%} of the side from the middle of the image",
            found=f"one {off[1]:+.1f} (x) and {off[0]:+.1f} (y) pixels off, of {shape[1]} x "
            f"{shape[0]}",
            remedy="cut the image so that the star is in its middle",
        )  # fmt: skip
    if min(shape) < _MIN_SIDE * fwhm:
        raise InputError(
            name, expected=f"a frame of at least {_MIN_SIDE:.0f} FWHM",
            found=f"{shape[1]} x {shape[0]} pixels for a FWHM of {fwhm:.1f}",
            remedy="give a larger cut-out: the wings count",
        )  # fmt: skip


def _fwhm(values: NDArray[np.float64], centre: tuple[float, float], rough: float) -> float:
    """Width at half maximum on pixels of a hundredth of it."""
    zoom = 100.0 / rough
    fine = resample(values, centre, zoom, 241)
    return 2.0 * float(np.sqrt(np.count_nonzero(fine > 0.5 * fine.max()) / np.pi)) / zoom


def resample(
    image: NDArray[np.float64], centre: tuple[float, float], zoom: float, size: int
) -> NDArray[np.float64]:
    r"""Values of an image at the centres of other pixels, its ``centre`` on the middle one.

    Band-limited interpolation: the trigonometric polynomial through all pixels, evaluated where
    wanted. It is exact for an image that is sampled well enough (a FWHM of two pixels and more),
    be the new pixels finer or coarser. Beyond the frame it is zero.

    Parameters
    ----------
    image
        ``(n_y, n_x)``.
    centre
        ``(y, x)`` in its pixels, 0-based.
    zoom
        Side of the image's pixels over that of the new ones.
    size
        Of the result, ``(size, size)``, odd.
    """
    axis = (np.arange(size) - (size - 1) // 2) / zoom
    to_y, to_x = (_at(n, c + axis) for n, c in zip(image.shape, centre, strict=True))
    return np.asarray((to_y @ np.fft.fft2(image) @ to_x.T).real)


def _at(n: int, position: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Matrix from the Fourier coefficients of *n* pixels to values at positions (inverse DFT)."""
    frequency = np.fft.fftfreq(n)
    wave = np.exp(2j * np.pi * position[:, None] * frequency[None, :]) / n
    if n % 2 == 0:
        # the highest frequency has no sign: half of it each, a cosine
        wave[:, n // 2] = np.cos(np.pi * position) / n
    inside = (position >= -0.5) & (position <= n - 0.5)
    return np.asarray(wave * inside[:, None])
