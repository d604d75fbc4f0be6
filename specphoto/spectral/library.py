"""Population libraries: model photometry for the fit, model spectra for the comparison.

Models are luminosities per Angstrom of the rest frame per solar mass formed (or whatever the
library's file holds). Seen at redshift z they are given as ``L(wave / (1 + z)) / (1 + z)``:
luminosity per Angstrom of the observed frame, with no distance in it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from specphoto.errors import InputError
from specphoto.spectral.dust import birth_transmission, hat_weights, ism_transmission, knots
from specphoto.spectral.fingerprint import digest
from specphoto.spectral.fragments import band_fragments, line_fragments
from specphoto.spectral.resample import FWHM_TO_SIGMA, line_profiles, observing_matrix
from specphoto.spectral.ssp import Mixer, Nebular, SSPGrid
from specphoto.spectral.tabulated import TabulatedLibrary, TabulatedModels

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from scipy.sparse import csr_array

    from specphoto.photometry.filters import Filter
    from specphoto.spectral.dust import DustLaw
    from specphoto.spectral.parameters import ModelParameters

__all__ = [
    "CompositeLibrary",
    "CompositeModels",
    "Library",
    "ModelSpectra",
    "Nebular",
    "ObservedModels",
    "SSPGrid",
    "TabulatedLibrary",
    "TabulatedModels",
]

# Models worked on at a time: their arrays then stay in cache.
_BLOCK = 512


class ModelSpectra(Protocol):
    """Model spectra by number."""

    def spectra(self, index: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the spectra ``(k, n_wave)`` of models; NaN where the library does not reach."""
        ...


class ObservedModels(ModelSpectra, Protocol):
    """Model spectra on one observed wavelength grid, at the resolution of the data."""

    def binned(self, average: csr_array) -> ModelSpectra:
        """Return the same models on bins, given what averages channels, ``(n_wave, n_bin)``."""
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
    dust
        Law of the interstellar dust, see :func:`specphoto.spectral.dust.ism_transmission`.
    identity
        Name for the provenance; by default made of the grid's.

    Raises
    ------
    InputError
        If ``nebular`` is asked of a grid without it.
    """

    def __init__(
        self, grid: SSPGrid, parameters: ModelParameters, *, nebular: bool = False,
        dust: DustLaw = "power law", identity: str | None = None,
    ) -> None:  # fmt: skip
        if nebular and grid.nebular is None:
            raise InputError(
                grid.identity, expected="nebular emission in the grid", found="none",
                remedy="use the default library or nebular=False",
            )  # fmt: skip
        self.grid = grid
        self.parameters = parameters
        self.dust = dust
        self.nebular = grid.nebular if nebular else None
        gas = f"nebular {self.nebular.identity}" if self.nebular else "no nebular emission"
        self.identity = identity or f"{grid.identity}; {len(parameters)} composites; {gas}"
        self._mixer = Mixer(grid.age, grid.metallicity)

    def __getstate__(self) -> dict[str, object]:
        # what is computed from the rest is not worth sending to workers
        return {k: v for k, v in vars(self).items() if k not in ("_weights", "_basis")}

    @property
    def n_model(self) -> int:
        """Number of models."""
        return len(self.parameters)

    @property
    def wave_range(self) -> tuple[float, float]:
        """First and last rest-frame wavelength, vacuum Angstrom."""
        return float(self.grid.wave[0]), float(self.grid.wave[-1])

    @cached_property
    def fingerprint(self) -> str:
        """Digest of all that the models depend on; photometry is cached by it."""
        gas = self.nebular
        lines = () if gas is None else (gas.continuum, gas.line_wave, gas.line)
        grid = (self.grid.wave, self.grid.age, self.grid.metallicity, self.grid.flux)
        return digest("composites", self.dust, *grid, *lines, *vars(self.parameters).values())

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
        fragments = band_fragments(self.grid.wave, redshift, filters)
        if fragments.band.size == 0:
            return out
        young, old = (self._reduce(basis, fragments.matrix, redshift) for basis in self._basis)
        if self.nebular is not None:
            young += self.nebular.line @ line_fragments(
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
            light *= ism_transmission(wave, p, self.dust)[:, place]
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
        matrix, inside = observing_matrix(self.grid.wave, self.grid.fwhm, redshift, wave, lsf)
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
            dust=self.dust,
        )

    def rest_frame(self) -> CompositeModels:
        """Spectra of all models at the library's own wavelengths and resolution."""
        young, old = self._basis
        if self.nebular is not None:
            profiles = self._line_profiles(0.0, self.grid.wave, None)
            young = young + (self.nebular.line @ profiles).astype(np.float32)
        everywhere = np.ones(self.grid.wave.size, dtype=bool)
        return CompositeModels(
            mixer=self._mixer, parameters=self.parameters, rest_wave=self.grid.wave,
            inside=everywhere, young=young, old=old, dust=self.dust,
        )  # fmt: skip

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
    dust
        Law of the interstellar dust.
    """

    mixer: Mixer
    parameters: ModelParameters
    rest_wave: NDArray[np.float64]
    inside: NDArray[np.bool_]
    young: NDArray[np.float32]
    old: NDArray[np.float32]
    dust: DustLaw

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

    def binned(self, average: csr_array) -> CompositeModels:
        """Models on bins of channels, dust taken at the middle of each.

        Parameters
        ----------
        average
            What takes channels to means over bins, shape ``(n_wave, n_bin)``.
        """
        young, old = (
            np.asarray(part.reshape(-1, part.shape[-1]) @ average, dtype=np.float32)
            for part in (self.young, self.old)
        )
        shape = (*self.young.shape[:1], -1, average.shape[1])
        return replace(
            self, rest_wave=self.rest_wave @ average, young=young.reshape(shape),
            old=old.reshape(shape), inside=~((~self.inside) @ average > 0),
        )  # fmt: skip

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
        light *= ism_transmission(nodes, parameters, self.dust).astype(np.float32) @ hats
        return light


def _blocks(n: int) -> Iterator[slice]:
    return (slice(i, i + _BLOCK) for i in range(0, n, _BLOCK))
