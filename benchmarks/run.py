"""Time and memory at full size, each beside a plain baseline that is taken in the same run.

``python benchmarks/run.py`` simulates the files, takes every figure and prints a table; with
``--write`` the table goes into ``benchmarks/README.md``. Ratios travel between machines better
than seconds do.
"""

from __future__ import annotations

import argparse
import gzip
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import dask
import numpy as np
import psutil
import readme
import xarray as xr

import specphoto
from specphoto.cube import add_provenance, annotate, celestial_wcs, pixel_scale
from specphoto.io.library import default_library
from specphoto.photometry.filters import load_filters
from specphoto.pipeline import match
from specphoto.simulate import DEFAULT_BANDS, simulate_galaxy
from specphoto.spatial.kernel import matching_kernel
from specphoto.spatial.psf import PSF
from specphoto.spectral.reference import summarise
from specphoto.spectral.sedfit import ModelTable, fit_sed, photometric_sigma
from specphoto.spectral.template_error import DEFAULT_TEMPLATE_ERROR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from specphoto.simulate import SimulatedGalaxy

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
REDSHIFT = 0.03


class Figure(NamedTuple):
    """One line of the table."""

    what: str
    seconds: float
    baseline: str
    baseline_seconds: float
    note: str = ""

    def row(self) -> str:
        """Markdown."""
        ratio = self.seconds / self.baseline_seconds
        return (
            f"| {self.what} | {self.seconds:.2f} | {self.baseline} | {self.baseline_seconds:.2f} "
            f"| {ratio:.3g} | {self.note} |"
        )


def timed(call: Callable[[], Any], repeat: int = 1) -> float:
    """Shortest of some runs, in seconds."""
    best = np.inf
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return float(best)


def sgemm_rate(n: int = 4096) -> float:
    """Peak of the machine: float32 operations per second of a square matrix product."""
    a = np.random.default_rng(0).random((n, n), dtype=np.float32)
    return 2.0 * n**3 / timed(lambda: a @ a, repeat=3)


def reading(galaxy: SimulatedGalaxy) -> Figure:
    """Open the gzipped cube and read flux, variance and mask, against Python's gzip."""

    def plain() -> None:
        with gzip.open(galaxy.cube.path, "rb") as file:
            while file.read(1 << 22):
                pass

    def ours() -> None:
        ds = specphoto.open_ifs(galaxy.cube.path)
        dask.compute(ds["spec_flux"].max(), ds["spec_var"].max(), ds["spec_mask"].any())

    with fresh_cache():
        return Figure("reading (gzip to flux, variance, mask)", timed(ours), "gzip", timed(plain))


@contextmanager
def fresh_cache() -> Iterator[None]:
    """Decompress anew; the cache of before stays as it was."""
    before = os.environ.get("SPECPHOTO_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SPECPHOTO_CACHE"] = folder
        try:
            yield
        finally:
            os.environ.pop("SPECPHOTO_CACHE")
            if before is not None:
                os.environ["SPECPHOTO_CACHE"] = before


def spatial(galaxy: SimulatedGalaxy, rate: float) -> list[Figure]:
    """Spatial stage of the whole cube, against three dense products and reprojection."""
    ifs = specphoto.open_ifs(galaxy.cube.path).chunk({"wave": 288})
    ifs = ifs.drop_vars("spec_lsf", errors="ignore").compute().chunk({"wave": 288})
    images = specphoto.open_photometry(galaxy.photometry.path).compute()
    out = specphoto.match_spatial(ifs, images)
    seconds = timed(lambda: dask.compute(*_spectra(out)))
    bare = specphoto.match_spatial(
        ifs, images, source_psf=2.54, correlation={"model": "none"}, compensate=False
    )
    plain = timed(lambda: dask.compute(*_spectra(bare)))
    told = specphoto.match_spatial(ifs, images, register=True)
    names = ("spec_corr", "register_shift", "spec_region")
    whole = timed(lambda: dask.compute(*_spectra(told), *(told[name].data for name in names)))
    n_wave, n_in = ifs.sizes["wave"], ifs.sizes["y"] * ifs.sizes["x"]
    n_out = int((out["coverage"] > 0).sum())
    dense = 3 * 2.0 * n_wave * n_in * n_out / rate
    per_channel = reprojection(ifs, images)
    return [
        Figure("spatial stage", seconds, "3 dense products at sgemm's peak", dense),
        Figure(
            "spatial stage", seconds, "convolve_fft + reproject_exact, flux and variance",
            per_channel * n_wave * 2, "baseline: 4 channels, scaled; one core",
        ),
        Figure(
            "spatial stage with registration and output correlation", whole,
            "the plain operator: one PSF, independent noise, no images", plain,
        ),
    ]  # fmt: skip


