"""Population libraries: model photometry for the fit, model spectra for the comparison.

Models are luminosities per Angstrom of the rest frame per solar mass formed (or whatever the
library's file holds). Seen at redshift z they are given as ``L(wave / (1 + z)) / (1 + z)``:
luminosity per Angstrom of the observed frame, with no distance in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy.sparse import coo_array, csr_array

from specphoto.errors import InputError
from specphoto.photometry.synthetic import photon_weights
from specphoto.spectral.dust import birth_transmission, hat_weights, ism_transmission, knots
from specphoto.spectral.resample import (
    FWHM_TO_SIGMA,
    kernel_sigma,
    line_profiles,
    resample_matrix,
)
from specphoto.spectral.sfh import BIRTH_CLOUD_AGE, age_weights, metallicity_weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from specphoto.photometry.filters import Filter
    from specphoto.spectral.parameters import ModelParameters

__all__ = [
    "CompositeLibrary",
    "Library",
    "Nebular",
    "ObservedModels",
    "SSPGrid",
    "TabulatedLibrary",
]

# A band counts as inside the wavelengths when no more than this share of it is missing.
_MIN_COVERED = 0.999

# Models worked on at a time: their arrays then stay in cache.
_BLOCK = 512


class ObservedModels(Protocol):
    """Model spectra on one observed wavelength grid, at the resolution of the data."""

    def spectra(self, index: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the spectra ``(k, n_wave)`` of models; NaN where the library does not reach."""
        ...


class Library(Protocol):
    """What the fit asks of a population library."""

    identity: str

    @property
    def n_model(self) -> int:
        """Number of models."""
        ...

    @property
    def wave_range(self) -> tuple[float, float]:
        """First and last rest-frame wavelength, vacuum Angstrom."""
        ...

    def photometry(self, redshift: float, filters: Sequence[Filter]) -> NDArray[np.float64]:
        """Return photon-weighted mean F_lambda of all models, ``(n_model, n_band)``."""
        ...

    def observed(
        self, redshift: float, wave: NDArray[np.float64], lsf: NDArray[np.float64] | None
    ) -> ObservedModels:
        """Prepare the spectra of all models for one wavelength grid."""
        ...


@dataclass(frozen=True, eq=False)
class Nebular:
    """Gas ionised by the populations of a grid, on its metallicities and its youngest ages.

    Parameters
    ----------
    continuum
        Luminosity density, L_sun / Angstrom per solar mass formed, shape
        ``(n_met, n_young, n_wave)``.
    line_wave
        Vacuum wavelengths of the lines, Angstrom, shape ``(n_line,)``.
    line
        Luminosities, L_sun per solar mass formed, shape ``(n_met, n_young, n_line)``.
    """

    continuum: NDArray[np.float32]
    line_wave: NDArray[np.float64]
    line: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SSPGrid:
    """Simple stellar populations, linear in age and in log Z between the nodes.

    Parameters
    ----------
    wave
        Rest-frame vacuum wavelengths, increasing, Angstrom, shape ``(n_wave,)``.
    age
        Increasing from 0, yr, shape ``(n_age,)``; 10 Myr is one of them.
    metallicity
        Mass fractions, increasing, shape ``(n_met,)``.
    flux
        L_sun / Angstrom per solar mass formed, shape ``(n_met, n_age, n_wave)``.
    fwhm
        Resolution of the spectra, Angstrom, shape ``(n_wave,)``.
    nebular
        Gas around the young populations, or None.
    identity
        Name and hash of the file, for the provenance.

    Raises
    ------
    InputError
        If the shapes disagree or 10 Myr is not among the ages.
    """

    wave: NDArray[np.float64]
    age: NDArray[np.float64]
    metallicity: NDArray[np.float64]
    flux: NDArray[np.float32]
    fwhm: NDArray[np.float64]
    nebular: Nebular | None = None
    identity: str = "unnamed grid"

    def __post_init__(self) -> None:
        shape = (self.metallicity.size, self.age.size, self.wave.size)
        if self.flux.shape != shape or self.fwhm.shape != self.wave.shape:
            raise InputError(
                self.identity, expected=f"flux of shape {shape} and one fwhm per wavelength",
                found=f"{self.flux.shape} and {self.fwhm.shape}", remedy="rebuild the grid",
            )  # fmt: skip
        if not np.any(self.age == BIRTH_CLOUD_AGE):
            raise InputError(
                self.identity, expected=f"an age node at {BIRTH_CLOUD_AGE:g} yr", found="none",
                remedy="interpolate the grid to that age",
            )  # fmt: skip

    @property
    def n_young(self) -> int:
        """Number of age nodes up to and including 10 Myr."""
        return int(np.searchsorted(self.age, BIRTH_CLOUD_AGE)) + 1


