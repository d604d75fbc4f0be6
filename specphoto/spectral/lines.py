"""Where the continuum is clean: emission lines, night-sky residuals, telluric bands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["EMISSION_LINES", "TELLURIC", "line_channels", "sky_channels"]

_C_KM_S = 299_792.458

#: Rest wavelengths in vacuum (Angstrom) of lines that are strong in galaxies and AGN, and of the
#: interstellar Na D doublet (NIST Atomic Spectra Database).
EMISSION_LINES = np.array([
    1215.67, 1549.48, 1640.42, 1908.73, 2326.11, 2471.09, 2799.12, 3426.85, 3727.09, 3729.88,
    3798.98, 3836.47, 3869.86, 3889.75, 3968.59, 3971.20, 4069.75, 4077.50, 4102.89, 4341.68,
    4364.44, 4472.73, 4659.35, 4687.02, 4712.58, 4741.45, 4862.68, 4960.30, 5008.24, 5199.35,
    5201.71, 5756.19, 5877.25, 5891.58, 5897.56, 6302.05, 6313.81, 6365.54, 6549.85, 6564.61,
    6585.27, 6679.99, 6718.29, 6732.67, 7067.14, 7137.77, 7321.48, 7332.21, 7753.19, 8448.68,
    9017.80, 9071.09, 9231.95, 9533.21, 9548.82, 10052.6,
])  # fmt: skip

#: Night-sky lines whose residuals are the largest, vacuum Angstrom (Osterbrock et al. 1996).
_SKY_LINES = np.array([5578.89, 5891.6, 5897.6, 6302.05, 6365.54])
_SKY_HALF_WIDTH = 6.0

#: Telluric bands B, A and the water band beyond 9300 A, vacuum Angstrom.
TELLURIC = ((6866.0, 6960.0), (7592.0, 7700.0), (9310.0, 9620.0))


def line_channels(
    wave: NDArray[np.float64],
    redshift: float,
    lsf: NDArray[np.float64] | None,
    *,
    half_width: float = 500.0,
) -> NDArray[np.bool_]:
    """Channels inside an emission-line window.

    Parameters
    ----------
    wave
        Observed wavelengths, vacuum Angstrom.
    redshift
        Of the galaxy.
    lsf
        1-sigma line-spread width in Angstrom, or None; three of it widen the windows.
    half_width
        Half width in km/s: room for rotation, dispersion and an imprecise redshift.

    Returns
    -------
    numpy.ndarray
        ``(n_wave,)`` bool.
    """
    centre = EMISSION_LINES * (1.0 + redshift)
    width = np.zeros(wave.size) if lsf is None else 3.0 * np.nan_to_num(lsf)
    reach = half_width / _C_KM_S * centre[None, :] + width[:, None]
    return np.asarray((np.abs(wave[:, None] - centre[None, :]) < reach).any(axis=1))


def sky_channels(wave: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Channels at night-sky lines and in telluric bands, ``(n_wave,)`` bool."""
    bad = (np.abs(wave[:, None] - _SKY_LINES[None, :]) < _SKY_HALF_WIDTH).any(axis=1)
    for lo, hi in TELLURIC:
        bad |= (wave > lo) & (wave < hi)
    return np.asarray(bad)
