"""The whole job on a simulated galaxy, and how well its truth comes back."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from specphoto import plot
from specphoto.io import open_cube
from specphoto.pipeline import run
from specphoto.simulate import simulate_galaxy
from specphoto.terminal import StageBars, line, results, table

if TYPE_CHECKING:
    from pathlib import Path

    from distributed import Client
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from specphoto.pipeline import Products
    from specphoto.simulate import SimulatedGalaxy

__all__ = ["Recovery", "draw", "recovery", "run_demo"]

# Comparing with the truth asks for pixels that the bundle covers.
_COVERED = 0.99
_CLOSURE_BANDS = ("sdss_g", "sdss_r", "sdss_i")
_EBV = 0.03


class Recovery(NamedTuple):
    """How well the injected factor came back.

    Parameters
    ----------
    n_pixel
        Trusted pixels with coverage of at least 0.99; without any, the rest is NaN.
    median_error
        Median over pixels and wavelengths of ``|factor / injected - 1|``.
    bias
        Mean of ``factor / injected - 1``.
    before
        Median of ``|1 / injected - 1|``: the error of the spectra as they came.
    """

    n_pixel: int
    median_error: float
    bias: float
    before: float


def run_demo(folder: Path, client: Client, *, seed: int = 1, size: int = 127) -> Products:
    """Simulate survey files, run the pipeline on them, print tables and draw figures.

    Parameters
    ----------
    folder
        Where files, products and figures go; made if absent, products there are replaced.
    client
        Computes.
    seed
        Of the simulated galaxy.
    size
        Fibres of its MaNGA bundle.
    """
    line(f"simulating a MaNGA cube and a 12-band photometric cube in {folder} ...")
    start = time.perf_counter()
    galaxy = simulate_galaxy(folder, seed=seed, size=size, ebv=_EBV)
    seconds = {"simulate": time.perf_counter() - start}
    line(f"matching {galaxy.cube.path.name} and {galaxy.photometry.path.name} ...")
    with StageBars() as bars:
        made = run(
            galaxy.cube.path, galaxy.photometry.path, folder, overwrite=True,
            cluster=nullcontext(client), progress=bars.show,
        )  # fmt: skip
    start = time.perf_counter()
    ds = in_memory(open_cube(made.zarr)) if made.zarr else open_cube(made.fits or "")
    figures = draw(ds, folder, truth=galaxy.cube.factor())
    seconds |= {**made.seconds, "figures": time.perf_counter() - start}
    _tell(ds, galaxy, made, seconds)
    for path in (galaxy.cube.path, galaxy.photometry.path, made.fits, made.zarr, *figures):
        results.print(str(path), highlight=False, soft_wrap=True)
    return made


def in_memory(ds: xr.Dataset) -> xr.Dataset:
    """Load all but the cubes."""
    small = [name for name in ds.data_vars if "wave" not in ds[name].dims]
    return ds.assign(ds[small].compute().data_vars)


def recovery(ds: xr.Dataset, injected: NDArray[np.float64]) -> Recovery:
    """Compare the factor with the injected one, over trusted pixels that the bundle covers.

    Parameters
    ----------
    ds
        A corrected cube.
    injected
        Factor ``(n_wave,)``.
    """
    trusted = ds["spec_region"].values & (ds["coverage"].values >= _COVERED)
    rows, columns = np.nonzero(trusted)
    before = float(np.median(np.abs(1.0 / injected - 1.0)))
    if rows.size == 0:
        return Recovery(0, np.nan, np.nan, before)
    at = {"y": xr.DataArray(rows, dims="pixel"), "x": xr.DataArray(columns, dims="pixel")}
    factor = ds["corr_factor"].isel(at).transpose("pixel", "wave").values
    error = factor / injected - 1.0
    return Recovery(rows.size, float(np.nanmedian(np.abs(error))), float(np.nanmean(error)), before)


def _tell(
    ds: xr.Dataset, galaxy: SimulatedGalaxy, made: Products, seconds: dict[str, float]
) -> None:
    found = recovery(ds, galaxy.cube.factor())
    results.print(table(
        f"Injected against recovered factor, {found.n_pixel} pixels with coverage >= {_COVERED}",
        [
            ("median |error|", f"{100 * found.before:.2f} %", f"{100 * found.median_error:.2f} %"),
            ("bias", "", f"{100 * found.bias:+.2f} %"),
        ],
        columns=("", "uncorrected", "corrected"),
    ))  # fmt: skip
    results.print(table(
        "Closure over spec_region, synthetic minus image (mag)",
        [
            (band.replace("_", " "), f"{median[0]:+.4f}", f"{rms[0]:.4f}", f"{median[1]:+.4f}",
             f"{rms[1]:.4f}")
            for band, median, rms in _closures(ds)
        ],
        columns=("", "median before", "rms before", "median after", "rms after"),
    ))  # fmt: skip
    steps = [(name, f"{value:.1f}") for name, value in seconds.items()]
    steps += [(f"  {s.name} (summed over workers)", f"{s.seconds:.1f}") for s in made.stages]
    results.print(table("Seconds", steps, columns=("", "")))


def _closures(ds: xr.Dataset) -> list[tuple[str, list[float], list[float]]]:
    """Band, medians and root mean squares of the closure before and after the factor."""
    inside = ds["spec_region"].values
    known = [str(b) for b in ds["band"].values]
    out = []
    for band in _CLOSURE_BANDS:
        both = [
            ds[name].values[known.index(band)][inside]
            for name in ("closure_before", "closure_after")
        ]
        medians = [float(np.nanmedian(v)) for v in both]
        out.append((band, medians, [float(np.sqrt(np.nanmean(v**2))) for v in both]))
    return out


def draw(ds: xr.Dataset, folder: Path, *, truth: NDArray[np.float64] | None = None) -> list[Path]:
    """Draw the seed figures as PNG and return their paths.

    Parameters
    ----------
    ds
        A corrected cube.
    folder
        Where they go.
    truth
        Injected factor ``(n_wave,)``, where it is known.
    """
    pixels = plot.spread_pixels(ds, 4)
    bright = pixels[0]
    made = []

    def save(name: str, figure: Figure) -> None:
        made.append(folder / f"{name}.png")
        figure.savefig(made[-1], dpi=150)

    with mpl.rc_context(plot.STYLE):
        figure, ax = _figure(5.2, 5.0)
        plot.rgb_image(ds, ax, pixels=pixels)
        save("image", figure)
        figure = Figure(figsize=(7.5, 5.6), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        plot.pixel_sed(ds, upper, pixel=bright)
        plot.pixel_residuals(ds, lower, pixel=bright)
        upper.set_xlabel("")
        save("pixel_sed", figure)
        figure, ax = _figure(7.5, 4.2)
        plot.correction_factors(ds, ax, pixels=pixels, truth=truth)
        save("correction_factors", figure)
        figure, ax = _figure(5.6, 4.0)
        plot.closure(ds, ax)
        save("closure", figure)
    return made


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()