def _spectra(ds: xr.Dataset) -> tuple[Any, ...]:
    return ds["spec_flux"].data, ds["spec_err"].data, ds["spec_mask"].data


def reprojection(ifs: xr.Dataset, images: xr.Dataset, n: int = 4) -> float:
    """Seconds of one channel through astropy's convolution and reproject_exact."""
    from astropy.convolution import convolve_fft
    from reproject import reproject_exact

    wcs_in, wcs_out = celestial_wcs(ifs), celestial_wcs(images)
    shape = (images.sizes["y"], images.sizes["x"])
    middle = float(np.median(ifs["wave"]))
    kernel = matching_kernel(
        PSF.from_attrs(ifs.attrs["psf"], middle), PSF.from_attrs(images.attrs["psf"], middle),
        pixel_scale(wcs_in),
    )  # fmt: skip
    plane = np.nan_to_num(ifs["spec_flux"].isel(wave=2000 % ifs.sizes["wave"]).values)

    def one() -> None:
        smooth = convolve_fft(plane, kernel, boundary="fill", normalize_kernel=False)
        reproject_exact((smooth, wcs_in), wcs_out, shape_out=shape)

    return timed(lambda: [one() for _ in range(n)]) / n


def spectral(n_pixel: int) -> list[Figure]:
    """SED fit and correction of pixels whose populations are the library's."""
    library = default_library()
    cube = population_pixels(n_pixel)
    filters = load_filters(list(DEFAULT_BANDS))
    wave = cube["wave"].values
    start = time.perf_counter()
    photometry, shape = summarise(library, REDSHIFT, wave, filters, 3)
    prepared = time.perf_counter() - start
    photometry = np.nan_to_num(photometry)
    flux = cube["photo_flux"].values.reshape(len(filters), -1).T
    sigma = photometric_sigma(
        flux, 0.02 * np.abs(flux), np.where([f.pivot > 26_000 for f in filters], np.inf, 0.05)
    )
    error = DEFAULT_TEMPLATE_ERROR.project(REDSHIFT, filters, (wave[0], wave[-1]), 4)
    table = ModelTable(photometry, shape)
    fit = timed(lambda: fit_sed(flux, sigma, table, error, np.abs(flux)))
    pairs = timed(lambda: products(flux, sigma, photometry))
    corrected = specphoto.match_spectral(cube)
    names = ["corr_coef", "corr_cov", "chi2", "closure_after", "mod_flux"]
    whole = timed(lambda: dask.compute(*(corrected[name].data for name in names)))
    models = f"{library.n_model} models, {n_pixel} pixels"
    two = "the two products of all pairs alone"
    return [
        Figure("library's photometry and shapes", prepared, two, pairs, models),
        Figure("SED fit", fit, two, pairs, models + ", one process"),
        Figure("library, SED fit and correction", whole, two, pairs, models),
    ]


