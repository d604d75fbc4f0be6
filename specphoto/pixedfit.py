"""Drop-in names for scripts written for piXedfit.

Replace ``from piXedfit.piXedfit_spectrophotometric import ...`` by
``from specphoto.pixedfit import ...``: signatures and files are the same, the method is ours.
For the method of piXedfit v1.0 itself see ``compat="pixedfit"`` of
:func:`specphoto.match_spatial` and :func:`specphoto.match_spectral`.
"""

from __future__ import annotations

import os
import warnings
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
import dask.array as da
import numpy as np
import xarray as xr

import specphoto
from specphoto.errors import InputError
from specphoto.photometry.filters import cwave_filters
from specphoto.spectral.smoothing import gaussian_matrix, smooth_spectra

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["cwave_filters", "match_imgifs_spatial", "match_imgifs_spectral"]

_COSMOLOGIES = ("flat_LCDM", "WMAP5", "WMAP7", "WMAP9", "Planck13", "Planck15")
_DEFAULT_LINE_WIDTH = 10.0
_LIGHT = 299792.458
_H_ALPHA = 6564.61


def match_imgifs_spatial(
    photo_fluxmap: str | os.PathLike[str],
    ifs_data: str | os.PathLike[str],
    ifs_survey: str = "manga",
    spec_smoothing: bool = False,
    kernel_sigma: float = 3.5,
    nproc: int = 10,
    name_out_fits: str | os.PathLike[str] | None = None,
) -> str:
    """Match a cube of spectra to a photometric cube and write the result as FITS.

    Parameters
    ----------
    photo_fluxmap
        Photometric cube, FITS.
    ifs_data
        Cube of spectra, FITS.
    ifs_survey
        'manga', 'califa', or any other reader's name; 'auto' looks at the file.
    spec_smoothing
        Smooth the spectra in wavelength first.
    kernel_sigma
        Sigma of that smoothing, Angstrom. Without ``spec_smoothing`` it has no effect.
    nproc
        Threads at most; never more than the machine has cores. When Dask has a scheduler already
        (a ``Client``, or ``dask.config``), that one is used and ``nproc`` has no effect.
    name_out_fits
        File to write, over an older one. By default ``specphoto_<fluxmap>_<cube>.fits`` in the
        working directory.

    Returns
    -------
    str
        The name of the file.

    Raises
    ------
    InputError
        If a file or an option cannot be used.
    """
    ifs = specphoto.open_ifs(ifs_data, survey=ifs_survey)
    photometry = specphoto.open_photometry(photo_fluxmap)
    if spec_smoothing:
        ifs = _smoothed(ifs, float(kernel_sigma))
    name = name_out_fits or f"specphoto_{_stem(photo_fluxmap)}_{_stem(ifs_data)}.fits"
    with _workers(nproc):
        specphoto.write_fits(
            specphoto.match_spatial(ifs, photometry), os.fspath(name), overwrite=True
        )
    return os.fspath(name)


def match_imgifs_spectral(
    specphoto_file: str | os.PathLike[str],
    models_spec: str | os.PathLike[str] | None = None,
    nproc: int = 10,
    del_wave_nebem: float = 10.0,
    cosmo: int | str = 0,
    H0: float = 70.0,
    Om0: float = 0.3,
    name_out_fits: str | os.PathLike[str] | None = None,
) -> str:
    """Correct the spectra of a spectrophotometric cube with its photometry and write FITS.

    Parameters
    ----------
    specphoto_file
        Spectrophotometric cube, FITS, of ours or of piXedfit.
    models_spec
        Library of rest-frame model spectra as piXedfit writes them (HDF5); the library that
        ships with the package by default.
    nproc
        As in :func:`match_imgifs_spatial`.
    del_wave_nebem
        Half-width of the windows about emission lines, Angstrom. Our windows are in velocity, so
        a value other than 10 is taken as that width at H-alpha; at 10 they keep their default,
        500 km/s, which is 11 Angstrom at rest H-alpha.
    cosmo, H0, Om0
        No effect, as in piXedfit: a distance scales all models alike, and the fit absorbs it.
        Other values than the defaults draw a warning.
    name_out_fits
        File to write, over an older one. By default ``corr_<specphoto file>`` in the working
        directory.

    Returns
    -------
    str
        The name of the file.

    Raises
    ------
    InputError
        If a file or an option cannot be used.
    """
    _check_cosmology(cosmo, H0, Om0)
    cube = specphoto.open_cube(specphoto_file)
    options: dict[str, Any] = {}
    if models_spec is not None:
        options["library"] = models_spec
    if del_wave_nebem != _DEFAULT_LINE_WIDTH:
        redshift = float(cube.attrs.get("redshift") or 0.0)
        options["line_window"] = _LIGHT * float(del_wave_nebem) / (_H_ALPHA * (1.0 + redshift))
    name = name_out_fits or f"corr_{_stem(specphoto_file)}.fits"
    with _workers(nproc):
        specphoto.write_fits(
            specphoto.match_spectral(cube, **options), os.fspath(name), overwrite=True
        )
    return os.fspath(name)


