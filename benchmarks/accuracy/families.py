"""Populations of known spectra that the fit does not hold, by family.

A family is a kind of mismatch: star-formation histories, dust laws, metallicity mixtures or simple
populations of another origin. Those of TRAIN set the template-error model
(``benchmarks/accuracy/train_template_error.py``), those of TEST judge it; no family is in both.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import astropy.units as u
import numpy as np
from astropy.io import fits
from dust_extinction.averages import G03_SMCBar
from dust_extinction.parameter_averages import F99
from dust_extinction.shapes import FM90

from specphoto.io.library import default_library
from specphoto.simulate.populations import two_burst_spectra
from specphoto.spectral.library import TabulatedLibrary
from specphoto.spectral.parameters import ModelParameters
from specphoto.spectral.sfh import age_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["TEST", "TRAIN", "family", "holding"]

EMILES = "ppxf==8.2.6"  # its sdist carries E-MILES (Vazdekis et al. 2016), read as data only


def calzetti(wave: NDArray[np.float64]) -> NDArray[np.float64]:
    """A(wave) / A(V) of Calzetti et al. (2000, ApJ 533, 682, eq. 4), linear beyond 0.12-2.2 um."""
    um = np.clip(wave, 1200.0, 22_000.0) / 1e4
    blue = -2.156 + 1.509 / um - 0.198 / um**2 + 0.011 / um**3
    k = np.where(um < 0.63, 2.659 * blue + 4.05, 2.659 * (-1.857 + 1.040 / um) + 4.05)
    return np.asarray(np.maximum(k, 0.0) / 4.05)


def screen(curve: Callable[..., object], wave: NDArray[np.float64]) -> NDArray[np.float64]:
    """A(wave) / A(V) of a curve of dust_extinction, constant beyond its range."""
    low, high = curve.x_range
    return np.asarray(curve(np.clip(1e4 / wave, low * 1.0001, high * 0.9999) / u.micron))


def dimmed(
    flux: NDArray[np.float64], curve: NDArray[np.float64], a_v: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Spectra behind a screen."""
    return np.asarray(flux * 10.0 ** (-0.4 * a_v[:, None] * curve))


