"""What it costs to look at many galaxies: time, bytes read and memory, beside whole files.

``python benchmarks/exploration.py`` simulates a sample of 1000 small galaxies and one full-size
cube (8 minutes, 5 GB of disk), takes every figure and prints the tables; with ``--write`` they go
into ``benchmarks/README.md``. Files are in the system's memory when they are read: what is
measured is the software, not the disk.
"""

from __future__ import annotations

import argparse
import gzip
import os
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import readme
import zarr
from astropy.io import fits
from isal import igzip
from zarr.codecs import BloscCodec

import specphoto
from specphoto import cluster
from specphoto.io.fits_group import layout, write_fits_group
from specphoto.io.fitsfile import open_fits
from specphoto.simulate import simulate_galaxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import xarray as xr

KINDS = 2
WAVE_RANGE = (6500.0, 6600.0)


class Row(NamedTuple):
    """One line of a table; what is None is left empty."""

    what: str
    seconds: float | None
    read: float | None
    note: str = ""


def timed(call: Callable[[], Any], repeat: int = 5) -> float:
    """Shortest of some runs, in seconds."""
    best = np.inf
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return float(best)


def bytes_read() -> int:
    """Bytes that this process has read from files so far; what is mapped does not count."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("rchar")))


def row(what: str, call: Callable[[], Any], note: str = "", repeat: int = 5) -> Row:
    """Time and bytes of a call."""
    before = bytes_read()
    call()
    read = bytes_read() - before
    return Row(what, timed(call, repeat), read, note)


def write_sample(folder: Path, n: int, wave_range: tuple[float, float] = WAVE_RANGE) -> None:
    """Files of ``n`` galaxies: a few simulated ones, each under many names and redshifts."""
    folder.mkdir()
    with tempfile.TemporaryDirectory() as scratch:
        kinds = [one_kind(Path(scratch), seed, wave_range) for seed in range(1, min(KINDS, n) + 1)]
    for i in range(n):
        name = f"{7000 + i // 100}-{1901 + i % 100}"
        content = patched(kinds[i % len(kinds)], {
            "PLATEIFU": name, "NSA_Z": round(0.01 + 0.1 * i / n, 6),
        })  # fmt: skip
        packed = igzip.compress(content, 1)
        (folder / f"manga-{name}-LOGCUBE.fits.gz").write_bytes(packed)


def one_kind(folder: Path, seed: int, wave_range: tuple[float, float]) -> bytes:
    """Content of a small cube, not compressed, with a card for the redshift."""
    galaxy = simulate_galaxy(
        folder, seed=seed, size=19, compress=False, cube_options={"wave_range": wave_range}
    )
    with fits.open(galaxy.cube.path, mode="update") as file:
        file[0].header["NSA_Z"] = 0.03
    return galaxy.cube.path.read_bytes()


def patched(content: bytes, cards: dict[str, Any]) -> bytes:
    """A FITS file with other values of some cards, wherever they stand."""
    for keyword, value in cards.items():
        start = content.index(f"{keyword:8s}= ".encode())
        content = content.replace(
            content[start : start + 80], fits.Card(keyword, value).image.encode()
        )
    return content


def sample_rows(files: Path, store: Path) -> list[Row]:
    """Open, select, look at a pixel; from the files and from their store."""
    paths = sorted(files.iterdir())
    size = sum(path.stat().st_size for path in paths)
    name = specphoto.open_sample(store).table.index[len(paths) // 2]
    sample = specphoto.open_sample(store)

    def whole() -> None:
        for path in paths:
            with igzip.open(path, "rb") as file:
                file.read()

    def pixel(ds: xr.Dataset) -> np.ndarray:
        return ds["spec_flux"].isel(x=16, y=16).compute(scheduler="synchronous").values

    gzipped = specphoto.open_sample(files)
    with fresh_cache():
        first = row("pixel's spectrum from the .fits.gz, galaxy opened and decompressed",
                    lambda: pixel(gzipped[name]), repeat=1)  # fmt: skip
    return [
        row("reading and decompressing all files", whole, f"{size / 1e6:.0f} MB", repeat=1),
        row("open_sample(folder of .fits.gz)", lambda: specphoto.open_sample(files)),
        row("open_sample(store)", lambda: specphoto.open_sample(store)),
        row('select("z < 0.03 and not critical")',
            lambda: sample.select("z < 0.03 and not critical")),
        row("open one galaxy of the store", lambda: sample[name]),
        row("pixel's spectrum from the store, galaxy opened", lambda: pixel(sample[name])),
        first,
    ]  # fmt: skip


STATISTIC = """
import resource, sys, specphoto
sample = specphoto.open_sample(sys.argv[1])
names = list(sample)[: int(sys.argv[2])]
found = sample.select(f"index <= '{names[-1]}'").map(
    lambda ds: float(ds.spec_flux.where(~ds.spec_mask).mean()), progress=False
)
assert len(found) == len(names) and found.error.isna().all()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def statistic_rows(store: Path, counts: tuple[int, ...]) -> list[Row]:
    """A mean over every galaxy: time, and peak memory that must not grow with their number."""
    rows = []
    for n in counts:
        command = [sys.executable, "-c", STATISTIC, str(store), str(n)]
        start = time.perf_counter()
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
        took, peak = time.perf_counter() - start, float(ran.stdout)
        rows.append(Row(f"mean flux of each of {n} galaxies, one process, its start included",
                        took, None, f"peak memory {peak / 1e6:.0f} MB"))  # fmt: skip
    return rows


