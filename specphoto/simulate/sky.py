"""The sky as instruments see it: low-rank cubes of light, and images through filters.

A galaxy is ``sum_k map_k(y, x) spectrum_k(wave)`` with one term per population and velocity, so
a full-size cube is one matrix product per block of channels. Its images come from the same
maps and spectra: cube and images are one sky by construction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy import fft
from scipy.interpolate import CubicSpline

from specphoto.errors import InputError
from specphoto.photometry.extinction import effective_ebv, transmission
from specphoto.photometry.filters import Filter, load_filter
from specphoto.photometry.synthetic import photon_weights
from specphoto.simulate.noise import log_uniform
from specphoto.simulate.populations import LIGHT_SPEED, emission, population_library
from specphoto.simulate.profile import Psf, image
from specphoto.simulate.truth import Patchwork, Sight, Truth

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from specphoto.simulate.pixels import PixelGrid
    from specphoto.simulate.profile import Profile

__all__ = ["LightCube", "PsfCurve", "Sky", "dust", "make_sky", "wide_grid"]

# (wavelength in Angstrom, PSF) at increasing wavelengths; one entry is a constant PSF
PsfCurve = tuple[tuple[float, Psf], ...]

# Velocity bins in km/s: linear interpolation between neighbours broadens by at most half this,
# nothing beside the 60-75 km/s of the instruments.
_VELOCITY_STEP = 35.0
_FINE_STEP = 0.5e-4  # dex
_CHUNK = 256
# Samples to a FWHM of the PSF for mean velocities, and the share of the brightest pixel below which
# Fourier's rounding is all that is left of the light.
_FINE_SAMPLES = 16.0
_DARK = 1e-9


class LightCube(Protocol):
    """Noiseless light before Galactic dust, evaluated block by block."""

    def planes(self, start: int, stop: int) -> NDArray[np.float64]:
        """F_lambda ``(stop - start, n_y, n_x)`` per pixel, 1e-17 erg s-1 cm-2 Angstrom-1."""


class Sky(Protocol):
    """What a truth looks like."""

    def cube(
        self,
        pixels: PixelGrid,
        psf: PsfCurve,
        wave: NDArray[np.float64],
        lsf: NDArray[np.float64],
    ) -> LightCube:
        """Light through an instrument; `wave` in vacuum, `lsf` its 1-sigma, both Angstrom."""

    def images(self, pixels: PixelGrid, psf: Psf, filters: Sequence[Filter]) -> NDArray[np.float64]:
        """Photon-weighted mean F_lambda behind Galactic dust ``(n_band, n_y, n_x)``."""

    def mean_velocity(self, pixels: PixelGrid, psf: Psf) -> NDArray[np.float64]:
        """Velocity ``(n_y, n_x)`` in km/s, mean by the light in SDSS r; NaN without light."""


def make_sky(truth: Sight) -> Sky:
    """Prepare the spectra of a truth."""
    if isinstance(truth, Truth):
        return GalaxySky(truth)
    if isinstance(truth, Patchwork):
        return PatchworkSky(truth)
    raise InputError(
        "truth", expected="a Truth or a Patchwork", found=type(truth).__name__,
        remedy="make one with specphoto.simulate.galaxy or patchwork",
    )  # fmt: skip


def dust(truth: Sight, wave: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the light that the true Galactic dust lets through, at vacuum wavelengths."""
    return transmission(wave, effective_ebv(truth.ebv, "SFD"), law=truth.law)


def wide_grid() -> NDArray[np.float64]:
    """Observed wavelengths from 900 A to 6 micron: fine in the optical, coarse elsewhere."""
    coarse = 10.0 ** np.arange(np.log10(900.0), np.log10(60000.0), 5e-4)
    fine = 10.0 ** np.arange(np.log10(3000.0), np.log10(11000.0), _FINE_STEP)
    return np.union1d(coarse[(coarse < fine[0]) | (coarse > fine[-1])], fine)


