"""Pixels of known truth: spectra of a family, divided by a factor, and their photometry."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from families import family, holding
from scipy import ndimage

from specphoto.io.library import default_library
from specphoto.photometry.filters import load_filters
from specphoto.spectral import legendre
from specphoto.spectral.coherence import shrink
from specphoto.spectral.pixel import Pixels, Result, correct_pixels
from specphoto.spectral.reference import (
    Reference,
    band_floor,
    beyond_cube,
    make_reference,
    summarise,
)
from specphoto.spectral.template_error import TemplateError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from specphoto.spectral.library import Library
    from specphoto.spectral.reference import Method

__all__ = ["BANDS", "Case", "Recovery", "Truth", "coherent", "exact", "recover", "reference",
           "truth", "velocity"]  # fmt: skip

BANDS = ("galex_fuv", "galex_nuv", "sdss_u", "sdss_g", "sdss_r", "sdss_i", "sdss_z", "2mass_j",
         "2mass_h", "2mass_k")  # fmt: skip
REDSHIFT = 0.03
WAVE = 10.0 ** (np.log10(3621.59598486) + 1e-4 * np.arange(4563))
LSF = 72.0 / 299_792.458 * WAVE  # 1 sigma, Angstrom, as MaNGA's
CHANNEL = 69.03  # km/s
SPEED, DISPERSION = 100.0, 100.0  # km/s: scatter of the pixels' velocities; their dispersion
X = legendre.normalized(WAVE, WAVE[0], WAVE[-1])
ZERO_POINT, ZERO_POINT_FUV = 0.02, 0.05


@dataclass(frozen=True)
class Case:
    """One cell of the table.

    ``factor`` is 'one' (a true factor of 1), 'varied' (tilt and curvature of each pixel up to
    ``tilt``) or 'field' (up to ``tilt``, and as much as a third of it from end to end of the
    field); ``zero_point`` draws shared errors of the bands. Pixels lie on a square; with ``beam``
    above 1 the noise of the images is that of pixels that share so many, and populations change
    from the middle outwards; ``mixed`` has the beam mix the populations, too. ``speed`` is the
    scatter of the velocities, km/s.
    """

    family: str
    photo_error: float
    snr: float
    factor: str = "varied"
    tilt: float = 0.15
    zero_point: bool = False
    beam: float = 1.0
    n_pixel: int = 300
    seed: int = 1
    speed: float = SPEED
    mixed: bool = False


class Truth(NamedTuple):
    """Data and the injected factor ``(n_pixel, n_wave)``."""

    pixels: Pixels
    factor: NDArray[np.float64]


class Recovery(NamedTuple):
    """Recovered over injected factor less 1, and its stated error, ``(n_pixel, n_wave)``."""

    wrong: NDArray[np.float64]
    error: NDArray[np.float64]
    result: Result


@lru_cache(maxsize=16)
def reference(
    method: Method, template_error: TemplateError | None = None, n_model: int = 50_000
) -> Reference:
    """The default library at the cases' redshift, bands and wavelengths."""
    models: Library = default_library(n_model)
    filters = load_filters(list(BANDS))
    floor = band_floor(filters, models.wave_range, REDSHIFT, 0.02, band_error={}, exclude=None,
                       name="benchmark")  # fmt: skip
    photometry, shape = summary(n_model)
    beyond = beyond_cube(models, REDSHIFT, WAVE, filters, photometry)
    more = {} if template_error is None else {"template_error": template_error}
    return make_reference(models, (photometry, shape, beyond), REDSHIFT, WAVE, LSF, filters, floor,
                          line_window=500.0, method=method, **more)  # fmt: skip


def exact(shared: Reference) -> Reference:
    """The same for bands whose zero points are known to be exact (``model_error=0``)."""
    return replace(shared, floor=np.where(np.isfinite(shared.floor), 0.0, np.inf))


def oracle(name: str, n_model: int = 12_000) -> Reference:
    """A library that holds the family itself, and next to no error of models: what noise leaves."""
    models = holding(name, n_model)
    filters = load_filters(list(BANDS))
    floor = band_floor(filters, models.wave_range, REDSHIFT, 0.0, band_error={}, exclude=None,
                       name="benchmark")  # fmt: skip
    photometry, shape = summarise(models, REDSHIFT, WAVE, filters, 3)
    beyond = beyond_cube(models, REDSHIFT, WAVE, filters, photometry)
    # what is between its models
    step = TemplateError((1500.0, 5000.0), (0.03, 0.015), 0.5)
    return make_reference(models, (photometry, shape, beyond), REDSHIFT, WAVE, LSF, filters, floor,
                          line_window=500.0, template_error=step)  # fmt: skip