def cube_rows(path: Path, folder: Path) -> list[Row]:
    """One full-size cube: opened, looked at in both directions, and ingested."""
    plain, group = folder / "plain.fits", folder / "group"
    plain.write_bytes(gzip.decompress(path.read_bytes()))

    def python_gzip() -> None:
        with gzip.open(path, "rb") as file:
            while file.read(1 << 22):
                pass

    def ingest() -> None:
        with fresh_cache():
            write_fits_group(open_fits(path), group, about={}, overwrite=True)

    def fast_gzip() -> None:
        with igzip.open(path, "rb") as file:
            while file.read(1 << 22):
                pass

    size = plain.stat().st_size
    times = {"isal": timed(fast_gzip, 2), "gzip": timed(python_gzip, 1), "ingest": timed(ingest, 2)}
    stored = sum(p.stat().st_size for p in group.rglob("*") if p.is_file())
    packed = path.stat().st_size
    rows = [
        Row("decompression alone, Python's gzip", times["gzip"], packed, rate(size, times["gzip"])),
        Row("decompression alone, isal", times["isal"], packed, rate(size, times["isal"])),
        Row("ingest of the .fits.gz", times["ingest"], packed, rate(size, times["ingest"])
            + f"; {times['ingest'] / times['gzip']:.1f} times gzip alone; {stored / 1e6:.1f} MB, "
            f"the .fits.gz {packed / 1e6:.1f} MB, ratio {stored / packed:.2f}"),
    ]  # fmt: skip
    for what, source in ((".fits.gz, decompressed before", path), (".fits", plain),
                         ("store", group)):  # fmt: skip
        rows += looks(source, what)
    return rows


