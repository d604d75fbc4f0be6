"""The spectral match of piXedfit v1.0 on datasets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np
from numpy.polynomial import legendre

from specphoto.blas import single_thread
from specphoto.compat.common import map_blocks, pixedfit_photometry
from specphoto.cube import add_provenance, annotate, rechunk, validate
from specphoto.errors import InputError
from specphoto.photometry.filters import load_filters
from specphoto.spectral import compat as kernels
from specphoto.spectral.library import TabulatedLibrary

if TYPE_CHECKING:
    from collections.abc import Sequence

    import dask.array as da
    import xarray as xr
    from numpy.typing import NDArray

    from specphoto.spectral.library import Library, ModelSpectra

__all__ = ["match_spectral_pixedfit"]


def match_spectral_pixedfit(
    cube: xr.Dataset,
    library: Library,
    *,
    del_wave_nebem: float = 10.0,
    block: int = 24,
) -> xr.Dataset:
    """Spectral match as piXedfit v1.0 does it.

    Parameters
    ----------
    cube
        A spectrophotometric cube with a redshift, not corrected yet (``match_spectral`` sees to
        both).
    library
        Models, tabulated as piXedfit's or composed as ours. Their distance is a common factor
        that the fit absorbs, so no cosmology is asked for.
    del_wave_nebem
        Half-width of the windows cut out around the nebular lines, observed frame, Angstrom.
    block
        Pixels on a side of the blocks of a task.

    Returns
    -------
    xarray.Dataset
        The cube times the factor, with ``corr_coef``, ``corr_factor``, ``mod_flux`` (NaN within
        the windows; coordinate ``mod_clean`` says where), ``chi2``, ``n_band`` and
        ``model_index``. Nothing is computed.

    Raises
    ------
    InputError
        If a variable is missing, or no channel is away from the lines.
    """
    verb = 'match_spectral(compat="pixedfit")'
    validate(
        cube, "wave", "band", "photo_flux", "photo_err", "spec_flux", "spec_err", "spec_region",
        verb=verb,
    )  # fmt: skip
    blocks = {"band": -1, "wave": -1, "y": block, "x": block}
    cube = rechunk(pixedfit_photometry(cube), blocks)
    wave = cube["wave"].values.astype(float)
    clean = kernels.clean_channels(wave, cube.attrs["redshift"], _lines(), del_wave_nebem)
    if not clean.any():
        raise InputError(
            verb, expected="channels away from the nebular lines", found="none",
            remedy=f"make del_wave_nebem smaller than {del_wave_nebem:g} Angstrom",
        )  # fmt: skip
    reference = _Reference.of(library, cube, wave[clean])
    photometry = [cube[name].data for name in ("photo_flux", "photo_err", "spec_region")]
    best = map_blocks(
        _best_block, *photometry, dtype=float, chunks=((4,), *photometry[0].chunks[1:]),
        models=reference.photometry,
    )  # fmt: skip
    model = map_blocks(
        _model_block, best, dtype="f4", chunks=((clean.size,), *best.chunks[1:]),
        reference=reference, clean=clean,
    )  # fmt: skip
    lo, hi = (float(w) for w in wave[clean][[0, -1]])
    x = (2.0 * wave - lo - hi) / (hi - lo)
    coef = map_blocks(
        _coef_block, cube["spec_flux"].data, model, dtype=float, chunks=((4,), *best.chunks[1:]),
        x=x, clean=clean,
    )  # fmt: skip
    factor = map_blocks(_factor_block, coef, dtype=float, chunks=model.chunks, x=x)
    out = _corrected(cube, best, model, coef, factor).assign_coords(mod_clean=("wave", clean))
    out = annotate(out, corrected=True, corr_range=[lo, hi], compat="pixedfit")
    return add_provenance(
        out, "match_spectral", compat="pixedfit", del_wave_nebem=float(del_wave_nebem)
    )


@dataclass(frozen=True)
class _Rest:
    """Tabulated spectra on their own wavelengths, shifted to the observed frame."""

    flux: NDArray[np.floating]

    def spectra(self, index: NDArray[np.intp]) -> NDArray[np.float64]:
        return self.flux[index].astype(np.float64)


@dataclass(frozen=True)
class _Reference:
    """What the tasks need of the library: band fluxes, and spectra about the clean channels."""

    photometry: NDArray[np.float64]
    wave: NDArray[np.float64]
    models: ModelSpectra
    wave_out: NDArray[np.float64]
    sigma: float

    @classmethod
    def of(cls, library: Library, cube: xr.Dataset, wave_out: NDArray[np.float64]) -> _Reference:
        bands = [str(b) for b in cube["band"].values]
        z = cube.attrs["redshift"]
        # v1.0 knows two surveys; any other is treated like the sharper of them
        sharper = kernels.SMOOTHING_SIGMA["califa"]
        sigma = kernels.SMOOTHING_SIGMA.get(cube.attrs.get("survey", ""), sharper)
        if isinstance(library, TabulatedLibrary):
            wave = np.asarray(library.wave, dtype=float) * (1.0 + z)
            part = kernels.model_range(wave, wave_out)
            photometry = _band_fluxes(
                library.flux, kernels.photometry_weights(wave, _curves(bands))
            )
            return cls(photometry, wave[part], _Rest(library.flux[:, part]), wave_out, sigma)
        wave = np.arange(wave_out[0] - kernels.MARGIN, wave_out[-1] + kernels.MARGIN)
        photometry = library.photometry(z, load_filters(bands))
        return cls(photometry, wave, library.observed(z, wave, None), wave_out, sigma)

    def spectra(self, index: NDArray[np.intp]) -> NDArray[np.float64]:
        """Smoothed models at the clean channels, ``(n_index, n_clean)``."""
        return kernels.smooth(self.wave, self.models.spectra(index), self.sigma, self.wave_out)


def _band_fluxes(flux: NDArray[np.floating], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """``flux @ weights`` in float64, a thousand models at a time: a library may fill memory."""
    out = np.empty((len(flux), weights.shape[1]))
    with single_thread():
        for start in range(0, len(flux), 1000):
            block = slice(start, start + 1000)
            out[block] = flux[block].astype(np.float64) @ weights
    return out


def _best_block(
    flux: NDArray[np.floating],
    err: NDArray[np.floating],
    region: NDArray[np.bool_],
    *,
    models: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Index (-1 = none), scale, chi-square and number of bands, ``(4, n_y, n_x)``."""
    out = np.full((4, *region.shape), np.nan)
    out[0], out[3] = -1, 0
    here = np.asarray(region, dtype=bool)
    if here.any():
        with single_thread():
            best = kernels.best_models(flux[:, here].T, err[:, here].T, models)
        used = (flux[:, here] > 0) & (err[:, here] > 0) & np.isfinite(err[:, here])
        out[:, here] = [*best, used.sum(axis=0)]
    return out


