"""The correction factor and its error, lazily, from the Legendre coefficients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
from dask.base import is_dask_collection

from specphoto.cube import VARIABLES, identify
from specphoto.errors import InputError
from specphoto.spectral import legendre

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

__all__ = ["factor_now", "with_factor"]

_DIMS = ("wave", "y", "x")


def with_factor(ds: xr.Dataset, chunks: dict[str, Any] | None = None) -> xr.Dataset:
    r"""Add ``corr_factor`` and ``corr_factor_err``, rebuilt from their coefficients when asked for.

    The factor is :math:`f(\lambda) = \sum_k c_k P_k(x)` and its error
    :math:`\sqrt{P^T C P}`, with x the wavelength scaled to [-1, 1] over the attribute
    ``corr_range``.

    Parameters
    ----------
    ds
        A dataset with ``corr_coef``, ``corr_cov`` and ``wave``; returned as it is without them.
    chunks
        Dask chunks of ``wave``, ``y``, ``x``; by default those of ``spec_flux``.

    Returns
    -------
    xarray.Dataset
        With both variables (wave, y, x), float32.

    Raises
    ------
    InputError
        If the attribute ``corr_range`` is missing.
    """
    if "corr_coef" not in ds.variables:
        return ds
    x = _abscissa(ds)
    blocks = da.core.normalize_chunks(
        tuple((chunks or ds["spec_flux"].chunksizes).get(dim, -1) for dim in _DIMS),
        shape=tuple(ds.sizes[dim] for dim in _DIMS),
    )
    out = ds.assign(corr_factor=_on_blocks(_factor, ds["corr_coef"], x, blocks))
    if "corr_cov" in ds.variables:
        out = out.assign(corr_factor_err=_on_blocks(_error, ds["corr_cov"], x, blocks))
    for name in ("corr_factor", "corr_factor_err"):
        if name in out:
            out[name].attrs = {"long_name": VARIABLES[name].doc, "units": VARIABLES[name].unit}
    return out


def factor_now(ds: xr.Dataset) -> dict[str, NDArray[np.float32]]:
    """Compute ``corr_factor`` and ``corr_factor_err`` of coefficients in memory, without Dask.

    Parameters
    ----------
    ds
        A dataset with ``corr_coef`` (order, ...), ``corr_cov`` (order, order_2, ...) or without,
        and ``wave``.

    Returns
    -------
    dict
        Arrays ``(n_wave, ...)`` by name.

    Raises
    ------
    InputError
        If the attribute ``corr_range`` is missing.
    """
    x = _abscissa(ds)
    out = {"corr_factor": _factor(ds["corr_coef"].values, x)}
    if "corr_cov" in ds:
        out["corr_factor_err"] = _error(ds["corr_cov"].values, x)
    return out


def _abscissa(ds: xr.Dataset) -> NDArray[np.float64]:
    """Wavelengths scaled to the polynomials' range, ``(n_wave,)``."""
    if "corr_range" not in ds.attrs:
        raise InputError(
            identify(ds), expected="the attribute corr_range beside corr_coef",
            found="none", remedy="give the range of wavelengths (Angstrom) that it is defined on",
        )  # fmt: skip
    return legendre.normalized(ds["wave"].values, *ds.attrs["corr_range"])


def _on_blocks(
    function: Any, coefficients: xr.DataArray, x: NDArray[np.float64], blocks: tuple[Any, ...]
) -> tuple[tuple[str, ...], da.Array]:
    orders = "op"[: coefficients.ndim - 2]
    ordered = coefficients.transpose(..., "y", "x").data
    if not is_dask_collection(ordered):
        ordered = da.from_array(ordered, chunks=-1)
    ordered = ordered.rechunk((*(-1,) * len(orders), *blocks[1:]), method="tasks")
    data = da.blockwise(
        function, "wyx", ordered, f"{orders}yx", da.from_array(x, chunks=(blocks[0],)), "w",
        concatenate=True, dtype=np.float32, meta=np.empty((0, 0, 0), np.float32),
    )  # fmt: skip
    return _DIMS, data


def _factor(coef: NDArray[Any], x: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.asarray(legendre.evaluate(coef, x), dtype=np.float32)


def _error(cov: NDArray[Any], x: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.asarray(legendre.evaluate_err(cov, x), dtype=np.float32)
