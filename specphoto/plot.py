"""Figures: each function draws one on axes that it is given, and returns them.

Lazy data are computed as far as the figure needs them. Colours are those of Okabe and Ito, which
colour-blind readers tell apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.visualization import make_lupton_rgb
from matplotlib.collections import LineCollection

from specphoto.cube import celestial_wcs, identify, pixel_scale, validate
from specphoto.errors import InputError
from specphoto.photometry.filters import load_filters
from specphoto.photometry.synthetic import photon_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from specphoto.spatial.kernel import KernelReport

__all__ = [
    "closure",
    "correction_factors",
    "kernel",
    "pixel_residuals",
    "pixel_sed",
    "registration",
    "rgb_image",
    "spread_pixels",
]

BLACK, ORANGE, SKY, GREEN, BLUE, RED, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
_PIXEL_COLOURS = (BLUE, RED, GREEN, PURPLE, ORANGE)
_F_LAMBDA = r"$F_\lambda$  ($10^{-17}$ erg s$^{-1}$ cm$^{-2}$ Å$^{-1}$)"
_RGB = ("sdss_i", "sdss_r", "sdss_g")
_COVERED = 0.98
_BIN = 12


def rgb_image(
    ds: xr.Dataset,
    ax: Axes,
    *,
    bands: Sequence[str] | None = None,
    pixels: Sequence[tuple[int, int]] = (),
    stretch: float = 0.067,
    zoom: bool = True,
) -> Axes:
    """Three-colour image (Lupton et al. 2004) with the footprint of trustworthy spectra.

    Parameters
    ----------
    ds
        A matched cube: ``photo_flux``, ``spec_region``.
    ax
        Axes to draw on.
    bands
        For red, green and blue; by default i, r and g of SDSS, else the longest, the middle and
        the shortest of those that there are.
    pixels
        Positions ``(y, x)``, 0-based, to mark; those of the other figures.
    stretch
        Share of the brightest pixel at which the scale turns from linear to logarithmic.
    zoom
        Show the galaxy's pixels only.

    Raises
    ------
    InputError
        If there are no images.
    """
    validate(ds, "photo_flux", "spec_region", verb="rgb_image")
    known = [str(b) for b in ds["band"].values]
    chosen = list(bands or (_RGB if set(_RGB) <= set(known) else
                            [known[-1], known[len(known) // 2], known[0]]))  # fmt: skip
    missing = sorted(set(chosen) - set(known))
    if missing or len(chosen) != 3:
        raise InputError(
            "rgb_image: bands", expected="three out of " + ", ".join(known),
            found=", ".join(chosen), remedy="name bands of the dataset",
        )  # fmt: skip
    scale = pixel_scale(celestial_wcs(ds)) if ds.attrs.get("wcs") else 1.0
    planes = _in_one_scale(ds["photo_flux"].isel(band=[known.index(b) for b in chosen]).values)
    image = make_lupton_rgb(*planes, minimum=0.0, stretch=stretch, Q=5)
    extent = _extent(ds, scale)
    ax.imshow(image, origin="lower", extent=extent, interpolation="nearest")
    x, y = _offsets(ds, scale)
    region = ds["spec_region"].values
    if region.any() and not region.all():
        _outline(ax, region, extent)
    for (row, column), colour in zip(pixels, _cycle(len(pixels)), strict=True):
        ax.plot(x[column], y[row], "s", mfc="none", mec=colour, ms=7, mew=2.0)
    if zoom:
        _zoom(ax, ds, x, y)
    if ds.attrs.get("wcs"):
        _compass(ax, ds)
    unit = "arcsec" if ds.attrs.get("wcs") else "pixel"
    ax.set(xlabel=f"x offset ({unit})", ylabel=f"y offset ({unit})")
    ax.set_title(
        ", ".join(b.replace("_", " ") for b in chosen) + "; line: spec_region", fontsize=10
    )
    return ax


def _in_one_scale(planes: NDArray[np.floating]) -> NDArray[np.float64]:
    """Planes brought to equal totals, 1 at the peak: colours by their contrast in the galaxy."""
    filled = np.nan_to_num(planes.astype(np.float64))
    totals = filled.sum(axis=(1, 2), keepdims=True)
    filled = filled / np.where(totals > 0, totals, 1.0)
    # a speck of light everywhere: Lupton's formula divides by the intensity
    return np.asarray(np.maximum(filled / max(float(filled.max()), 1e-30), 1e-9))


def _offsets(ds: xr.Dataset, scale: float) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    n_x, n_y = ds.sizes["x"], ds.sizes["y"]
    return (np.arange(n_x) - (n_x - 1) / 2) * scale, (np.arange(n_y) - (n_y - 1) / 2) * scale


def _extent(ds: xr.Dataset, scale: float) -> tuple[float, float, float, float]:
    half_x, half_y = ds.sizes["x"] * scale / 2, ds.sizes["y"] * scale / 2
    return -half_x, half_x, -half_y, half_y


def _outline(ax: Axes, region: NDArray[np.bool_], extent: tuple[float, ...]) -> None:
    """Border of a region along the edges of its pixels."""
    rows, columns = region.shape
    x = np.linspace(extent[0], extent[1], columns + 1)
    y = np.linspace(extent[2], extent[3], rows + 1)
    padded = np.pad(region, 1)
    upright = padded[1:-1, 1:] != padded[1:-1, :-1]
    level = padded[1:, 1:-1] != padded[:-1, 1:-1]
    lines = [[(x[j], y[i]), (x[j], y[i + 1])] for i, j in zip(*np.nonzero(upright), strict=True)]
    lines += [[(x[j], y[i]), (x[j + 1], y[i])] for i, j in zip(*np.nonzero(level), strict=True)]
    ax.add_collection(LineCollection(lines, colors="white", linewidths=1.4, capstyle="round"))


def _compass(ax: Axes, ds: xr.Dataset) -> None:
    """Arrows to north and east in the lower left corner."""
    matrix = celestial_wcs(ds).pixel_scale_matrix
    to_pixel = np.linalg.inv(matrix)
    for name, sky in (("N", (0.0, 1.0)), ("E", (1.0, 0.0))):
        step = to_pixel @ np.array(sky)
        step = 0.1 * step / np.hypot(*step)
        start = (0.14, 0.06)
        ax.annotate(
            "", xy=(start[0] + step[0], start[1] + step[1]), xytext=start,
            xycoords="axes fraction", textcoords="axes fraction",
            arrowprops={"arrowstyle": "->", "color": "white", "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip
        at = (start[0] + 1.3 * step[0], start[1] + 1.3 * step[1])
        ax.text(*at, name, transform=ax.transAxes, color="white", fontsize=9, ha="center",
                va="center")  # fmt: skip


def _zoom(ax: Axes, ds: xr.Dataset, x: NDArray[np.floating], y: NDArray[np.floating]) -> None:
    inside = ds["photo_region"].values if "photo_region" in ds else ds["spec_region"].values
    if inside.any():
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        edge = 1.05 * max(abs(v) for v in (*x[columns[[0, -1]]], *y[rows[[0, -1]]]))
        ax.set(xlim=(-edge, edge), ylim=(-edge, edge))


def pixel_sed(ds: xr.Dataset, ax: Axes, *, pixel: tuple[int, int], title: bool = True) -> Axes:
    """SED of one pixel: images, spectrum before and after the factor, and the model.

    Parameters
    ----------
    ds
        A corrected cube.
    ax
        Axes to draw on.
    pixel
        Position ``(y, x)``, 0-based.
    title
        Whether to name the pixel above the axes.
    """
    one = _pixel(ds, pixel)
    wave, good = _binned(one["wave"]), ~one["spec_mask"]
    for flux, colour, label in (
        (one["spec_flux"] / one["corr_factor"], SKY, "spectrum, as observed"),
        (one["spec_flux"], BLUE, "spectrum, corrected"),
    ):
        ax.plot(wave, _binned(np.where(good, flux, np.nan)), color=colour, lw=1.0, label=label)
    # below the spectra: it must not hide what it is compared with
    ax.plot(
        wave, _binned(one["mod_flux"]), color=ORANGE, lw=2.5, alpha=0.8, zorder=1.5,
        label="reference model",
    )  # fmt: skip
    ax.errorbar(
        ds["band_wave"].values, one["photo_flux"], yerr=one["photo_err"], fmt="o", color=BLACK,
        ms=5, capsize=2, label="images", zorder=5,
    )  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel="observed wavelength (Å)", ylabel=_F_LAMBDA)
    shown = np.concatenate([one["photo_flux"], _binned(np.where(good, one["spec_flux"], np.nan))])
    shown = shown[np.isfinite(shown) & (shown > 0)]
    if shown.size:
        ax.set_ylim(0.5 * shown.min(), 2.0 * shown.max())
    _plain_wavelengths(ax)
    ax.legend(frameon=False, fontsize=8)
    if title:
        ax.set_title(f"pixel x = {pixel[1]}, y = {pixel[0]}", fontsize=10)
    return ax


def pixel_residuals(ds: xr.Dataset, ax: Axes, *, pixel: tuple[int, int]) -> Axes:
    """What is left of one pixel: spectrum over model, and images over the corrected spectrum.

    Parameters
    ----------
    ds, ax, pixel
        As in :func:`pixel_sed`.
    """
    one = _pixel(ds, pixel)
    wave, good = _binned(one["wave"]), ~one["spec_mask"] & (one["mod_flux"] > 0)
    model = np.where(good, one["mod_flux"], np.nan)
    observed = one["spec_flux"] / one["corr_factor"]
    for flux, colour in ((observed, SKY), (one["spec_flux"], BLUE)):
        ax.plot(wave, 100 * (_binned(np.where(good, flux, np.nan)) / _binned(model) - 1),
                color=colour, lw=1.0)  # fmt: skip
    T, covered = photon_weights(one["wave"], load_filters([str(b) for b in ds["band"].values]))
    inside = covered >= _COVERED
    synthetic = np.nan_to_num(one["spec_flux"]) @ np.where(inside, T, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio, error = synthetic / one["photo_flux"], one["photo_err"] / one["photo_flux"]
    ax.errorbar(
        ds["band_wave"].values[inside], 100 * (ratio - 1)[inside], yerr=100 * error[inside],
        fmt="o", color=BLACK, ms=5, capsize=2, zorder=5, label="synthetic / image, corrected",
    )  # fmt: skip
    ax.plot([], [], color=BLUE, lw=1.0, label="spectrum / model, corrected")
    ax.legend(frameon=False, fontsize=8, loc="upper right")
    ax.axhline(0.0, color="0.6", lw=0.8, zorder=0)
    ax.set(xscale="log", xlabel="observed wavelength (Å)", ylabel="residual (%)")
    ax.set_ylim(-35, 35)
    _plain_wavelengths(ax)
    return ax


def correction_factors(
    ds: xr.Dataset, ax: Axes, *, pixels: Sequence[tuple[int, int]],
    truth: NDArray[np.floating] | None = None,
) -> Axes:  # fmt: skip
    """Factors of several pixels with their 1-sigma bands, fully correlated in wavelength.

    Parameters
    ----------
    ds
        A corrected cube.
    ax
        Axes to draw on.
    pixels
        Positions ``(y, x)``, 0-based.
    truth
        Injected factor ``(n_wave,)``, where it is known.
    """
    wave = ds["wave"].values
    for pixel, colour in zip(pixels, _cycle(len(pixels)), strict=True):
        at = ds[["corr_factor", "corr_factor_err"]].isel(y=pixel[0], x=pixel[1]).compute()
        factor, error = at["corr_factor"].values, at["corr_factor_err"].values
        ax.fill_between(wave, factor - error, factor + error, color=colour, alpha=0.2, lw=0)
        ax.plot(wave, factor, color=colour, lw=1.5, label=f"x = {pixel[1]}, y = {pixel[0]}")
    if truth is not None:
        ax.plot(wave, truth, color=BLACK, lw=1.5, ls="--", label="injected")
    ax.axhline(1.0, color="0.6", lw=0.8, zorder=0)
    ax.set(xlabel="observed wavelength (Å)", ylabel="correction factor")
    ax.margins(x=0)
    ax.legend(frameon=False, fontsize=8, ncols=2)
    return ax


def closure(ds: xr.Dataset, ax: Axes, *, bands: Sequence[str] | None = None) -> Axes:
    """Synthetic minus image magnitude of all trusted pixels, before and after the factor.

    Parameters
    ----------
    ds
        A corrected cube.
    ax
        Axes to draw on.
    bands
        By default all that the spectra cover.
    """
    both = ds[["closure_before", "closure_after", "spec_region"]].compute()
    inside = both["spec_region"].values
    known = [str(b) for b in ds["band"].values]
    covered = np.isfinite(both["closure_after"].values[:, inside]).any(axis=1)
    chosen = [i for i, b in enumerate(known) if (b in bands if bands is not None else covered[i])]
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
    ax.legend(frameon=False, fontsize=8)
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
        from matplotlib.figure import Figure

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
        f"largest gain {report.largest_gain:.2f}, {report.negative_share:.1%} negative", fontsize=10
    )
    right.set_title(f"at most {report.worst_residual:.2%} of the peak", fontsize=10)
    return axes


def spread_pixels(ds: xr.Dataset, n: int) -> list[tuple[int, int]]:
    """Positions of `n` trusted pixels from the brightest to the faintest, evenly by rank.

    Raises
    ------
    InputError
        If no pixel is trusted.
    """
    light = ds["photo_flux"].isel(band=ds.sizes["band"] // 2).values
    rows, columns = np.nonzero(ds["spec_region"].values & np.isfinite(light))
    if rows.size == 0:
        raise InputError(
            identify(ds), expected="pixels in spec_region", found="none",
            remedy="raise max_bias, or match cubes that overlap more",
        )  # fmt: skip
    order = np.argsort(-light[rows, columns], kind="stable")
    ranks = np.unique(np.linspace(0, 0.9 * (order.size - 1), n).astype(int)) if n > 1 else [0]
    return [(int(rows[order[r]]), int(columns[order[r]])) for r in ranks]


def _pixel(ds: xr.Dataset, pixel: tuple[int, int]) -> dict[str, NDArray[Any]]:
    names = ("spec_flux", "spec_mask", "corr_factor", "mod_flux", "photo_flux", "photo_err")
    validate(ds, *names, "wave", verb="plot")
    at = ds[list(names)].isel(y=pixel[0], x=pixel[1]).compute()
    return {"wave": ds["wave"].values, **{name: at[name].values for name in names}}


def _binned(values: NDArray[Any], size: int = _BIN) -> NDArray[np.float64]:
    """Means over `size` channels, unknown ones left out, so that lines stay visible in noise."""
    whole = values[: values.size // size * size].reshape(-1, size)
    known = np.isfinite(whole)
    count = known.sum(axis=1)
    total = np.where(known, whole, 0.0).sum(axis=1, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _plain_wavelengths(ax: Axes) -> None:
    from matplotlib.ticker import FixedLocator, NullFormatter, ScalarFormatter

    lo, hi = ax.get_xlim()
    ticks = [t for t in (1500, 2000, 3000, 5000, 7000, 10000, 20000, 40000) if lo < t < hi]
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_formatter(NullFormatter())


def _cycle(n: int) -> list[str]:
    return [_PIXEL_COLOURS[i % len(_PIXEL_COLOURS)] for i in range(n)]


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
        By default the one of the best correlation.

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
    core = float(np.nanmax(image)) if np.isfinite(image).any() else np.nan
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
    from matplotlib.colors import LogNorm

    scale = pixel_scale(celestial_wcs(ds)) if ds.attrs.get("wcs") else 1.0
    unit = "arcsec" if ds.attrs.get("wcs") else "pixel"
    extent = _extent(ds, scale)
    x, y = _offsets(ds, scale)
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
