r"""Motion within a galaxy: models at each pixel's velocity, and velocities of spectra.

A pixel that moves at v has its features at :math:`\lambda (1 + v/c)`, on top of the galaxy's
redshift. The factor, the sky and the bands stay where they are: what moves is the model, the
windows about emission lines, and the bins in which features are measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FASTEST", "Motion", "Velocities", "measure_velocities"]

_C_KM_S = 299_792.458
#: Velocities are looked for up to this, km/s.
FASTEST = 600.0
_STEP = 30.0
_DISPERSION = 100.0
# Half width, in ln(wave), of the running mean that stands for the continuum: 7500 km/s.
_SMOOTH = 0.025
# Share of the running mean that must be good.
_SEEN = 0.5
# A velocity counts when the features improve chi2 by this much, and it is known to this, km/s.
_SIGNIFICANT, _WORST = 30.0, 100.0
# Error by the template, which is no spectrum's own, km/s: the scatter of noiseless models of all
# kinds against the mean of all.
_TEMPLATE = 15.0


@dataclass(frozen=True, eq=False)
class Motion:
    """Pixels of known velocities on one wavelength grid.

    Parameters
    ----------
    wave
        Channels, observed, Angstrom, shape ``(n_wave,)``.
    velocity
        km/s relative to the galaxy's redshift, receding positive, shape ``(n_pixel,)``; where not
        finite, the pixel moves with the galaxy.
    """

    wave: NDArray[np.float64]
    velocity: NDArray[np.float64]

    @property
    def _stretch(self) -> NDArray[np.float64]:
        return np.asarray(1.0 + np.nan_to_num(self.velocity)[:, None] / _C_KM_S)

    def of_models(self, spectra: NDArray[np.float64]) -> NDArray[np.float64]:
        """Models of the pixels, as they are seen in motion.

        Parameters
        ----------
        spectra
            At the galaxy's redshift, shape ``(n_pixel, n_wave)``.

        Returns
        -------
        array of shape ``(n_pixel, n_wave)``
            Linear between channels; the last values go on at the ends. The stretch of the channels
            themselves, a part in a thousand of the flux, is not felt by a relative calibration.
        """
        at = self.wave / self._stretch
        return np.stack([
            np.interp(x, self.wave, row) for x, row in zip(at, spectra, strict=True)
        ])  # fmt: skip

    def of_windows(self, windows: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Windows ``(n_wave,)`` of the galaxy's rest frame, moved, ``(n_pixel, n_wave)``."""
        return np.asarray(windows[self._nearest(self.wave / self._stretch)])

    def at_rest(
        self, flux: NDArray[np.float64], variance: NDArray[np.float64], good: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """Spectra as if the pixels did not move: each channel's nearest, nothing is interpolated.

        Parameters
        ----------
        flux, variance, good
            Shape ``(n_pixel, n_wave)``.

        Returns
        -------
        flux, variance, good
            Same shapes; not good where the cube does not reach.
        """
        at = self.wave * self._stretch
        inside = (at >= self.wave[0]) & (at <= self.wave[-1])
        index = self._nearest(at)
        return (
            np.take_along_axis(flux, index, axis=1),
            np.take_along_axis(variance, index, axis=1),
            np.take_along_axis(good, index, axis=1) & inside,
        )

    def _nearest(self, at: NDArray[np.float64]) -> NDArray[np.intp]:
        middle = 0.5 * (self.wave[1:] + self.wave[:-1])
        return np.searchsorted(middle, at)


class Velocities(NamedTuple):
    """Velocities of pixels and their 1-sigma errors, km/s, ``(n_pixel,)``; NaN where not known."""

    velocity: NDArray[np.float64]
    error: NDArray[np.float64]


def measure_velocities(
    flux: NDArray[np.float64],
    variance: NDArray[np.float64],
    good: NDArray[np.bool_],
    template: NDArray[np.float64],
    wave: NDArray[np.float64],
) -> Velocities:
    r"""Velocities of spectra against a template, by their absorption lines.

    Spectrum and template are divided by running means, :math:`y = f / \bar f - 1`. For velocities
    :math:`v` between :data:`FASTEST` and its opposite the best multiple of the moved template is
    taken off; what :math:`\chi^2` gains,

    .. math:: G(v) = \frac{(\sum_i w_i y_i t_i(v))^2}{\sum_i w_i t_i(v)^2} ,

    is highest at the velocity, and its curvature there gives the error, raised by the scatter of
    what is left. It is known where the gain is significant, its error is small and its highest
    point not at an end.

    Parameters
    ----------
    flux, variance, good
        Spectra, shape ``(n_pixel, n_wave)``; ``good`` are channels of clean continuum.
    template
        Spectrum at the galaxy's redshift and the cube's resolution, shape ``(n_wave,)``.
    wave
        Channels, observed, Angstrom, shape ``(n_wave,)``.
    """
    y, w = _features(flux, variance, good, wave)
    lit = np.isfinite(template) & (template > 0)
    t = np.where(lit, np.nan_to_num(template), 0.0)[None]
    line, seen = _features(t, np.ones(t.shape), lit[None], wave)
    line = _dispersed(np.where(seen > 0, line, 0.0)[0], wave)
    grid = np.arange(-FASTEST, FASTEST + _STEP, _STEP)
    moved = Motion(wave, grid).of_models(np.broadcast_to(line, (grid.size, wave.size)))
    cross, power = (w * y) @ moved.T, w @ (moved**2).T
    gain = np.where(power > 0, np.maximum(cross, 0.0) ** 2 / np.where(power > 0, power, 1.0), 0.0)
    top = np.argmax(gain, axis=1)
    inside = (top > 0) & (top < grid.size - 1)
    around = np.clip(top, 1, grid.size - 2)[:, None] + np.array([-1, 0, 1])
    left, middle, right = np.take_along_axis(gain, around, axis=1).T
    curvature = np.maximum(2.0 * middle - left - right, 1e-12)
    velocity = grid[around[:, 1]] + 0.5 * _STEP * (right - left) / curvature
    count = np.maximum((w > 0).sum(axis=1), 1)
    scatter = np.maximum(((w * y**2).sum(axis=1) - middle) / count, 1.0)
    # chi2 rises by 1 at one sigma: G = middle - (v - v0)^2 curvature / (2 step^2)
    error = np.hypot(_STEP * np.sqrt(2.0 * scatter / curvature), _TEMPLATE)
    known = inside & (middle > _SIGNIFICANT * scatter) & (error < _WORST)
    return Velocities(np.where(known, velocity, np.nan), np.where(known, error, np.nan))


def _dispersed(spectrum: NDArray[np.float64], wave: NDArray[np.float64]) -> NDArray[np.float64]:
    """Smooth a template as stars of a galaxy do: one sharper than the data finds half channels."""
    velocity = np.linspace(-3.0, 3.0, 25) * _DISPERSION
    weight = np.exp(-0.5 * (velocity / _DISPERSION) ** 2)
    moved = Motion(wave, velocity).of_models(np.broadcast_to(spectrum, (25, wave.size)))
    return np.asarray(weight @ moved / weight.sum())


def _features(
    flux: NDArray[np.float64],
    variance: NDArray[np.float64],
    good: NDArray[np.bool_],
    wave: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Spectra over their running mean, less 1, and inverse variances; 0 where not known."""
    first = np.searchsorted(wave, wave * np.exp(-_SMOOTH))
    last = np.searchsorted(wave, wave * np.exp(_SMOOTH), side="right")
    kept = np.where(good, flux, 0.0)
    sums = [
        np.concatenate([np.zeros((len(a), 1)), np.cumsum(a, axis=1)], axis=1)
        for a in (kept, good.astype(float))
    ]
    total, count = (s[:, last] - s[:, first] for s in sums)
    use = good & (count >= _SEEN * (last - first)) & (total > 0)
    level = np.where(use, total / np.maximum(count, 1.0), 1.0)
    y = np.where(use, flux / level - 1.0, 0.0)
    return y, np.where(use, level**2 / np.where(use, variance, 1.0), 0.0)
