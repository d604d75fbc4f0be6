"""Galaxies to simulate, and the files of one in a single call."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from specphoto.errors import InputError
from specphoto.photometry.filters import load_filters
from specphoto.photometry.synthetic import photon_weights
from specphoto.simulate.califa import califa_grid, write_califa
from specphoto.simulate.manga import SIZE, manga_grid, write_manga
from specphoto.simulate.muse import write_muse
from specphoto.simulate.photometry import SimulatedPhotometry, write_photometry
from specphoto.simulate.populations import population_library
from specphoto.simulate.profile import Profile
from specphoto.simulate.sky import make_sky
from specphoto.simulate.truth import Component, Miscalibration, Patchwork, Rotation, Truth

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from specphoto.simulate.exposure import SimulatedCube
    from specphoto.simulate.pixels import PixelGrid
    from specphoto.simulate.sky import LightCube
    from specphoto.simulate.truth import Family, Sight

__all__ = ["SimulatedGalaxy", "galaxy", "patchwork", "simulate_galaxy"]

Survey = Literal["manga", "califa", "muse"]

# half-light radius of the disc, arcsec: the bundle reaches about 2 of them
_RADIUS = {19: 3.0, 37: 4.0, 61: 5.0, 91: 6.0, 127: 7.0}


@dataclass(frozen=True, eq=False)
class SimulatedGalaxy:
    """A cube and a photometric cube of one truth."""

    cube: SimulatedCube
    photometry: SimulatedPhotometry

    @property
    def truth(self) -> Sight:
        """What was simulated."""
        return self.cube.truth

    def matched(self) -> LightCube:
        """True spectra on the images' grid and PSF, at the cube's wavelengths and resolution.

        What a perfect spatial and spectral match would give: no noise, no miscalibration, no
        Galactic dust, no star in front.
        """
        wave = self.cube.wave
        psf = ((float(wave[wave.size // 2]), self.photometry.psf),)
        truth = self.truth.alone() if isinstance(self.truth, Truth) else self.truth
        return make_sky(truth).cube(self.photometry.pixels, psf, wave, self.cube.lsf)

    def velocity(self) -> NDArray[np.float64]:
        """Mean velocity of the light on the images' grid and PSF, ``(n_y, n_x)``, km/s.

        Relative to the redshift, without stars in front: what ``velocity`` of
        :func:`specphoto.match_spectral` wants.
        """
        return make_sky(self.truth).mean_velocity(self.photometry.pixels, self.photometry.psf)

    def factor(self) -> NDArray[np.float64]:
        """Injected factor P on the images' grid ``(n_wave, n_y, n_x)``."""
        pixels, wave = self.photometry.pixels, self.cube.wave
        span = (float(wave[0]), float(wave[-1]))
        return self.truth.factor.factor(wave, east=pixels.offsets()[0], wave_range=span)


def galaxy(
    *,
    seed: int = 1,
    radius: float = 7.0,
    mag: float = 14.5,
    inclination: float = 40.0,
    angle: float = 25.0,
    centre: tuple[float, float] = (0.0, 0.0),
    speed: float = 150.0,
    halpha: float = 25.0,
    stars: Sequence[tuple[float, float, float]] = (),
    family: Family = "library",
    factor: Miscalibration | None = None,
    **sight: Any,
) -> Truth:
    """A disc galaxy: an old bulge, an inner and a younger, larger outer disc.

    Parameters
    ----------
    seed
        Chooses the populations and the noise.
    radius
        Half-light radius, arcsec.
    mag
        Total AB magnitude in SDSS r.
    inclination, angle
        Of the disc, and position angle of its receding major axis (north through east), degrees.
    centre
        Offset from the field centre, arcsec (east, north).
    speed
        Rotation in the plane, km/s.
    halpha
        Rest-frame equivalent width of Halpha in the outer disc, Angstrom; half in the inner.
    stars
        Stars in front of it: offset from the field centre in arcsec (east, north) and AB
        magnitude in SDSS r of each. Their spectrum is that of the bulge.
    family, factor, **sight
        See :class:`specphoto.simulate.Truth`; the default factor rises by 20% over the
        instrument's range, with some curvature.
    """
    redshift = float(sight.get("redshift", 0.03))
    populations = _by_colour(seed, family, redshift)
    ratio = float(np.hypot(np.cos(np.deg2rad(inclination)), 0.2))
    flux = _flux(mag)
    shapes = (
        (0.25, 0.0, Profile("sersic", 0.35 * radius, 2.5, 0.5 + 0.5 * ratio, angle, centre)),
        (0.35, 0.5 * halpha, Profile("sersic", 0.8 * radius, 1.0, ratio, angle, centre)),
        (0.40, halpha, Profile("sersic", 1.3 * radius, 1.0, ratio, angle, centre)),
    )
    return Truth(
        seed=seed,
        family=family,
        factor=factor or Miscalibration((1.0, 0.1, -0.02, 0.01)),
        components=tuple(
            Component(int(p), share * flux, profile, ew)
            for p, (share, ew, profile) in zip(populations, shapes, strict=True)
        ),
        rotation=Rotation(
            speed * float(np.sin(np.deg2rad(inclination))), 0.4 * radius, ratio, angle, centre
        ),
        foreground=tuple(
            Component(populations[0], _flux(r), Profile("point", centre=(east, north)))
            for east, north, r in stars
        ),
        **sight,
    )


def _flux(mag: float) -> float:
    """F_lambda of an AB magnitude at the pivot of SDSS r, 1e-17 erg s-1 cm-2 Angstrom-1."""
    pivot = load_filters(["sdss_r"])[0].pivot
    return float(10.0 ** (-0.4 * (mag + 48.6)) * 2.99792458e18 / pivot**2 / 1e-17)


