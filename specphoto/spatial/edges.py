r"""Light that the convolution misses beyond the edge of the bundle, taken from the images.

A kernel that reaches past the bundle sees only part of the light. Dividing by the coverage
assumes the missing sky is as bright as the seen one: a declining disc comes out too bright, by
13% at 0.8 of a MaNGA hexagon's apothem for a 3" disc matched from 2.54" to 6.4". The images know
what lies outside. With ``I`` the image at the wavelength of the channel,

.. math:: f_o = \Big(\sum_j A_{oj} w_j f_j\Big)\, g_o, \quad
          g_o = \frac{(R K I)_o}{\sum_j A_{oj} w_j I_j}

which is exact where spectra and image have the same shape on the sky, whatever their flux scale.
The images are blunter than the cube, so they are sharpened first, with the cube's own detail
where it has seen the sky (:mod:`specphoto.spatial.sharpen`). How far the result depends on that is
the estimate of the bias that is left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import ndimage

from specphoto.spatial.operator import full_light
from specphoto.spatial.sharpen import Blur, detail_of, hold, pixel_blur, richardson_lucy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from specphoto.spatial.operator import Operator
    from specphoto.spatial.varying import VaryingOperator

__all__ = [
    "Seen",
    "Sky",
    "at_limit",
    "compensation",
    "guessed_share",
    "sky_from_cube",
    "sky_from_images",
    "star_share",
    "whole_light",
]

# The compensation never changes the plain c-normalised flux by more than this factor.
_LARGEST = 3.0
# Steps of sharpening without the cube, and then with its detail held: enough that a 3 arcsec
# disc, or a nucleus of half its light, next to the edge of a 19-fibre bundle is right to 2-3%,
# and few enough that 3% of noise in the images becomes no more than 1% at the edge.
_STEPS_ALONE, _STEPS_ALONE_LONG = 20, 40
_STEPS_HELD_SHORT, _STEPS_HELD = 5, 20
# Sharpening stops at the images' noise: a pedestal of this many sigma lies under them meanwhile.
_PEDESTAL = 3.0


class Sky(NamedTuple):
    """The images as the operator sees them, per band.

    ``inner`` is surface brightness on the input grid, ``(n_band, n_in)``; ``full`` the same sky
    through the whole operator of each PSF node, ``(n_node, n_band, n_row)``. ``other_inner`` and
    ``other_full``, with one more axis in front, are the same for two skies that are less sharp
    (fewer steps, and without the cube's detail): how much the compensation changes tells what it
    may be wrong by. ``guess_inner`` and ``guess_full`` are the part of ``inner`` and ``full`` where
    the images say nothing (beyond their frame, or unknown) and the sky is made up from neighbours.
    ``star_full`` is the light of foreground objects, which is in none of the others.
    ``rel_err`` is the images' relative error at each row, ``(n_band, n_row)``.
    """

    inner: NDArray[np.float32]
    full: NDArray[np.float32]
    other_inner: NDArray[np.float32]
    other_full: NDArray[np.float32]
    guess_inner: NDArray[np.float32]
    guess_full: NDArray[np.float32]
    star_full: NDArray[np.float32]
    rel_err: NDArray[np.float32]


class Seen(NamedTuple):
    """What the cube has seen at a few wavelengths.

    ``share`` is that of each band in the image at each wavelength, ``(n_node, n_band)``; ``cube``
    mean flux and its variance, ``(n_node, 2, n_y, n_x)``, NaN where nothing is known.
    """

    share: NDArray[np.float32]
    cube: NDArray[np.float32]


def sky_from_images(
    operator: VaryingOperator,
    image: NDArray[np.float64],
    error: NDArray[np.float64],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    box: tuple[slice, slice] = (slice(None), slice(None)),
    *,
    seen: Seen | None = None,
    foreground: NDArray[np.bool_] | None = None,
) -> Sky:
    """Images on the output grid as a sky on the padded input grid, as sharp as the cube.

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
    seen
        The cube's own light, for its detail; None for none.
    foreground
        Spaxels of foreground objects, ``(n_y, n_x)``: the sky there is made up from neighbours.

    Returns
    -------
    Sky
    """
    common = operator.common
    pad, (n_y, n_x) = common.pad, common.shape_in
    inner = (..., slice(pad, pad + n_y), slice(pad, pad + n_x))
    blunt = np.stack([_interpolate(_fill(plane), x, y) for plane in image])
    best, others = _sharpened(operator, blunt, _pedestal(error), inner, seen)
    star = np.zeros(blunt.shape[-2:], dtype=bool)
    if foreground is not None:
        star[inner] = foreground
    light = np.where(star, best, 0.0)
    best, others = (_without(planes, star) for planes in (best, others))
    known = np.stack([_is_known(plane, x, y) for plane in image])
    guess = np.where(known, 0.0, best)
    flux, sigma = (a[:, *box].reshape(image.shape[0], -1)[:, common.row] for a in (image, error))
    with np.errstate(divide="ignore", invalid="ignore"):
        rel_err = np.where(flux > 0, sigma / flux, np.inf)
    return Sky(
        inner=best[inner].reshape(*best.shape[:-2], -1).astype(np.float32),
        full=_through(operator, best),
        other_inner=others[inner].reshape(*others.shape[:-2], -1).astype(np.float32),
        other_full=np.stack([_through(operator, planes) for planes in others]),
        guess_inner=guess[inner].reshape(*guess.shape[:-2], -1).astype(np.float32),
        guess_full=_through(operator, guess),
        star_full=_through(operator, light),
        rel_err=np.where(np.isfinite(rel_err), rel_err, 1.0).astype(np.float32),
    )


def sky_from_cube(operator: VaryingOperator, cube: NDArray[np.float32]) -> Sky:
    """The cube's own light where there are no images: nothing is known of what lies beyond it.

    What is missing at all wavelengths stays missing (``1 / c``); what is missing from a channel
    only is told from the neighbouring spaxels and wavelengths. The nodes take the place of bands.

    Parameters
    ----------
    operator
        The operator.
    cube
        As in :class:`Seen`.

    Returns
    -------
    Sky
        Its errors are unknown, NaN.
    """
    light = cube[:, 0].astype(float)
    usual = np.isfinite(light).reshape(light.shape[0], -1)
    filled = [np.clip(_fill(plane), 0.0, None).ravel() for plane in light]
    inner = np.stack(filled).astype(np.float32)
    full = np.stack([_covered_light(node, inner, usual) for node in operator.node])
    none = np.zeros((0, *inner.shape), np.float32), np.zeros((0, *full.shape), np.float32)
    dark = np.zeros_like(full)
    unknown = np.full((inner.shape[0], full.shape[-1]), np.nan, dtype=np.float32)
    return Sky(inner, full, *none, np.zeros_like(inner), dark, dark, unknown)


def _covered_light(
    operator: Operator, light: NDArray[np.float32], usual: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Light through an operator over the share that is covered, ``(n_plane, n_row)``."""
    seen = np.asarray(np.where(usual, light, np.float32(0.0)) @ operator.weight)
    weight = np.asarray(usual.astype(np.float32) @ operator.weight)
    covered = seen * operator.area
    whole = np.divide(covered, weight, out=np.zeros(seen.shape), where=weight > 0)
    return np.asarray(whole, dtype=np.float32)


def _sharpened(
    operator: VaryingOperator, blunt: NDArray[np.float64], pedestal: NDArray[np.float64],
    inner: Any, seen: Seen | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # fmt: skip
    """Best sky ``(n_band, n_y, n_x)`` and two less sharp ones ``(2, n_band, n_y, n_x)``."""
    # how far the images are from the cube's PSF hardly depends on the wavelength
    kernel = operator.node[len(operator.node) // 2].kernel
    side = float(np.sqrt(np.median(operator.common.area))) if operator.common.area.size else 1.0
    blur = Blur(pixel_blur(kernel, side), (blunt.shape[-2], blunt.shape[-1]))
    image = blunt + pedestal
    first, alone = richardson_lucy(image, image, blur, (_STEPS_ALONE, _STEPS_ALONE_LONG))
    held = np.zeros(blunt.shape[-2:])
    if seen is not None:
        sky = np.tensordot(seen.share.astype(float), (first - pedestal)[inner], axes=1)
        detail = detail_of(sky, seen.cube)
        held[inner] = detail.weight
        first[inner] = hold((first - pedestal)[inner], detail) + pedestal
    early, best = richardson_lucy(image, first, blur, (_STEPS_HELD_SHORT, _STEPS_HELD), held=held)
    dark = ~(blunt > 0).any(axis=(-2, -1), keepdims=True)
    best, early, alone = (np.where(dark, 0.0, s - pedestal) for s in (best, early, alone))
    return best, np.stack([early, alone])


def _pedestal(error: NDArray[np.float64]) -> NDArray[np.float64]:
    """A few sigma of the images' noise where they are faint, ``(n_band, 1, 1)``."""
    flat = error.reshape(error.shape[0], -1)
    faint = [np.percentile(e[np.isfinite(e)], 10.0) if np.isfinite(e).any() else 0.0 for e in flat]
    return _PEDESTAL * np.array(faint)[:, None, None]


def _without(planes: NDArray[np.float64], star: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Planes with pixels filled from their neighbours."""
    if not star.any():
        return planes
    flat = np.where(star, np.nan, planes).reshape(-1, *planes.shape[-2:])
    return np.stack([_fill(plane) for plane in flat]).reshape(planes.shape)


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


def _seen_light(
    operator: VaryingOperator,
    wave: NDArray[np.float64],
    good: NDArray[np.bool_],
    mix: NDArray[np.float32],
    inner: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Each channel's image through the operator's good spaxels, ``(n_wave, n_row)``."""
    w = good.reshape(mix.shape[0], -1)
    used = np.flatnonzero(w.any(axis=0))
    image = np.where(w[:, used], mix @ inner[:, used], np.float32(0.0))
    return operator.transmit(wave, image, used)


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
    seen = _seen_light(operator, wave, good, mix, inner)
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
    seen = _seen_light(operator, wave, good, mix, sky.guess_inner)
    whole = whole_light(operator, wave, mix, sky.full)
    missing = np.abs(whole_light(operator, wave, mix, sky.guess_full) - seen)
    uncovered = np.clip(1.0 - coverage, 0.0, 1.0)
    return np.asarray(np.divide(missing, whole, out=uncovered, where=whole > 0))


def star_share(
    operator: VaryingOperator,
    wave: NDArray[np.float64],
    mix: NDArray[np.float32],
    sky: Sky,
) -> NDArray[np.float32]:
    """Share of foreground objects in a pixel's light in the images, ``(n_wave, n_row)``.

    Parameters as for :func:`compensation`.
    """
    star = np.clip(whole_light(operator, wave, mix, sky.star_full), 0.0, None)
    whole = np.clip(whole_light(operator, wave, mix, sky.full), 0.0, None) + star
    return np.asarray(np.divide(star, whole, out=np.zeros_like(star), where=whole > 0))


def at_limit(g: NDArray[np.float32], plain: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where the compensation stands at its limit, so that it is a bound and not an estimate."""
    change = g / plain
    return np.asarray((change > 0.999 * _LARGEST) | (change < 1.001 / _LARGEST))
