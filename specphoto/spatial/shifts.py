"""What a registration finds: the fit of each band, whether it can be trusted, and the mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from specphoto.spatial.comparison import Limits

__all__ = ["STATUS", "TERMS", "BandFit", "Shift", "combine", "judge"]

#: Terms of a fit: the move of the cube east and north (arcsec), flux scale (cube over images),
#: sky offset (cube minus scaled images, flux per pixel), and the PSF width difference as FWHM of
#: the matched cube minus FWHM of the images (arcsec).
TERMS = ("east", "north", "scale", "offset", "width")
#: What a fit's status says; only 'ok' moves a cube.
STATUS = (
    "ok", "no_band_covered", "too_few_pixels", "no_common_structure", "at_edge_of_search",
    "shift_too_uncertain",
)  # fmt: skip
OK, NO_BAND, FEW_PIXELS, NO_STRUCTURE, AT_EDGE, UNCERTAIN = range(len(STATUS))

# The flux scale is to be known this many times its error.
_SIGNIFICANT = 5.0


class BandFit(NamedTuple):
    """Fit of one band: :data:`TERMS` and errors, covariance of the shift, how good it is.

    ``image`` and ``synthetic`` are what was compared, ``(n_y, n_x)`` of the box, in the images'
    unit and with their sky: NaN where nothing was. ``residual`` is their rms difference as a share
    of the core, the brightest pixel above the sky.
    """

    term: NDArray[np.float64]
    error: NDArray[np.float64]
    covariance: NDArray[np.float64]
    chi2: float
    correlation: float
    residual: float
    status: int
    image: NDArray[np.float32]
    synthetic: NDArray[np.float32]


def judge(
    shift: NDArray[np.float64], covariance: NDArray[np.float64], correlation: float,
    significance: float, limits: Limits,
) -> int:  # fmt: skip
    """Status of a fit.

    Parameters
    ----------
    shift, covariance
        Arcsec east and north.
    correlation
        Between the two images after the fit.
    significance
        Flux scale over its error, of a fit of image and offset alone.
    limits
        When a shift counts as found.
    """
    if not correlation >= limits.min_correlation or not significance > _SIGNIFICANT:
        return NO_STRUCTURE
    if not _largest_error(covariance) <= limits.max_error:
        return UNCERTAIN
    return AT_EDGE if np.hypot(*shift) > limits.max_shift else OK


def _largest_error(covariance: NDArray[np.float64]) -> float:
    if not np.all(np.isfinite(covariance)):
        return np.inf
    return float(np.sqrt(max(np.linalg.eigvalsh(covariance)[-1], 0.0)))


class Shift(NamedTuple):
    """What brings the cube onto the images: arcsec east and north, covariance, and status."""

    shift: NDArray[np.float64]
    covariance: NDArray[np.float64]
    status: int


def combine(fits: Sequence[BandFit], limits: Limits) -> Shift:
    """Mean shift of several bands, weighted with their inverse covariances.

    Bands without common structure or at the edge of the search do not count. Bands that disagree
    by more than their errors widen the errors of the mean.

    Parameters
    ----------
    fits
        One per band.
    limits
        When a shift counts as found.

    Returns
    -------
    Shift
        Zero, with unknown covariance, unless the status is 0 ('ok').
    """
    unknown = np.full((2, 2), np.nan)
    if not fits:
        return Shift(np.zeros(2), unknown, NO_BAND)
    able = [f for f in fits if f.status in (OK, UNCERTAIN) and np.isfinite(f.covariance).all()]
    if not able:
        # the band that tells most says why
        best = max(fits, key=lambda f: np.nan_to_num(f.correlation, nan=-1.0))
        return Shift(np.zeros(2), unknown, best.status)
    shifts, inverses = [f.term[:2] for f in able], [np.linalg.inv(f.covariance) for f in able]
    covariance = np.linalg.inv(np.sum(inverses, axis=0))
    mean = covariance @ np.sum([v @ s for v, s in zip(inverses, shifts, strict=True)], axis=0)
    if len(able) > 1:
        chi2 = sum((s - mean) @ v @ (s - mean) for v, s in zip(inverses, shifts, strict=True))
        covariance = covariance * max(1.0, float(chi2) / (2 * (len(able) - 1)))
    if _largest_error(covariance) > limits.max_error:
        return Shift(np.zeros(2), unknown, UNCERTAIN)
    if np.hypot(*mean) > limits.max_shift:
        return Shift(np.zeros(2), unknown, AT_EDGE)
    return Shift(mean, covariance, OK)
