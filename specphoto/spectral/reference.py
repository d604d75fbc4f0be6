"""What all pixels of one galaxy share: the library at its redshift, bands and wavelengths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from specphoto.photometry.synthetic import photon_weights
from specphoto.spectral import legendre
from specphoto.spectral.lines import line_channels, sky_channels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from specphoto.photometry.filters import Filter
    from specphoto.spectral.library import Library, ObservedModels

__all__ = ["Reference", "make_reference", "summarise"]

# A band is covered when this share of its photons falls inside the cube.
_COVERED = 0.98
# The broad shape of a model is measured in this many bins over the cube's range.
_N_SHAPE_BIN = 48


@dataclass(frozen=True)
class Reference:
    """All that the pixels of one galaxy share.

    Attributes
    ----------
    photometry
        Model photometry ``(n_model, n_band)``, finite.
    shape
        Legendre coefficients of ``ln m`` of each model, ``(n_model, order + 1)``.
    models
        Model spectra on the cube's wavelengths.
    L
        Legendre basis ``(order + 1, n_wave)``.
    band_weight
        Photon weights ``T`` of all bands on the cube's wavelengths, ``(n_wave, n_band)``; zero for
        bands that the cube does not cover.
    covered
        Which bands the cube covers, ``(n_band,)`` bool.
    line, sky
        Channels in emission-line windows; at sky lines and telluric bands. ``(n_wave,)`` bool.
    floor
        Relative model error per band; infinity leaves a band out of the SED fit.
    anchor_error
        Relative error of comparing synthetic with image photometry; infinity for no anchoring.
    """

    photometry: NDArray[np.float64]
    shape: NDArray[np.float64]
    models: ObservedModels
    L: NDArray[np.float64]
    band_weight: NDArray[np.float64]
    covered: NDArray[np.bool_]
    line: NDArray[np.bool_]
    sky: NDArray[np.bool_]
    floor: NDArray[np.float64]
    anchor_error: float


def summarise(
    library: Library,
    redshift: float,
    wave: NDArray[np.float64],
    filters: Sequence[Filter],
    order: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Photometry and broad shape of every model, all that the SED fit needs of it.

    Parameters
    ----------
    library
        The library.
    redshift
        Of the galaxy.
    wave
        Wavelengths of the cube, vacuum Angstrom, ``(n_wave,)``.
    filters
        Of the images.
    order
        Of the factor's polynomial.

    Returns
    -------
    photometry, shape
        ``(n_model, n_band)``, NaN for bands that the library does not reach;
        ``(n_model, order + 1)``.
    """
    return library.photometry(redshift, filters), _shapes(library, redshift, wave, order)


def make_reference(
    library: Library,
    summary: tuple[NDArray[np.float64], NDArray[np.float64]],
    redshift: float,
    wave: NDArray[np.float64],
    lsf: NDArray[np.floating] | None,
    filters: Sequence[Filter],
    floor: NDArray[np.float64],
    *,
    line_window: float,
    anchor_error: float,
) -> Reference:
    """Bring the library to the galaxy.

    Parameters
    ----------
    library, redshift, wave, filters
        As in :func:`summarise`.
    summary
        Its result.
    lsf
        1-sigma line-spread width of the cube in Angstrom, ``(n_wave,)`` or ``(n_wave, n_y,
        n_x)``; None leaves the models as sharp as they are.
    floor
        Relative model error per band; infinity leaves a band out.
    line_window
        Half width of the emission-line windows in km/s.
    anchor_error
        Relative error of the in-band comparison.
    """
    photometry, shape = summary
    width = None if lsf is None else _spectral_width(np.asarray(lsf, dtype=np.float64))
    T, covered = photon_weights(wave, filters)
    inside = covered >= _COVERED
    x = legendre.normalized(wave, wave[0], wave[-1])
    return Reference(
        photometry=np.where(np.isfinite(floor) & np.isfinite(photometry), photometry, 0.0),
        shape=shape,
        models=library.observed(redshift, wave, width),
        L=legendre.basis(x, shape.shape[1] - 1),
        band_weight=np.where(inside, T, 0.0),
        covered=inside,
        line=line_channels(wave, redshift, width, half_width=line_window),
        sky=sky_channels(wave),
        floor=floor,
        anchor_error=anchor_error,
    )


def _spectral_width(lsf: NDArray[np.float64]) -> NDArray[np.float64]:
    """Line-spread width per channel, ``(n_wave,)``: the mean over spaxels of a cube's; no gaps."""
    if lsf.ndim == 3:
        known = np.isfinite(lsf) & (lsf > 0)
        count = known.sum(axis=(1, 2))
        total = np.where(known, lsf, 0.0).sum(axis=(1, 2))
        lsf = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    known = np.isfinite(lsf) & (lsf > 0)
    channel = np.arange(lsf.size)
    return np.interp(channel, channel[known], lsf[known]) if known.any() else np.zeros(lsf.size)


def _shapes(
    library: Library, redshift: float, wave: NDArray[np.float64], order: int
) -> NDArray[np.float64]:
    """Legendre coefficients of ``ln m`` of all models over the cube's range."""
    edges = np.linspace(wave[0], wave[-1], _N_SHAPE_BIN + 1)
    middle = 0.5 * (edges[1:] + edges[:-1])
    spectra = library.observed(redshift, middle, None).spectra(np.arange(library.n_model))
    known = np.isfinite(spectra).all(axis=0)
    L = legendre.basis(legendre.normalized(middle, wave[0], wave[-1]), order)[:, known]
    log_m = np.log(np.maximum(spectra[:, known], 1e-30 * np.nanmax(spectra)))
    return np.asarray(log_m @ np.linalg.pinv(L))
