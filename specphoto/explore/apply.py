"""Functions over all galaxies of a sample: one task a galaxy, opened where it is computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from distributed import default_client

from specphoto.cluster.sending import Task, outcomes, reason
from specphoto.cluster.threads import own_threads
from specphoto.errors import InputError
from specphoto.io.opening import open_any
from specphoto.terminal import bar

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Client

__all__ = ["apply", "apply_datasets", "open_client", "open_galaxy"]

# Galaxies on the way to a worker; where it has memory or threads for one, the second waits there.
_AT_A_TIME = 2


def open_galaxy(path: str, z: float | None) -> xr.Dataset:
    """Open a galaxy lazily; a redshift of the table's stands in where the file has none."""
    ds = open_any(path)
    return ds if z is None or "redshift" in ds.attrs else ds.assign_attrs(redshift=z)


def apply(
    table: pd.DataFrame,
    function: Callable[[xr.Dataset], Any],
    *,
    client: Client | None,
    progress: bool,
) -> pd.DataFrame:
    """Table of what a function returns of each galaxy; see :meth:`.GalaxySample.map`."""
    found, errors = _run(table, _row_on_worker, function, client=client, progress=progress)
    rows = [{**found.get(name, {}), "error": errors.get(name)} for name in table.index]
    made = pd.DataFrame.from_records(rows, index=table.index)
    return made[[c for c in made.columns if c != "error"]].assign(error=made["error"].astype("str"))


def apply_datasets(
    table: pd.DataFrame,
    function: Callable[[xr.Dataset], Any],
    *,
    client: Client | None,
    progress: bool,
) -> xr.DataTree:
    """Tree of the datasets that a function returns; see :meth:`.GalaxySample.map_datasets`."""
    found, errors = _run(table, _dataset_on_worker, function, client=client, progress=progress)
    tree = xr.DataTree.from_dict({n: found[n] for n in table.index if n in found})
    tree.attrs["errors"] = errors
    return tree


def _run(
    table: pd.DataFrame,
    on_worker: Callable[..., Any],
    function: Callable[[xr.Dataset], Any],
    *,
    client: Client | None,
    progress: bool,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Results and errors by name; what has an error already is not tried."""
    bad = table["error"].notna()
    errors: dict[str, str] = table.loc[bad, "error"].to_dict()
    tasks = [
        Task(str(name), on_worker, (function, str(path), None if pd.isna(z) else float(z)))
        for name, path, z in table.loc[~bad, ["path", "z"]].itertuples()
    ]
    found: dict[str, Any] = {}
    ended = outcomes(
        tasks, client=client or open_client(), group="galaxy", per_worker=_AT_A_TIME
    )  # fmt: skip
    with bar("galaxies", len(tasks), shown=progress) as advance:
        for task, result in ended:
            if isinstance(result, BaseException):
                errors[task.name] = reason(result)
            else:
                found[task.name] = result
            advance()
    return found, errors


def open_client() -> Client | None:
    """Dask client that is open, if one is."""
    try:
        return default_client()
    except ValueError:  # none is open
        return None


def _row_on_worker(
    function: Callable[[xr.Dataset], Any], path: str, z: float | None
) -> dict[str, Any]:
    with own_threads(most=_AT_A_TIME):
        result = function(open_galaxy(path, z))
        values = result if isinstance(result, Mapping) else {"value": result}
        return {str(key): _plain(value) for key, value in values.items()}


def _plain(value: Any) -> Any:
    """Return a number or text; an array of one number becomes it."""
    if np.ndim(value) == 0:
        value = np.asarray(value).item()
    if value is None or isinstance(value, str | int | float | complex | bool):
        return value
    raise InputError(
        "map", expected="a function that returns a number, a text, or a mapping of them",
        found=f"a {type(value).__name__}", remedy="return a statistic, or use map_datasets",
    )  # fmt: skip


def _dataset_on_worker(
    function: Callable[[xr.Dataset], Any], path: str, z: float | None
) -> xr.Dataset:
    with own_threads(most=_AT_A_TIME):
        result = function(open_galaxy(path, z))
        if isinstance(result, xr.DataArray):
            result = result.to_dataset(name=result.name or "value")
        if not isinstance(result, xr.Dataset):
            raise InputError(
                "map_datasets", expected="a function that returns a Dataset or a DataArray",
                found=f"a {type(result).__name__}", remedy="use map for numbers and texts",
            )  # fmt: skip
        return result.compute()
