r"""Images brought back to the sharpness of the cube, to tell what lies beyond its edge.

An image ``P`` has the output's PSF and pixels, the cube's sky ``S`` the input's: ``P = K * S``.
Richardson-Lucy steps (Richardson 1972, JOSA 62, 55; Lucy 1974, AJ 79, 745)

.. math:: T \leftarrow T \; K^\top * \frac{P}{K * T}

go from ``P`` towards ``S`` and stay positive. Where the cube has seen the sky its detail is held
against the steps: then they need only find how much light is outside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import fft, signal

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Blur", "Detail", "detail_of", "hold", "pixel_blur", "richardson_lucy"]

# Of the brightest light; fainter is nothing.
_DARK = 1e-6
# The cube's detail counts where it is this many sigma from the images'.
_SIGNIFICANT = 3.0
# ... and is at most this factor.
_LARGEST_DETAIL = 30.0
# A step changes the light by no more than this factor.
_LARGEST_STEP = 10.0
# Error of a median over that of a mean.
_MEDIAN_ERROR = 1.25


class Blur:
    """Convolution with a kernel on a frame whose border goes on, and its transpose.

    Parameters
    ----------
    kernel
        Odd-sided.
    shape
        ``(n_y, n_x)`` of the frame.
    """

    def __init__(self, kernel: NDArray[np.float64], shape: tuple[int, int]) -> None:
        self._pad = max(kernel.shape) // 2
        self._shape = shape
        self._grid = tuple(fft.next_fast_len(n + 2 * self._pad, real=True) for n in shape)
        wide = np.zeros(self._grid)
        wide[: kernel.shape[0], : kernel.shape[1]] = kernel
        middle = (-(kernel.shape[0] // 2), -(kernel.shape[1] // 2))
        self._transfer = fft.rfft2(np.roll(wide, middle, axis=(0, 1)))

    def widen(self, planes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Planes ``(..., n_y, n_x)`` on the working grid, their border going on."""
        wide = [
            (self._pad, grid - n - self._pad)
            for grid, n in zip(self._grid, self._shape, strict=True)
        ]
        return np.pad(planes, [(0, 0)] * (planes.ndim - 2) + wide, mode="edge")

    def core(self, planes: NDArray[np.float64]) -> NDArray[np.float64]:
        """The frame's part of the working grid (a view)."""
        y, x = (slice(self._pad, self._pad + n) for n in self._shape)
        return planes[..., y, x]

    def __call__(self, planes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convolve planes on the working grid."""
        return np.asarray(fft.irfft2(fft.rfft2(planes) * self._transfer, s=self._grid))

    def transpose(self, planes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Correlate planes on the working grid."""
        return np.asarray(fft.irfft2(fft.rfft2(planes) * self._transfer.conj(), s=self._grid))


def pixel_blur(kernel: NDArray[np.float64], side: float) -> NDArray[np.float64]:
    """Kernel with a square pixel of ``side`` input pixels in it, odd-sided."""
    reach = max(0, int(np.ceil(0.5 * (side - 1.0))))
    offset = np.abs(np.arange(-reach, reach + 1))
    box = np.clip(0.5 * side - (offset - 0.5), 0.0, 1.0)
    box /= box.sum()
    return np.asarray(signal.convolve2d(kernel, np.outer(box, box)))


class Detail(NamedTuple):
    """The cube's sky over the images', and how much of it counts, ``(n_y, n_x)`` each.

    ``ratio`` is 1 where they have one shape; ``weight`` is 0 where the cube tells nothing and 1
    where its noise is nothing.
    """

    ratio: NDArray[np.float64]
    weight: NDArray[np.float64]


def detail_of(sky: NDArray[np.float64], cube: NDArray[np.float32]) -> Detail:
    """Shape that the cube has and the images have not.

    Parameters
    ----------
    sky
        The images at a few wavelengths, on the cube's grid, ``(n_node, n_y, n_x)``.
    cube
        Flux and variance of the cube there, ``(n_node, 2, n_y, n_x)``; unknown is NaN.

    Returns
    -------
    Detail
        The median over the wavelengths, so that a line in one of them is no detail.
    """
    flux, variance = cube[:, 0], cube[:, 1]
    known = np.isfinite(flux) & (variance > 0) & (sky > 0)
    weight = np.where(known, 1.0 / np.where(known, variance, 1.0), 0.0)
    flux = np.where(known, flux, 0.0)
    both, own = ((weight * flux * f).sum(axis=(1, 2)) for f in (sky, flux))
    scale = np.divide(both, own, out=np.zeros_like(own), where=(own > 0) & (both > 0))
    known &= scale[:, None, None] > 0
    unit = np.where(known, sky, 1.0)
    ratio = _median(scale[:, None, None] * flux / unit, known)
    sigma = _median(scale[:, None, None] * np.sqrt(np.where(known, variance, 0.0)) / unit, known)
    sigma *= _MEDIAN_ERROR / np.sqrt(np.maximum(known.sum(axis=0), 1))
    change = np.where(known.any(axis=0), ratio - 1.0, 0.0)
    noise = (_SIGNIFICANT * sigma) ** 2
    share = 1.0 - np.divide(noise, change**2, out=np.ones_like(change), where=change**2 > noise)
    return Detail(np.clip(1.0 + change, 0.0, _LARGEST_DETAIL), share)


def _median(values: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Median over the first axis of what is known, 0 where nothing is."""
    ordered = np.sort(np.where(known, values, np.inf), axis=0)
    count = np.maximum(known.sum(axis=0), 1)
    low, high = (
        np.take_along_axis(ordered, k[None], axis=0)[0] for k in ((count - 1) // 2, count // 2)
    )
    middle = 0.5 * (low + np.where(np.isfinite(high), high, 0.0))
    return np.asarray(np.where(known.any(axis=0), middle, 0.0))


def richardson_lucy(
    image: NDArray[np.float64],
    start: NDArray[np.float64],
    blur: Blur,
    steps: tuple[int, ...],
    *,
    held: NDArray[np.float64] | None = None,
) -> list[NDArray[np.float64]]:
    """Sky after each of some numbers of steps.

    Parameters
    ----------
    image
        ``(n_band, n_y, n_x)``; what is not positive is dark.
    start
        Sky to start from, of the same shape.
    blur
        What lies between sky and image.
    steps
        Numbers of steps, increasing.
    held
        ``(n_y, n_x)``: 0 where a step changes the sky, 1 where it changes the scale of the held
        sky only. With it the steps are accelerated (Biggs & Andrews 1997, Appl. Opt. 36, 1766).

    Returns
    -------
    list of numpy.ndarray
        As ``image``, one per number of steps.
    """
    seen = blur.widen(image)
    dark = np.maximum(_DARK * seen.max(axis=(-2, -1), keepdims=True), np.finfo(float).tiny ** 0.5)
    seen, sky = np.maximum(seen, dark), np.maximum(blur.widen(start), dark)
    keep = np.zeros(sky.shape[-2:])
    if held is not None:
        blur.core(keep)[:] = held
    result, last, move = [], sky, None
    for n in range(1, steps[-1] + 1):
        # a kernel with negative lobes may make light next to nothing of a dark sky
        wrong = np.clip(seen / np.maximum(blur(sky), dark), 1.0 / _LARGEST_STEP, _LARGEST_STEP)
        update = blur.transpose(wrong)
        new = np.maximum(
            sky * (1.0 - keep) * update + sky * keep * _scale(sky * keep, update), dark
        )
        if n in steps:
            result.append(blur.core(new).copy())
        if held is None:
            sky = new
            continue
        stride, move = _stride(new - sky, move)
        sky, last = np.maximum(new + stride * (new - last), dark), new
    return result


def _scale(held: NDArray[np.float64], update: NDArray[np.float64]) -> NDArray[np.float64]:
    """The update's mean over the held light, per band."""
    total = held.sum(axis=(-2, -1), keepdims=True)
    moved = (held * update).sum(axis=(-2, -1), keepdims=True)
    return np.asarray(np.divide(moved, total, out=np.ones_like(total), where=total > 0))


def _stride(
    new: NDArray[np.float64], old: NDArray[np.float64] | None
) -> tuple[float, NDArray[np.float64]]:
    """How far to go on in the direction of the last two steps."""
    if old is None:
        return 0.0, new
    length = float((old * old).sum())
    return (float(np.clip((new * old).sum() / length, 0.0, 0.95)) if length > 0 else 0.0), new


def hold(sky: NDArray[np.float64], detail: Detail) -> NDArray[np.float64]:
    """Sky on the cube's grid with the cube's detail in it."""
    return sky * (1.0 + detail.weight * (detail.ratio - 1.0))
