"""What all pixels of one galaxy share: the library at its redshift, bands and wavelengths."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from specphoto.errors import InputError
from specphoto.photometry.filters import Filter
from specphoto.photometry.synthetic import photon_weights
from specphoto.spectral import legendre
from specphoto.spectral.features import find_features
from specphoto.spectral.lines import line_channels, sky_channels
from specphoto.spectral.motion import Motion
from specphoto.spectral.sedfit import ModelTable
from specphoto.spectral.template_error import DEFAULT_TEMPLATE_ERROR

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from specphoto.spectral.features import Features
    from specphoto.spectral.library import Library, ObservedModels
    from specphoto.spectral.template_error import ProjectedError, TemplateError

__all__ = [
    "COVERED",
    "Method",
    "Reference",
    "band_floor",
    "beyond_cube",
    "make_reference",
    "summarise",
]

#: How the factor is found.
Method = Literal["bayesian", "best", "ratio"]

logger = logging.getLogger(__name__)

# Redward of this (rest frame, Angstrom) dust shines, which the default library does not hold.
_DUST_EMISSION = 25_000.0

#: A band is covered when this share of its photons falls inside the cube. What lies beyond (1.4%
#: of SDSS z in MaNGA) is taken from the models, whose mean it changes by up to 0.5%.
COVERED = 0.98
_WHOLE = 0.9999
# The broad shape of a model is measured in this many bins over the cube's range.
_N_SHAPE_BIN = 48


@dataclass(frozen=True)
class Reference:
    """All that the pixels of one galaxy share.

    Attributes
    ----------
    table
        Photometry, shape and features of each model.
    features
        How the features of a spectrum are measured, or None.
    models
        Model spectra on the cube's wavelengths.
    L
        Legendre basis ``(order + 1, n_wave)``.
    band_weight
        Photon weights ``T`` of all bands on the cube's wavelengths, ``(n_wave, n_band)``; each
        column sums to 1, or is 0 without overlap.
    covered
        Which bands the cube covers, ``(n_band,)`` bool.
    share
        Share of each band's photons that falls inside the cube, ``(n_band,)``.
    beyond
        Mean F_lambda of each model in a band over that in the part that the cube covers,
        ``(n_model, n_band)``; 1 for bands that lie wholly inside or are not covered.
    line, sky
        Channels in emission-line windows; at sky lines and telluric bands. ``(n_wave,)`` bool.
    floor
        Relative error per band that no other band shares; infinity leaves a band out.
    error
        Template error in bands and shape.
    method
        How the factor is found, see :func:`specphoto.match_spectral`.
    wave
        Wavelengths of the cube, ``(n_wave,)``.
    holdout
        Whether the covered bands are also left out of the fit, one after the other.
    min_snr
        Median S/N per channel below which a spectrum has no factor.
    motion
        Of the pixels; ``line`` is then ``(n_pixel, n_wave)``. None: they move with the galaxy.
    """

    table: ModelTable
    features: Features | None
    models: ObservedModels
    L: NDArray[np.float64]
    band_weight: NDArray[np.float64]
    covered: NDArray[np.bool_]
    share: NDArray[np.float64]
    beyond: NDArray[np.float64]
    line: NDArray[np.bool_]
    sky: NDArray[np.bool_]
    floor: NDArray[np.float64]
    error: ProjectedError
    method: Method
    wave: NDArray[np.float64]
    holdout: bool = False
    min_snr: float = 0.0
    motion: Motion | None = None

    def moving(self, velocity: NDArray[np.float64]) -> Reference:
        """Return the same for pixels of these velocities, km/s, ``(n_pixel,)``."""
        motion = Motion(self.wave, velocity)
        return replace(self, motion=motion, line=motion.of_windows(self.line))


def band_floor(
    filters: Sequence[Filter],
    wave_range: tuple[float, float],
    redshift: float,
    model_error: float,
    *,
    band_error: Mapping[str, float],
    exclude: Sequence[str] | None,
    name: str,
) -> NDArray[np.float64]:
    """Relative model error per band, infinity for bands that are left out (said in the log).

    Parameters
    ----------
    filters
        Of the images.
    wave_range
        Of the library, rest frame, Angstrom; bands that it does not hold are left out.
    redshift
        Of the galaxy.
    model_error, band_error
        Relative error of model photometry, and exceptions by band name.
    exclude
        Bands to leave out; None leaves out those beyond 2.5 micron in the rest frame.
    name
        Of the galaxy, for messages.

    Returns
    -------
    numpy.ndarray
        ``(n_band,)``.

    Raises
    ------
    InputError
        If an option names a band that is not there, or no band is left.
    """
    names = [f.name for f in filters]
    unknown = sorted({*band_error, *(exclude or ())} - set(names))
    if unknown:
        raise InputError(
            f"{name}: exclude_bands, band_error", expected=f"names out of {', '.join(names)}",
            found=", ".join(unknown), remedy="name bands of the cube",
        )  # fmt: skip
    lo, hi = (w * (1.0 + redshift) for w in wave_range)
    floor = np.array([band_error.get(f.name, model_error) for f in filters], dtype=float)
    for b, f in enumerate(filters):
        dusty = f.pivot > _DUST_EMISSION * (1.0 + redshift)
        if f.range[0] < lo or f.range[1] > hi:
            floor[b] = np.inf
            logger.warning("%s: band %s is outside the library's range, weight 0", name, f.name)
        elif dusty if exclude is None else f.name in exclude:
            floor[b] = np.inf
            logger.info("%s: band %s is left out of the SED fit", name, f.name)
    if not np.isfinite(floor).any():
        raise InputError(
            name, expected="at least one band that the library covers",
            found=f"none of {', '.join(names)}",
            remedy="exclude fewer bands or check the redshift",
        )  # fmt: skip
    return floor


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


def beyond_cube(
    library: Library,
    redshift: float,
    wave: NDArray[np.float64],
    filters: Sequence[Filter],
    photometry: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Mean F_lambda of each model in a band over that in the part of the band inside the cube.

    Parameters
    ----------
    library, redshift, wave, filters
        As in :func:`summarise`.
    photometry
        Its first result.

    Returns
    -------
    numpy.ndarray
        ``(n_model, n_band)``; 1 for bands that lie wholly inside or are not covered.
    """
    out = np.ones(photometry.shape)
    _, covered = photon_weights(wave, filters)
    for b in np.flatnonzero((covered >= COVERED) & (covered < _WHOLE)):
        curve = filters[int(b)]
        nodes = np.union1d(curve.wave, np.clip(wave[[0, -1]], *curve.range))
        nodes = nodes[(nodes >= wave[0]) & (nodes <= wave[-1])]
        part = Filter(curve.name, nodes, np.interp(nodes, curve.wave, curve.response))
        inside = library.photometry(redshift, [part])[:, 0]
        known = (inside > 0) & (photometry[:, b] > 0)
        out[known, b] = photometry[known, b] / inside[known]
    return out