def _model_block(
    best: NDArray[np.float64], *, reference: _Reference, clean: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Scaled models, ``(n_wave, n_y, n_x)``, NaN off the clean channels."""
    out = np.full((clean.size, *best.shape[1:]), np.nan, dtype=np.float32)
    here = best[0] >= 0
    if here.any():
        index, inverse = np.unique(best[0][here].astype(np.intp), return_inverse=True)
        spectra = reference.spectra(index)[inverse] * best[1][here][:, None]
        pixels = np.full((int(clean.sum()), *best.shape[1:]), np.nan)
        pixels[:, here] = spectra.T
        out[clean] = pixels
    return out


def _coef_block(
    flux: NDArray[np.floating],
    model: NDArray[np.floating],
    *,
    x: NDArray[np.float64],
    clean: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Coefficients of the factor, ``(order + 1, n_y, n_x)``."""
    shape = flux.shape[1:]
    pixels = [cube[clean].reshape(x[clean].size, -1).T for cube in (flux, model)]
    with single_thread():
        coef = kernels.fit_factor(pixels[0], pixels[1], x[clean])
    return coef.T.reshape(-1, *shape)


def _factor_block(coef: NDArray[np.float64], *, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The factor at every channel, ``(n_wave, n_y, n_x)``."""
    return np.asarray(np.moveaxis(np.asarray(legendre.legval(x, coef)), -1, 0))


def _corrected(
    cube: xr.Dataset,
    best: da.Array,
    model: da.Array,
    coef: da.Array,
    factor: da.Array,
) -> xr.Dataset:
    cubes, maps = ("wave", "y", "x"), ("y", "x")
    out = cube.assign(
        corr_coef=(("order", *maps), coef),
        corr_factor=(cubes, factor.astype("f4")),
        mod_flux=(cubes, model),
        chi2=(maps, best[2].astype("f4")),
        n_band=(maps, best[3].astype("i4")),
        model_index=(maps, best[0].astype("i4")),
    )
    for name in ("spec_flux", "spec_err"):
        out[name] = (cubes, (cube[name].data * factor).astype("f4"))
    if "spec_mask" in out:
        out["spec_mask"] = out["spec_mask"] | ~np.isfinite(out["spec_flux"])
    return out


@lru_cache(maxsize=1)
def _lines() -> NDArray[np.float64]:
    """Rest wavelengths of the 128 nebular lines, Angstrom."""
    text = (files("specphoto") / "data" / "pixedfit_lines.txt").read_text(encoding="utf-8")
    return np.loadtxt(text.splitlines())


@lru_cache(maxsize=1)
def _own_curves() -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """PiXedfit's own curves, by band."""
    text = (files("specphoto") / "data" / "pixedfit_curves.txt").read_text(encoding="utf-8")
    points: dict[str, list[tuple[float, float]]] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, wave, response = line.split()
            points.setdefault(name, []).append((float(wave), float(response)))
    arrays = {name: np.array(rows) for name, rows in points.items()}
    return {name: (rows[:, 0], rows[:, 1]) for name, rows in arrays.items()}


def _curves(bands: Sequence[str]) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Curve of each band: piXedfit's own where it is shipped, else ours."""
    own = _own_curves()
    missing = [band for band in bands if band not in own]
    ours = {f.name: (f.wave, f.response) for f in load_filters(missing)}
    return [own[band] if band in own else ours[band] for band in bands]
