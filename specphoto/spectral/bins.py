"""The lazy face of bins: sums of pixels are solved, and their pixels take the factor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["Bins", "bin_pixels", "paint"]


class Bins(NamedTuple):
    """Bins of a cube as pixels in a row.

    ``cube`` is their mean pixels, with dims (wave, y, x) and y of size 1; ``number`` ``(y, x)``
    that of each pixel's bin in it, -1 for none; ``size`` the mean number of pixels in a bin.
    """

    cube: xr.Dataset
    number: NDArray[np.intp]
    size: float


def bin_pixels(cube: xr.Dataset, labels: NDArray[np.int_] | xr.DataArray) -> Bins:
    """Sum the pixels of each bin, with the errors that :func:`specphoto.sum_spectra` gives them.

    Parameters
    ----------
    cube
        The matched cube; ``spec_velocity`` is averaged over a bin where it is known.
    labels
        Integers ``(y, x)``: equal numbers are one bin, 0 and negative numbers no bin.

    Raises
    ------
    InputError
        As :func:`specphoto.sum_spectra`.
    """
    from specphoto.spatial.sums import sum_spectra  # SciPy's signals: a second to import

    sums = sum_spectra(cube, labels)
    label = sums["label"].values
    mapped = np.asarray(labels.transpose("y", "x") if isinstance(labels, xr.DataArray) else labels)
    index = np.where(mapped > 0, np.searchsorted(label, mapped), -1)
    count = sums["n_pixel"].values
    row: dict[str, tuple[tuple[str, ...], da.Array]] = {
        name: ((axis, "y", "x"), (sums[name].data.T / divisor)[:, None, :])
        for name, axis, divisor in (("spec_flux", "wave", count), ("spec_err", "wave", count),
                                    ("photo_flux", "band", count), ("photo_err", "band", count))
    }  # fmt: skip
    row["spec_mask"] = ("wave", "y", "x"), sums["spec_mask"].data.T[:, None, :]
    if "spec_velocity" in cube:
        velocity = da.map_blocks(
            _mean_velocity, cube["spec_velocity"].data.rechunk(-1), index, label.size,
            dtype=np.float32, chunks=((1,), (label.size,)), token="fit-bin-velocity",
        )  # fmt: skip
        row["spec_velocity"] = ("y", "x"), velocity
    out = xr.Dataset(row, coords={n: cube[n] for n in ("wave", "band")}, attrs=cube.attrs)
    return Bins(out, index, float(count.mean()))


def paint(
    values: da.Array,
    bins: Bins,
    chunks: Mapping[str, tuple[int, ...]],
    nothing: NDArray[np.float32],
) -> da.Array:
    """Give each pixel what its bin has.

    Parameters
    ----------
    values
        Of the bins, ``(n, 1, n_bin)``.
    bins
        The bins.
    chunks
        Of y and x, in pixels.
    nothing
        Values of pixels in no bin, ``(n,)``.

    Returns
    -------
    dask.array.Array
        ``(n, y, x)``.
    """
    index = da.from_array(bins.number, chunks=(chunks["y"], chunks["x"]))
    painted: da.Array = da.blockwise(
        _paint_block, "ryx", index, "yx", values.rechunk(-1), "ruv", nothing, None,
        concatenate=True, dtype=np.float32, meta=np.empty((0, 0, 0), np.float32),
        token="fit-paint-bins",
    )  # fmt: skip
    return painted


def _paint_block(index: Any, values: Any, nothing: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(index < 0, nothing[:, None, None], values[:, 0, index])


def _mean_velocity(
    velocity: NDArray[np.float32], index: NDArray[np.intp], n_bin: int
) -> NDArray[np.float32]:
    known = np.isfinite(velocity) & (index >= 0)
    total = np.bincount(index[known], velocity[known], n_bin)
    count = np.bincount(index[known], minlength=n_bin)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return mean.astype(np.float32)[None]
