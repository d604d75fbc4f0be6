"""Small datasets for tests, lazy, with chunks that do not divide the axes."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from astropy.wcs import WCS

from specphoto.cube import add_provenance, annotate, wcs_string

BANDS = [
    "galex_fuv", "galex_nuv", "sdss_u", "sdss_g", "sdss_r", "sdss_i", "sdss_z",
    "2mass_j", "2mass_h", "2mass_k", "wise_w1", "wise_w2",
]  # fmt: skip
MANGA_AXIS = {
    "ctype": "WAVE-LOG", "crval": 3621.59598486, "cdelt": 0.833903304339, "crpix": 1.0,
}  # fmt: skip


def celestial(ny: int, nx: int) -> WCS:
    """A rotated tangent-plane WCS of 1.5 arcsec pixels."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [205.4384, 27.0048]
    wcs.wcs.crpix = [nx / 2, ny / 2 + 0.3]
    angle, scale = np.deg2rad(15.0), 1.5 / 3600
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    wcs.wcs.cd = turn @ np.diag([-scale, scale])
    return wcs


def manga_wave(n_wave: int) -> np.ndarray:
    """The first channels of MaNGA's logarithmic grid, Angstrom."""
    return 10.0 ** (np.log10(3621.59598486) + 1e-4 * np.arange(n_wave))


def specphoto_dataset(
    n_band: int = 5,
    n_wave: int = 37,
    ny: int = 11,
    nx: int = 9,
    *,
    corrected: bool = False,
    chunks: dict[str, Any] | None = None,
    seed: int = 1,
) -> xr.Dataset:
    """A dataset as the spatial or the spectral match gives it, with unknown values scattered."""
    rng = np.random.default_rng(seed)
    cube, images, plane = (n_wave, ny, nx), (n_band, ny, nx), (ny, nx)
    y, x = np.mgrid[:ny, :nx]
    radius = np.hypot((y - ny / 2) / ny, (x - nx / 2) / nx)
    photo, spec = radius < 0.45, radius < 0.35

    def noisy(shape: tuple[int, ...], region: np.ndarray, unknown: float = 0.05) -> np.ndarray:
        values = rng.normal(1.0, 0.2, shape).astype(np.float32)
        values[rng.random(shape) < unknown] = np.nan
        return np.where(region | (rng.random(shape) < 0.1), values, np.nan).astype(np.float32)

    variables: dict[str, Any] = {
        "photo_flux": (("band", "y", "x"), noisy(images, photo)),
        "photo_err": (("band", "y", "x"), noisy(images, photo)),
        "photo_region": (("y", "x"), photo),
        "spec_region": (("y", "x"), spec),
        "stamp_image": (("y", "x"), noisy(plane, photo)),
        "spec_flux": (("wave", "y", "x"), noisy(cube, spec)),
        "spec_err": (("wave", "y", "x"), noisy(cube, spec)),
        "spec_mask": (("wave", "y", "x"), rng.random(cube) < 0.1),
        "spec_lsf": (("wave",), np.linspace(1.0, 2.0, n_wave, dtype=np.float32)),
        "coverage": (("y", "x"), rng.random(plane, dtype=np.float32)),
        "edge_factor": (("y", "x"), noisy(plane, spec)),
        "edge_bias": (("y", "x"), noisy(plane, spec)),
    }
    if corrected:
        coef = rng.normal(0.0, 0.05, (4, ny, nx)) + np.array([1.0, 0, 0, 0])[:, None, None]
        coef = np.where(spec, coef, np.nan)
        root = rng.normal(0.0, 0.01, (4, 4, ny, nx))
        cov = np.where(spec, np.einsum("ikyx,jkyx->ijyx", root, root), np.nan)
        variables |= {
            "corr_coef": (("order", "y", "x"), coef.astype(np.float32)),
            "corr_cov": (("order", "order_2", "y", "x"), cov.astype(np.float32)),
            "mod_flux": (("wave", "y", "x"), noisy(cube, spec)),
            "chi2": (("y", "x"), noisy(plane, spec)),
            "n_band": (("y", "x"), rng.integers(0, n_band + 1, plane)),
            "n_eff": (("y", "x"), noisy(plane, spec)),
            "model_index": (("y", "x"), rng.integers(-1, 50_000, plane, dtype=np.int32)),
            "closure_before": (("band", "y", "x"), noisy(images, photo)),
            "closure_after": (("band", "y", "x"), noisy(images, photo)),
        }
    bands = [BANDS[i] if i < len(BANDS) else f"band_{i}" for i in range(n_band)]
    wave = manga_wave(n_wave)
    coords: dict[str, Any] = {
        "band": np.array(bands, dtype=object),
        "band_wave": ("band", np.linspace(1500.0, 46000.0, n_band)),
        "wave": ("wave", wave, {"units": "Angstrom", "long_name": "wavelength in vacuum"}),
        "y": np.arange(ny),
        "x": np.arange(nx),
    }
    ds = xr.Dataset(variables, coords=coords)
    ds = annotate(ds, **_attrs(celestial(ny, nx), wave, corrected))
    ds = add_provenance(ds, "match_spatial", options={"max_bias": 0.02, "compat": None})
    ds = _lazy(ds, chunks or {"wave": 10, "y": 4, "x": 5})
    return _with_factor(ds) if corrected else ds


