"""One galaxy of a sample, on a worker: files in, products and a record of them out."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from distributed import get_worker
from distributed.metrics import context_meter

from specphoto import pipeline
from specphoto.cluster.sending import reason
from specphoto.cluster.threads import own_threads
from specphoto.errors import InputError
from specphoto.io import open_cube, open_ifs
from specphoto.io.fitsfile import open_fits
from specphoto.sample.identity import ATTRIBUTE

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr

    from specphoto.sample.plan import Target

__all__ = ["measure", "product_paths", "run_galaxy"]

Formats = tuple[Literal["fits", "zarr"], ...]


def product_paths(folder: Path, name: str, formats: Formats) -> dict[str, Path]:
    """Paths of a galaxy's products by format."""
    return {f: folder / f"{name}.{f}" for f in formats}


def run_galaxy(
    target: Target, options: Mapping[str, Any], folder: str, formats: Formats,
    digest: str, *, galaxy_memory: str | float, accept_critical: bool, replace: bool,
) -> dict[str, Any]:  # fmt: skip
    """Match one galaxy and write its products, whatever happens: the record says how it ended.

    That it begins is told as an event of Dask's, under the name of the folder.

    Parameters
    ----------
    target, options
        The galaxy, and all options of its match.
    folder, formats
        Where the products go, and which.
    digest
        Hash of all that the result depends on; products that carry it are not made again.
    galaxy_memory
        What one galaxy needs of the worker's memory.
    accept_critical
        Whether a cube of critical quality is matched.
    replace
        Whether products of another hash, and damaged ones, are replaced.

    Returns
    -------
    dict
        ``state`` ('done', 'failed'), ``seconds``, ``host``; ``reason`` or the numbers of
        :func:`measure`; seconds by stage.
    """
    with own_threads(galaxy_memory) as times:
        # one that only waited for its place has not begun
        get_worker().log_event(folder, target.name)
        start = time.perf_counter()
        record: dict[str, Any] = {"host": socket.gethostname()}
        try:
            paths = product_paths(Path(folder), target.name, formats)
            if not _made_already(paths, digest, replace=replace):
                _require_fit(target, options, accept_critical=accept_critical)
                pipeline.run(
                    target.cube, target.photometry, folder, redshift=target.redshift,
                    name=target.name, formats=formats, overwrite=True,
                    attrs={ATTRIBUTE: digest}, **options,
                )  # fmt: skip
            record |= measure(open_cube(next(iter(paths.values()))))
            record |= {f"seconds {stage}": t for stage, t in times.seconds.items()}
            for stage, seconds in times.seconds.items():
                # the dashboard's page of fine performance metrics shows them
                context_meter.digest_metric(stage, seconds, "seconds")
            record["state"] = "done"
        except Exception as error:  # one galaxy never stops the rest
            record |= {"state": "failed", "reason": reason(error)}
        return record | {"seconds": time.perf_counter() - start}


def _made_already(paths: Mapping[str, Path], digest: str, *, replace: bool) -> bool:
    """Whether all products are there and carry the hash.

    Raises
    ------
    InputError
        If there is one of another hash, or a damaged one, that must not be replaced; or what is
        no product under its name.
    """
    hashes = {p: _hash(p) for p in paths.values() if p.exists()}
    for path, found in hashes.items():
        if found != digest and not replace:
            raise InputError(
                str(path), expected="no product, or one of these options",
                found="one of others" if found else "one of unknown options, or a damaged one",
                remedy="say changed='recompute' (--changed recompute), or choose another folder",
            )  # fmt: skip
        if found is None:
            _require_ours(path)
    return len(hashes) == len(paths) and all(h == digest for h in hashes.values())


def _hash(path: Path) -> str | None:
    """Hash that a product carries; None where it has none or cannot be opened."""
    try:
        found = open_cube(path).attrs.get(ATTRIBUTE)
    except Exception:  # a damaged one fails in many ways
        return None
    return None if found is None else str(found)


def _require_ours(path: Path) -> None:
    """Refuse to replace what is whole and no product, such as a survey's cube.

    A folder without the metadata of a group is left to :func:`specphoto.write_zarr`.
    """
    try:
        if path.is_dir():
            holds = list(json.loads((path / "zarr.json").read_text())["attributes"])
        else:
            holds = [hdu.name for hdu in open_fits(path).hdus]
    except (InputError, OSError, ValueError, KeyError, TypeError):
        return  # damaged, whatever it was
    if not {"specphoto_schema", "SPEC_FLUX"} & {*holds}:
        raise InputError(
            str(path), expected="a product to replace", found="something else that is whole",
            remedy="choose another folder, or move it away",
        )  # fmt: skip


def _require_fit(target: Target, options: Mapping[str, Any], *, accept_critical: bool) -> None:
    quality = open_ifs(target.cube, survey=options.get("survey", "auto")).attrs.get("quality")
    if quality and quality.get("critical") and not accept_critical:
        raise InputError(
            target.cube, expected="a cube that its survey holds fit for use",
            found=f"{quality['card']} = {quality['value']}, critical",
            remedy="say accept_critical = true to match it all the same",
        )  # fmt: skip


def measure(cube: xr.Dataset) -> dict[str, Any]:
    """Numbers that tell how well a galaxy was matched, from its product.

    Parameters
    ----------
    cube
        From :func:`specphoto.open_cube`.

    Returns
    -------
    dict
        ``redshift``; ``n_photo``, ``n_spec``: pixels of the two regions; ``factor_median``,
        ``factor_p16``, ``factor_p84`` at the middle of the range, over the region of spectra;
        ``chi2_median``; for each band covered, ``before_BAND`` and ``after_BAND``, medians of
        the closure in magnitudes; ``flags``.
    """
    region = cube["spec_region"].values
    middle = cube["corr_factor"].isel(wave=cube.sizes["wave"] // 2).values[region]
    low, mid, high = _percentiles(middle)
    out: dict[str, Any] = {
        "redshift": float(cube.attrs.get("redshift", np.nan)),
        "n_photo": int(cube["photo_region"].values.sum()), "n_spec": int(region.sum()),
        "factor_p16": low, "factor_median": mid, "factor_p84": high,
    }  # fmt: skip
    if "chi2" in cube:
        out["chi2_median"] = _percentiles(cube["chi2"].values[region])[1]
    for when in ("before", "after"):
        if f"closure_{when}" in cube:
            closure = cube[f"closure_{when}"].values
            for band, plane in zip(cube["band"].values, closure, strict=True):
                median = _percentiles(plane[region])[1]
                if median is not None:
                    out[f"{when}_{band}"] = median
    return out | {"flags": ",".join(_flags(cube, region, mid))}


def _percentiles(values: Any) -> tuple[float | None, float | None, float | None]:
    """Percentiles 16, 50, 84 of what is finite; None where nothing is."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return None, None, None
    low, mid, high = np.percentile(finite, [16, 50, 84])
    return float(low), float(mid), float(high)


def _flags(cube: xr.Dataset, region: Any, factor: float | None) -> list[str]:
    flags = []
    if (cube.attrs.get("quality") or {}).get("critical"):
        flags.append("critical")
    if not region.any():
        flags.append("no_spec_region")
    if factor is None or not 0.5 < factor < 2.0:
        flags.append("factor_far_from_1")
    return flags