def _known(spectra: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spectra with 0 where the library ends: the simulated sky has no light there."""
    return np.where(np.isfinite(spectra), spectra, 0.0)


@dataclass(frozen=True, eq=False)
class LowRankCube:
    """``sum_k map_k spectrum_k``, the maps interpolated between the wavelengths of the PSF.

    Parameters
    ----------
    node
        Wavelengths of the PSF nodes ``(n_node,)``.
    maps
        ``(n_node, n_term, n_y, n_x)``.
    wave
        ``(n_wave,)``.
    spectra
        ``(n_term, n_wave)``.
    """

    node: NDArray[np.float64]
    maps: NDArray[np.float32]
    wave: NDArray[np.float64]
    spectra: NDArray[np.float64]

    def planes(self, start: int, stop: int) -> NDArray[np.float64]:
        """See :class:`LightCube`."""
        n_node, n_term, n_y, n_x = self.maps.shape
        wave = self.wave[start:stop]
        out = np.zeros((wave.size, n_y * n_x), dtype=np.float32)
        for n in range(n_node):
            share = np.interp(wave, self.node, np.eye(n_node)[n])
            if share.any():
                terms = (self.spectra[:, start:stop] * share).T.astype(np.float32)
                out += terms @ self.maps[n].reshape(n_term, -1)
        return out.reshape(wave.size, n_y, n_x).astype(np.float64)


class GalaxySky:
    """Sky of a :class:`specphoto.simulate.Truth`."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        self.components = (*truth.components, *truth.foreground)
        self._library = population_library(truth.family)
        self._index = np.array([c.population for c in self.components], dtype=np.int64)
        speed = abs(truth.rotation.speed)
        n = int(np.ceil(speed / _VELOCITY_STEP))
        self.velocity = _VELOCITY_STEP * np.arange(-n, n + 1)
        self.wide = wide_grid()
        raw = self._library.observed(truth.redshift, self.wide, None).spectra(self._index)
        weights, _ = photon_weights(self.wide, [load_filter("sdss_r")])
        flux = np.array([c.flux for c in self.components])
        self._scale = flux / (_known(raw) @ weights)[:, 0]
        self._continuum = _known(raw) * self._scale[:, None]
        stretch = 1.0 + truth.redshift
        # the continuum on either side of the line, beyond the stars' absorption
        rest = self.wide / stretch
        beside = ((rest > 6500.0) & (rest < 6535.0)) | ((rest > 6600.0) & (rest < 6640.0))
        level = self._continuum[:, beside].mean(axis=1)
        self._halpha = level * stretch * np.array([c.halpha for c in self.components])

    def spectra(self, wave: NDArray[np.float64], lsf: NDArray[np.float64]) -> NDArray[np.float64]:
        """Spectra ``(n_component, n_velocity, n_wave)`` of the whole components."""
        lo, hi = np.log10(wave[0]) - 0.002, np.log10(wave[-1]) + 0.002
        fine = 10.0 ** np.arange(lo, hi, _FINE_STEP)
        models = self._library.observed(self.truth.redshift, fine, np.interp(fine, wave, lsf))
        rest = CubicSpline(np.log(fine), _known(models.spectra(self._index)), axis=1)
        out = []
        for v in self.velocity / LIGHT_SPEED:
            lines = emission(
                wave, lsf, dispersion=self.truth.dispersion,
                redshift=(1.0 + self.truth.redshift) * (1.0 + v) - 1.0,
            )  # fmt: skip
            stars = rest(np.log(wave) - np.log1p(v)) * self._scale[:, None]
            out.append(stars + self._halpha[:, None] * lines)
        return np.stack(out, axis=1)

    def band_fluxes(self, filters: Sequence[Filter]) -> NDArray[np.float64]:
        """Mean F_lambda behind the dust ``(n_component, n_velocity, n_band)``."""
        out = []
        for v in self.velocity / LIGHT_SPEED:
            wave = self.wide * (1.0 + v)
            lines = emission(
                wave, np.full(wave.size, 2.0), dispersion=self.truth.dispersion,
                redshift=(1.0 + self.truth.redshift) * (1.0 + v) - 1.0,
            )  # fmt: skip
            weights, _ = photon_weights(wave, filters)
            light = self._continuum + self._halpha[:, None] * lines
            out.append((light * dust(self.truth, wave)) @ weights)
        return np.stack(out, axis=1)

    def maps(self, pixels: PixelGrid, psf: Psf) -> NDArray[np.float64]:
        """Share of each component's light ``(n_component, n_velocity, n_y, n_x)`` per pixel."""
        return np.stack([self._velocity_split(i, pixels, psf) for i in range(len(self.components))])

    def _velocity_split(self, i: int, pixels: PixelGrid, psf: Psf) -> NDArray[np.float64]:
        profile = self.components[i].profile
        exact = image(profile, psf, pixels)
        if self.velocity.size == 1:
            return exact[None]
        if i >= len(self.truth.components):  # a star in front does not rotate with the galaxy
            return np.where(self.velocity[:, None, None] == 0.0, exact, 0.0)
        # The share of each velocity is convolved on a grid; the sum is then made exact.
        node = self.velocity[:, None, None]
        seen = self._through(
            profile, psf, pixels, lambda v: np.maximum(0.0, 1.0 - np.abs(v - node) / _VELOCITY_STEP)
        )
        seen = np.maximum(seen, 0.0)
        return np.asarray(exact * seen / np.maximum(seen.sum(axis=0), np.finfo(float).tiny))

    def _through(
        self,
        profile: Profile,
        psf: Psf,
        pixels: PixelGrid,
        weigh: Callable[[NDArray[np.float64]], NDArray[np.float64]],
        samples: float = 4.0,
    ) -> NDArray[np.float64]:
        """Light times weights ``(n, ...)`` of the velocity, behind a PSF: ``(n, n_y, n_x)``.

        `samples` to a FWHM; light is weighted when it is blurred by 1.2 samples already.
        """
        factor = int(np.ceil(samples * pixels.scale / psf.fwhm))
        pad = int(np.ceil(2.0 * psf.fwhm / pixels.scale))
        fine = pixels.subdivided(factor, pad)
        soft = Psf(1.2 / samples * psf.fwhm)
        light = weigh(self.truth.rotation.velocity(*fine.offsets())) * image(profile, soft, fine)
        seen = _convolve(light, psf, soft, fine.scale)
        n_y, n_x = pixels.shape
        blocks = seen.reshape(len(seen), n_y + 2 * pad, factor, n_x + 2 * pad, factor)
        return np.asarray(blocks.sum(axis=(2, 4))[:, pad : pad + n_y, pad : pad + n_x])

    def cube(
        self,
        pixels: PixelGrid,
        psf: PsfCurve,
        wave: NDArray[np.float64],
        lsf: NDArray[np.float64],
    ) -> LowRankCube:
        """See :class:`Sky`."""
        spectra = self.spectra(wave, lsf)
        maps = np.stack([self.maps(pixels, p) for _, p in psf]).astype(np.float32)
        return LowRankCube(
            np.array([w for w, _ in psf]),
            maps.reshape(len(psf), -1, *pixels.shape),
            wave,
            spectra.reshape(-1, wave.size),
        )

    def images(self, pixels: PixelGrid, psf: Psf, filters: Sequence[Filter]) -> NDArray[np.float64]:
        """See :class:`Sky`."""
        return np.tensordot(self.band_fluxes(filters), self.maps(pixels, psf), ((0, 1), (0, 1)))

    def mean_velocity(self, pixels: PixelGrid, psf: Psf) -> NDArray[np.float64]:
        """See :class:`Sky`; stars in front are not counted."""
        parts = [
            c.flux * self._through(c.profile, psf, pixels, _moments, _FINE_SAMPLES)
            for c in self.truth.components
        ]
        moment, light = np.sum(parts, axis=0)
        lit = light > _DARK * light.max()
        return np.where(lit, moment / np.where(lit, light, 1.0), np.nan)


def _moments(velocity: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([velocity, np.ones(velocity.shape)])


def _convolve(maps: NDArray[np.float64], psf: Psf, soft: Psf, scale: float) -> NDArray[np.float64]:
    """Maps ``(n, n_y, n_x)`` blurred by `soft` already, brought to `psf`; zero beyond the edges."""
    shape = tuple(2 * n for n in maps.shape[1:])
    ky = fft.fftfreq(shape[0])[:, None]
    kx = fft.rfftfreq(shape[1])
    k2 = (2.0 * np.pi / scale) ** 2 * (ky**2 + kx**2)
    done = soft.gaussians()[1][0]
    transfer = sum(
        w * np.exp(-0.5 * k2 * max(s**2 - done**2, 0.0))
        for w, s in zip(*psf.gaussians(), strict=True)
    )
    out = fft.irfft2(fft.rfft2(maps, shape) * transfer, shape)
    return np.asarray(out[:, : maps.shape[1], : maps.shape[2]])


class PatchworkSky:
    """Sky of a :class:`specphoto.simulate.Patchwork`."""

    def __init__(self, truth: Patchwork) -> None:
        self.truth = truth
        self.pixels = truth.pixels
        self._library = population_library(truth.family)
        n_pixel = int(np.prod(self.pixels.shape))
        rng = truth.rng(1)
        n_model = self._library.n_model
        self.index = rng.choice(n_model, n_pixel, replace=n_pixel > n_model).astype(np.int64)
        self.flux = log_uniform(rng, truth.flux, (n_pixel,))
        self._scale = self.flux / self._bands([load_filter("sdss_r")], behind_dust=False)[:, 0]

    def _bands(self, filters: Sequence[Filter], *, behind_dust: bool) -> NDArray[np.float64]:
        """Mean F_lambda ``(n_pixel, n_band)`` of the unscaled models."""
        wave = wide_grid()
        weights, _ = photon_weights(wave, filters)
        if behind_dust:
            weights = weights * dust(self.truth, wave)[:, None]
        # Channels that no band sees are left out, but for two on either side: each channel is a
        # mean over the space to its neighbours.
        used = np.convolve(weights.any(axis=1), np.ones(5), mode="same") > 0.0
        models = self._library.observed(self.truth.redshift, wave[used], None)
        return np.concatenate(
            [_known(models.spectra(part)) @ weights[used] for part in self._parts()]
        )

    def _parts(self) -> list[NDArray[np.int64]]:
        return np.array_split(self.index, max(1, self.index.size // _CHUNK))

    def _check(self, pixels: PixelGrid) -> None:
        if pixels != self.pixels:
            raise InputError(
                "a patchwork", expected=f"its own grid, {self.pixels}", found=f"{pixels}",
                remedy="give the writer pixels=truth.pixels",
            )  # fmt: skip

    def cube(
        self,
        pixels: PixelGrid,
        psf: PsfCurve,  # noqa: ARG002
        wave: NDArray[np.float64],
        lsf: NDArray[np.float64],
    ) -> PixelCube:
        """See :class:`Sky`; the PSF changes nothing."""
        self._check(pixels)
        models = self._library.observed(self.truth.redshift, wave, lsf)
        spectra = np.empty((self.index.size, wave.size), dtype=np.float32)
        first = 0
        for part in self._parts():
            rows = slice(first, first + part.size)
            spectra[rows] = _known(models.spectra(part)) * self._scale[rows, None]
            first += part.size
        return PixelCube(spectra, pixels.shape)

    def images(
        self,
        pixels: PixelGrid,
        psf: Psf,  # noqa: ARG002
        filters: Sequence[Filter],
    ) -> NDArray[np.float64]:
        """See :class:`Sky`; the PSF changes nothing."""
        self._check(pixels)
        flux = self._bands(filters, behind_dust=True) * self._scale[:, None]
        return np.asarray(flux.T.reshape(len(filters), *pixels.shape))

    def mean_velocity(
        self,
        pixels: PixelGrid,
        psf: Psf,  # noqa: ARG002
    ) -> NDArray[np.float64]:
        """See :class:`Sky`; the pixels of a patchwork do not move."""
        self._check(pixels)
        return np.zeros(pixels.shape)


@dataclass(frozen=True, eq=False)
class PixelCube:
    """One spectrum ``(n_pixel, n_wave)`` per pixel."""

    spectra: NDArray[np.float32]
    shape: tuple[int, int]

    def planes(self, start: int, stop: int) -> NDArray[np.float64]:
        """See :class:`LightCube`."""
        block = self.spectra[:, start:stop].T
        return block.reshape(-1, *self.shape).astype(np.float64)