def _by_colour(seed: int, family: Family, redshift: float) -> list[int]:
    """Three populations: red, middling and blue ones of 64 drawn."""
    library = population_library(family)
    drawn = np.random.default_rng([seed, 6]).choice(library.n_model, 64, replace=False)
    wave = np.arange(3700.0, 7100.0, 4.0)
    weights, _ = photon_weights(wave, load_filters(["sdss_g", "sdss_r"]))
    spectra = library.observed(redshift, wave, None).spectra(drawn.astype(np.int64))
    g, r = (np.nan_to_num(spectra) @ weights).T
    order = np.argsort(r / g)
    return [int(drawn[order[i]]) for i in (54, 34, 16)]


def patchwork(pixels: PixelGrid, *, seed: int = 1, **options: Any) -> Patchwork:
    """Every pixel an independent population of the library's family.

    Parameters
    ----------
    pixels
        Grid of cube and images: :func:`specphoto.simulate.manga_grid` or `califa_grid`.
    seed, **options
        Fields of :class:`specphoto.simulate.Patchwork`; the default factor rises by 20%.
    """
    options.setdefault("factor", Miscalibration((1.0, 0.1)))
    return Patchwork(seed=seed, pixels=pixels, **options)


def simulate_galaxy(
    folder: str | Path,
    *,
    survey: Survey = "manga",
    mode: Literal["galaxy", "independent"] = "galaxy",
    seed: int = 1,
    size: int = 127,
    name: str | None = None,
    compress: bool = True,
    truth: Sight | None = None,
    cube_options: dict[str, Any] | None = None,
    photometry_options: dict[str, Any] | None = None,
    **options: Any,
) -> SimulatedGalaxy:
    """Write the cube and the photometric cube of one simulated object.

    Parameters
    ----------
    folder
        Where the files go; made if absent.
    survey
        Format of the cube.
    mode
        ``galaxy``, or ``independent``: every spaxel its own population, cube and images on one
        grid and PSF.
    seed
        Chooses everything that is random.
    size
        Fibres of the MaNGA bundle (19, 37, 61, 91, 127), or spaxels on a side for MUSE.
    name
        Part of the file names; by default ``sim`` and the seed.
    compress
        Cube as ``.fits.gz`` instead of ``.fits``.
    truth
        Use this one; `mode`, `seed` and `options` are then ignored.
    cube_options, photometry_options
        For the writers, e.g. ``{"snr": 5.0}``.
    **options
        For :func:`galaxy` or :func:`patchwork`.

    Returns
    -------
    SimulatedGalaxy
        Paths and truth.

    Raises
    ------
    InputError
        If survey or size are unknown.

    Examples
    --------
    >>> made = simulate_galaxy("sky", seed=3, size=19)  # doctest: +SKIP
    >>> made.cube.path.name, made.photometry.path.name  # doctest: +SKIP
    ('manga-sim3-LOGCUBE.fits.gz', 'fluxmap_manga-sim3.fits')
    """
    _check(survey, size)
    folder, label = Path(folder), name or f"sim{seed}"
    if truth is None:
        truth = _truth(survey, mode, seed, size, options)
    suffix = ".fits.gz" if compress else ".fits"
    cube = _write_cube(folder, label, suffix, survey, truth, size, cube_options or {})
    shared: dict[str, Any] = {}
    if isinstance(truth, Patchwork):
        shared = {
            "pixels": truth.pixels, "psf": cube.psf[0][1], "psf_band": "sdss_r",
            "region": cube.observed,
        }  # fmt: skip
    photometry = write_photometry(
        folder / f"fluxmap_{survey}-{label}.fits", truth, **{**shared, **(photometry_options or {})}
    )
    return SimulatedGalaxy(cube, photometry)


def _check(survey: str, size: int) -> None:
    if survey not in ("manga", "califa", "muse"):
        raise InputError(
            "survey", expected="manga, califa or muse", found=repr(survey),
            remedy="choose one of them",
        )  # fmt: skip
    if survey == "manga" and size not in SIZE:
        raise InputError(
            "size", expected="fibres of a MaNGA bundle: " + ", ".join(map(str, SIZE)),
            found=str(size), remedy="choose one of them",
        )  # fmt: skip


def _truth(survey: str, mode: str, seed: int, size: int, options: dict[str, Any]) -> Sight:
    if mode == "independent":
        pixels = manga_grid(size) if survey == "manga" else califa_grid()
        return patchwork(pixels, seed=seed, **options)
    if survey == "manga":
        options.setdefault("radius", _RADIUS[size])
        options.setdefault("mag", 14.5 + 5.0 * np.log10(_RADIUS[127] / _RADIUS[size]))
    elif survey == "califa":
        options.setdefault("radius", 15.0)
        options.setdefault("mag", 13.0)
    else:
        options.setdefault("radius", 0.05 * size)
        options.setdefault("mag", 16.5)
    return galaxy(seed=seed, **options)


def _write_cube(
    folder: Path,
    label: str,
    suffix: str,
    survey: str,
    truth: Sight,
    size: int,
    options: dict[str, Any],
) -> SimulatedCube:
    if survey == "manga":
        if isinstance(truth, Patchwork):
            options = {"fwhm": 2.5, **options}
        return write_manga(
            folder / f"manga-{label}-LOGCUBE{suffix}", truth, **{"fibres": size, **options}
        )
    if survey == "califa":
        return write_califa(folder / f"{label}.COMB.rscube{suffix}", truth, **options)
    return write_muse(folder / f"muse-{label}{suffix}", truth, **{"shape": (size, size), **options})
