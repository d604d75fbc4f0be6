"""A small library and small cubes of known truth, for the tests of the spectral stage."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from scipy.special import expit

from specphoto.photometry.filters import load_filters
from specphoto.photometry.synthetic import photon_weights
from specphoto.spectral import legendre
from specphoto.spectral.library import TabulatedLibrary
from specphoto.spectral.pixel import Pixels
from specphoto.spectral.reference import (
    Reference,
    band_floor,
    beyond_cube,
    make_reference,
    summarise,
)

BANDS = ("galex_nuv", "sdss_u", "sdss_g", "sdss_r", "sdss_i", "sdss_z", "2mass_j")
COVERED = ("sdss_g", "sdss_r", "sdss_i")
Z = 0.03
# the range of MaNGA, every fourth channel
WAVE = 10.0 ** (np.log10(3621.6) + 4e-4 * np.arange(1141))
FACTOR = np.array([1.05, 0.1, -0.02, 0.01])


def toy_library(n_model: int = 120, seed: int = 7) -> TabulatedLibrary:
    """Spectra of all colours, with a break and absorption lines of many depths."""
    rng = np.random.default_rng(seed)
    wave = np.concatenate([
        np.geomspace(900.0, 3300.0, 300), np.arange(3302.0, 10700.0, 2.0),
        np.geomspace(10705.0, 70_000.0, 300),
    ])  # fmt: skip
    log = np.log(wave / 5500.0)
    slope, curve = rng.uniform(-2.0, 1.5, n_model), rng.uniform(-0.6, 0.1, n_model)
    flux = np.exp(slope[:, None] * log + curve[:, None] * log**2)
    step = expit((4000.0 - wave) / 30.0)
    flux *= 1.0 - rng.uniform(0.05, 0.5, n_model)[:, None] * step
    for line in (3934.8, 3969.6, 4305.0, 4862.7, 5177.0, 5895.6, 6564.6, 8544.4, 8664.5):
        profile = np.exp(-0.5 * ((wave - line) / 6.0) ** 2)
        flux *= 1.0 - rng.uniform(0.0, 0.4, n_model)[:, None] * profile
    return TabulatedLibrary(wave, flux.astype(np.float32), np.full(wave.size, 3.0),
                            identity="toy library")  # fmt: skip


LIBRARY = toy_library()
X = legendre.normalized(WAVE, WAVE[0], WAVE[-1])
P = FACTOR @ legendre.basis(X, 3)


def reference(
    bands: tuple[str, ...] = BANDS, *, redshift: float = Z, order: int = 3,
    library: Any = LIBRARY, wave: np.ndarray = WAVE, model_error: float = 0.02, lsf: float = 2.5,
    **options: Any,
) -> Reference:  # fmt: skip
    """What the tasks of a cube of these bands share."""
    filters = load_filters(list(bands))
    floor = band_floor(
        filters, library.wave_range, redshift, model_error, band_error={}, exclude=None, name="toy"
    )
    photometry, shape = summarise(library, redshift, wave, filters, order)
    beyond = beyond_cube(library, redshift, wave, filters, photometry)
    return make_reference(
        library, (photometry, shape, beyond), redshift, wave,
        np.full(wave.size, lsf), filters, floor, line_window=500.0, **options,
    )  # fmt: skip


def truth(
    n_pixel: int, *, bands: tuple[str, ...] = BANDS, seed: int = 1, redshift: float = Z,
    level: float = 1.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Model numbers, true spectra ``(n_pixel, n_wave)`` of median ``level``, and photometry."""
    index = np.random.default_rng(seed).integers(0, LIBRARY.n_model, n_pixel)
    spectra = LIBRARY.observed(redshift, WAVE, np.full(WAVE.size, 2.5)).spectra(index)
    photometry = LIBRARY.photometry(redshift, load_filters(list(bands)))[index]
    norm = level / np.median(spectra, axis=1)[:, None]
    return index, spectra * norm, photometry * norm


def pixels(
    n_pixel: int = 40, *, sn: float = 20.0, photo_error: float = 0.02, seed: int = 1,
    level: float = 1.0, factor: np.ndarray = P, bands: tuple[str, ...] = BANDS,
    extra: np.ndarray | float = 0.0,
) -> Pixels:  # fmt: skip
    """Noisy pixels of the library's own models, spectra divided by ``factor``.

    ``extra`` is light ``(n_wave,)`` in units of the level (emission lines) that spectra and
    images hold and the library does not.
    """
    rng = np.random.default_rng([seed, 2])
    _, spectra, photometry = truth(n_pixel, bands=bands, seed=seed, level=level)
    weights, _ = photon_weights(WAVE, load_filters(list(bands)))
    added = level * np.broadcast_to(extra, WAVE.shape)
    spectra, photometry = spectra + added, photometry + added @ weights
    err = np.median(spectra / factor, axis=1)[:, None] / sn * np.ones_like(spectra)
    flux = spectra / factor + err * rng.normal(size=spectra.shape)
    photo_err = photo_error * photometry
    photo = photometry + photo_err * rng.normal(size=photometry.shape)
    return Pixels(photo, photo_err, flux, err, np.zeros(flux.shape, bool))


def dataset(
    shape: tuple[int, int] = (7, 9), *, chunks: tuple[int, int, int] = (200, 4, 5),
    bands: tuple[str, ...] = BANDS, **options: Any,
) -> xr.Dataset:  # fmt: skip
    """A matched cube as the spatial stage gives it; corners hold neither spectrum nor images."""
    data = pixels(int(np.prod(shape)), bands=bands, **options)
    gone = np.zeros(shape, bool)
    gone[0, :2] = gone[-1, -1] = True

    def lazy(values: np.ndarray, split: Any, fill: Any = np.nan) -> da.Array:
        whole = np.where(gone.ravel()[:, None], fill, values).T.reshape(-1, *shape)
        return da.from_array(whole.astype("?" if fill is True else "f4"), chunks=split)

    images = (-1, *chunks[1:])
    return xr.Dataset(
        {
            "photo_flux": (("band", "y", "x"), lazy(data.photo_flux, images)),
            "photo_err": (("band", "y", "x"), lazy(data.photo_err, images)),
            "photo_region": (("y", "x"), ~gone),
            "spec_region": (("y", "x"), ~gone),
            "spec_flux": (("wave", "y", "x"), lazy(data.flux, chunks)),
            "spec_err": (("wave", "y", "x"), lazy(data.err, chunks)),
            "spec_mask": (("wave", "y", "x"), lazy(data.bad, chunks, True)),
            "spec_lsf": (("wave",), np.full(WAVE.size, 2.5, np.float32)),
        },
        coords={
            "wave": WAVE, "y": np.arange(shape[0]), "x": np.arange(shape[1]),
            "band": np.array(bands, dtype=object),
        },
        attrs={"name": "toy", "kind": "specphoto", "redshift": Z, "corrected": False},
    )  # fmt: skip