@dataclass(frozen=True, eq=False)
class _Mixer:
    """The recipe from population grid to composite models, in any basis linear in flux."""

    age: NDArray[np.float64]
    metallicity: NDArray[np.float64]

    def weights(
        self, parameters: ModelParameters
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the masses on the young and old age nodes."""
        return age_weights(parameters, self.age)

    def mix(
        self,
        weights: NDArray[np.float64],
        metallicity: NDArray[np.float64],
        basis: NDArray[np.floating],
    ) -> NDArray[np.floating]:
        """Sum a basis ``(n_met, n_age, n)`` over ages and between metallicities."""
        lower, share = metallicity_weights(metallicity, self.metallicity)
        out = np.empty((len(weights), basis.shape[-1]), basis.dtype)
        for m in np.unique(lower):
            rows = lower == m
            s, w = share[rows, None], weights[rows]
            both = np.hstack([(1.0 - s) * w, s * w]).astype(basis.dtype)
            out[rows] = both @ basis[m : m + 2].reshape(both.shape[1], -1)
        return out


class CompositeLibrary:
    """Composite populations: star formation histories and dust over a grid of populations.

    Parameters
    ----------
    grid
        The simple populations.
    parameters
        The models; see :func:`specphoto.spectral.parameters.sample_parameters`.
    nebular
        Whether young stars light up the gas around them: continuum and lines of the grid's
        ``nebular``, dimmed by birth clouds and interstellar dust like the stars.

    Raises
    ------
    InputError
        If ``nebular`` is asked of a grid without it.
    """

    def __init__(
        self, grid: SSPGrid, parameters: ModelParameters, *, nebular: bool = False
    ) -> None:
        if nebular and grid.nebular is None:
            raise InputError(
                grid.identity, expected="nebular emission in the grid", found="none",
                remedy="use the default library or nebular=False",
            )  # fmt: skip
        self.grid = grid
        self.parameters = parameters
        self.nebular = grid.nebular if nebular else None
        self.identity = f"{grid.identity}; {len(parameters)} composites; nebular={nebular}"
        self._mixer = _Mixer(grid.age, grid.metallicity)

    @property
    def n_model(self) -> int:
        """Number of models."""
        return len(self.parameters)

    @property
    def wave_range(self) -> tuple[float, float]:
        """First and last rest-frame wavelength, vacuum Angstrom."""
        return float(self.grid.wave[0]), float(self.grid.wave[-1])

    @cached_property
    def _weights(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self._mixer.weights(self.parameters)

    @cached_property
    def _basis(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Spectra at the young and at the old nodes; 10 Myr is in both."""
        n = self.grid.n_young
        young, old = self.grid.flux[:, :n], self.grid.flux[:, n - 1 :]
        if self.nebular is not None:
            young = young + self.nebular.continuum
        return young, old

    def photometry(self, redshift: float, filters: Sequence[Filter]) -> NDArray[np.float64]:
        """Photon-weighted mean F_lambda of all models in the observed frame.

        Each band is cut into fragments, one per dust knot, that share an attenuation; the
        populations are summed over fragments first, so that a model costs a few hundred
        multiplications and exponentials instead of a spectrum.

        Parameters
        ----------
        redshift
            May be negative.
        filters
            The filter curves.

        Returns
        -------
        array of shape ``(n_model, n_band)``
            Units as the module says; a column of NaN for a band not inside the library's range.
        """
        out = np.full((self.n_model, len(filters)), np.nan)
        fragments = _fragments(self.grid.wave, redshift, filters)
        if fragments.band.size == 0:
            return out
        young, old = (self._reduce(basis, fragments.matrix, redshift) for basis in self._basis)
        if self.nebular is not None:
            young += self.nebular.line @ _line_fragments(
                self.nebular.line_wave, redshift, filters, fragments
            )
        bands, starts = np.unique(fragments.band, return_index=True)
        used, place = np.unique(fragments.knot, return_inverse=True)
        wave = fragments.knots[used]
        for rows in _blocks(self.n_model):
            p = self.parameters.take(rows)
            w_young, w_old = (w[rows] for w in self._weights)
            light = self._mixer.mix(w_young, p.metallicity, young)
            light *= birth_transmission(wave, p)[:, place]
            light += self._mixer.mix(w_old, p.metallicity, old)
            light *= ism_transmission(wave, p)[:, place]
            out[rows, bands] = np.add.reduceat(light, starts, axis=1)
        return out

    @staticmethod
    def _reduce(
        basis: NDArray[np.float32], matrix: csr_array, redshift: float
    ) -> NDArray[np.float64]:
        """Apply weights ``(n_wave, n)`` to spectra ``(n_met, n_age, n_wave)``."""
        flat = basis.reshape(-1, basis.shape[-1])
        out = np.asarray((matrix.T @ flat.T).T, dtype=np.float64) / (1.0 + redshift)
        return out.reshape(*basis.shape[:2], -1)

    def observed(
        self,
        redshift: float,
        wave: NDArray[np.float64],
        lsf: NDArray[np.float64] | None = None,
    ) -> CompositeModels:
        """Prepare the spectra of all models for one wavelength grid.

        Parameters
        ----------
        redshift
            May be negative.
        wave
            Observed vacuum wavelengths, increasing, Angstrom, shape ``(n_wave,)``.
        lsf
            Standard deviation of the data's line spread, channel included, Angstrom, shape
            ``(n_wave,)``; the models are smoothed to it where they are the sharper. Add the
            stars' velocity dispersion in quadrature where it is known. None: no smoothing.

        Returns
        -------
        CompositeModels
            Flux-conserving averages over the channels, units as the module says.
        """
        matrix, inside = _observing_matrix(self.grid.wave, self.grid.fwhm, redshift, wave, lsf)
        young, old = (self._reduce(b, matrix.T.tocsr(), redshift) for b in self._basis)
        if self.nebular is not None:
            young += self.nebular.line @ self._line_profiles(redshift, wave, lsf)
        return CompositeModels(
            mixer=self._mixer,
            parameters=self.parameters,
            rest_wave=wave / (1.0 + redshift),
            inside=inside,
            young=young.astype(np.float32),
            old=old.astype(np.float32),
        )

    def _line_profiles(
        self, redshift: float, wave: NDArray[np.float64], lsf: NDArray[np.float64] | None
    ) -> NDArray[np.float64]:
        """Lines as the data see them (or at the library's resolution, without an lsf)."""
        assert self.nebular is not None
        centre = self.nebular.line_wave * (1.0 + redshift)
        if lsf is None:
            own = np.interp(self.nebular.line_wave, self.grid.wave, self.grid.fwhm)
            sigma = own * (1.0 + redshift) * FWHM_TO_SIGMA
        else:
            channel = np.gradient(wave)
            total = np.nan_to_num(np.maximum(lsf**2 - channel**2 / 12.0, 0.0))
            sigma = np.interp(centre, wave, np.sqrt(total))
        return line_profiles(centre, sigma, wave)


@dataclass(frozen=True, eq=False)
class CompositeModels:
    """Composite spectra on one observed wavelength grid; small enough to send to workers.

    Parameters
    ----------
    mixer
        The nodes of the population grid.
    parameters
        The models.
    rest_wave
        Rest-frame wavelengths of the channels, Angstrom, shape ``(n_wave,)``.
    inside
        Whether the library reaches the channel, shape ``(n_wave,)``.
    young, old
        Populations as observed, shape ``(n_met, n_age, n_wave)``, nodes up to and from 10 Myr.
    """

    mixer: _Mixer
    parameters: ModelParameters
    rest_wave: NDArray[np.float64]
    inside: NDArray[np.bool_]
    young: NDArray[np.float32]
    old: NDArray[np.float32]

    def spectra(self, index: NDArray[np.intp]) -> NDArray[np.float64]:
        """Spectra of models by number.

        Parameters
        ----------
        index
            Model numbers, shape ``(k,)``; repeated numbers are computed again.

        Returns
        -------
        array of shape ``(k, n_wave)``
            Units as the module says; NaN in channels that the library does not reach.
        """
        out = np.full((len(index), self.rest_wave.size), np.nan)
        if not self.inside.any():
            return out
        for rows in _blocks(len(index)):
            out[rows] = self._block(self.parameters.take(np.asarray(index)[rows]))
        out[:, ~self.inside] = np.nan
        return out

    def _block(self, parameters: ModelParameters) -> NDArray[np.floating]:
        nodes = knots(self.rest_wave[0], self.rest_wave[-1])
        lower, share = hat_weights(self.rest_wave, nodes)
        hats = np.zeros((nodes.size, self.rest_wave.size), np.float32)
        channel = np.arange(self.rest_wave.size)
        hats[lower, channel], hats[lower + 1, channel] = 1.0 - share, share
        w_young, w_old = self.mixer.weights(parameters)
        light = self.mixer.mix(w_young, parameters.metallicity, self.young)
        light *= birth_transmission(nodes, parameters).astype(np.float32) @ hats
        light += self.mixer.mix(w_old, parameters.metallicity, self.old)
        light *= ism_transmission(nodes, parameters).astype(np.float32) @ hats
        return light


class TabulatedLibrary:
    """Spectra computed elsewhere, such as a piXedfit library.

    Parameters
    ----------
    wave
        Rest-frame vacuum wavelengths, increasing, Angstrom, shape ``(n_wave,)``.
    flux
        Luminosity per Angstrom, any unit, shape ``(n_model, n_wave)``.
    fwhm
        Resolution of the spectra, Angstrom, shape ``(n_wave,)``.
    parameters
        Whatever the file says of each model, by name, shapes ``(n_model,)``.
    identity
        Name and hash of the file, for the provenance.

    Raises
    ------
    InputError
        If the shapes disagree.
    """

    def __init__(
        self,
        wave: NDArray[np.float64],
        flux: NDArray[np.float32],
        fwhm: NDArray[np.float64],
        parameters: dict[str, NDArray[np.float64]] | None = None,
        *,
        identity: str = "unnamed library",
    ) -> None:
        if flux.ndim != 2 or flux.shape[1:] != wave.shape or fwhm.shape != wave.shape:
            raise InputError(
                identity, expected="one flux and one fwhm per wavelength and model",
                found=f"wave {wave.shape}, flux {flux.shape}, fwhm {fwhm.shape}",
                remedy="check the library's axes",
            )  # fmt: skip
        self.wave, self.flux, self.fwhm = wave, flux, fwhm
        self.parameters = parameters or {}
        self.identity = identity

    @property
    def n_model(self) -> int:
        """Number of models."""
        return len(self.flux)

    @property
    def wave_range(self) -> tuple[float, float]:
        """First and last rest-frame wavelength, vacuum Angstrom."""
        return float(self.wave[0]), float(self.wave[-1])

    def photometry(self, redshift: float, filters: Sequence[Filter]) -> NDArray[np.float64]:
        """Photon-weighted mean F_lambda of all models in the observed frame.

        Parameters
        ----------
        redshift
            May be negative.
        filters
            The filter curves.

        Returns
        -------
        array of shape ``(n_model, n_band)``
            A column of NaN for a band not inside the library's range.
        """
        weights, covered = photon_weights(self.wave * (1.0 + redshift), filters)
        out = np.empty((self.n_model, len(filters)))
        for rows in _blocks(self.n_model):
            out[rows] = self.flux[rows] @ weights / (1.0 + redshift)
        out[:, covered < _MIN_COVERED] = np.nan
        return out

    def observed(
        self,
        redshift: float,
        wave: NDArray[np.float64],
        lsf: NDArray[np.float64] | None = None,
    ) -> TabulatedModels:
        """Prepare the spectra of all models for one wavelength grid.

        Parameters
        ----------
        redshift
            May be negative.
        wave
            Observed vacuum wavelengths, increasing, Angstrom, shape ``(n_wave,)``.
        lsf
            As for :meth:`CompositeLibrary.observed`.

        Returns
        -------
        TabulatedModels
            Holds the part of the library's spectra that the channels see.
        """
        matrix, inside = _observing_matrix(self.wave, self.fwhm, redshift, wave, lsf)
        seen = np.flatnonzero(np.bincount(matrix.indices, minlength=self.wave.size))
        part = slice(seen[0], seen[-1] + 1) if seen.size else slice(0, 0)
        return TabulatedModels(self.flux[:, part], matrix[:, part] / (1.0 + redshift), inside)


@dataclass(frozen=True, eq=False)
class TabulatedModels:
    """Spectra of a table on one observed wavelength grid.

    Parameters
    ----------
    flux
        Spectra, shape ``(n_model, n_in)``.
    matrix
        What takes them to the channels, shape ``(n_wave, n_in)``.
    inside
        Whether the library reaches the channel, shape ``(n_wave,)``.
    """

    flux: NDArray[np.float32]
    matrix: csr_array
    inside: NDArray[np.bool_]

    def spectra(self, index: NDArray[np.intp]) -> NDArray[np.float64]:
        """Spectra of models by number.

        Parameters
        ----------
        index
            Model numbers, shape ``(k,)``.

        Returns
        -------
        array of shape ``(k, n_wave)``
            NaN in channels that the library does not reach.
        """
        out = np.array((self.matrix @ self.flux[index].T).T, dtype=np.float64, order="C")
        out[:, ~self.inside] = np.nan
        return out


@dataclass(frozen=True, eq=False)
class _Fragments:
    """Bands cut at dust knots: photon weight times hat function, one column per fragment."""

    matrix: csr_array  # (n_wave, n_fragment)
    band: NDArray[np.intp]  # (n_fragment,), increasing
    knot: NDArray[np.intp]  # (n_fragment,)
    knots: NDArray[np.float64]  # rest frame


def _fragments(
    rest_wave: NDArray[np.float64], redshift: float, filters: Sequence[Filter]
) -> _Fragments:
    """Fragments of the bands that lie inside the wavelengths."""
    weights, covered = photon_weights(rest_wave * (1.0 + redshift), filters)
    weights[:, covered < _MIN_COVERED] = 0.0
    nodes = knots(rest_wave[0], rest_wave[-1])
    lower, share = hat_weights(rest_wave, nodes)
    wave, band = np.nonzero(weights)
    code = np.concatenate([band * nodes.size + lower[wave], band * nodes.size + lower[wave] + 1])
    value = weights[wave, band]
    value = np.concatenate([value * (1.0 - share[wave]), value * share[wave]])
    codes, column = np.unique(code, return_inverse=True)
    matrix = coo_array((value, (np.tile(wave, 2), column)), shape=(rest_wave.size, codes.size))
    return _Fragments(csr_array(matrix), codes // nodes.size, codes % nodes.size, nodes)


def _line_fragments(
    rest_wave: NDArray[np.float64],
    redshift: float,
    filters: Sequence[Filter],
    fragments: _Fragments,
) -> NDArray[np.float64]:
    """Weights ``(n_line, n_fragment)`` that turn line luminosities into mean fluxes."""
    lower, share = hat_weights(rest_wave, fragments.knots)
    observed = rest_wave * (1.0 + redshift)
    out = np.zeros((rest_wave.size, fragments.band.size))
    for column, (b, k) in enumerate(zip(fragments.band, fragments.knot, strict=True)):
        curve = filters[b]
        photons = curve.response * curve.wave
        density = np.interp(observed, curve.wave, photons, left=0.0, right=0.0)
        hat = np.where(lower == k, 1.0 - share, np.where(lower + 1 == k, share, 0.0))
        out[:, column] = hat * density / np.trapezoid(photons, curve.wave)
    return out


def _observing_matrix(
    rest_wave: NDArray[np.float64],
    fwhm: NDArray[np.float64],
    redshift: float,
    wave: NDArray[np.float64],
    lsf: NDArray[np.float64] | None,
) -> tuple[csr_array, NDArray[np.bool_]]:
    """Redshift, smooth to the data's resolution and average over the channels."""
    stretched = rest_wave * (1.0 + redshift)
    if lsf is None:
        return resample_matrix(stretched, wave)
    own = np.interp(wave, stretched, fwhm) * (1.0 + redshift) * FWHM_TO_SIGMA
    return resample_matrix(stretched, wave, kernel_sigma(lsf, own, stretched, wave))


def _blocks(n: int) -> Iterator[slice]:
    return (slice(i, i + _BLOCK) for i in range(0, n, _BLOCK))