def _stem(path: str | os.PathLike[str]) -> str:
    """File name without folders and without ``.fits`` or ``.fits.gz``."""
    return Path(path).name.removesuffix(".gz").removesuffix(".fits")


def _check_cosmology(cosmo: int | str, h0: float, om0: float) -> None:
    known = cosmo in _COSMOLOGIES or cosmo in range(len(_COSMOLOGIES))
    if not known:
        names = ", ".join(f"{i} or {name!r}" for i, name in enumerate(_COSMOLOGIES))
        raise InputError("cosmo", expected=names, found=repr(cosmo), remedy="leave it out")
    if cosmo not in (0, "flat_LCDM") or (h0, om0) != (70.0, 0.3):
        warnings.warn(
            "cosmo, H0 and Om0 have no effect: a distance scales all models alike, and the fit "
            "absorbs it",
            UserWarning, stacklevel=3,
        )  # fmt: skip


@contextmanager
def _workers(nproc: int) -> Iterator[None]:
    """Run on this many local threads, unless Dask has a scheduler already."""
    if int(nproc) < 1:
        raise InputError("nproc", expected="1 or more", found=f"{nproc}", remedy="give 1")
    if dask.config.get("scheduler", None) is not None:
        yield
        return
    count = min(int(nproc), os.cpu_count() or 1)
    with dask.config.set(scheduler="threads", num_workers=count):
        yield


def _smoothed(ifs: xr.Dataset, sigma: float) -> xr.Dataset:
    """Spectra convolved in wavelength with a Gaussian of this sigma in Angstrom."""
    if not sigma > 0:
        raise InputError(
            "kernel_sigma", expected="a sigma in Angstrom above 0", found=f"{sigma}",
            remedy="leave spec_smoothing out for none",
        )  # fmt: skip
    whole = ifs.chunk({"wave": -1, "y": "auto", "x": "auto"})
    matrix = gaussian_matrix(whole["wave"].values.astype(float), sigma)
    smooth = da.blockwise(
        partial(_smooth_block, matrix=matrix), "swyx",
        *(part for name in ("spec_flux", "spec_var", "spec_mask")
          for part in (whole[name].data, "wyx")),
        new_axes={"s": 2}, concatenate=True, dtype=np.float32,
        meta=np.empty((0, 0, 0, 0), np.float32),
    )  # fmt: skip
    out = ifs.copy()
    for i, name in enumerate(("spec_flux", "spec_var")):
        planes = xr.DataArray(smooth[i], dims=("wave", "y", "x")).chunk(dict(ifs[name].chunksizes))
        out[name] = ifs[name].copy(data=planes.data)
    if "spec_lsf" in ifs:
        out["spec_lsf"] = (ifs["spec_lsf"] ** 2 + sigma**2) ** 0.5
    return out


def _smooth_block(
    flux: NDArray[np.floating], var: NDArray[np.floating], mask: NDArray[np.bool_], *, matrix: Any
) -> NDArray[np.float32]:
    return np.asarray(smooth_spectra(flux, var, mask, matrix), dtype=np.float32)
