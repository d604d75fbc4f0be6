"""The numbers that a product is judged by, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from specphoto.maps import quantity_map

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xarray as xr
    from numpy.typing import NDArray

__all__ = ["Check", "checks", "quality_numbers", "reasons", "worst"]

Status = Literal["pass", "warn", "fail"]
_UNKNOWN = "unknown"
_ORDER: tuple[Status, ...] = ("pass", "warn", "fail")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Parameters
    ----------
    what
        In words.
    status
        'pass', 'warn' or 'fail'.
    found
        The number, with its unit.
    limits
        What it is held against.
    """

    what: str
    status: Status
    found: str
    limits: str


def quality_numbers(ds: xr.Dataset) -> dict[str, Any]:
    """Numbers of a product by name; None where there is none. Maps are read, and the mask.

    Parameters
    ----------
    ds
        A matched cube, corrected or not.
    """
    attrs = ds.attrs
    region = ds["spec_region"].values if "spec_region" in ds else np.zeros((0, 0), bool)
    numbers: dict[str, Any] = {
        "name": str(attrs.get("name") or ""), "survey": attrs.get("survey"),
        "ra": attrs.get("ra"), "dec": attrs.get("dec"), "redshift": attrs.get("redshift"),
        "quality_flag": bool((attrs.get("quality") or {}).get("critical", False)),
        "corrected": bool(attrs.get("corrected", False)) and "corr_coef" in ds,
        "n_pixel": int(region.sum()),
        "masked": _masked(ds, region),
    }  # fmt: skip
    for name in ("coverage", "edge_bias", "chi2"):
        numbers[name] = _median(ds[name].values, region) if name in ds else None
    numbers |= _factor(ds, region) | _closure(ds, region) | _shift(ds)
    return {k: _plain(v) for k, v in numbers.items()}


