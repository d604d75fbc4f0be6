"""From the sky to a survey's numbers: dust, miscalibration, noise of known sigma."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from specphoto.errors import InputError
from specphoto.simulate.noise import isophote, log_uniform, unit_noise, wave_shape

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from scipy.sparse import csr_array

    from specphoto.simulate.pixels import PixelGrid
    from specphoto.simulate.sky import LightCube, PsfCurve
    from specphoto.simulate.truth import Sight

__all__ = ["Exposure", "Noise", "SimulatedCube", "expose", "shifted"]

Noise = Literal["correlated", "independent", "none"]
Snr = float | tuple[float, float]

# Channels per block: the random stream is cut at the same places whoever reads it.
BLOCK = 256
_REFERENCE = 6200.0


@dataclass(frozen=True, eq=False)
class Exposure:
    """What one instrument records, evaluated block by block.

    Parameters
    ----------
    light
        Noiseless light before Galactic dust.
    wave
        Vacuum wavelengths ``(n_wave,)``, Angstrom.
    throughput
        Galactic transmission ``(n_wave,)``, over the survey's own correction of it.
    factor
        Miscalibration P, ``(n_wave, 1, 1)`` or ``(n_wave, n_y, n_x)``: recorded = true / P.
    sigma_wave, sigma_map
        1-sigma noise of a channel is their product, ``(n_wave,)`` and ``(n_y, n_x)``,
        1e-17 erg s-1 cm-2 Angstrom-1; NaN where nothing was observed.
    weights
        Fibre weights ``(n_pixel, n_fibre)`` of unit quadratic sum, for correlated noise.
    noisy
        Whether noise is added (its sigma is stated in any case).
    truth
        Seeds the noise.
    """

    light: LightCube
    wave: NDArray[np.float64]
    throughput: NDArray[np.float64]
    factor: NDArray[np.float64]
    sigma_wave: NDArray[np.float64]
    sigma_map: NDArray[np.float64]
    weights: csr_array | None
    noisy: bool
    truth: Sight

    def noiseless(self, start: int, stop: int) -> NDArray[np.float64]:
        """Recorded flux without noise, channels `start` to `stop`: ``(n, n_y, n_x)``."""
        gain = self.throughput[start:stop, None, None] / self.factor[start:stop]
        return self.light.planes(start, stop) * gain

    def true(self, start: int, stop: int) -> NDArray[np.float64]:
        """Light before Galactic dust and miscalibration: ``(n, n_y, n_x)``."""
        return self.light.planes(start, stop)

    def sigma(self, start: int, stop: int) -> NDArray[np.float64]:
        """1-sigma noise ``(n, n_y, n_x)``."""
        return self.sigma_wave[start:stop, None, None] * self.sigma_map

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Channel ranges that cover the cube."""
        n = self.wave.size
        return ((i, min(i + BLOCK, n)) for i in range(0, n, BLOCK))

    def flux(self) -> Iterator[NDArray[np.float64]]:
        """Recorded flux, block by block, 0 where nothing was observed."""
        n_pixel = self.sigma_map.size
        for start, stop in self.blocks():
            out = self.noiseless(start, stop)
            if self.noisy:
                rng = self.truth.rng(2, start)
                unit = unit_noise(rng, stop - start, n_pixel, self.weights)
                out += unit.reshape(out.shape) * self.sigma(start, stop)
            out[:, ~np.isfinite(self.sigma_map)] = 0.0
            yield out


@dataclass(frozen=True, eq=False)
class SimulatedCube:
    """A cube that was written, and what is true of it.

    Parameters
    ----------
    path, survey
        The file and its format.
    truth
        What was simulated.
    pixels
        Grid of the file, as its header states it.
    psf
        PSF at its wavelengths.
    wave, lsf
        Vacuum wavelengths and 1-sigma LSF ``(n_wave,)``, Angstrom.
    observed
        Spaxels with data ``(n_y, n_x)``.
    exposure
        Noiseless and true spectra, sigma and factor, in 1e-17 erg s-1 cm-2 Angstrom-1 per
        spaxel whatever the file's unit.
    correlation
        ``gaussian`` scale in spaxels, or none.
    """

    path: Path
    survey: str
    truth: Sight
    pixels: PixelGrid
    psf: PsfCurve
    wave: NDArray[np.float64]
    lsf: NDArray[np.float64]
    observed: NDArray[np.bool_]
    exposure: Exposure
    correlation: dict[str, Any]

    def factor(self, *, east: float = 0.0) -> NDArray[np.float64]:
        """Injected factor P ``(n_wave,)`` that corrects the spectrum, at an offset in arcsec."""
        return self.truth.factor.factor(
            self.wave, east=east, wave_range=(float(self.wave[0]), float(self.wave[-1]))
        )


