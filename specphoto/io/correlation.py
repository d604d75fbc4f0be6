"""Noise correlation of spaxels as MaNGA tabulates it: pairs of spaxels, band by band.

A table lists each pair once, in either order: ``INDXI_C1``, ``INDXI_C2`` and ``INDXJ_C1``,
``INDXJ_C2`` are the 0-based (x, y) of its spaxels and ``RHOIJ`` the correlation of their noise
(Westfall et al. 2019, AJ 158, 231). It becomes maps, one per lag: ``rho[lag, y, x]`` is the
correlation of the spaxel (y, x) with the one at (y + lag_y, x + lag_x), 0 for pairs that the
table does not have. The other half plane of lags follows from symmetry.
"""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np

from specphoto.errors import InputError
from specphoto.tasks import task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from astropy.io import fits
    from numpy.typing import NDArray

    from specphoto.io.fits_array import FitsTable
    from specphoto.io.fitsfile import FitsFile

__all__ = ["half_plane", "read_correlation", "spec_corr"]

_COLUMNS = ("INDXI_C1", "INDXI_C2", "INDXJ_C1", "INDXJ_C2", "RHOIJ")
# Rounding of a table that was written in single precision.
_ROUNDING = 1e-3
# Correlations below this are beside the point: a table that has larger ones beyond the reach is
# of another survey, or of other spaxels, than it says.
_NEGLIGIBLE = 0.1


