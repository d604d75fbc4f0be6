"""SED, residuals and factor of pixels and apertures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from specphoto.cube import identify, validate
from specphoto.drawing import BLACK, BLUE, ORANGE, SKY
from specphoto.errors import InputError
from specphoto.extract import Extract, aperture_extract, pixel_extract
from specphoto.photometry.filters import load_filters
from specphoto.photometry.synthetic import photon_weights
from specphoto.plot.style import F_LAMBDA, binned, cycle, plain_wavelengths, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

__all__ = ["correction_factors", "pixel_residuals", "pixel_sed", "spread_pixels"]

_COVERED = 0.98


def pixel_sed(
    ds: xr.Dataset, ax: Axes, *, pixel: tuple[int, int] | None = None,
    aperture: NDArray[np.bool_] | None = None, title: bool = True,
) -> Axes:  # fmt: skip
    """SED of a pixel or an aperture: images, spectrum before and after the factor, and the model.

    Parameters
    ----------
    ds
        A matched cube; before the spectral stage there is neither factor nor model.
    ax
        Axes to draw on.
    pixel
        Position ``(y, x)``, 0-based; or
    aperture
        pixels to sum, ``(y, x)``.
    title
        Whether to name the pixel above the axes.

    Raises
    ------
    InputError
        If the pixel is not on the cube, or the aperture holds no pixel of ``spec_region``.
    """
    return draw_sed(_extract(ds, pixel, aperture), ax, title=title)


def draw_sed(one: Extract, ax: Axes, *, title: bool = True) -> Axes:
    """Draw an SED that was read already; see :func:`pixel_sed`."""
    wave = binned(one.wave)
    _draw_spectra(one, ax, wave)
    if one.photo_flux.size:
        ax.errorbar(
            one.band_wave, one.photo_flux, yerr=one.photo_err, fmt="o", color=BLACK, ms=5,
            capsize=2, label="images", zorder=5,
        )  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel="observed wavelength (Å)", ylabel=F_LAMBDA)
    shown = np.concatenate([one.photo_flux, binned(one.masked)])
    shown = shown[np.isfinite(shown) & (shown > 0)]
    if shown.size:
        ax.set_ylim(0.5 * shown.min(), 2.0 * shown.max())
        ax.legend(frameon=False, fontsize=8)
    else:
        ax.set_ylim(0.1, 1.0)  # a logarithm needs something above 0
        say(ax, f"{one.where}: {one.note or 'no positive flux'}")
    plain_wavelengths(ax)
    if title:
        ax.set_title(one.where + (f" ({one.note})" if one.note else ""), fontsize=10)
    return ax


def _draw_spectra(one: Extract, ax: Axes, wave: NDArray[np.float64]) -> None:
    observed = binned(np.where(one.good, one.observed, np.nan))
    ax.plot(wave, observed, color=SKY, lw=1.0, label="spectrum, as observed")
    if one.factor is not None:
        ax.plot(wave, binned(one.masked), color=BLUE, lw=1.0, label="spectrum, corrected")
    if one.model is not None:
        # below the spectra: it must not hide what it is compared with
        ax.plot(
            wave, binned(one.model), color=ORANGE, lw=2.5, alpha=0.8, zorder=1.5,
            label="reference model",
        )  # fmt: skip


def pixel_residuals(
    ds: xr.Dataset, ax: Axes, *, pixel: tuple[int, int] | None = None,
    aperture: NDArray[np.bool_] | None = None,
) -> Axes:  # fmt: skip
    """What is left of a pixel or an aperture: spectrum over model, corrected spectrum over images.

    Parameters
    ----------
    ds, ax, pixel, aperture
        As in :func:`pixel_sed`.
    """
    return draw_residuals(_extract(ds, pixel, aperture), ax)


def draw_residuals(one: Extract, ax: Axes) -> Axes:
    """Draw the residuals of what was read already; see :func:`pixel_residuals`."""
    drawn = _over_model(one, ax) + _over_images(one, ax)
    ax.axhline(0.0, color="0.6", lw=0.8, zorder=0)
    ax.set(xscale="log", xlabel="observed wavelength (Å)", ylabel="residual (%)")
    ax.set_ylim(-35, 35)
    plain_wavelengths(ax)
    if drawn:
        ax.legend(frameon=False, fontsize=8, loc="upper right")
    else:
        say(ax, one.note or "nothing to compare: no model, and no image that the spectrum covers")
    return ax


def _over_model(one: Extract, ax: Axes) -> int:
    if one.model is None or not np.isfinite(one.model[one.good]).any():
        return 0
    wave, good = binned(one.wave), one.good & (one.model > 0)
    model = binned(np.where(good, one.model, np.nan))
    for flux, colour, label in (
        (one.observed, SKY, None),
        (one.spec_flux, BLUE, "spectrum / model, corrected"),
    ):
        ratio = binned(np.where(good, flux, np.nan)) / model
        ax.plot(wave, 100 * (ratio - 1), color=colour, lw=1.0, label=label)
    return 1


def _over_images(one: Extract, ax: Axes) -> int:
    if not one.bands:
        return 0
    T, covered = photon_weights(one.wave, load_filters(one.bands))
    inside = covered >= _COVERED
    synthetic = np.nan_to_num(one.spec_flux) @ np.where(inside, T, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio, error = synthetic / one.photo_flux, one.photo_err / one.photo_flux
    if not (inside & np.isfinite(ratio)).any():
        return 0
    ax.errorbar(
        one.band_wave[inside], 100 * (ratio - 1)[inside], yerr=100 * np.abs(error)[inside], fmt="o",
        color=BLACK, ms=5, capsize=2, zorder=5, label="synthetic / image",
    )  # fmt: skip
    return 1


def _extract(
    ds: xr.Dataset, pixel: tuple[int, int] | None, aperture: NDArray[np.bool_] | None
) -> Extract:
    if (pixel is None) == (aperture is None):
        raise InputError(
            "pixel, aperture", expected="one of the two",
            found="neither" if pixel is None else "both", remedy="give one",
        )  # fmt: skip
    if pixel is not None:
        return pixel_extract(ds, pixel)
    return aperture_extract(ds, np.asarray(aperture))


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
    validate(ds, "wave", verb="correction_factors")
    if "corr_factor" not in ds:
        return say(ax, "no spectral stage: there is no factor")
    wave = ds["wave"].values
    known = False
    for pixel, colour in zip(pixels, cycle(len(pixels)), strict=True):
        one = pixel_extract(ds, pixel)
        factor = one.factor if one.factor is not None else np.full(wave.size, np.nan)
        error = one.factor_err if one.factor_err is not None else np.zeros(wave.size)
        known |= bool(np.isfinite(factor).any())
        ax.fill_between(wave, factor - error, factor + error, color=colour, alpha=0.2, lw=0)
        ax.plot(wave, factor, color=colour, lw=1.5, label=f"x = {pixel[1]}, y = {pixel[0]}")
    if truth is not None:
        ax.plot(wave, truth, color=BLACK, lw=1.5, ls="--", label="injected")
    if not known:
        say(ax, "no factor in these pixels" if pixels else "no pixel was named")
    ax.axhline(1.0, color="0.6", lw=0.8, zorder=0)
    ax.set(xlabel="observed wavelength (Å)", ylabel="correction factor")
    ax.margins(x=0)
    if known:
        ax.legend(frameon=False, fontsize=8, ncols=2)
    return ax


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
