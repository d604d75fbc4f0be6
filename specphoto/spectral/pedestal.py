r"""What a factor cannot represent: an additive offset of the spectra, such as of the sky.

Over the pixels of a galaxy the synthetic flux ``S`` of the uncorrected spectrum in a covered band
is compared with the image ``d``,

.. math:: S = p + (1 + q)\,d

with a pedestal ``p`` (sky) and a slope ``q`` (calibration). The noise is that of the image, for a
band sums hundreds of channels: the image is regressed on the synthetic flux, which noise in the
abscissa does not bias, and the line is turned round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Additive", "additive_residuals", "offset"]

# Relative scatter of pixels' calibration, so that the brightest do not rule the line.
_SCATTER = 0.03
_TURNS, _CLIP = 4, 4.0
_MIN_PIXELS = 10


class Additive(NamedTuple):
    """Slope ``q`` and pedestal ``p`` of each band and their 1-sigma errors, ``(n_band,)``.

    NaN where too few pixels have data.
    """

    slope: NDArray[np.float64]
    slope_err: NDArray[np.float64]
    pedestal: NDArray[np.float64]
    pedestal_err: NDArray[np.float64]


def additive_residuals(
    synthetic: NDArray[np.floating],
    image: NDArray[np.floating],
    error: NDArray[np.floating],
    use: NDArray[np.bool_],
    beam: float,
) -> Additive:
    """Line of synthetic against image flux, band by band.

    Parameters
    ----------
    synthetic, image, error
        Synthetic photometry of the spectra, images and their 1-sigma errors, ``(n_band,
        n_pixel)``, one unit; NaN is unknown.
    use
        Which pixels count, ``(n_pixel,)``.
    beam
        Pixels that share their noise, at least 1.

    Returns
    -------
    Additive
        Pedestals in the unit of the fluxes.
    """
    out = Additive(*(np.full(len(image), np.nan) for _ in Additive._fields))
    for b in range(len(image)):
        S, d, sigma = synthetic[b], image[b], error[b]
        good = use & np.isfinite(S) & np.isfinite(d) & (sigma > 0) & np.isfinite(sigma)
        if good.sum() < max(_MIN_PIXELS, 2.0 * beam):
            continue
        S, d, sigma = (np.asarray(a[good], dtype=np.float64) for a in (S, d, sigma))
        values = _line(S, d, sigma, max(beam, 1.0))
        for column, value in zip(out, values, strict=True):
            column[b] = value
    return out


def _line(
    S: NDArray[np.float64], d: NDArray[np.float64], sigma: NDArray[np.float64], beam: float
) -> tuple[float, float, float, float]:
    """Fit ``d = a + g S``, turned round; pixels far off are left out."""
    design, keep = np.stack([np.ones_like(S), S]), np.ones(S.size, dtype=bool)
    variance = sigma**2 + (_SCATTER * S) ** 2
    for _ in range(_TURNS):
        weight = np.where(keep, 1.0 / variance, 0.0)
        inverse = np.linalg.pinv((design * weight) @ design.T)
        a, g = inverse @ (design @ (weight * d))
        pull2 = (d - a - g * S) ** 2 / variance
        keep = pull2 < _CLIP**2 * max(1.0, float(np.median(pull2)))
    chi2 = max(1.0, float(pull2[keep].sum()) / max(int(keep.sum()) - 2, 1))
    cov = inverse * chi2 * beam
    # q = 1/g - 1, p = -a/g
    to_p = np.array([-1.0 / g, a / g**2])
    return (1.0 / g - 1.0, float(np.sqrt(cov[1, 1]) / g**2), -a / g,
            float(np.sqrt(to_p @ cov @ to_p)))  # fmt: skip


def offset(
    wave: NDArray[np.float64], pivot: NDArray[np.float64], pedestal: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Pedestal at each channel, linear between the bands that have one, ``(n_wave,)``.

    Parameters
    ----------
    wave
        Angstrom.
    pivot, pedestal
        Of the bands, ``(n_band,)``; unknown ones are left out. 0 if none is known.
    """
    known = np.isfinite(pedestal)
    if not known.any():
        return np.zeros(wave.size)
    order = np.argsort(pivot[known])
    return np.interp(wave, pivot[known][order], pedestal[known][order])