def expose(
    truth: Sight,
    light: LightCube,
    pixels: PixelGrid,
    wave: NDArray[np.float64],
    *,
    throughput: NDArray[np.float64],
    observed: NDArray[np.bool_],
    snr: Snr,
    noise: Noise,
    weights: csr_array | None = None,
    depth: NDArray[np.float64] | None = None,
    apart: NDArray[np.bool_] | None = None,
) -> Exposure:
    """Add dust, miscalibration and noise to light.

    Parameters
    ----------
    truth, light, pixels, wave
        What is seen, on which grid, at which vacuum wavelengths (Angstrom).
    throughput
        See :class:`Exposure`.
    observed
        Spaxels with data ``(n_y, n_x)``.
    snr
        Signal to noise per channel near 6200 A on the isophote that holds half of the observed
        light; a pair is a range, drawn log-uniform, spaxel by spaxel.
    noise
        ``correlated`` needs `weights`; ``none`` states the sigma and adds nothing.
    weights
        See :class:`Exposure`.
    depth
        Relative sigma of the spaxels ``(n_y, n_x)``; default 1.
    apart
        Spaxels ``(n_y, n_x)`` whose light has no part in the isophote: those of a star in front.

    Raises
    ------
    InputError
        If no spaxel is observed or the S/N is not positive.
    """
    lowest = min(snr) if isinstance(snr, tuple) else snr
    if not lowest > 0.0 or not observed.any():
        raise InputError(
            "snr" if observed.any() else "footprint",
            expected="S/N above 0 and spaxels inside the bundle",
            found=f"S/N {snr}, {int(observed.sum())} spaxels",
            remedy="give another S/N or a larger grid",
        )  # fmt: skip
    span = (float(wave[0]), float(wave[-1]))
    east = 0.0 if not any(truth.factor.gradient) else pixels.offsets()[0]
    factor = truth.factor.factor(wave, east=east, wave_range=span)
    at = int(np.argmin(np.abs(wave - _REFERENCE)))
    level = light.planes(at, at + 1)[0] * throughput[at]
    if isinstance(snr, tuple):
        sigma_map = level / log_uniform(truth.rng(3), snr, pixels.shape)
    else:
        relative = np.ones(pixels.shape) if depth is None else depth
        counted = observed if apart is None else observed & ~apart
        sigma_map = relative * isophote(np.where(counted, level, np.nan)) / snr
    return Exposure(
        light=light,
        wave=wave,
        throughput=throughput,
        factor=factor.reshape(wave.size, *(pixels.shape if factor.ndim == 3 else (1, 1))),
        sigma_wave=wave_shape(wave) / wave_shape(wave[at : at + 1]),
        sigma_map=np.where(observed, sigma_map, np.nan),
        weights=weights if noise == "correlated" else None,
        noisy=noise != "none",
        truth=truth,
    )


def shifted(truth: Sight, pixels: PixelGrid) -> PixelGrid:
    """The grid that the cube truly looks at, when its header states `pixels`.

    Content shifted by (east, north) against the header: what the header places at an offset d
    is the sky at d - pointing.
    """
    if truth.pointing == (0.0, 0.0):
        return pixels
    step = np.linalg.solve(pixels.matrix, np.array(truth.pointing))
    origin = (float(pixels.origin[0] + step[0]), float(pixels.origin[1] + step[1]))
    return type(pixels)(pixels.shape, pixels.scale, origin, pixels.rotation, pixels.flipped)