def half_plane(reach: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Lags (lag_y, lag_x) up to a distance in spaxels, one of each pair of opposite ones.

    Those with ``lag_y > 0``, or ``lag_y == 0`` and ``lag_x > 0``, ordered by both.

    Examples
    --------
    >>> lag_y, lag_x = half_plane(1.5)
    >>> lag_y.tolist(), lag_x.tolist()
    ([0, 1, 1, 1], [1, -1, 0, 1])
    """
    n = int(np.floor(reach))
    lag_y, lag_x = (axis.ravel() for axis in np.mgrid[: n + 1, -n : n + 1])
    keep = ((lag_y > 0) | (lag_x > 0)) & (lag_y**2 + lag_x**2 <= reach**2)
    return lag_y[keep], lag_x[keep]


def spec_corr(
    file: FitsFile, bands: Mapping[str, float], shape: tuple[int, ...], reach: float
) -> dict[str, Any]:
    """Noise correlation of a file as variable and coordinates, lazily; empty where it has none.

    Parameters
    ----------
    file
        The file.
    bands
        Names of the tables, and the wavelength (Angstrom) of each if it has no card BBWAVE.
    shape
        ``(n_y, n_x)`` of the cube.
    reach
        Largest distance in spaxels.

    Returns
    -------
    dict
        ``spec_corr`` (corr_wave, lag, y, x) float32 with the coordinates ``corr_wave``
        (Angstrom), ``lag_y`` and ``lag_x``. One task reads one table.

    Raises
    ------
    InputError
        If a table lacks columns, is of another number of spaxels or holds no correlations. Its
        numbers are checked when they are read.
    """
    names = [name for name in bands if name in file]
    if not names:
        return {}
    lag_y, lag_x = half_plane(reach)
    nodes, parts = [], []
    for name in names:
        table = file.table(name, *_COLUMNS)
        where = f"{file.path}, {name}"
        _check_header(file[name].header, table.n_row, shape, where)
        nodes.append(float(file[name].header.get("BBWAVE", bands[name])))
        part = task("read", read_correlation)(table, where, shape, reach)
        parts.append(da.from_delayed(part, (lag_y.size, *shape), dtype=np.float32))
    order = np.argsort(nodes)
    about = {"units": "Angstrom", "long_name": "wavelength of the noise correlation"}
    return {
        "spec_corr": (("corr_wave", "lag", "y", "x"), da.stack([parts[i] for i in order])),
        "corr_wave": ("corr_wave", np.array(nodes)[order], about),
        "lag_y": ("lag", lag_y, {"units": "spaxel"}),
        "lag_x": ("lag", lag_x, {"units": "spaxel"}),
    }


def _check_header(header: fits.Header, n_row: int, shape: tuple[int, ...], where: str) -> None:
    kind = str(header.get("COVTYPE", "Correlation")).strip()
    n_spaxel = int(np.prod(shape))
    stated = [int(n) for n in re.findall(r"\d+", str(header.get("COVSHAPE", "")))]
    expected = found = ""
    if kind.lower() != "correlation":
        expected, found = "correlations (COVTYPE = 'Correlation')", repr(kind)
    elif stated and stated != [n_spaxel, n_spaxel]:
        expected = f"COVSHAPE of the cube's {shape[1]} x {shape[0]} spaxels ({n_spaxel},{n_spaxel})"
        found = str(header["COVSHAPE"])
    elif n_row == 0:
        expected, found = "pairs of spaxels", "no rows"
    if expected:
        raise InputError(
            where, expected=expected, found=found, remedy="check that the file is whole"
        )


def read_correlation(
    table: FitsTable, where: str, shape: tuple[int, ...], reach: float
) -> NDArray[np.float32]:
    """Maps of the correlation with the neighbours, ``(n_lag, n_y, n_x)``.

    Parameters
    ----------
    table
        Of pairs of spaxels.
    where
        File and HDU, for messages.
    shape, reach
        See :func:`spec_corr`.

    Raises
    ------
    InputError
        If spaxels are not inside the cube or numbers are no correlations.
    """
    *spaxels, rho = table.columns(*_COLUMNS)
    i_x, i_y, j_x, j_y = (np.asarray(index, dtype=np.int64) for index in spaxels)
    for x, y in ((i_x, i_y), (j_x, j_y)):
        _check_inside(x, y, shape, where)
    _check_values(rho, (i_x == j_x) & (i_y == j_y), where)
    swap = (j_y < i_y) | ((j_y == i_y) & (j_x < i_x))
    y, x = np.where(swap, j_y, i_y), np.where(swap, j_x, i_x)
    lag = _lag_number(np.abs(j_y - i_y), np.where(swap, i_x - j_x, j_x - i_x), reach)
    far = lag == _FAR
    if far.any() and rho[far].max() > _NEGLIGIBLE:
        warnings.warn(
            f"{where}: correlations of up to {rho[far].max():.2f} between spaxels more than "
            f"{reach:g} apart are left out",
            stacklevel=2,
        )
    out = np.zeros((half_plane(reach)[0].size, *shape), dtype=np.float32)
    keep = lag >= 0
    out[lag[keep], y[keep], x[keep]] = rho[keep]
    return out


_SELF, _FAR = -1, -2


def _lag_number(
    lag_y: NDArray[np.int64], lag_x: NDArray[np.int64], reach: float
) -> NDArray[np.int64]:
    """Place of lags in :func:`half_plane`; -1 for a spaxel with itself, -2 beyond the reach."""
    n = int(np.floor(reach))
    known_y, known_x = half_plane(reach)
    # one row and one column more on every side stand for all that is beyond
    number = np.full((n + 2, 2 * n + 3), _FAR, dtype=np.int64)
    number[known_y, known_x + n + 1] = np.arange(known_y.size)
    number[0, n + 1] = _SELF
    return np.asarray(number[np.minimum(lag_y, n + 1), np.clip(lag_x, -n - 1, n + 1) + n + 1])


def _check_inside(
    x: NDArray[np.int64], y: NDArray[np.int64], shape: tuple[int, ...], where: str
) -> None:
    outside = (x < 0) | (x >= shape[1]) | (y < 0) | (y >= shape[0])
    if outside.any():
        row = int(np.argmax(outside))
        raise InputError(
            where, expected=f"spaxels inside the cube of {shape[1]} x {shape[0]} (from 0)",
            found=f"x = {x[row]}, y = {y[row]} in row {row}",
            remedy="the table is damaged: download the file again",
        )  # fmt: skip


def _check_values(rho: NDArray[np.float64], same: NDArray[np.bool_], where: str) -> None:
    bad = ~(np.abs(rho) <= 1.0 + _ROUNDING) | (same & ~(np.abs(rho - 1.0) <= _ROUNDING))
    if bad.any():
        row = int(np.argmax(bad))
        raise InputError(
            where, expected="correlations from -1 to 1, and 1 of a spaxel with itself",
            found=f"RHOIJ = {rho[row]:g} in row {row}",
            remedy="the table is damaged: download the file again",
        )  # fmt: skip
