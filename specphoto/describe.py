"""What a file or a dataset holds, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from specphoto.closure import closure_verdict
from specphoto.cube import VARIABLES, celestial_wcs, pixel_scale
from specphoto.io.opening import open_any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import xarray as xr

__all__ = ["describe", "describe_registration", "open_described"]

_SHOWN = ("band", "wave", "label", "y", "x")

_KINDS = {
    "ifs": "cube of spectra", "photometry": "photometric cube",
    "specphoto": "spectrophotometric cube",
}  # fmt: skip


def open_described(path: Path) -> tuple[str, xr.Dataset]:
    """Open whatever specphoto reads, told apart by content; return its kind and the dataset.

    Raises
    ------
    InputError
        If it is nothing that specphoto reads.
    """
    ds = open_any(path)
    kind = _KINDS.get(str(ds.attrs.get("kind")), "dataset")
    if ds.attrs.get("kind") == "specphoto":
        kind += ", corrected" if ds.attrs.get("corrected") else ", not corrected yet"
    return kind, ds


def describe(ds: xr.Dataset) -> list[tuple[str, str]]:
    """Return names and values of what one asks of a dataset first; no more than maps are read.

    Parameters
    ----------
    ds
        From any of the readers.
    """
    return [(name, value) for name, value in _facts(ds) if value]


def describe_registration(found: xr.Dataset) -> list[tuple[str, str]]:
    """Return names and values of what a registration found.

    Parameters
    ----------
    found
        From :func:`specphoto.register`, computed.
    """
    status = _meaning(found["register_status"])
    east, north = (float(value) for value in found["register_shift"].values)
    error = np.sqrt(np.diag(found["register_cov"].values))
    shift = f"{east:+.3f} ± {error[0]:.3f} arcsec east, {north:+.3f} ± {error[1]:.3f} arcsec north"
    rows = [("shift of the cube", shift if status == "ok" else f"none found: {status}")]
    for band in found.coords.get("register_band", np.empty(0)):
        at = found.sel(register_band=band)
        told = _meaning(at["register_band_status"])
        terms = [_term(at, name, unit) for name, unit in _TERMS] if told == "ok" else [told]
        likeness = [
            f"correlation {float(at['register_correlation']):.4f}",
            f"residual {float(at['register_residual']):.2%} of the core",
            f"chi2 per degree of freedom {float(at['register_chi2']):.3g}",
        ]
        rows.append((str(band.item()), "; ".join([*terms, *likeness])))
    return rows


# Terms of a registration beside the shift, and their units.
_TERMS = (("scale", ""), ("offset", "e-17 per pixel"), ("width", "arcsec"))


def _meaning(flag: xr.DataArray) -> str:
    return str(flag.attrs["flag_meanings"]).split()[int(flag)].replace("_", " ")


def _term(at: xr.Dataset, name: str, unit: str) -> str:
    value, error = (
        float(at[f"register_{kind}"].sel(register_term=name)) for kind in ("fit", "err")
    )
    return f"{name} {value:.4g} ± {error:.2g} {unit}".strip()


def _facts(ds: xr.Dataset) -> Iterator[tuple[str, str]]:
    attrs = ds.attrs
    yield "object", str(attrs.get("name", ""))
    yield "survey", str(attrs.get("survey") or "")
    yield "position", _position(attrs)
    yield "redshift", "unknown" if attrs.get("redshift") is None else f"{attrs['redshift']:.6g}"
    yield "shape", ", ".join(f"{dim} {ds.sizes[dim]}" for dim in _SHOWN if dim in ds.sizes)
    if attrs.get("wcs"):
        yield "pixel", f"{pixel_scale(celestial_wcs(ds)):.4g} arcsec"
    if "wave" in ds:
        wave = ds["wave"].values
        yield "wavelengths", f"{wave[0]:.1f} to {wave[-1]:.1f} Angstrom (vacuum)"
    yield "PSF", _psf(attrs.get("psf"))
    yield (
        "line spread",
        "" if "spec_lsf" not in ds else f"on {', '.join(map(str, ds['spec_lsf'].dims))}",
    )
    yield "Galactic dust", _dust(attrs)
    if "band" in ds:
        yield "bands", ", ".join(map(str, ds["band"].values))
    for name in ("photo_region", "spec_region"):
        if name in ds:
            yield name, f"{int(ds[name].sum())} pixels"
    if "register_status" in ds:
        yield "pointing", describe_registration(ds)[0][1]
    quality = attrs.get("quality")
    if quality:
        critical = ": CRITICAL, not to be used" if quality.get("critical") else ""
        yield "quality", f"{quality['card']} = {quality['value']}{critical}"
    known = [name for name in VARIABLES if name in ds.data_vars]
    others = [str(name) for name in ds.data_vars if name not in VARIABLES]
    yield "variables", ", ".join(known + others)
    yield "history", "; ".join(_step(step) for step in attrs.get("provenance", []))
    if "closure_after" in ds:
        yield "closure", closure_verdict(ds).removeprefix("closure ")


def _position(attrs: dict[str, Any]) -> str:
    if attrs.get("ra") is None or attrs.get("dec") is None:
        return ""
    return f"{attrs['ra']:.5f}, {attrs['dec']:+.5f} degrees"


def _psf(psf: dict[str, Any] | None) -> str:
    if not psf:
        return "unknown (give --source-psf or --psf)"
    fwhm = np.atleast_1d(psf["fwhm"])
    size = f"{fwhm.min():.3g}" + (f" to {fwhm.max():.3g}" if np.ptp(fwhm) > 0 else "")
    return f"{psf['model']}, FWHM {size} arcsec"


def _dust(attrs: dict[str, Any]) -> str:
    done = "corrected" if attrs.get("ebv_corrected") else "not corrected"
    if attrs.get("ebv") is None:
        return f"{done}, E(B-V) not stated"
    law = f", law {attrs['ebv_law']}" if attrs.get("ebv_law") else ""
    return f"{done}, E(B-V) {attrs['ebv']:.4f} ({attrs.get('ebv_scale', 'scale unknown')}){law}"


def _step(step: dict[str, Any]) -> str:
    source = f" {step['input']}" if step.get("input") else ""
    notes = "".join(f", assumed {note}" for note in step.get("assumed") or ())
    return f"{step['step']}{source} ({step['version']}){notes}"
