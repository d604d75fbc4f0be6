"""Pixels of an image to flux and variance: pedestal, noise maps, unit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from astropy.stats import sigma_clip
from photutils.background import MADStdBackgroundRMS, SExtractorBackground

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["background", "border", "calibrated", "relative_variance"]

# Share of each side of an image that is its border, and pixels of it that are enough.
_BORDER = 0.1
_BORDER_PIXELS = 1_000_000


def border(shape: tuple[int, int]) -> list[tuple[slice, slice]]:
    """Four boxes along the sides of an image, thinned to about a million pixels in all."""
    n_y, n_x = shape
    wide_y, wide_x = (max(1, int(np.ceil(_BORDER * n))) for n in shape)
    size = 2 * (wide_y * n_x + wide_x * n_y)
    step = max(1, int(np.sqrt(size / _BORDER_PIXELS)))
    low, high = slice(0, wide_y, step), slice(n_y - wide_y, n_y, step)
    between, whole = slice(wide_y, n_y - wide_y, step), slice(0, n_x, step)
    return [
        (low, whole), (high, whole),
        (between, slice(0, wide_x, step)), (between, slice(n_x - wide_x, n_x, step)),
    ]  # fmt: skip


def background(values: NDArray[np.float64]) -> tuple[float, float]:
    """Sky level and 1-sigma scatter of an image from the pixels of its border.

    Clipped at 3 sigma. The level is the mode as SExtractor estimates it (Bertin & Arnouts 1996,
    A&AS 117, 393), which faint sources pull less than the median. The scatter is that of single
    pixels: in a drizzled or otherwise resampled image it is below that of independent ones.

    Parameters
    ----------
    values
        ``(n,)``; NaN is unknown.

    Returns
    -------
    level, scatter
        NaN where no pixel is known.
    """
    known = values[np.isfinite(values)]
    if known.size == 0:
        return float("nan"), float("nan")
    kept = sigma_clip(known, sigma=3.0, stdfunc="mad_std", masked=False)
    level = SExtractorBackground(sigma_clip=None)(kept)
    return float(level), float(MADStdBackgroundRMS(sigma_clip=None)(kept))


def relative_variance(
    flux: NDArray[np.float64], noise: NDArray[np.float64] | None, kind: str
) -> NDArray[np.float64]:
    """Variance of each pixel, up to a common factor for the kinds 'weight' and 'estimate'.

    Parameters
    ----------
    flux, noise
        ``(n_y, n_x)`` in image units; the noise is what ``kind`` says.
    kind
        'error', 'variance', 'inverse variance', 'weight'; 'estimate' (1 everywhere) or 'none' (NaN
        everywhere) without a map.

    Returns
    -------
    numpy.ndarray
        Like ``flux``. Infinite where there is a map and it says that the pixel holds no
        information: not finite, or not above 0.
    """
    if noise is None:
        return np.full(flux.shape, 1.0 if kind == "estimate" else np.nan)
    told = np.isfinite(noise) & (noise > 0)
    value = np.where(told, noise, 1.0)
    if kind == "error":
        value = value**2
    elif kind != "variance":
        value = 1.0 / value
    return np.where(told, value, np.inf)


def calibrated(
    flux: NDArray[np.float64],
    noise: NDArray[np.float64] | None,
    mask: NDArray[np.float64] | None,
    kind: str,
    *,
    factor: float,
    sky: float,
    scatter: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Flux and variance without the sky pedestal, in the unit of the result.

    Parameters
    ----------
    flux, noise, mask
        ``(n_y, n_x)`` in image units; pixels whose mask is not 0 are unknown.
    kind
        As for :func:`relative_variance`.
    factor
        Flux of one image unit.
    sky, scatter
        Pedestal, and for 'weight' and 'estimate' the scatter at relative variance 1; image units.

    Returns
    -------
    flux, variance
        Flux NaN where unknown.
    """
    variance = relative_variance(flux, noise, kind)
    bad = ~np.isfinite(flux) | np.isinf(variance)
    if mask is not None:
        bad |= mask != 0
    if kind in ("weight", "estimate"):
        variance = variance * scatter**2
    return np.where(bad, np.nan, (flux - sky) * factor), variance * factor**2
