"""What a library is, and whether it is sound, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from specphoto.photometry.synthetic import photon_weights
from specphoto.spectral.fragments import MIN_COVERED
from specphoto.spectral.library import CompositeLibrary
from specphoto.spectral.motion import measure_velocities
from specphoto.spectral.priors import HISTORIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from specphoto.photometry.filters import Filter
    from specphoto.spectral.library import SSPGrid
    from specphoto.spectral.parameters import ModelParameters
    from specphoto.spectral.tabulated import TabulatedLibrary

__all__ = ["Finding", "audit", "facts"]

# Luminosity of the Sun at 5500 Angstrom, L_sun / Angstrom (1.86 W m-2 nm-1 of 1361 W m-2;
# Gueymard 2004, Solar Energy 76, 423).
_SUN_5500 = 1.37e-4
_VISUAL = 5500.0
# Old populations have a mass-to-light ratio of a few, and fade by several from 1 to 10 Gyr: limits
# beyond any initial mass function.
_MASS_TO_LIGHT, _FADING = (0.3, 30.0), (2.0, 30.0)


# Where lines are compared: no wide steps bluer, no good resolution everywhere redder. Velocities in
# km/s: what air for vacuum would be, and what is not yet that.
_LINES = np.exp(np.arange(np.log(4050.0), np.log(6900.0), 2.3e-4))
_AIR, _DOUBTFUL = 83.0, 40.0
_SHARP = 10.0  # FWHM in Angstrom: in coarser spectra lines tell nothing
_LINE_ERROR = 0.01


class Finding(NamedTuple):
    """One thing that was looked at: its name, whether it is good, and what was seen."""

    what: str
    good: bool
    words: str


def facts(library: CompositeLibrary | TabulatedLibrary) -> list[tuple[str, str]]:
    """Names and values of what one asks of a library first.

    Parameters
    ----------
    library
        Any library of this package.
    """
    out = [
        ("library", library.identity), ("models", f"{library.n_model}"),
        ("wavelengths", _range(library)), ("resolution", _resolution(*_axes(library))),
    ]  # fmt: skip
    if isinstance(library, CompositeLibrary):
        grid = library.grid
        gas = library.nebular.identity if library.nebular else "none"
        out += [("grid", grid.identity), ("ages", _ages(grid)),
                ("metallicities", ", ".join(f"{z:g}" for z in grid.metallicity)),
                ("nebular emission", gas), ("dust", library.dust),
                ("histories", _histories(library.parameters))]  # fmt: skip
        table = {k: v for k, v in vars(library.parameters).items() if k != "history"}
    else:
        table = library.parameters
    return out + [(name, _span(values)) for name, values in table.items()]


def _histories(parameters: ModelParameters) -> str:
    """Families by their share of the models."""
    share = np.bincount(parameters.history, minlength=len(HISTORIES)) / len(parameters)
    return ", ".join(f"{s:.0%} {name}" for s, name in zip(share, HISTORIES, strict=True) if s > 0)


def _span(column: NDArray[np.generic]) -> str:
    values = column.astype(np.float64)
    return f"{values.min():.4g} to {values.max():.4g}, median {np.median(values):.4g}"


def audit(
    library: CompositeLibrary | TabulatedLibrary,
    *,
    redshift: float = 0.0,
    filters: Sequence[Filter] = (),
    against: SSPGrid | None = None,
) -> list[Finding]:
    """Look at all that makes a library unfit.

    Parameters
    ----------
    library
        Any library of this package.
    redshift, filters
        Bands that it shall hold at this redshift.
    against
        Grid whose lines are where the vacuum puts them: the default one.

    Returns
    -------
    list of Finding
    """
    out = [*_spectra(library)]
    if isinstance(library, CompositeLibrary):
        out += _populations(library.grid)
    if against is not None:
        out += _lines(library, against)
    return out + list(_bands(library, redshift, filters))


def _axes(
    library: CompositeLibrary | TabulatedLibrary,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    source = library.grid if isinstance(library, CompositeLibrary) else library
    return source.wave, source.fwhm


def _range(library: CompositeLibrary | TabulatedLibrary) -> str:
    low, high = library.wave_range
    return f"{low:.0f} to {high:.0f} A, vacuum, {_axes(library)[0].size} samples"


def _resolution(wave: NDArray[np.float64], fwhm: NDArray[np.float64]) -> str:
    at = [w for w in (4000.0, 5500.0, 8500.0) if wave[0] < w < wave[-1]] or [float(wave.mean())]
    return ", ".join(f"{np.interp(w, wave, fwhm):.3g} A at {w:.0f}" for w in at) + " (FWHM)"


def _spectra(library: CompositeLibrary | TabulatedLibrary) -> Iterator[Finding]:
    wave, fwhm = _axes(library)
    grid = isinstance(library, CompositeLibrary)
    flux = library.grid.flux if isinstance(library, CompositeLibrary) else library.flux
    rising = bool(np.all(np.isfinite(wave)) and wave[0] > 0 and np.all(np.diff(wave) > 0))
    yield Finding("wavelengths", rising, _range(library) if rising else "they do not increase")
    flat = flux.reshape(-1, flux.shape[-1])
    kind = "populations" if grid else "models"
    faults = {
        "NaN or infinity": ~np.isfinite(flat).all(axis=1),
        "negative flux": (flat < 0).any(axis=1),
        "no light": ~(flat > 0).any(axis=1),
    }
    words = [f"{rows.sum()} with {fault}" for fault, rows in faults.items() if rows.any()]
    seen = ", ".join(words) or "finite, not negative"
    yield Finding("spectra", not words, f"{len(flat)} {kind}: {seen}")
    known = bool(np.all(np.isfinite(fwhm)) and np.all(fwhm > 0))
    yield Finding("resolution", known, _resolution(wave, fwhm) if known else "not known everywhere")


def _ages(grid: SSPGrid) -> str:
    return f"{grid.age.size} nodes to {grid.age[-1] / 1e9:.3g} Gyr"


def _populations(grid: SSPGrid) -> Iterator[Finding]:
    same = (grid.flux == grid.flux[:, :1]).all(axis=(0, 2))
    youngest = float(grid.age[np.flatnonzero(same)[-1]])
    words = _ages(grid)
    if youngest > 0:
        words += f"; younger stars shine like those of {youngest / 1e6:.3g} Myr"
    if grid.age[-1] < 1e10:
        words += "; none as old as galaxies are"
    yield Finding("ages", youngest <= 1e8 and grid.age[-1] >= 1e10, words)
    if not grid.wave[0] < _VISUAL < grid.wave[-1]:
        return
    at = np.argmin(np.abs(grid.wave - _VISUAL))
    visual = grid.flux[..., at].astype(float)
    gyr, old = (int(np.argmin(np.abs(grid.age - a))) for a in (1e9, 1e10))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio, fading = _SUN_5500 / visual[:, old], visual[:, gyr] / visual[:, old]
    yield _within(
        "mass to light", ratio, _MASS_TO_LIGHT,
        "in solar units at 5500 A, 10 Gyr", "L_sun / A per solar mass formed",
    )  # fmt: skip
    yield _within(
        "fading", fading, _FADING, "from 1 to 10 Gyr at 5500 A", "light per mass formed at any age"
    )


def _within(
    what: str, values: NDArray[np.float64], limits: tuple[float, float], about: str, unit: str
) -> Finding:
    good = bool(np.all((values >= limits[0]) & (values <= limits[1])))
    words = f"{values.min():.3g} to {values.max():.3g} {about}"
    return Finding(what, good, words if good else f"{words}: the flux is not in {unit}")


def _lines(library: CompositeLibrary | TabulatedLibrary, against: SSPGrid) -> Iterator[Finding]:
    """Air taken for vacuum, or the reverse, by the lines of old stars."""
    wave, fwhm = _axes(library)
    sharp = np.interp(_LINES, wave, fwhm).max() <= _SHARP
    if not sharp or wave[0] > _LINES[0] or wave[-1] < _LINES[-1]:
        return
    if isinstance(library, CompositeLibrary):
        spectrum = _old(library.grid)
    else:
        spectrum = (library.flux / library.flux.mean(axis=1, keepdims=True)).mean(axis=0)
    flux = np.interp(_LINES, wave, spectrum)
    template = np.interp(_LINES, against.wave, _old(against))
    found = measure_velocities(
        flux[None], (_LINE_ERROR * flux[None]) ** 2, np.ones((1, _LINES.size), bool),
        template, _LINES,
    )  # fmt: skip
    v = float(found.velocity[0])
    if np.isnan(v):
        yield Finding("lines", False, "none of old stars from 4050 to 6900 A")
        return
    words = f"{v:+.0f} km/s from where the vacuum puts them"
    if abs(v) > _DOUBTFUL:
        taken = "air taken for vacuum" if v < 0 else "vacuum taken for air"
        words += f"; {taken} would be {np.copysign(_AIR, v):+.0f}"
    yield Finding("lines", abs(v) <= _DOUBTFUL, words)


def _old(grid: SSPGrid) -> NDArray[np.float64]:
    """Spectrum of the population nearest to 10 Gyr and Z = 0.02."""
    z, age = np.argmin(np.abs(grid.metallicity - 0.02)), np.argmin(np.abs(grid.age - 1e10))
    return np.asarray(grid.flux[z, age], dtype=np.float64)


def _bands(
    library: CompositeLibrary | TabulatedLibrary, redshift: float, filters: Sequence[Filter]
) -> Iterator[Finding]:
    if not filters:
        return
    _, covered = photon_weights(_axes(library)[0] * (1.0 + redshift), filters)
    for curve, share in zip(filters, covered, strict=True):
        good = bool(share >= MIN_COVERED)
        words = "inside" if good else f"{share:.1%} inside: left out of a fit"
        yield Finding(curve.name, good, f"{words} (z = {redshift:g})")
