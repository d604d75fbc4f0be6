r"""Light that the convolution misses beyond the edge of the bundle, taken from the images.

A kernel that reaches past the bundle sees only part of the light. Dividing by the coverage
assumes the missing sky is as bright as the seen one: a declining disc comes out too bright, by
13% at 0.8 of a MaNGA hexagon's apothem for a 3" disc matched from 2.54" to 6.4". The images know
what lies outside. With ``I`` the image at the wavelength of the channel,

.. math:: f_o = \Big(\sum_j A_{oj} w_j f_j\Big)\, g_o, \quad
          g_o = \frac{(R K I)_o}{\sum_j A_{oj} w_j I_j}

which is exact where spectra and image have the same shape on the sky, whatever their flux scale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import ndimage, signal

from specphoto.spatial.operator import full_light

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from specphoto.spatial.varying import VaryingOperator

__all__ = [
    "Sky",
    "at_limit",
    "compensation",
    "guessed_share",
    "sky_from_images",
    "whole_light",
]

# The compensation never changes the plain c-normalised flux by more than this factor.
_LARGEST = 3.0


class Sky(NamedTuple):
    """The images as the operator sees them, per band.

    ``inner`` is surface brightness on the input grid, ``(n_band, n_in)``; ``full`` the same sky
    through the whole operator of each PSF node, ``(n_node, n_band, n_row)``. ``smooth_inner`` and
    ``smooth_full``, with one more axis in front, are the same for the images blurred once and
    twice more by the kernel: how much the compensation changes tells how much it depends on the
    images being blunter than the cube. ``guess_inner`` and ``guess_full`` are the part of
    ``inner`` and ``full`` where the images say nothing (beyond their frame, or unknown) and the
    sky is made up from neighbours. ``rel_err`` is the images' relative error at each row,
    ``(n_band, n_row)``.
    """

    inner: NDArray[np.float32]
    full: NDArray[np.float32]
    smooth_inner: NDArray[np.float32]
    smooth_full: NDArray[np.float32]
    guess_inner: NDArray[np.float32]
    guess_full: NDArray[np.float32]
    rel_err: NDArray[np.float32]


def sky_from_images(
    operator: VaryingOperator,
    image: NDArray[np.float64],
    error: NDArray[np.float64],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    box: tuple[slice, slice] = (slice(None), slice(None)),
) -> Sky:
    """Images on the output grid as a sky on the padded input grid.

    Parameters
    ----------
    operator
        The operator.
    image, error
        Flux and 1-sigma error per output pixel, ``(n_band, n_y, n_x)``; unknown is NaN and is
        filled from its neighbours.
    x, y
        Output pixel coordinates of the padded input grid's pixel centres.
    box
        Part of the images' frame that is the operator's output frame.

    Returns
    -------
    Sky
    """
    common = operator.common
    pad, (n_y, n_x) = common.pad, common.shape_in
    inner = (..., slice(pad, pad + n_y), slice(pad, pad + n_x))
    sky = np.stack([_interpolate(_fill(plane), x, y) for plane in image])
    guess = np.where(np.stack([_is_known(plane, x, y) for plane in image]), 0.0, sky)
    # how far the images are from the cube's PSF hardly depends on the wavelength
    kernel = operator.node[len(operator.node) // 2].kernel
    once = np.stack([_blur(plane, kernel) for plane in sky])
    twice = np.stack([_blur(plane, kernel) for plane in once])
    smooth = np.stack([once, twice])
    flux, sigma = (a[:, *box].reshape(image.shape[0], -1)[:, common.row] for a in (image, error))
    with np.errstate(divide="ignore", invalid="ignore"):
        rel_err = np.where(flux > 0, sigma / flux, np.inf)
    return Sky(
        inner=sky[inner].reshape(*sky.shape[:-2], -1).astype(np.float32),
        full=_through(operator, sky),
        smooth_inner=smooth[inner].reshape(*smooth.shape[:-2], -1).astype(np.float32),
        smooth_full=np.stack([_through(operator, planes) for planes in smooth]),
        guess_inner=guess[inner].reshape(*guess.shape[:-2], -1).astype(np.float32),
        guess_full=_through(operator, guess),
        rel_err=np.where(np.isfinite(rel_err), rel_err, 1.0).astype(np.float32),
    )


def _through(operator: VaryingOperator, sky: NDArray[np.float64]) -> NDArray[np.float32]:
    """A sky per band through each node's operator, ``(n_node, n_band, n_row)``."""
    return np.stack([full_light(node, sky) for node in operator.node]).astype(np.float32)