def disc_dataset(n: int = 21, n_wave: int = 240) -> xr.Dataset:
    """A smooth disc whose numbers are formulas, corrected, in memory but for its cubes."""
    y, x = np.mgrid[:n, :n]
    radius = np.hypot(y - n // 2, 0.8 * (x - n // 2))
    light = 8.0 * np.exp(-radius / (0.2 * n))
    ds = specphoto_dataset(9, n_wave, n, n, corrected=True, chunks={"wave": 100, "y": 8, "x": 8})
    ds = ds.assign_coords(
        band_wave=("band", [1540.0, 2300, 3560, 4700, 6170, 7490, 8950, 12400, 16500])
    )
    wave, pivot = np.linspace(3700.0, 10300.0, n_wave), ds["band_wave"].values
    region = radius < 0.4 * n
    step = np.linspace(-1.0, 1.0, n_wave)
    coef = np.zeros((4, n, n))
    coef[0], coef[1] = 1.0 + 0.002 * (x - n // 2), 0.05
    cov = np.zeros((4, 4, n, n)) + 1e-4 * np.eye(4)[:, :, None, None]
    cube = light * _continuum(wave)[:, None, None]
    line = 1.0 + 0.8 * np.exp(-0.5 * ((wave - 6760.0) / 30.0) ** 2)[:, None, None]
    values = {
        "photo_flux": light * _continuum(pivot)[:, None, None],
        "photo_err": 0.03 * light * _continuum(pivot)[:, None, None],
        "spec_flux": np.where(region, cube * line * (1 + 0.01 * step[:, None, None]), np.nan),
        "spec_err": np.where(region, 0.05 * cube, np.nan),
        "mod_flux": np.where(region, cube, np.nan),
        "corr_coef": np.where(region, coef, np.nan), "corr_cov": np.where(region, cov, np.nan),
        "coverage": np.clip(1.6 - radius / (0.4 * n), 0.0, 1.0),
        "chi2": np.where(region, 4.0 + radius / n, np.nan), "n_eff": np.where(region, 30.0, np.nan),
        "edge_factor": np.where(region, 1.02, np.nan), "edge_bias": np.where(region, 0.004, np.nan),
        "closure_before": np.where(region, 0.05 * (x - n // 2) / n, np.nan) + np.zeros((9, 1, 1)),
        "closure_after": np.where(region, 0.005 * (y - n // 2) / n, np.nan) + np.zeros((9, 1, 1)),
        "spec_region": region, "photo_region": radius < 0.5 * n,
        "spec_mask": np.zeros(cube.shape, bool),
    }  # fmt: skip
    ds = ds.drop_vars(["corr_factor", "corr_factor_err"])
    ds = ds.assign_coords(wave=wave, band_wave=("band", pivot))
    for name, value in values.items():
        kept = value if value.dtype == bool else value.astype(np.float32)
        ds[name] = (ds[name].dims, kept)
    for name in ("closure_before", "closure_after"):  # only g, r, i and z are covered
        ds[name] = ds[name].where(np.isin(np.arange(9), (3, 4, 5, 6))[:, None, None])
    ds.attrs |= {
        "name": "disc", "correlation": {"model": "none"},
        "corr_range": [float(wave[0]), float(wave[-1])],
    }  # fmt: skip
    return _with_factor(_lazy(ds, {"wave": 100, "y": 8, "x": 8}))


def with_spectra(
    ds: xr.Dataset, spectrum: np.ndarray, images: np.ndarray, factor: float
) -> xr.Dataset:
    """The disc with the same spectrum, S/N 10, and images, S/N 20, in each pixel.

    The spectrum that is given is the one before a factor that is the same at all wavelengths.
    """
    lit = ds["spec_region"].values
    cube = np.where(lit, spectrum[:, None, None], np.nan)
    photo = np.broadcast_to(images[:, None, None], ds["photo_flux"].shape)
    coef = np.where(lit, factor, np.nan) * np.array([1.0, 0, 0, 0])[:, None, None]
    made = {
        "photo_flux": photo, "photo_err": 0.05 * photo, "spec_flux": factor * cube,
        "spec_err": 0.1 * factor * cube, "corr_coef": coef,
    }  # fmt: skip
    ds = ds.drop_vars(["corr_factor", "corr_factor_err"])
    ds = ds.assign({name: (ds[name].dims, value) for name, value in made.items()})
    return _with_factor(_lazy(ds, {"wave": 100, "y": 8, "x": 8}))


def _continuum(wave: np.ndarray) -> np.ndarray:
    return (wave / 5500.0) ** -0.5 * (1 + 0.2 * np.tanh((wave - 4000) / 200))


def _attrs(wcs: WCS, wave: np.ndarray, corrected: bool) -> dict[str, Any]:
    return {
        "kind": "specphoto", "survey": "manga", "name": "toy", "corrected": corrected,
        "flux_unit": "1e-17 erg s-1 cm-2 Angstrom-1", "ra": 205.4384, "dec": 27.0048,
        "redshift": 0.03, "wcs": wcs_string(wcs), "pixel_scale": 1.5, "ebv": 0.032,
        "ebv_scale": "SF11", "ebv_corrected": True, "ebv_law": "G23", "fsamp": "galex_fuv",
        "psf_band": "wise_w2", "spectral_axis": dict(MANGA_AXIS),
        "psf": {"model": "gaussian", "wave": [5000.0], "fwhm": [6.37], "beta": None},
        "corr_range": [float(wave[0]), float(wave[-1])] if corrected else None,
    }  # fmt: skip


def _lazy(ds: xr.Dataset, chunks: dict[str, Any]) -> xr.Dataset:
    """Cubes lazy, maps in memory, as the verbs give them."""
    cubes = [name for name in ds.data_vars if ds[name].ndim >= 3]
    return ds.assign({name: ds[name].chunk(_of(ds[name], chunks)) for name in cubes})


def _of(array: xr.DataArray, chunks: dict[str, Any]) -> dict[str, Any]:
    return {dim: chunks.get(str(dim), -1) for dim in array.dims}


def _with_factor(ds: xr.Dataset) -> xr.Dataset:
    from specphoto.io.corr_factor import with_factor

    return annotate(
        with_factor(ds, dict(zip(("wave", "y", "x"), ds["spec_flux"].chunks, strict=True)))
    )


def counted(ds: xr.Dataset, name: str, count: list[int]) -> xr.Dataset:
    """The dataset with a variable that counts how often a block of it is computed."""

    def touch(block: np.ndarray) -> np.ndarray:
        count.append(1)
        return block

    array = ds[name]
    lazy = da.map_blocks(
        touch, array.data, dtype=array.dtype, meta=np.empty((0,) * array.ndim, array.dtype)
    )
    return ds.assign({name: array.copy(data=lazy)})
