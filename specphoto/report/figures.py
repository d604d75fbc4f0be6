"""The figures of a QA page, each with words for those who do not see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from specphoto import plot
from specphoto.maps import known_quantities
from specphoto.spatial.kernel import kernel_report, matching_kernel
from specphoto.spatial.psf import PSF

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xarray as xr

__all__ = ["Drawn", "page_figures"]

# Fine enough for the PSFs of all surveys we read.
_KERNEL_SCALE = 0.5


class Drawn(NamedTuple):
    """A figure, or why there is none.

    Parameters
    ----------
    name
        For files and anchors.
    title
        In words.
    alt
        What is seen.
    figure
        None where there is nothing to draw; `alt` says why.
    """

    name: str
    title: str
    alt: str
    figure: Figure | None


def page_figures(ds: xr.Dataset) -> Iterator[Drawn]:
    """Draw all figures that a product has the data for.

    Parameters
    ----------
    ds
        A matched cube, corrected or not, its maps in memory.
    """
    trusted = "spec_region" in ds and bool(ds["spec_region"].any())
    has_images = "photo_flux" in ds
    pixels = plot.spread_pixels(ds, 4) if trusted and has_images else []
    with mpl.rc_context(plot.STYLE):
        if has_images:
            yield _image(ds, pixels)
        for pixel in pixels[:1] + pixels[-1:]:
            yield _sed(ds, pixel)
        if pixels and "corr_coef" in ds:
            yield _factors(ds, pixels)
            yield _closure(ds)
        if trusted:
            yield _maps(ds)
        yield _kernel(ds)
        if "register_band" in ds.coords and ds.sizes.get("register_band"):
            yield _registration(ds)


def _new(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def _image(ds: xr.Dataset, pixels: list[tuple[int, int]]) -> Drawn:
    figure = _new(5.2, 5.0)
    plot.rgb_image(ds, figure.subplots(), pixels=pixels)
    alt = (
        f"Three-colour image of {ds.sizes['x']} by {ds.sizes['y']} pixels with the outline of the "
        f"{int(ds['spec_region'].sum())} pixels of spec_region and marks on the "
        f"{len(pixels)} pixels of the other figures."
        if pixels
        else f"Three-colour image of {ds.sizes['x']} by {ds.sizes['y']} pixels; no pixel can be "
        "trusted, and there is no other figure."
    )
    return Drawn("image", "Image and footprint", alt, figure)


def _sed(ds: xr.Dataset, pixel: tuple[int, int]) -> Drawn:
    figure = _new(7.5, 5.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    plot.pixel_sed(ds, upper, pixel=pixel)
    plot.pixel_residuals(ds, lower, pixel=pixel)
    upper.set_xlabel("")
    where = f"x = {pixel[1]}, y = {pixel[0]}"
    drawn = (
        "the spectrum before and after the factor, the reference model, and below them the "
        "residuals in per cent"
        if "corr_coef" in ds
        else "and the spectrum; there is no factor, for the spectral stage was not run"
    )
    alt = f"Flux against wavelength of the pixel {where}: images with errors, {drawn}."
    return Drawn(f"sed-{pixel[1]}-{pixel[0]}", f"Pixel {where}", alt, figure)


def _factors(ds: xr.Dataset, pixels: list[tuple[int, int]]) -> Drawn:
    figure = _new(7.5, 4.2)
    plot.correction_factors(ds, figure.subplots(), pixels=pixels)
    alt = f"Correction factor against wavelength of {len(pixels)} pixels with 1-sigma bands."
    return Drawn("factors", "Correction factors", alt, figure)


def _closure(ds: xr.Dataset) -> Drawn:
    figure = _new(5.6, 4.0)
    plot.closure(ds, figure.subplots())
    alt = "Box plots by band of synthetic minus image magnitude, before and after the factor."
    return Drawn("closure", "Closure", alt, figure)


def _maps(ds: xr.Dataset) -> Drawn:
    wave = ds["wave"].values
    asked: list[tuple[str, dict[str, Any]]] = [
        ("corr_factor", {"wave": wave[0] + share * np.ptp(wave)}) for share in (0.05, 0.5, 0.95)
    ]
    asked += [(name, {}) for name in ("spec_sn", "chi2", "closure_after", "coverage", "edge_bias")]
    known = {q.name for q in known_quantities(ds)}
    asked = [(name, options) for name, options in asked if name in known]
    if "closure_after" in known:
        covered = np.isfinite(ds["closure_after"].values).any(axis=(1, 2))
        bands = [str(b) for b in ds["band"].values[covered]]
        asked = [(n, {"band": bands[len(bands) // 2]} if n == "closure_after" and bands else o)
                 for n, o in asked]  # fmt: skip
    rows = -(-len(asked) // 3)
    figure = _new(12.0, 3.5 * rows)
    for i, (name, options) in enumerate(asked):
        plot.pixel_map(ds, figure.add_subplot(rows, 3, i + 1), name, **options)
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    return Drawn("maps", "Maps", "Maps of " + "; ".join(titles) + ".", figure)


def _kernel(ds: xr.Dataset) -> Drawn:
    """PSF-matching kernel as the provenance tells it, at the middle of the wavelengths."""
    title = "PSF-matching kernel"
    steps = [s for s in ds.attrs.get("provenance", []) if s.get("step") == "match_spatial"]
    options = steps[-1].get("options", {}) if steps else {}
    sources = options.get("source_psf") or []
    if not sources or not all(sources) or not ds.attrs.get("psf"):
        return Drawn("kernel", title, "The product does not say which PSFs were matched.", None)
    if options.get("images_brought_to_psf"):
        why = "The cube has the broadest PSF: the images were brought to it, the cube was not."
        return Drawn("kernel", title, why, None)
    at = len(sources) // 2
    wave = (options.get("psf_wave") or [5000.0] * len(sources))[at]
    source, target = (PSF.from_attrs(psf, wave) for psf in (sources[at], ds.attrs["psf"]))
    kernel = matching_kernel(source, target, _KERNEL_SCALE)
    figure = _new(9.0, 4.0)
    plot.kernel(
        kernel_report(source, target, kernel, _KERNEL_SCALE), list(figure.subplots(1, 2))
    )  # fmt: skip
    alt = (
        f"Encircled energy of the target PSF ({target}) and of the cube's ({source}, at "
        f"{wave:.0f} Å) after the kernel, and the residual image."
    )
    return Drawn("kernel", title, alt, figure)


def _registration(ds: xr.Dataset) -> Drawn:
    figure = _new(12.0, 3.6)
    plot.registration(ds, list(figure.subplots(1, 3)))
    alt = (
        "Image, the cube's own image after the fit, and their difference; or the words that the "
        "images tell nothing of the pointing."
    )
    return Drawn("registration", "Pointing", alt, figure)
