"""The xarray engine ``specphoto``: whatever specphoto reads, by :func:`xarray.open_dataset`.

>>> import xarray as xr
>>> ds = xr.open_dataset("manga-8485-1901-LOGCUBE.fits.gz", engine="specphoto")  # doctest: +SKIP
>>> ds.spec_flux.isel(x=16, y=16).plot()  # doctest: +SKIP

Without ``chunks`` a slice is read when its values are asked for; ``chunks={}`` gives Dask arrays
in the chunks that :func:`specphoto.open_ifs` chooses.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import xarray as xr
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import dask.array as da
    from numpy.typing import NDArray

__all__ = ["SpecphotoBackend"]

_ENDINGS = (".fits", ".fits.gz", ".fit", ".fit.gz")


class SpecphotoBackend(BackendEntrypoint):
    """Entry point of the engine; see :class:`xarray.backends.BackendEntrypoint`."""

    description = "Cubes of spectra, photometric cubes and products that specphoto reads"
    url = "https://pypi.org/project/specphoto"
    open_dataset_parameters: ClassVar[tuple[str, ...]] = (
        "filename_or_obj", "drop_variables", "survey", "redshift", "psf_fwhm", "mask_bits",
    )  # fmt: skip

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        survey: str = "auto",
        redshift: float | None = None,
        psf_fwhm: float | None = None,
        mask_bits: Sequence[str | int] | None = None,
    ) -> xr.Dataset:
        """Open what :func:`specphoto.open_ifs`, ``open_photometry`` or ``open_cube`` opens.

        Parameters
        ----------
        filename_or_obj
            Path of the file, product or galaxy of a store.
        drop_variables
            Variables to leave out.
        survey, redshift, psf_fwhm, mask_bits
            For cubes of spectra, as for :func:`specphoto.open_ifs`.

        Raises
        ------
        InputError
            If it cannot be opened.
        """
        from specphoto.io.opening import open_any

        ds = open_any(
            filename_or_obj, survey=survey, redshift=redshift, psf_fwhm=psf_fwhm,
            mask_bits=mask_bits,
        )  # fmt: skip
        names = [drop_variables] if isinstance(drop_variables, str) else list(drop_variables or ())
        ds = ds.drop_vars(names, errors="ignore")
        chunks: dict[Any, tuple[int, ...]] = {}
        for variable in ds.variables.values():
            chunks = {**variable.chunksizes, **chunks}
        variables = {name: _undasked(variable, chunks) for name, variable in ds.variables.items()}
        return xr.Dataset(variables, attrs=ds.attrs).set_coords(list(ds.coords))

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether it is a FITS file that a reader knows for its own."""
        from specphoto.io.opening import is_known

        path = filename_or_obj
        return str(path).endswith(_ENDINGS) and Path(path).is_file() and is_known(path)


def _undasked(variable: xr.Variable, chunks: Mapping[Any, tuple[int, ...]]) -> xr.Variable:
    """The same variable, lazily indexed instead of in Dask's chunks, which it prefers.

    What is in memory prefers the `chunks` of the others, so that all go together.
    """
    if variable.chunks is None:
        preferred = {dim: chunks[dim] for dim in variable.dims if dim in chunks}
        data = variable.data
    else:
        preferred = dict(variable.chunksizes)
        data = indexing.LazilyIndexedArray(_Sliced(variable.data))
    return xr.Variable(variable.dims, data, variable.attrs, {"preferred_chunks": preferred})


class _Sliced(BackendArray):
    """A Dask array, computed slice by slice where it is asked for; no scheduler has a part."""

    def __init__(self, array: da.Array) -> None:
        self.array = array
        self.shape = array.shape
        self.dtype = array.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> NDArray[Any]:
        value: NDArray[Any] = indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.BASIC, self._compute
        )
        return value

    def _compute(self, key: tuple[int | slice, ...]) -> NDArray[Any]:
        return np.asarray(self.array[key].compute(scheduler="synchronous"))