def _fill(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fill unknown pixels with a distance-weighted mean of known ones, ever wider."""
    known = np.isfinite(image)
    if known.all() or not known.any():
        return np.where(known, image, 0.0)
    filled, left = np.where(known, image, 0.0), ~known
    for sigma in (1.5, 4.0, 12.0):
        weight = ndimage.gaussian_filter(known.astype(float), sigma)
        value = ndimage.gaussian_filter(np.where(known, image, 0.0), sigma)
        reach = left & (weight > 1e-3)
        filled[reach] = value[reach] / weight[reach]
        left &= ~reach
    return filled


def _interpolate(
    image: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Cubic-spline value at positions; beyond the frame the border goes on."""
    position = [np.nan_to_num(y, nan=-1.0), np.nan_to_num(x, nan=-1.0)]
    return np.asarray(ndimage.map_coordinates(image, position, order=3, mode="nearest"))


def _is_known(
    image: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Whether the image has a value at positions; beyond the frame it has none."""
    position = [np.nan_to_num(y, nan=-9.0), np.nan_to_num(x, nan=-9.0)]
    finite = np.isfinite(image).astype(float)
    share = ndimage.map_coordinates(finite, position, order=1, mode="grid-constant")
    return np.asarray(share >= 0.5)


def _blur(image: NDArray[np.float64], kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    ry, rx = kernel.shape[0] // 2, kernel.shape[1] // 2
    wide = np.pad(image, ((ry, ry), (rx, rx)), mode="edge")
    return np.asarray(signal.fftconvolve(wide, kernel, mode="valid"))


def whole_light(
    operator: VaryingOperator,
    wave: NDArray[np.float64],
    mix: NDArray[np.float32],
    full: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Each channel's image through the whole operator of its wavelength, ``(n_wave, n_row)``.

    Parameters
    ----------
    operator
        The operator.
    wave
        Wavelengths of the channels in Angstrom, ``(n_wave,)``.
    mix
        Share of each band in each channel's image, ``(n_wave, n_band)``.
    full
        As in :class:`Sky`, ``(n_node, n_band, n_row)``.
    """
    share = operator.share(wave)[:, :, None] * mix[:, None, :]
    return np.asarray(share.reshape(wave.size, -1) @ full.reshape(-1, full.shape[-1]))


def compensation(
    operator: VaryingOperator,
    wave: NDArray[np.float64],
    good: NDArray[np.bool_],
    mix: NDArray[np.float32],
    inner: NDArray[np.float32],
    full: NDArray[np.float32],
    plain: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Factor ``g`` that turns ``A (w f)`` into the flux of the whole sky.

    Parameters
    ----------
    operator
        The operator.
    wave
        Wavelengths of the channels in Angstrom, ``(n_wave,)``.
    good
        Good spaxels, ``(n_wave, n_y, n_x)``.
    mix
        Share of each band in each channel's image, ``(n_wave, n_band)``.
    inner, full
        From :class:`Sky`.
    plain
        ``1 / c``, the factor without images, ``(n_wave, n_row)``; kept where the images have no
        positive light.

    Returns
    -------
    numpy.ndarray
        ``(n_wave, n_row)``.
    """
    w = good.reshape(mix.shape[0], -1)
    used = np.flatnonzero(w.any(axis=0))
    image = np.where(w[:, used], mix @ inner[:, used], np.float32(0.0))
    seen = operator.transmit(wave, image, used)
    whole = whole_light(operator, wave, mix, full)
    lit = (seen > 0) & (whole > 0)
    g = np.where(lit, whole / np.where(lit, seen, 1.0), plain)
    return np.asarray(np.clip(g, plain / _LARGEST, plain * _LARGEST), dtype=np.float32)


def guessed_share(
    operator: VaryingOperator,
    wave: NDArray[np.float64],
    good: NDArray[np.bool_],
    mix: NDArray[np.float32],
    sky: Sky,
    coverage: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Share of a pixel's light that neither spaxels nor images see, ``(n_wave, n_row)``.

    Parameters as for :func:`compensation`; where the images have no positive light it is the
    share that is not covered.
    """
    w = good.reshape(mix.shape[0], -1)
    used = np.flatnonzero(w.any(axis=0))
    guess = np.where(w[:, used], mix @ sky.guess_inner[:, used], np.float32(0.0))
    seen = operator.transmit(wave, guess, used)
    whole = whole_light(operator, wave, mix, sky.full)
    missing = np.abs(whole_light(operator, wave, mix, sky.guess_full) - seen)
    uncovered = np.clip(1.0 - coverage, 0.0, 1.0)
    return np.asarray(np.divide(missing, whole, out=uncovered, where=whole > 0))


def at_limit(g: NDArray[np.float32], plain: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where the compensation stands at its limit, so that it is a bound and not an estimate."""
    change = g / plain
    return np.asarray((change > 0.999 * _LARGEST) | (change < 1.001 / _LARGEST))