@lru_cache(maxsize=2)
def summary(n_model: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Photometry and shape of the library's models."""
    filters = load_filters(list(BANDS))
    return summarise(default_library(n_model), REDSHIFT, WAVE, filters, 3)


@lru_cache(maxsize=8)
def light(name: str, n_pixel: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """True spectra of median 1 at rest and photometry of a family; 'library' is the default's."""
    if name == "library":
        library: Library = default_library()
        index = np.random.default_rng(3).permutation(library.n_model)[:n_pixel]
    else:
        library, index = family(name, n_pixel), np.arange(n_pixel)
    spectra = library.observed(REDSHIFT, WAVE, LSF).spectra(index)
    photometry = library.photometry(REDSHIFT, load_filters(list(BANDS)))[index]
    norm = 1.0 / np.median(spectra, axis=1)[:, None]
    return spectra * norm, photometry * norm


def truth(case: Case) -> Truth:
    """Draw the data of a case."""
    rng = np.random.default_rng([case.seed, case.n_pixel])
    spectra, photometry = light(case.family, case.n_pixel)
    if case.beam > 1.0:
        order = np.argsort(photometry[:, 3] / photometry[:, 5])[
            np.argsort(np.argsort(radius(case)))
        ]
        spectra, photometry = spectra[order], photometry[order]
    if case.mixed:
        spectra, photometry = (over_beam(case, values) for values in (spectra, photometry))
    shift = rng.normal(scale=case.speed / CHANNEL, size=case.n_pixel)
    moved = np.stack([
        ndimage.gaussian_filter1d(np.interp(np.arange(WAVE.size) - d, np.arange(WAVE.size), row),
                                  DISPERSION / CHANNEL, mode="nearest")
        for row, d in zip(spectra, shift, strict=True)
    ])  # fmt: skip
    P = _factors(case, rng)
    noise = np.median(moved / P, axis=1)[:, None] / case.snr
    flux = moved / P + noise * rng.normal(size=P.shape)
    error = case.photo_error * np.abs(photometry)
    photo = photometry + error * image_noise(case, rng)
    if case.zero_point:
        scale = np.where(np.array(BANDS) == "galex_fuv", ZERO_POINT_FUV, ZERO_POINT)
        photo = photo * (1.0 + scale * rng.normal(size=len(BANDS)))
    data = Pixels(photo, error, flux, noise * np.ones_like(flux), np.zeros(flux.shape, bool))
    return Truth(data, P)


def velocity(case: Case) -> NDArray[np.float64]:
    """Velocities of the pixels in km/s, what :func:`truth` draws first."""
    rng = np.random.default_rng([case.seed, case.n_pixel])
    return CHANNEL * rng.normal(scale=case.speed / CHANNEL, size=case.n_pixel)


def position(case: Case) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Column and row of each pixel, on a square of side 2 about the middle."""
    side = int(np.ceil(np.sqrt(case.n_pixel)))
    y, x = np.divmod(np.arange(case.n_pixel), side)
    return 2.0 * x / (side - 1.0) - 1.0, 2.0 * y / (side - 1.0) - 1.0


def radius(case: Case) -> NDArray[np.float64]:
    """Distance of each pixel from the middle."""
    return np.hypot(*position(case))


def image_noise(case: Case, rng: np.random.Generator) -> NDArray[np.float64]:
    """Noise of unit variance, ``(n_pixel, n_band)``, smoothed over the beam."""
    side = int(np.ceil(np.sqrt(case.n_pixel)))
    white = rng.normal(size=(side, side, len(BANDS)))
    if case.beam > 1.0:
        # noise smoothed by a Gaussian of sigma is shared by 4 pi sigma^2 pixels
        sigma = np.sqrt(case.beam / (4.0 * np.pi))
        white = ndimage.gaussian_filter(white, (sigma, sigma, 0.0), mode="wrap")
        white *= np.sqrt(case.beam)
    return white.reshape(side**2, -1)[: case.n_pixel]


def over_beam(case: Case, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values of pixels ``(n_pixel, n)`` averaged over the beam; the square must be full."""
    side = int(np.ceil(np.sqrt(case.n_pixel)))
    sigma = np.sqrt(case.beam / (4.0 * np.pi))
    square = values.reshape(side, side, -1)
    return np.asarray(
        ndimage.gaussian_filter(square, (sigma, sigma, 0.0), mode="nearest").reshape(values.shape)
    )


def _factors(case: Case, rng: np.random.Generator) -> NDArray[np.float64]:
    """Factor of each pixel."""
    if case.factor == "one":
        return np.ones((case.n_pixel, WAVE.size))
    if case.factor == "field":
        x, y = position(case)
        middle, along, across = (
            rng.uniform(-case.tilt, case.tilt, 3) * (1.0, 1.0, 0.3) for _ in range(3)
        )
        coef = middle + (x[:, None] * along + y[:, None] * across) / 6.0
    else:
        coef = rng.uniform(-case.tilt, case.tilt, (case.n_pixel, 3)) * (1.0, 1.0, 0.3)
    return np.asarray(1.05 + coef @ legendre.basis(X, 3)[1:])


def recover(data: Truth, shared: Reference) -> Recovery:
    """Correct the pixels and compare the factor with the injected one."""
    result = correct_pixels(data.pixels, shared)
    factor = result.coef @ shared.L
    x = legendre.normalized(shared.wave, shared.wave[0], shared.wave[-1])
    error = legendre.evaluate_err(np.moveaxis(result.cov, 0, -1), x).T
    return Recovery(factor / data.factor - 1.0, error / data.factor, result)


def coherent(data: Truth, found: Recovery, beam: float = 1.0) -> Recovery:
    """The same pixels on a square of the sky, taken together."""
    n = len(data.factor)
    side = int(np.ceil(np.sqrt(n)))
    result = found.result
    y, x = np.divmod(np.arange(n), side)
    together = shrink(result.coef, result.cov, result.noise, x.astype(float), y.astype(float),
                      beam)  # fmt: skip
    L = legendre.basis(X, result.coef.shape[1] - 1)
    error = legendre.evaluate_err(np.moveaxis(together.cov, 0, -1), X).T
    wrong = together.coef @ L / data.factor - 1.0
    return Recovery(wrong, error / data.factor, result._replace(coef=together.coef))
