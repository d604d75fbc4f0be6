"""The spatial match of piXedfit v1.0 as plain numpy kernels.

The recipe (Abdurro'uf et al. 2021, ApJS 254, 15; facts read from the source at tag v1.0): per
channel a convolution that fills masked spaxels from their neighbours, then surface brightness
averaged over each output pixel. It is reproduced with its faults, for comparison with earlier
results: a kernel of even size shifts the image by half a spaxel, and the variance goes through
the kernel like a flux. :mod:`specphoto.spatial.match` is the method to use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import fft, ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy import sparse

__all__ = ["averaging", "match", "region", "resample_kernel"]

# Less weight than this is rounding of the transform: no good spaxel lies within the kernel.
_NO_WEIGHT = 1e-12


def resample_kernel(
    kernel: NDArray[np.float64], pixel_scale: float, target_scale: float
) -> NDArray[np.float64]:
    """Kernel on pixels of another size, by a cubic spline.

    The size is the rounded product of size and ratio, so it may be even; the first and the last
    sample stay at the ends of the array.

    Parameters
    ----------
    kernel
        ``(n, n)``, any normalisation.
    pixel_scale, target_scale
        Pixel side of the kernel and of the result, arcsec.

    Returns
    -------
    numpy.ndarray
        Resampled kernel of sum 1.
    """
    resampled = ndimage.zoom(np.asarray(kernel, dtype=float), pixel_scale / target_scale, order=3)
    return np.asarray(resampled / resampled.sum())


def averaging(overlap: sparse.csr_array) -> sparse.csr_array:
    """Operator that averages surface brightness over each output pixel.

    Parameters
    ----------
    overlap
        ``(n_out, n_in)`` shared areas, see :func:`specphoto.spatial.overlap.overlap_matrix`.

    Returns
    -------
    scipy.sparse.csr_array
        Rows sum to 1; they are empty where an output pixel shares nothing with the input grid.
    """
    total = np.asarray(overlap.sum(axis=1)).ravel()
    scale = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)
    result = overlap.copy()
    result.data = result.data * np.repeat(scale, np.diff(overlap.indptr))
    return result


def match(
    planes: NDArray[np.floating],
    bad: NDArray[np.bool_],
    kernel: NDArray[np.float64],
    average: sparse.csr_array,
    shape_out: tuple[int, int],
    area_ratio: float,
) -> NDArray[np.float64]:
    r"""Convolve, fill and rebin planes; flux and variance alike.

    .. math:: f_o = a \sum_j \bar R_{oj} \frac{[k * (w f)]_j}{[k * w]_j}

    with :math:`w` 0 on bad spaxels and on values that are not finite, 1 elsewhere and beyond the
    frame (where *f* is 0), and *a* the ratio of the pixel areas.

    Parameters
    ----------
    planes
        ``(n_wave, n_y, n_x)`` flux or variance per spaxel.
    bad
        ``(n_y, n_x)`` or ``(n_wave, n_y, n_x)``, True = leave out.
    kernel
        ``(m, m)`` on the input grid, sum 1. Its origin is index ``m // 2``.
    average
        ``(n_out, n_y * n_x)`` from :func:`averaging`.
    shape_out
        ``(n_y, n_x)`` of the output grid.
    area_ratio
        Area of an output pixel over that of an input spaxel.

    Returns
    -------
    numpy.ndarray
        ``(n_wave, *shape_out)`` per output pixel, NaN where it shares nothing with the input.
    """
    values = np.asarray(planes, dtype=float)
    weight = np.isfinite(values) & ~np.asarray(bad, dtype=bool)
    transform = _Convolution(kernel, (values.shape[1], values.shape[2]))
    filled = np.empty_like(values)
    last = np.ones(values.shape[1:], dtype=bool)
    mass = np.ones(values.shape[1:])
    for i, (plane, good) in enumerate(zip(values, weight, strict=True)):
        if not np.array_equal(good, last):
            # what lies beyond the frame has weight: the kernel's whole sum less what is bad
            mass, last = 1.0 - transform((~good).astype(float)), good
        light = transform(np.where(good, plane, 0.0))
        filled[i] = np.divide(light, mass, out=np.zeros_like(light), where=mass > _NO_WEIGHT)
    rebinned = (average @ filled.reshape(len(filled), -1).T).T * area_ratio
    rebinned[:, np.diff(average.indptr) == 0] = np.nan
    return np.asarray(rebinned.reshape(-1, *shape_out))


def region(
    bad: NDArray[np.bool_],
    average: sparse.csr_array,
    photo_region: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Galaxy pixels that touch no bad spaxel.

    Parameters
    ----------
    bad
        ``(n_y, n_x)``, True = no spectrum.
    average
        ``(n_out, n_y * n_x)`` from :func:`averaging`.
    photo_region
        ``(n_y_out, n_x_out)``, True = galaxy.
    """
    touched = average @ np.asarray(bad, dtype=float).ravel()
    covered = np.diff(average.indptr) > 0
    clean = (touched == 0.0) & covered
    return np.asarray(clean.reshape(photo_region.shape) & photo_region)


class _Convolution:
    """Convolution with zeros beyond the frame, origin of the kernel at index ``m // 2``."""

    def __init__(self, kernel: NDArray[np.float64], shape: tuple[int, int]) -> None:
        self._padded = tuple(
            fft.next_fast_len(n + m - 1, real=True)
            for n, m in zip(shape, kernel.shape, strict=True)
        )
        self._kernel = fft.rfft2(kernel, self._padded)
        self._part = tuple(
            slice(m // 2, m // 2 + n) for n, m in zip(shape, kernel.shape, strict=True)
        )

    def __call__(self, plane: NDArray[np.float64]) -> NDArray[np.float64]:
        product = fft.rfft2(plane, self._padded) * self._kernel
        return np.asarray(fft.irfft2(product, self._padded)[self._part])