def products(
    flux: np.ndarray, sigma: np.ndarray, models: np.ndarray, n_at_once: int = 128
) -> float:
    """Compute ``d w M^T`` and ``w (M^2)^T`` for all pixels and models."""
    weight = 1.0 / sigma**2
    data = weight * np.nan_to_num(flux)
    first, second = np.ascontiguousarray(models.T), np.ascontiguousarray(models.T**2)
    total = 0.0
    for start in range(0, flux.shape[0], n_at_once):
        rows = slice(start, start + n_at_once)
        total += float((data[rows] @ first)[0, 0] + (weight[rows] @ second)[0, 0])
    return total


def population_pixels(n_pixel: int) -> xr.Dataset:
    """A matched cube in memory, ``n_pixel`` library populations at S/N 10, lazy by blocks."""
    rng = np.random.default_rng(1)
    library = default_library()
    wave = 10.0 ** (np.log10(3621.59598486) + 1e-4 * np.arange(4563))
    index = rng.choice(library.n_model, n_pixel, replace=False)
    filters = load_filters(list(DEFAULT_BANDS))
    true = library.observed(REDSHIFT, wave, np.full(wave.size, 1.8)).spectra(index)
    level = np.nanmedian(true, axis=1, keepdims=True)
    images = np.nan_to_num(library.photometry(REDSHIFT, filters)[index] / level)
    flux = true / level * (1.0 + 0.1 * rng.standard_normal(true.shape))
    shape = (n_pixel // 40, 40)
    cube, sky = ("wave", "y", "x"), ("band", "y", "x")
    ds = xr.Dataset(
        {
            "spec_flux": (cube, flux.T.astype(np.float32).reshape(-1, *shape)),
            "spec_err": (cube, np.full((wave.size, *shape), 0.1, np.float32)),
            "spec_mask": (cube, np.zeros((wave.size, *shape), bool)),
            "spec_lsf": ("wave", np.full(wave.size, 1.8, np.float32)),
            "photo_flux": (sky, images.T.reshape(-1, *shape)),
            "photo_err": (sky, np.abs(0.02 * images.T).reshape(-1, *shape)),
        },
        coords={"wave": wave, "band": np.array(DEFAULT_BANDS, dtype=object),
                "y": np.arange(shape[0]), "x": np.arange(40)},
    )  # fmt: skip
    ds = annotate(ds, kind="specphoto", name="benchmark", redshift=REDSHIFT, corrected=False)
    return add_provenance(ds, "benchmark").chunk({"y": 20, "x": 20})


def writing(galaxy: SimulatedGalaxy, folder: Path) -> list[Figure]:
    """Write a product that is in memory as FITS and as Zarr, against a plain copy to disk."""
    made = match(
        specphoto.open_ifs(galaxy.cube.path), specphoto.open_photometry(galaxy.photometry.path)
    )
    made = made.persist()
    figures = []
    size_raw = sum(array.nbytes for array in made.data_vars.values())
    plain = timed(lambda: copy_plain(folder / "plain", size_raw))
    for name, call in (("FITS", specphoto.write_fits), ("Zarr", specphoto.write_zarr)):
        path = folder / f"written.{name.lower()}"
        seconds = timed(lambda call=call, path=path: call(made, path))
        size = sum(p.stat().st_size for p in [path, *path.rglob("*")] if p.is_file())
        figures.append(
            Figure(f"writing {name}", seconds, f"{size_raw / 1e6:.0f} MB, one plain file", plain,
                   f"{size / 1e6:.0f} MB on disk")
        )  # fmt: skip
    return figures


def copy_plain(path: Path, size: int) -> None:
    """Write `size` bytes to a plain file."""
    raw = np.random.default_rng(0).bytes(1 << 24)
    with path.open("wb") as file:
        for start in range(0, size, len(raw)):
            file.write(raw[: size - start])
    path.unlink()


def whole_run(galaxy: SimulatedGalaxy, folder: Path, plain: float) -> Figure:
    """The command line from gzip to FITS and Zarr; run twice, for time and for memory.

    Adding up the memory of processes stops them for a while, so the timed run is left alone.
    """
    command = [sys.executable, "-m", "specphoto", "match", str(galaxy.cube.path),
               str(galaxy.photometry.path), "-o", str(folder / "products"),
               "--overwrite"]  # fmt: skip
    before = processor_time()
    with fresh_cache():
        seconds = timed(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
    busy = processor_time() - before
    with fresh_cache(), subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        peak = Peak(process.pid)
        process.wait()
        memory = peak.stop()
    note = (
        f"{busy:.0f} s of processor time; peak memory {memory / 1e9:.2f} GB "
        "(proportional set size, all processes)"
    )
    return Figure(
        "whole run: gzip to FITS and Zarr", seconds, "gzip, and one plain file", plain, note
    )


def processor_time() -> float:
    """Seconds that processes started from here, and by those, have used; nannies included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Peak:
    """Peak of the proportional set size summed over a process and all its children."""

    def __init__(self, pid: int) -> None:
        self._root, self._peak, self._end = psutil.Process(pid), 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._end.wait(0.5):
            self._peak = max(self._peak, self._now())

    def _now(self) -> int:
        total = 0
        try:
            family = [self._root, *self._root.children(recursive=True)]
        except psutil.Error:
            return 0
        for process in family:
            try:
                memory = process.memory_full_info()
            except psutil.Error:  # it has just ended
                continue
            total += getattr(memory, "pss", memory.rss)
        return total

    def stop(self) -> float:
        """End the watch; bytes."""
        self._end.set()
        self._thread.join()
        return float(self._peak)


def measure(folder: Path, *, size: int, n_pixel: int, command_line: bool = True) -> list[Figure]:
    """Take all figures.

    Parameters
    ----------
    folder
        Scratch.
    size
        Fibres of the simulated bundle.
    n_pixel
        Of the spectral stage, a multiple of 40.
    command_line
        Whether to take the whole run too.
    """
    galaxy = simulate_galaxy(folder, size=size, redshift=REDSHIFT)
    rate = sgemm_rate()
    figures = [Figure("sgemm", 1e9 / rate * 1e3, "itself", 1e9 / rate * 1e3,
                      f"peak {rate / 1e9:.0f} GFLOP/s; seconds per TFLOP")]  # fmt: skip
    read = reading(galaxy)
    figures.append(read)
    with dask.config.set(scheduler="threads", num_workers=CORES):
        figures += spatial(galaxy, rate)
        figures += spectral(n_pixel)
        written = writing(galaxy, folder)
    figures += written
    if command_line:
        plain = read.baseline_seconds + written[0].baseline_seconds
        figures.append(whole_run(galaxy, folder, plain))
    return figures


def table(figures: list[Figure]) -> str:
    """Markdown, with where and when."""
    head = [
        "| what | s | baseline | s | ratio | |",
        "|---|---:|---|---:|---:|---|",
    ]
    load = os.getloadavg()[0]
    where = (
        f"`python benchmarks/run.py --write`, {time.strftime('%Y-%m-%d')}, {CORES} cores, "
        f"Python {platform.python_version()}, numpy {np.__version__}, dask {dask.__version__}, "
        f"specphoto {specphoto.__version__}, load {load:.1f} at the end:"
    )
    return "\n".join([where, "", *head, *(f.row() for f in figures)])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into the README")
    parser.add_argument("--folder", type=Path, help="scratch; by default a temporary folder")
    parser.add_argument("--size", type=int, default=127, help="fibres of the bundle")
    parser.add_argument("--pixels", type=int, default=2000, help="of the spectral stage")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="specphoto-bench-"))
    try:
        text = table(measure(folder, size=options.size, n_pixel=options.pixels))
    finally:
        if options.folder is None:
            shutil.rmtree(folder)
    print(text)
    if options.write:
        readme.put("figures", text)


if __name__ == "__main__":
    main()
