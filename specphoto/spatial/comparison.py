r"""What a registration compares: a cube's image through the operator, and the images.

With ``w`` 1 on good spaxels and ``f`` their flux, the cube gives ``A w f`` of each pixel, the light
that the operator sees. The images show all light, so what the operator does not see is taken from
them, :math:`R K (1 - w) I` with ``I`` the sky at the cube's resolution. The images know it only
blurred by ``K`` once more; from several blurs it is extrapolated to none.

Only products with ``A`` and its transpose are needed, so ``A = R K`` is never written out: ``K`` is
a convolution in Fourier space, ``R`` the sparse matrix of overlaps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import ndimage, signal

from specphoto.spatial.correlation import LagCorrelation, correlation_matrix
from specphoto.spatial.kernel import gaussian_kernel
from specphoto.spatial.operator import operator_pad
from specphoto.spatial.overlap import overlap_matrix
from specphoto.spatial.psf import FWHM_PER_SIGMA

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy import sparse

__all__ = ["Limits", "Scene", "View", "filled", "look", "missing", "planes_of", "quadratic"]

# Pixels covered less than this rest on the images' own light more than on the cube's.
_MIN_COVERAGE = 0.5
# Pixels with more of their light than this from foreground spaxels are not compared.
_STARLIGHT = 0.1
# Pixels whose variance is worked out to scale that of all.
_N_SAMPLE = 9


@dataclass(frozen=True)
class Limits:
    """When a shift counts as found.

    Parameters
    ----------
    max_shift
        Largest shift looked for, arcsec.
    max_error
        Largest 1-sigma error of a shift that is applied, arcsec per axis.
    min_correlation
        Smallest correlation between the images and the cube's own.
    psf_error
        Relative error of the FWHM as stated, of cube and images together: a prior of the width.
    model_error
        Share of a pixel's light by which the two may differ for other reasons than noise (PSF
        wings, colours); it keeps a bright core from deciding alone and enters weights only.
    """

    max_shift: float = 3.0
    max_error: float = 0.1
    min_correlation: float = 0.5
    psf_error: float = 0.15
    model_error: float = 0.02


@dataclass(frozen=True)
class Scene:
    """One band of cube and images, and where they are.

    Attributes
    ----------
    flux, variance, good
        The cube's image in the band, flux per input pixel, ``(n_y_in, n_x_in)``.
    foreground
        Spaxels of a foreground star; they are not good either.
    image, error
        The images' flux per output pixel, ``(n_y, n_x)``; unknown is NaN.
    region
        Output pixels to compare, ``(n_y, n_x)``.
    corner_x, corner_y
        Corners of the output pixels of ``box`` in input pixels.
    box
        Part of the output frame the cube may reach.
    x, y
        Output pixel coordinates of the input grid, padded.
    kernel
        From the cube's PSF to the images', on the input grid.
    sky_in, sky_out
        Arcsec east and north per pixel along x and y, ``(2, 2)``, of the two grids.
    fwhm
        Of the images' PSF, arcsec.
    correlation
        Of the noise of spaxels, a stencil or lags; ``image_correlation`` of that of the images'
        pixels, a stencil.
    """

    flux: NDArray[np.float64]
    variance: NDArray[np.float64]
    good: NDArray[np.bool_]
    foreground: NDArray[np.bool_]
    image: NDArray[np.float64]
    error: NDArray[np.float64]
    region: NDArray[np.bool_]
    corner_x: NDArray[np.float64]
    corner_y: NDArray[np.float64]
    box: tuple[slice, slice]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    kernel: NDArray[np.float64]
    sky_in: NDArray[np.float64]
    sky_out: NDArray[np.float64]
    fwhm: float
    correlation: NDArray[np.float64] | LagCorrelation
    image_correlation: NDArray[np.float64]

    @property
    def scale_in(self) -> float:
        """Pixel side of the cube in arcsec."""
        return float(np.sqrt(abs(np.linalg.det(self.sky_in))))

    @property
    def scale_out(self) -> float:
        """Pixel side of the images in arcsec."""
        return float(np.sqrt(abs(np.linalg.det(self.sky_out))))

    def prior(self, limits: Limits) -> float:
        """Inverse variance of the width (output pixels squared) that is known of the PSFs."""
        known = ((1.0 + limits.psf_error) ** 2 - 1.0) * (self.fwhm / FWHM_PER_SIGMA) ** 2
        return float((self.scale_out**2 / known) ** 2)

    def corner_shift(self, move: NDArray[np.float64]) -> NDArray[np.float64]:
        """What a move of the cube (output pixels, x and y) adds to the corners, input pixels."""
        return np.asarray(-np.linalg.solve(self.sky_in, self.sky_out @ move))


class View(NamedTuple):
    """The cube at one pointing, through a kernel.

    Attributes
    ----------
    pixel
        Flat index of the compared pixels in the box, ``(n_pixel,)``.
    overlap
        ``R`` of those pixels on the padded input grid.
    kernel, pad
        ``K``, and how far the input grid is padded.
    area
        Of an output pixel in input pixels.
    data, sigma, coverage
        The cube's light per pixel, its error and the coverage, ``(n_pixel,)``.
    error
        Error of the images there, ``(n_pixel,)``.
    x, y
        Output pixel coordinates of the padded input grid.
    """

    pixel: NDArray[np.intp]
    overlap: sparse.csr_array
    kernel: NDArray[np.float64]
    pad: int
    area: float
    data: NDArray[np.float64]
    sigma: NDArray[np.float64]
    coverage: NDArray[np.float64]
    error: NDArray[np.float64]
    x: NDArray[np.float64]
    y: NDArray[np.float64]

    def padded(self, plane: NDArray[np.generic]) -> NDArray[np.float64]:
        """Plane of the input grid with zeros about it."""
        return np.pad(np.asarray(plane, dtype=float), self.pad)

    def through(self, planes: NDArray[np.float64]) -> NDArray[np.float64]:
        """``R K`` of planes on the padded input grid, ``(n_plane, n_pixel)``."""
        smooth = convolved(planes, self.kernel)
        return np.asarray((self.overlap @ smooth.reshape(planes.shape[0], -1).T).T)

    def back(self, values: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float64]:
        """Transpose of :meth:`through`: values per pixel back on the input grid of a shape."""
        sides = (shape[0] + 2 * self.pad, shape[1] + 2 * self.pad)
        planes = (self.overlap.T @ values.T).T.reshape(-1, *sides)
        smooth = convolved(planes, self.kernel[::-1, ::-1])
        inner = tuple(slice(self.pad, self.pad + n) for n in shape)
        return np.asarray(smooth[:, *inner])

    def of(self, planes: NDArray[np.float64], box: tuple[slice, slice]) -> NDArray[np.float64]:
        """Planes of the output frame at the pixels, ``(n_plane, n_pixel)``."""
        return np.asarray(planes[:, *box].reshape(planes.shape[0], -1)[:, self.pixel])


def look(scene: Scene, move: NDArray[np.float64], width: float) -> View:
    """See the cube at a pointing, moved by output pixels.

    A negative width (arcsec^2) is given to the cube: its kernel is broader by it.
    """
    kernel = scene.kernel
    if width < 0:
        more = gaussian_kernel(np.sqrt(-width) / scene.scale_in)
        kernel = np.asarray(signal.convolve(kernel, more, mode="full"))
    shift, shape = scene.corner_shift(move), scene.flux.shape
    corners = (scene.corner_x + shift[0], scene.corner_y + shift[1])
    pad = operator_pad(*corners, shape, kernel)
    overlap = overlap_matrix(corners[0] + pad, corners[1] + pad, tuple(n + 2 * pad for n in shape))
    usable = np.isfinite(scene.image) & (scene.error > 0) & np.isfinite(scene.error)
    # derivatives reach one pixel further
    usable = ndimage.binary_erosion(usable & scene.region, np.ones((3, 3)), border_value=1)
    pixel = np.flatnonzero(usable[scene.box].ravel() & (np.diff(overlap.indptr) > 0))
    area = abs(np.linalg.det(scene.sky_out) / np.linalg.det(scene.sky_in))
    trim = (scene.x.shape[0] - shape[0]) // 2 - pad
    inner = (slice(trim, scene.x.shape[0] - trim), slice(trim, scene.x.shape[1] - trim))
    none = np.empty(0)
    view = View(
        pixel, overlap[pixel], kernel, pad, area, none, none, none, none,
        scene.x[inner] + move[0], scene.y[inner] + move[1],
    )  # fmt: skip
    return _away_from_stars(scene, _with_light(scene, view))


def _away_from_stars(scene: Scene, view: View) -> View:
    """Leave out pixels where foreground spaxels, which the cube does not use, give much light.

    A star's light is concentrated: what the images say of it at their PSF is not good enough.
    """
    if not scene.foreground.any() or view.pixel.size == 0:
        return view
    image = filled(scene.image)[None]
    light = missing(view, scene, image, 1, where=scene.foreground)[0, 0]
    keep = light < _STARLIGHT * np.abs(view.of(image, scene.box)[0])
    return view._replace(
        pixel=view.pixel[keep], overlap=view.overlap[keep], data=view.data[keep],
        sigma=view.sigma[keep], coverage=view.coverage[keep], error=view.error[keep],
    )  # fmt: skip


def _with_light(scene: Scene, view: View) -> View:
    """Fill in what the cube shows, in the pixels that it covers."""
    known = [np.where(scene.good, a, 0.0) for a in (scene.flux, scene.variance, 1.0)]
    light, variance, seen = view.through(np.stack([view.padded(a) for a in known]))
    coverage = seen / view.area
    keep = (coverage >= _MIN_COVERAGE) & (variance > 0)
    view = view._replace(
        pixel=view.pixel[keep], overlap=view.overlap[keep], data=light[keep],
        coverage=coverage[keep],
    )  # fmt: skip
    error = view.of(scene.error[None], scene.box)[0]
    # mean variance of the spaxels seen, times the weights' sum of products: the same for all
    # pixels but for the missing spaxels
    mean = variance[keep] / np.maximum(seen[keep], 1e-9)
    sigma = np.sqrt(_weight_squared(scene, view) * mean * coverage[keep])
    return view._replace(sigma=sigma, error=error)


def _weight_squared(scene: Scene, view: View) -> float:
    r"""``a^T rho a`` of a pixel's weights: its variance for spaxels of variance 1."""
    if view.pixel.size == 0:
        return np.nan
    best = np.argsort(-view.coverage, kind="stable")
    sample = best[:: max(1, best.size // (2 * _N_SAMPLE))][:_N_SAMPLE]
    unit = np.zeros((sample.size, view.pixel.size))
    unit[np.arange(sample.size), sample] = 1.0
    weights = view.back(unit, scene.flux.shape) * scene.good
    return float(np.mean(np.diag(quadratic(weights, scene.correlation)) / view.coverage[sample]))


def filled(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Image with the nearest known value where it is unknown."""
    known = np.isfinite(image)
    if known.all() or not known.any():
        return np.where(known, image, 0.0)
    nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    return np.asarray(image[tuple(nearest)], dtype=float)


def planes_of(
    image: NDArray[np.float64], step: NDArray[np.float64], sigma: float
) -> NDArray[np.float64]:
    """Image moved by a step and blurred, its gradient and half its Laplacian, ``(4, n_y, n_x)``.

    The derivatives are those of the cubic spline through the pixels.
    """
    moved = ndimage.shift(image, -step[::-1], order=3, mode="nearest") if step.any() else image
    if sigma > 0:
        kernel = gaussian_kernel(sigma)
        reach = kernel.shape[0] // 2
        moved = signal.fftconvolve(np.pad(moved, reach, mode="edge"), kernel, mode="valid")
    spline = ndimage.spline_filter(moved, order=3)
    value, first, second = np.array([1, 4, 1]) / 6, np.array([-1, 0, 1]) / 2, np.array([1, -2, 1])

    def derivative(
        along_y: NDArray[np.float64], along_x: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        part = ndimage.correlate1d(spline, along_y.astype(float), axis=0, mode="mirror")
        return np.asarray(ndimage.correlate1d(part, along_x.astype(float), axis=1, mode="mirror"))

    laplacian = derivative(value, second) + derivative(second, value)
    return np.stack([moved, derivative(value, first), derivative(first, value), 0.5 * laplacian])


def missing(
    view: View,
    scene: Scene,
    planes: NDArray[np.float64],
    blurs: int,
    *,
    where: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Light of planes (output frame) that the operator does not see, ``(blurs, n_plane, n_pixel)``.

    The first is that of the planes themselves, each next one of planes blurred by the kernel
    once more. With ``where`` only what comes from these spaxels counts.
    """
    unseen = 1.0 - view.padded(scene.good) if where is None else view.padded(where)
    position = [np.nan_to_num(view.y, nan=-9.0), np.nan_to_num(view.x, nan=-9.0)]
    sky = np.stack([ndimage.map_coordinates(p, position, order=1, mode="nearest") for p in planes])
    sky /= view.area
    out = []
    for k in range(blurs):
        sky = convolved(sky, view.kernel) if k > 0 else sky
        out.append(view.through(sky * unseen))
    return np.stack(out)


def convolved(planes: NDArray[np.float64], kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Planes convolved with a kernel; beyond the border the nearest value goes on."""
    if kernel.size == 1:
        return np.asarray(planes * kernel[0, 0])
    ry, rx = kernel.shape[0] // 2, kernel.shape[1] // 2
    wide = np.pad(planes, ((0, 0), (ry, ry), (rx, rx)), mode="edge")
    return np.asarray(signal.fftconvolve(wide, kernel[None], mode="valid", axes=(1, 2)))


def quadratic(
    planes: NDArray[np.float64], correlation: NDArray[np.float64] | LagCorrelation
) -> NDArray[np.float64]:
    """``t_i^T rho t_k`` of planes with the correlation of their pixels, ``(n_plane, n_plane)``."""
    flat = planes.reshape(planes.shape[0], -1).astype(float)
    if isinstance(correlation, LagCorrelation):
        return np.asarray(flat @ (correlation_matrix(correlation) @ flat.T))
    if correlation.size == 1:
        return np.asarray(flat @ flat.T)
    smooth = signal.fftconvolve(planes.astype(float), correlation[None], mode="same", axes=(1, 2))
    return np.asarray(flat @ smooth.reshape(flat.shape).T)