def looks(source: Path, what: str) -> list[Row]:
    """Open a cube, and look at its flux in each direction."""
    ds = specphoto.open_ifs(source)
    n_wave, n_y, n_x = ds["spec_flux"].shape
    return [
        row(f"open, {what}", lambda: specphoto.open_ifs(source)),
        row(f"pixel's spectrum, {what}", lambda: at(ds, x=n_x // 2, y=n_y // 2)),
        row(f"one channel, {what}", lambda: at(ds, wave=n_wave // 2)),
        row(f"whole flux, {what}", lambda: at(ds), repeat=2),
    ]


def at(ds: xr.Dataset, **place: int) -> np.ndarray:
    """Flux at a place."""
    values: np.ndarray = ds["spec_flux"].isel(**place).compute(scheduler="threads").values
    return values


def rate(size: float, seconds: float) -> str:
    """Decompressed bytes per second."""
    return f"{size / seconds / 1e6:.0f} MB/s"


LAYOUTS: dict[str, tuple[tuple[int, int, int], bool]] = {
    "planes, 64 to a chunk": ((64, 0, 0), False),
    "spectra, 4 x 4 to a chunk": ((0, 4, 4), False),
    "1024 x 32 x 32 (products)": ((1024, 32, 32), False),
    "512 x 8 x 8 in shards": ((512, 8, 8), True),
    "128 x 16 x 16 in shards": ((128, 16, 16), True),
    "256 x 16 x 16 in shards": ((256, 16, 16), True),
    "512 x 16 x 16 in shards": ((512, 16, 16), True),
}
CODECS: dict[str, BloscCodec] = {
    f"{name} {level}, {shuffle}": BloscCodec(cname=name, clevel=level, shuffle=shuffle)
    for name, level, shuffle in (
        ("zstd", 1, "shuffle"), ("zstd", 3, "shuffle"), ("zstd", 1, "bitshuffle"),
        ("zstd", 1, "noshuffle"), ("lz4", 1, "shuffle"),
    )
}  # fmt: skip


def layout_lines(path: Path, folder: Path) -> list[str]:
    """Flux, inverse variance and mask of a cube in other layouts, and ours with other codecs."""
    file = open_fits(path)
    data = {
        name: file[name].raw[...].astype(file[name].raw[:1].dtype.newbyteorder("="))
        for name in ("FLUX", "IVAR", "MASK")
    }
    first, usual = next(iter(CODECS)), "256 x 16 x 16 in shards"
    cases = [(what, first) for what in LAYOUTS] + [(usual, codec) for codec in CODECS][1:]
    return [layout_line(data, what, codec, folder) for what, codec in cases]


def layout_line(data: dict[str, np.ndarray], what: str, codec: str, folder: Path) -> str:
    """One line of that table."""
    wanted, sharded = LAYOUTS[what]
    place = folder / f"{what}, {codec}"
    arrays = {}
    start = time.perf_counter()
    for name, values in data.items():
        chunks = tuple(min(c or n, n) for c, n in zip(wanted, values.shape, strict=True))
        shards = tuple(-(-n // c) * c for n, c in zip(values.shape, chunks, strict=True))
        arrays[name] = zarr.create_array(
            place / name, shape=values.shape, dtype=values.dtype, chunks=chunks,
            shards=shards if sharded else None, compressors=(CODECS[codec],),
        )  # fmt: skip
        arrays[name][...] = values
    wrote = time.perf_counter() - start
    files = [p for p in place.rglob("*") if p.is_file()]
    size = sum(p.stat().st_size for p in files) / 1e6
    flux = arrays["FLUX"]
    _, n_y, n_x = flux.shape
    pixel = timed(lambda: flux[:, n_y // 2, n_x // 2])
    plane = timed(lambda: flux[flux.shape[0] // 2])
    whole = timed(lambda: flux[...], 2)
    return (
        f"| {what} | {codec} | {size:.1f} | {len(files)} | {wrote:.2f} | {1e3 * pixel:.1f} "
        f"| {1e3 * plane:.1f} | {whole:.2f} |"
    )


@contextmanager
def fresh_cache() -> Iterator[None]:
    """Decompress anew; the cache of before stays as it was."""
    before = os.environ.get("SPECPHOTO_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SPECPHOTO_CACHE"] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ["SPECPHOTO_CACHE"]
            else:
                os.environ["SPECPHOTO_CACHE"] = before


def lines(rows: list[Row]) -> list[str]:
    """Markdown."""
    out = ["| what | s | bytes read | |", "|---|---:|---:|---|"]
    for what, seconds, read, note in rows:
        took = "" if seconds is None else f"{seconds:.4f}" if seconds < 1 else f"{seconds:.2f}"
        out.append(f"| {what} | {took} | {'' if read is None else f'{read:.3g}'} | {note} |")
    return out


def measure_sample(n: int) -> list[str]:
    """Table of a sample of ``n`` small galaxies."""
    with tempfile.TemporaryDirectory() as folder:
        files, store = Path(folder, "files"), Path(folder, "sample.zarr")
        write_sample(files, n)
        start = time.perf_counter()
        # workers that a busy machine does not end in time have done their work
        with (
            suppress(TimeoutError),
            cluster.open("local", workers=2, threads_per_worker=1, dashboard=False) as client,
        ):
            specphoto.ingest(files, store, client=client, progress=False)
            took = time.perf_counter() - start
        packed, stored = (
            sum(p.stat().st_size for p in f.rglob("*") if p.is_file()) for f in (files, store)
        )
        note = f"{stored / 1e6:.0f} MB, the .fits.gz {packed / 1e6:.0f} MB"
        rows = sample_rows(files, store)
        rows.append(Row(f"ingest of {n} files, two workers", took, None, note))
        rows += statistic_rows(store, (n // 4, n))
        shape = " x ".join(map(str, open_fits(next(files.iterdir()))["FLUX"].shape))
    return [f"A sample of {n} galaxies of {shape}:", "", *lines(rows)]


def measure_cube(size: int = 127) -> list[str]:
    """Tables of one cube."""
    with tempfile.TemporaryDirectory() as folder:
        path = simulate_galaxy(folder, seed=1, size=size).cube.path
        shape = open_fits(path)["FLUX"].shape
        chunk, shard = layout(shape, 4)
        return [
            f"One cube of {' x '.join(map(str, shape))} (chunks {chunk} in shards {shard}):", "",
            *lines(cube_rows(path, Path(folder))), "",
            "Its flux, inverse variance and mask in other layouts:", "",
            "| chunks | codec | MB | files | write, s | pixel, ms | channel, ms | flux whole, s |",
            "|---|---|---:|---:|---:|---:|---:|---:|",
            *layout_lines(path, Path(folder)),
        ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--galaxies", type=int, default=1000)
    parser.add_argument("--part", choices=["sample", "cube"], action="append")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    for part in options.part or ["sample", "cube"]:
        made = measure_sample(options.galaxies) if part == "sample" else measure_cube()
        head = (
            f"`python benchmarks/exploration.py --part {part} --write`, "
            f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, "
            f"zarr {zarr.__version__}, specphoto {specphoto.__version__}, "
            f"load {os.getloadavg()[0]:.1f} at the end."
        )
        text = "\n".join([head, "", *made])
        print(text, flush=True)
        if options.write:
            readme.put(f"exploration: {part}", text)


if __name__ == "__main__":
    main()
