"""Checks: closure, kernels, registration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from specphoto.drawing import BLACK, BLUE, ORANGE, SKY
from specphoto.errors import InputError
from specphoto.plot.style import extent_of, grid_of, offsets, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from specphoto.spatial.kernel import KernelReport

__all__ = ["closure", "kernel", "registration"]


def closure(ds: xr.Dataset, ax: Axes, *, bands: Sequence[str] | None = None) -> Axes:
    """Synthetic minus image magnitude of all trusted pixels, before and after the factor.

    Parameters
    ----------
    ds
        A corrected cube.
    ax
        Axes to draw on.
    bands
        By default all; those that the spectra do not cover are left out.
    """
    if "closure_after" not in ds:
        return say(ax, "no spectral stage: there is no closure")
    both = ds[["closure_before", "closure_after", "spec_region"]].compute()
    inside = both["spec_region"].values
    known = [str(b) for b in ds["band"].values]
    covered = np.isfinite(both["closure_after"].values[:, inside]).any(axis=1)
    chosen = [i for i, b in enumerate(known) if bands is None or b in bands]
    chosen = [i for i in chosen if covered[i]]
    if not chosen:
        return say(ax, "no trusted pixel has a band that the spectra cover")
    for name, colour, shift in (("closure_before", SKY, -0.18), ("closure_after", BLUE, 0.18)):
        values = [v[np.isfinite(v)] for v in both[name].values[chosen][:, inside]]
        boxes = ax.boxplot(
            values, positions=np.arange(len(chosen)) + shift, widths=0.3, whis=(5, 95),
            showfliers=False, patch_artist=True, medianprops={"color": BLACK}, manage_ticks=False,
        )  # fmt: skip
        for box in boxes["boxes"]:
            box.set(facecolor=colour, alpha=0.8)
        ax.plot([], [], "s", color=colour, label=name.removeprefix("closure_") + " the factor")
    ax.axhline(0.0, color="0.6", lw=0.8, zorder=0)
    ax.set_xticks(range(len(chosen)), [known[i].replace("_", " ") for i in chosen])
    ax.set(ylabel="synthetic − image (mag)", xlim=(-0.6, len(chosen) - 0.4))
    # above: the whiskers of every band may reach the top
    ax.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return ax


def kernel(report: KernelReport, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """How well a PSF-matching kernel does: encircled energy, and what is left of the target.

    Parameters
    ----------
    report
        From :func:`specphoto.spatial.kernel.kernel_report`.
    axes
        Two to draw on; by default those of a new figure. On the first the encircled energy of the
        result and of the target, on the second the residual over the target's peak.
    """
    if axes is None:
        axes = Figure(figsize=(9.0, 4.0), layout="constrained").subplots(1, 2)
    left, right = axes
    left.plot(report.radius, report.encircled_target, color=ORANGE, lw=4.0, label="target PSF")
    left.plot(report.radius, report.encircled_result, color=BLUE, lw=1.5, label="after the kernel")
    left.set(xlabel="radius (arcsec)", ylabel="encircled energy", ylim=(0.0, 1.05))
    left.set_xlim(0.0, report.radius[-1])
    left.legend(frameon=False, fontsize=8, loc="lower right")
    half = 0.5 * report.residual.shape[0] * report.scale
    limit = 100.0 * max(report.worst_residual, 1e-4)
    image = right.imshow(
        100.0 * report.residual, origin="lower", extent=(-half, half, -half, half), cmap="RdBu_r",
        vmin=-limit, vmax=limit, interpolation="nearest",
    )  # fmt: skip
    right.figure.colorbar(image, ax=right, label="result − target (% of the peak)")
    right.set(xlabel="x offset (arcsec)", ylabel="y offset (arcsec)")
    left.set_title(
        f"largest gain {report.largest_gain:.2f}, {abs(report.negative_share):.1%} negative",
        fontsize=10,
    )
    right.set_title(f"at most {report.worst_residual:.2%} of the peak", fontsize=10)
    return axes


def registration(
    ds: xr.Dataset, axes: Sequence[Axes], *, band: str | None = None
) -> Sequence[Axes]:
    """A cube's registration: the image, the cube's own after the fit, and what is left.

    Parameters
    ----------
    ds
        From :func:`specphoto.register`.
    axes
        Three, for the image, the cube's synthetic image and the difference in per cent of the
        core's height above the sky.
    band
        By default the one of the best correlation. Where it tells nothing, each of the axes
        says so.

    Raises
    ------
    InputError
        If the cube covers no band, or not this one.
    """
    known = [str(b) for b in ds["register_band"].values] if "register_band" in ds.coords else []
    if not known or (band is not None and band not in known):
        raise InputError(
            "registration: band", expected="a band that was registered",
            found=f"{band}; there are {', '.join(known) or 'none'}",
            remedy="name one of them, or give images in a band that the cube covers",
        )  # fmt: skip
    ds = ds.compute()
    best = int(np.argmax(np.nan_to_num(ds["register_correlation"].values, nan=-1.0)))
    at = ds.isel(register_band=best if band is None else known.index(band))
    scale, offset = (float(at["register_fit"].sel(register_term=t)) for t in ("scale", "offset"))
    image, synthetic = (at[f"register_{n}"].values + offset / scale for n in ("image", "synthetic"))
    compared = image[np.isfinite(image) & np.isfinite(synthetic)]
    core = float(compared.max(initial=0.0))
    if not core > 0.0:
        for ax in axes:
            say(ax, f"no light to compare in {str(at['register_band'].item()).replace('_', ' ')}")
        return axes
    residual = 100.0 * (synthetic - image) / core
    _registered(ds, axes, (image / core, synthetic / core, residual))
    axes[0].set_title(f"image, {at['register_band'].item().replace('_', ' ')}", fontsize=10)
    axes[1].set_title("cube after the fit", fontsize=10)
    axes[2].set_title("cube − image", fontsize=10)
    axes[1].text(
        0.03, 0.03, _shift_found(at), transform=axes[1].transAxes, color="white", fontsize=8,
        bbox={"facecolor": "black", "alpha": 0.6, "linewidth": 0},
    )  # fmt: skip
    axes[2].text(
        0.03, 0.03, f"rms {float(at['register_residual']):.2%}\n"
        f"correlation {float(at['register_correlation']):.4f}\ngrey: not compared",
        transform=axes[2].transAxes, fontsize=8,
        bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0},
    )  # fmt: skip
    return axes


def _registered(
    ds: xr.Dataset, axes: Sequence[Axes], panels: tuple[NDArray[np.floating], ...]
) -> None:
    """Draw image, synthetic image (one logarithmic scale) and residual, where compared."""
    scale, unit = grid_of(ds)
    extent = extent_of(ds, scale)
    x, y = offsets(ds, scale)
    shown = np.isfinite(panels[0])
    faintest = float(np.nanpercentile(np.where(panels[0] > 0, panels[0], np.nan), 2.0))
    norm = LogNorm(max(faintest, 1e-3), 1.0)
    largest = max(1.0, float(np.nanpercentile(np.abs(panels[2]), 99.5)))
    for ax, panel, options, label in (
        (axes[0], panels[0], {"norm": norm}, "flux over the core's"),
        (axes[1], panels[1], {"norm": norm}, "flux over the core's"),
        (axes[2], panels[2], {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest},
         "residual (% of the core)"),
    ):  # fmt: skip
        drawn = ax.imshow(panel, origin="lower", extent=extent, interpolation="nearest", **options)
        ax.figure.colorbar(drawn, ax=ax, label=label, shrink=0.8)
        rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
        half = 0.5 * scale
        ax.set(
            xlim=(x[columns[0]] - half, x[columns[-1]] + half),
            ylim=(y[rows[0]] - half, y[rows[-1]] + half),
            xlabel=f"x offset ({unit})", ylabel=f"y offset ({unit})",
        )  # fmt: skip
        ax.set_facecolor("0.85")


def _shift_found(at: xr.Dataset) -> str:
    """Numbers of one band's fit in words."""
    value, error = at["register_fit"].values, at["register_err"].values
    lines = [
        f"east {value[0]:+.3f} ± {error[0]:.3f} arcsec",
        f"north {value[1]:+.3f} ± {error[1]:.3f} arcsec",
        f"flux scale {value[2]:.3f} ± {error[2]:.3f}",
        f"PSF width {value[4]:+.3f} ± {error[4]:.3f} arcsec",
    ]
    if int(at["register_band_status"]) != 0:
        meanings = at["register_band_status"].attrs["flag_meanings"].split()
        lines.append(meanings[int(at["register_band_status"])].replace("_", " "))
    return "\n".join(lines)