def stepped(age: NDArray[np.float64], rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Mass on age nodes of histories that are constant in 7 steps of random height."""
    edges = np.array([0.0, 1e7, 1e8, 5e8, 1e9, 3e9, 7e9, 1.3e10])
    level = rng.lognormal(0.0, 1.2, (n, edges.size - 1))
    level *= np.exp(-rng.uniform(0.0, 5.0, (n, 1)) * np.linspace(1.0, 0.0, edges.size - 1))
    width = np.gradient(age)
    return np.asarray(level[:, np.clip(np.searchsorted(edges, age) - 1, 0, 6)] * width)


def tau(n: int, rng: np.random.Generator) -> ModelParameters:
    """Delayed tau models of random age."""
    age = 10.0 ** rng.uniform(9.3, 10.12, n)
    zero = np.zeros(n)
    return ModelParameters(
        age=age, history=np.zeros(n, np.int8), tau=age * 10.0 ** rng.uniform(-1.0, 0.5, n),
        alpha=zero + 1, beta=zero + 1, metallicity=zero + 0.02, a_v=zero, slope=zero + 0.7,
        bump=zero, birth_ratio=zero,
    )  # fmt: skip


def composite(
    young: NDArray[np.float64], old: NDArray[np.float64], flux: NDArray[np.floating], n_young: int
) -> NDArray[np.float64]:
    """Sum populations ``(n_age, n_wave)`` with the masses that :func:`age_weights` gives."""
    return np.asarray(young @ flux[:n_young] + old @ flux[n_young - 1 :])


def stepped_smc(n: int, seed: int) -> TabulatedLibrary:
    """Stepped histories of two metallicities behind an SMC screen."""
    rng, grid = np.random.default_rng(seed), default_library().grid
    met = rng.integers(1, grid.metallicity.size, (2, n))
    mass = stepped(grid.age, rng, n)
    split = rng.uniform(0.2, 0.8, n)
    parts = [np.einsum("pa,paw->pw", mass, grid.flux[m], optimize=True) for m in met]
    flux = split[:, None] * parts[0] + (1.0 - split)[:, None] * parts[1]
    law = screen(G03_SMCBar(), grid.wave)
    return table(grid, dimmed(flux, law, 0.8 * rng.uniform(0.0, 1.0, n) ** 2), "stepped_smc")


def stepped_bump(n: int, seed: int) -> TabulatedLibrary:
    """Stepped histories behind a Milky Way screen of R_V 3.1, the young stars dimmed twice."""
    rng, grid = np.random.default_rng(seed), default_library().grid
    met = rng.integers(1, grid.metallicity.size, n)
    mass = stepped(grid.age, rng, n)
    law = screen(F99(Rv=3.1), grid.wave)
    a_v = rng.uniform(0.0, 1.5, n)
    k = grid.n_young - 1
    young = np.einsum("pa,paw->pw", mass[:, :k], grid.flux[met, :k], optimize=True)
    old = np.einsum("pa,paw->pw", mass[:, k:], grid.flux[met, k:], optimize=True)
    flux = dimmed(old + dimmed(young, law, a_v), law, a_v)
    return table(grid, flux, "stepped_bump")


def burst_mixed(n: int, seed: int) -> TabulatedLibrary:
    """A tau model and a burst of another metallicity, dust mixed with the stars."""
    rng, grid = np.random.default_rng(seed), default_library().grid
    flux = np.zeros((n, grid.wave.size))
    weights = age_weights(tau(n, rng), grid.age)
    met, young = rng.integers(1, grid.metallicity.size, (2, n))
    age = rng.integers(grid.n_young, grid.age.size - 20, n)
    share = 10.0 ** rng.uniform(-3.0, -1.0, n)
    for i in range(n):
        flux[i] = composite(weights[0][i], weights[1][i], grid.flux[met[i]], grid.n_young)
        flux[i] += share[i] * grid.flux[young[i], age[i]]
    depth = rng.uniform(0.01, 2.0, n)[:, None] * (grid.wave / 5500.0) ** -1.0
    return table(grid, flux * -np.expm1(-depth) / depth, "burst_mixed")


def two_burst(n: int, seed: int) -> TabulatedLibrary:
    """Two single bursts behind a screen that goes as wavelength to the power -1.3."""
    grid = default_library().grid
    flux, _ = two_burst_spectra(grid, n, seed=seed)
    return table(grid, flux, "two_burst")


def quenched_calzetti(n: int, seed: int) -> TabulatedLibrary:
    """Constant star formation cut off or reborn, two metallicities, behind Calzetti's law."""
    rng, grid = np.random.default_rng(seed), default_library().grid
    begin, end = 10.0 ** rng.uniform(9.0, 10.1, n), 10.0 ** rng.uniform(6.0, 9.5, n)
    share = 10.0 ** rng.uniform(-4.0, -1.0, n)
    width = np.gradient(grid.age)
    mass = (
        (grid.age < begin[:, None]) & (grid.age > np.minimum(end, 0.8 * begin)[:, None])
    ) * width
    mass = mass / mass.sum(axis=1, keepdims=True)
    recent = (grid.age < 3e7) * width
    met = np.sort(rng.integers(1, grid.metallicity.size, (2, n)), axis=0)
    flux = np.einsum("pa,paw->pw", mass, grid.flux[met[0]], optimize=True)
    flux += share[:, None] * np.einsum("a,paw->pw", recent / recent.sum(), grid.flux[met[1]])
    a_v = 1.5 * rng.uniform(0.0, 1.0, n) ** 1.5
    return table(grid, dimmed(flux, calzetti(grid.wave), a_v), "quenched_calzetti")


def emiles(n: int, seed: int) -> TabulatedLibrary:
    """E-MILES populations (Padova 2000, Kroupa-like slope 1.3): stepped histories, FM90 dust."""
    rng = np.random.default_rng(seed)
    wave, age, flux, fwhm = emiles_grid()
    mass = stepped(age, rng, n)
    met = rng.integers(1, flux.shape[0], n)
    light = np.einsum("pa,paw->pw", mass, flux[met], optimize=True)
    bump = FM90(C1=-0.7, C2=0.9, C3=2.0, C4=0.3)
    law = np.where(wave < 3030.0, 1.0 + screen(bump, wave) / 3.1, screen(F99(Rv=3.1), wave))
    return TabulatedLibrary(wave, dimmed(light, law, rng.uniform(0.0, 1.0, n)).astype(np.float32),
                            fwhm, identity="emiles")  # fmt: skip


@lru_cache(maxsize=1)
def emiles_grid() -> tuple[NDArray[np.float64], ...]:
    """Wavelengths (vacuum), ages in yr, fluxes ``(n_met, n_age, n_wave)`` and resolution."""
    folder = Path(tempfile.gettempdir()) / "specphoto-emiles"
    if not list(folder.glob("*.tar.gz")):
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
             "--no-binary", ":all:", "--dest", str(folder), EMILES], check=True,
        )  # fmt: skip
    spectra: dict[tuple[float, float], NDArray[np.float64]] = {}
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        for member in archive:
            name = Path(member.name).name
            if not (name.startswith("Eun1.30Z") and name.endswith(".fits")):
                continue
            with fits.open(archive.extractfile(member)) as file:
                header, data = file[0].header, np.array(file[0].data, dtype=np.float64)
            air = header["CRVAL1"] + header["CDELT1"] * np.arange(data.size)
            sign = -1.0 if name[8] == "m" else 1.0
            spectra[sign * float(name[9:13]), float(name[14:21]) * 1e9] = data
    met, age = (np.unique([key[i] for key in spectra]) for i in (0, 1))
    keep = np.unique(np.concatenate([np.flatnonzero(air < 10_500.0), np.arange(0, air.size, 8)]))
    flux = np.array([[spectra[m, a][keep] for a in age] for m in met])
    vacuum = air[keep] * (1.0 + 2.77e-4)  # to 0.3 A in the optical: far below the bands' need
    fwhm = np.where(air[keep] < 8950.0, 2.51, 12.0)
    return vacuum, age, flux, fwhm


def table(grid: object, flux: NDArray[np.floating], name: str) -> TabulatedLibrary:
    """Spectra on a grid's wavelengths as a library of their own."""
    scaled = flux / flux[:, [np.argmin(np.abs(grid.wave - 5500.0))]]
    return TabulatedLibrary(grid.wave, scaled.astype(np.float32), grid.fwhm, identity=name)


TRAIN = {"stepped_smc": stepped_smc, "stepped_bump": stepped_bump, "burst_mixed": burst_mixed}
TEST = {"two_burst": two_burst, "quenched_calzetti": quenched_calzetti, "emiles": emiles}


def family(name: str, n: int, *, seed: int = 20260101) -> TabulatedLibrary:
    """Spectra of ``n`` populations of a family."""
    return {**TRAIN, **TEST}[name](n, seed)


def holding(name: str, n: int) -> TabulatedLibrary:
    """Other populations of a family, drawn in parts that fit memory."""
    parts = [family(name, 500, seed=77 + k) for k in range(n // 500)]
    flux = np.concatenate([part.flux for part in parts])
    return TabulatedLibrary(parts[0].wave, flux, parts[0].fwhm, identity=f"{name} itself")