def _plain(value: Any) -> Any:
    """A value that JSON holds: what is not finite is None."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _median(values: NDArray[Any], region: NDArray[np.bool_]) -> float | None:
    inside = values[..., region].astype(float)
    inside = inside[np.isfinite(inside)]
    return float(np.median(inside)) if inside.size else None


def _masked(ds: xr.Dataset, region: NDArray[np.bool_]) -> float | None:
    """Share of the channels in the region that cannot be used."""
    if not region.any() or "spec_mask" not in ds:
        return None
    return float(ds["spec_mask"].mean("wave").values[region].mean())


def _factor(ds: xr.Dataset, region: NDArray[np.bool_]) -> dict[str, Any]:
    """Factor at both ends and in the middle of the range, and where there is one."""
    if "corr_coef" not in ds or not region.any():
        return {"with_factor": None, "factor_min": None, "factor_typical": None}
    wave = ds["wave"].values
    at = np.stack([
        quantity_map(ds, "corr_factor", wave=float(w)).values[region]
        for w in np.linspace(wave[0], wave[-1], 9)
    ])  # fmt: skip
    known = np.isfinite(at).all(axis=0)
    if not known.any():
        return {"with_factor": 0.0, "factor_min": None, "factor_typical": None}
    return {
        "with_factor": float(known.mean()), "factor_min": float(at[:, known].min()),
        "factor_typical": float(np.median(np.abs(at[:, known] - 1.0))),
    }  # fmt: skip


def _closure(ds: xr.Dataset, region: NDArray[np.bool_]) -> dict[str, Any]:
    """Over all covered bands: rms before and after, and the worst median of a band after."""
    out: dict[str, Any] = {"closure_before": None, "closure_after": None, "closure_worst": None}
    for name in ("closure_before", "closure_after"):
        if name not in ds:
            continue
        values = ds[name].values[:, region].astype(float)
        known = np.isfinite(values)
        if known.any():
            out[name] = float(np.sqrt(np.mean(values[known] ** 2)))
        if name == "closure_after":
            medians = [abs(float(np.median(v[k]))) for v, k in zip(values, known, strict=True)
                       if k.any()]  # fmt: skip
            out["closure_worst"] = max(medians, default=None)
    return out


def _shift(ds: xr.Dataset) -> dict[str, Any]:
    if "register_shift" not in ds or int(ds["register_status"]) != 0:
        return {"shift": None}
    return {"shift": float(np.hypot(*ds["register_shift"].values))}


def checks(numbers: dict[str, Any]) -> list[Check]:
    """Hold the numbers against their limits.

    Parameters
    ----------
    numbers
        From :func:`quality_numbers`.
    """
    return list(_checks(numbers))


def _checks(numbers: dict[str, Any]) -> Iterator[Check]:
    flagged = numbers["quality_flag"]
    yield Check(
        "survey's own quality flag", "fail" if flagged else "pass",
        "critical" if flagged else "not critical", "not critical",
    )  # fmt: skip
    yield _low("pixels in spec_region", numbers["n_pixel"], 20, 1, "{:.0f}")
    yield _high("masked channels in spec_region", numbers["masked"], 0.2, 0.9, "{:.1%}")
    yield Check(
        "spectral stage", "pass" if numbers["corrected"] else "warn",
        "done" if numbers["corrected"] else "not done: there is no factor", "done",
    )  # fmt: skip
    if numbers["corrected"]:
        yield _low("trusted pixels with a factor", numbers["with_factor"], 0.95, 0.5, "{:.1%}")
        yield _low("smallest factor", numbers["factor_min"], 0.3, 0.0, "{:.3f}")
        yield _high("typical size of the correction", numbers["factor_typical"], 0.2, 0.5, "{:.1%}")
        yield _high("chi-square of the SED fit (median)", numbers["chi2"], 30.0, 300.0, "{:.2f}")
        yield _high("closure after (worst band)", numbers["closure_worst"], 0.03, 0.1, "{:.4f} mag")
        yield _closer(numbers["closure_before"], numbers["closure_after"])
    if numbers["shift"] is not None:
        yield _high("shift against the images", numbers["shift"], 1.0, 3.0, "{:.2f} arcsec")


def _high(what: str, value: float | None, warn: float, fail: float, show: str) -> Check:
    """Judge a number that should be low."""
    limits = f"warn above {_brief(warn, show)}, fail above {_brief(fail, show)}"
    if value is None:
        return Check(what, "fail", _UNKNOWN, limits)
    status: Status = "fail" if value > fail else "warn" if value > warn else "pass"
    return Check(what, status, show.format(value), limits)


def _low(what: str, value: float | None, warn: float, fail: float, show: str) -> Check:
    """Judge a number that should be high."""
    limits = f"warn below {_brief(warn, show)}, fail below {_brief(fail, show)}"
    if value is None:
        return Check(what, "fail", _UNKNOWN, limits)
    status: Status = "fail" if value < fail else "warn" if value < warn else "pass"
    return Check(what, status, show.format(value), limits)


def _brief(limit: float, show: str) -> str:
    """A limit without the digits that only a measured number needs."""
    if "%" in show:
        return f"{100.0 * limit:g}%"
    return f"{limit:g}{show[show.index('}') + 1 :]}"


def _closer(before: float | None, after: float | None) -> Check:
    limits = "not above that before"
    if before is None or after is None:
        return Check("closure (rms)", "warn", _UNKNOWN, limits)
    found = f"{before:.4f} mag before, {after:.4f} mag after"
    return Check("closure (rms)", "warn" if after > before else "pass", found, limits)


def worst(found: list[Check]) -> Status:
    """Verdict: the worst of the checks."""
    return max((check.status for check in found), key=_ORDER.index, default="fail")


def reasons(found: list[Check]) -> list[str]:
    """Why the verdict is not a pass, in sentences; what is unknown is told in one.

    Examples
    --------
    >>> reasons([Check("pixels", "warn", "3", ""), Check("chi2", "fail", "unknown", "")])
    ['pixels: 3', 'unknown: chi2']
    """
    wrong = [check for check in found if check.status != "pass"]
    unknown = ", ".join(check.what for check in wrong if check.found == _UNKNOWN)
    told = [f"{check.what}: {check.found}" for check in wrong if check.found != _UNKNOWN]
    return [*told, f"unknown: {unknown}"] if unknown else told
