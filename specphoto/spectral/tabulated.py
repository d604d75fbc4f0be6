"""Libraries whose spectra were computed elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from specphoto.errors import InputError
from specphoto.photometry.synthetic import photon_weights
from specphoto.spectral.fingerprint import digest
from specphoto.spectral.fragments import MIN_COVERED
from specphoto.spectral.resample import observing_matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from scipy.sparse import csr_array

    from specphoto.photometry.filters import Filter

__all__ = ["TabulatedLibrary", "TabulatedModels"]

_BLOCK = 1024  # models worked on at a time


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
    fingerprint
        What tells these spectra from all others, where that is known without reading them all.

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
        fingerprint: str | None = None,
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
        self._fingerprint = fingerprint

    @cached_property
    def fingerprint(self) -> str:
        """What tells these spectra from all others; photometry is cached by it."""
        return self._fingerprint or digest("table", self.wave, self.flux)

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
        for i in range(0, self.n_model, _BLOCK):
            rows = slice(i, i + _BLOCK)
            out[rows] = self.flux[rows] @ weights / (1.0 + redshift)
        out[:, covered < MIN_COVERED] = np.nan
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
        matrix, inside = observing_matrix(self.wave, self.fwhm, redshift, wave, lsf)
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

    def binned(self, average: csr_array) -> TabulatedModels:
        """Models on bins of channels.

        Parameters
        ----------
        average
            What takes channels to means over bins, shape ``(n_wave, n_bin)``.
        """
        inside = ~((~self.inside) @ average > 0)
        return TabulatedModels(self.flux, (average.T @ self.matrix).tocsr(), inside)
