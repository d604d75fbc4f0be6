"""What is true of a simulated galaxy: a frozen description from which everything is rebuilt."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.polynomial import legendre

from specphoto.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from specphoto.simulate.pixels import PixelGrid
    from specphoto.simulate.profile import Profile

__all__ = [
    "Component",
    "Family",
    "Miscalibration",
    "Patchwork",
    "Rotation",
    "Sight",
    "Truth",
    "own_grid",
]

Family = Literal["library", "two_burst"]


@dataclass(frozen=True)
class Component:
    """One stellar population and where its light is.

    Parameters
    ----------
    population
        Index in the population family.
    flux
        Total photon-weighted mean F_lambda in SDSS r before Galactic dust,
        1e-17 erg s-1 cm-2 Angstrom-1.
    profile
        Its light.
    halpha
        Rest-frame equivalent width of Halpha emission in Angstrom; the other lines follow.
    """

    population: int
    flux: float
    profile: Profile
    halpha: float = 0.0


@dataclass(frozen=True)
class Rotation:
    """Velocity field of a rotating disc, v = v_max tanh(r / r_0) cos(phi) sin(i).

    Parameters
    ----------
    speed
        v_max sin(i) in km/s; 0 is no rotation.
    radius
        r_0, arcsec.
    axis_ratio, angle, centre
        Of the disc; see :class:`specphoto.simulate.Profile`. `angle` is the receding side.
    """

    speed: float = 0.0
    radius: float = 2.0
    axis_ratio: float = 1.0
    angle: float = 0.0
    centre: tuple[float, float] = (0.0, 0.0)

    def velocity(
        self, east: NDArray[np.float64], north: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Line-of-sight velocity in km/s at offsets in arcsec."""
        pa = np.deg2rad(self.angle)
        dx, dy = east - self.centre[0], north - self.centre[1]
        along = dx * np.sin(pa) + dy * np.cos(pa)
        across = (dx * np.cos(pa) - dy * np.sin(pa)) / self.axis_ratio
        r = np.hypot(along, across)
        return np.asarray(self.speed * along / self.radius * _tanh_over(r / self.radius))


def _tanh_over(t: NDArray[np.float64]) -> NDArray[np.float64]:
    """tanh(t) / t, 1 at t = 0."""
    safe = np.maximum(t, 1e-8)
    return np.tanh(safe) / safe


@dataclass(frozen=True)
class Miscalibration:
    """The smooth factor P(lambda) that corrects the spectrum: the survey's flux is true / P.

    ``P = sum_k (coef_k + gradient_k * east / 10 arcsec) P_k(x)``, with x from -1 to 1 over
    `wave_range`.

    Parameters
    ----------
    coef
        Legendre coefficients; (1, 0.1) rises from 0.9 to 1.1 over the range.
    gradient
        Change of the coefficients per 10 arcsec towards east.
    wave_range
        Vacuum wavelengths in Angstrom; None is the instrument's own range.
    """

    coef: tuple[float, ...] = (1.0,)
    gradient: tuple[float, ...] = (0.0,)
    wave_range: tuple[float, float] | None = None

    def factor(
        self, wave: ArrayLike, *, east: ArrayLike = 0.0, wave_range: tuple[float, float]
    ) -> NDArray[np.float64]:
        """P at wavelengths ``(n_wave,)`` and positions ``(...)``: shape ``(n_wave, ...)``.

        Parameters
        ----------
        wave
            Vacuum wavelengths, Angstrom.
        east
            Offset from the field centre towards east, arcsec.
        wave_range
            Used where the description leaves the range to the instrument.
        """
        lo, hi = self.wave_range or wave_range
        x = 2.0 * (np.asarray(wave, dtype=np.float64) - lo) / (hi - lo) - 1.0
        where = np.asarray(east, dtype=np.float64) / 10.0
        level = legendre.legval(x, np.array(self.coef))
        slope = legendre.legval(x, np.array(self.gradient))
        tail = (slice(None),) + (None,) * where.ndim
        return np.asarray(level[tail] + slope[tail] * where)


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What every simulated object shares: where it is, and what lies in front of it.

    Parameters
    ----------
    seed
        Of the noise.
    ra, dec
        Field centre and tangent point, degrees.
    redshift
        Systemic; may be negative.
    ebv
        Galactic E(B-V) on the scale of Schlegel, Finkbeiner & Davis (1998), as MaNGA states it.
    law
        True Galactic extinction law.
    factor
        Miscalibration of the spectra.
    pointing
        Shift of the cube's content against its header, arcsec (east, north).
    family
        Where the populations come from: ``library`` is the family of the fit's library,
        ``two_burst`` one that it does not hold.
    """

    seed: int = 1
    ra: float = 205.4384
    dec: float = 27.0048
    redshift: float = 0.03
    ebv: float = 0.0
    law: Literal["G23", "F99", "CCM89"] = "G23"
    factor: Miscalibration = field(default_factory=Miscalibration)
    pointing: tuple[float, float] = (0.0, 0.0)
    family: Family = "library"

    def rng(self, *stream: int) -> np.random.Generator:
        """Random generator of one purpose: the same numbers whatever else was drawn."""
        return np.random.default_rng([self.seed, *stream])


@dataclass(frozen=True, kw_only=True)
class Truth(Sight):
    """A galaxy.

    Parameters
    ----------
    components
        Populations and their light.
    rotation
        Velocity field of stars and gas.
    dispersion
        Velocity dispersion of the emission lines, km/s.
    foreground
        Stars in front of it: components whose profile is a point. Cubes hold their light, and
        MaNGA's flag their spaxels.
    """

    components: tuple[Component, ...]
    rotation: Rotation = field(default_factory=Rotation)
    dispersion: float = 50.0
    foreground: tuple[Component, ...] = ()

    def __post_init__(self) -> None:
        if not self.components:
            raise InputError(
                "Truth.components", expected="at least one Component", found="none",
                remedy="give one, or make a galaxy with specphoto.simulate.galaxy",
            )  # fmt: skip

    def alone(self) -> Truth:
        """The galaxy without what is in front of it."""
        return replace(self, foreground=())


@dataclass(frozen=True, kw_only=True)
class Patchwork(Sight):
    """Every pixel of one grid an independent population: no profile, no PSF.

    Cube and images of a patchwork must share the grid and the PSF, so that the spatial match is
    the identity: it measures what the spectral match does and nothing else.

    Parameters
    ----------
    pixels
        The grid of cube and images alike.
    flux
        Range of the photon-weighted mean F_lambda in SDSS r per pixel, 1e-17 erg s-1 cm-2
        Angstrom-1; drawn log-uniform.
    """

    pixels: PixelGrid
    flux: tuple[float, float] = (0.1, 3.0)


def own_grid(truth: Sight, default: PixelGrid) -> PixelGrid:
    """Return the grid that a patchwork insists on, or the default for any other truth."""
    return truth.pixels if isinstance(truth, Patchwork) else default