def make_reference(
    library: Library,
    summary: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
    redshift: float,
    wave: NDArray[np.float64],
    lsf: NDArray[np.floating] | None,
    filters: Sequence[Filter],
    floor: NDArray[np.float64],
    *,
    line_window: float,
    template_error: TemplateError = DEFAULT_TEMPLATE_ERROR,
    method: Method = "bayesian",
    holdout: bool = False,
    min_snr: float = 0.0,
) -> Reference:
    """Bring the library to the galaxy.

    Parameters
    ----------
    library, redshift, wave, filters
        As in :func:`summarise`.
    summary
        Results of :func:`summarise` and of :func:`beyond_cube`.
    lsf
        1-sigma line-spread width of the cube in Angstrom, ``(n_wave,)`` or ``(n_wave, n_y,
        n_x)``; None leaves the models as sharp as they are.
    floor
        Relative model error per band; infinity leaves a band out.
    line_window
        Half width of the emission-line windows in km/s.
    template_error
        Relative error of the library's spectra.
    method
        How the factor is found; features are measured for 'bayesian' alone.
    holdout
        Whether bands are left out one after the other, to be judged by.
    min_snr
        Median S/N per channel below which a spectrum has no factor.
    """
    photometry, shape, beyond = summary
    width = None if lsf is None else _spectral_width(np.asarray(lsf, dtype=np.float64))
    T, covered = photon_weights(wave, filters)
    inside = covered >= COVERED
    x = legendre.normalized(wave, wave[0], wave[-1])
    models = library.observed(redshift, wave, width)
    line = line_channels(wave, redshift, width, half_width=line_window)
    sky = sky_channels(wave)
    found = None
    if method == "bayesian":
        found = find_features(models, library.n_model, wave, ~(line | sky), redshift)
    features, values = found or (None, None)
    photometry = np.where(np.isfinite(floor) & np.isfinite(photometry), photometry, 0.0)
    n_shape = shape.shape[1]
    return Reference(
        table=ModelTable(photometry, shape, values),
        features=features,
        models=models,
        L=legendre.basis(x, n_shape - 1),
        band_weight=T,
        covered=inside,
        share=covered,
        beyond=beyond,
        line=line,
        sky=sky,
        floor=floor,
        error=template_error.project(redshift, filters, (wave[0], wave[-1]), n_shape),
        method=method,
        wave=wave,
        holdout=holdout,
        min_snr=min_snr,
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
