"""Noise of known size and correlation.

MaNGA's cubes are made of dithered 2 arcsec fibres, resampled to 0.5 arcsec spaxels with weights
exp(-r^2 / 2 s^2), s = 0.7 arcsec, cut at 1.6 arcsec (modified Shepard; Law et al. 2016, AJ 152,
83). Neighbouring spaxels share fibres and so share noise: the correlation is close to a Gaussian
of scale 1.92 spaxels (Westfall et al. 2019, AJ 158, 231). The same is done here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array, diags_array
from scipy.spatial import cKDTree

from specphoto.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from specphoto.simulate.pixels import PixelGrid

__all__ = [
    "RINGS",
    "fibre_positions",
    "isophote",
    "log_uniform",
    "shepard",
    "unit_noise",
    "wave_shape",
]

FIBRE_PITCH = 2.5
SHEPARD_SIGMA = 0.7
SHEPARD_RADIUS = 1.6
_GUIDING = 0.1

# fibres in a bundle -> hexagonal rings round the central fibre
RINGS = {19: 2, 37: 3, 61: 4, 91: 5, 127: 6}


def fibre_positions(
    n_fibre: int, *, rng: np.random.Generator, n_set: int = 3
) -> NDArray[np.float64]:
    """Positions ``(3 n_set n_fibre, 2)`` in arcsec (east, north) of the fibres in all exposures.

    The bundle is hexagonal with a pitch of 2.5 arcsec; a set of exposures is three dithers on
    the triangle that fills its gaps. Each exposure is off by 0.1 arcsec or so, as guiding is.

    Raises
    ------
    InputError
        If no bundle has that many fibres.
    """
    if n_fibre not in RINGS:
        raise InputError(
            "fibres", expected="one of " + ", ".join(map(str, RINGS)), found=str(n_fibre),
            remedy="choose a MaNGA bundle",
        )  # fmt: skip
    rings = RINGS[n_fibre]
    axial = [
        (q, r)
        for q in range(-rings, rings + 1)
        for r in range(-rings, rings + 1)
        if abs(q + r) <= rings
    ]
    q, r = np.array(axial, dtype=float).T
    bundle = FIBRE_PITCH * np.column_stack([q + 0.5 * r, 0.5 * np.sqrt(3.0) * r])
    # the gaps of a hexagonal grid are the corners of a triangle round each of its points
    angle = np.deg2rad([90.0, 210.0, 330.0])
    dither = FIBRE_PITCH / 3.0 * np.column_stack([np.cos(angle), np.sin(angle)])
    exposures = [
        bundle + point + rng.normal(0.0, _GUIDING, 2) for _ in range(n_set) for point in dither
    ]
    return np.concatenate(exposures)


def shepard(
    positions: NDArray[np.float64], pixels: PixelGrid
) -> tuple[csr_array, NDArray[np.float64]]:
    """Weights of the modified Shepard method.

    Returns
    -------
    weights
        ``(n_pixel, n_fibre)``; rows sum to 1 or are empty.
    total
        Their sums before that, ``(n_pixel,)``.
    """
    east, north = pixels.offsets()
    spaxels = cKDTree(np.column_stack([east.ravel(), north.ravel()]))
    fibres = cKDTree(positions)
    near = spaxels.sparse_distance_matrix(fibres, SHEPARD_RADIUS, output_type="coo_matrix")
    weight = np.exp(-0.5 * (near.data / SHEPARD_SIGMA) ** 2)
    matrix = csr_array((weight, (near.row, near.col)), shape=near.shape)
    total = np.asarray(matrix.sum(axis=1))
    return csr_array(diags_array(1.0 / np.where(total > 0.0, total, 1.0)) @ matrix), total


def unit_noise(
    rng: np.random.Generator, n_wave: int, n_pixel: int, weights: csr_array | None
) -> NDArray[np.float32]:
    """Gaussian noise ``(n_wave, n_pixel)`` of variance 1, independent between channels.

    With `weights` ``(n_pixel, n_fibre)``, rows normalised in quadrature, it is independent noise
    of fibres resampled to pixels; without, it is independent between pixels too.
    """
    if weights is None:
        return rng.standard_normal((n_wave, n_pixel), dtype=np.float32)
    fibre = rng.standard_normal((weights.shape[1], n_wave), dtype=np.float32)
    return np.ascontiguousarray((weights @ fibre).T)


def wave_shape(wave: NDArray[np.float64]) -> NDArray[np.float64]:
    """Noise against wavelength ``(n_wave,)``, 1 near 6200 A: rising to both ends."""
    blue = 2.0 * np.exp(-(wave - 3600.0) / 450.0)
    red = 0.6 * np.exp(-0.5 * ((wave - 10300.0) / 900.0) ** 2)
    return 1.0 + np.minimum(blue, 3.0) + red


def isophote(light: NDArray[np.float64]) -> float:
    """Flux per pixel on the isophote that holds half of an image's light."""
    flux = np.sort(light[np.isfinite(light) & (light > 0.0)])[::-1]
    return float(flux[np.searchsorted(np.cumsum(flux), 0.5 * flux.sum())])


def log_uniform(
    rng: np.random.Generator, limits: tuple[float, float], shape: tuple[int, ...]
) -> NDArray[np.float64]:
    """Numbers whose logarithm is uniform between two limits."""
    return np.asarray(np.exp(rng.uniform(np.log(limits[0]), np.log(limits[1]), shape)))
