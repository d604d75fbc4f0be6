"""What motion and line spread do to the factor: ``python benchmarks/accuracy/motion.py [--write]``.

Pixels of families that the fit does not hold, at 3% photometry, with a dispersion of 100 km/s: at
rest, and with velocities of 144 km/s rms, as a disc of 250 km/s has. The fit knows nothing of the
motion, is given it, or measures it; or it takes a line spread that is 10 or 30% off, as some pixels
of a cube are from the mean of all. Then the pixels of a galaxy of 127 fibres that turns at
250 km/s, from survey files through the spatial match. ``--write`` puts the table into
``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import platform
import re
import tempfile
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from cases import (
    BANDS,
    LSF,
    REDSHIFT,
    WAVE,
    Case,
    Recovery,
    Truth,
    recover,
    summary,
    truth,
    velocity,
)
from run import README, Row
from threadpoolctl import threadpool_limits

from specphoto import match_spatial, match_spectral, open_ifs, open_photometry
from specphoto.io.library import default_library
from specphoto.photometry.filters import load_filters
from specphoto.simulate import simulate_galaxy
from specphoto.spectral import legendre
from specphoto.spectral.motion import measure_velocities
from specphoto.spectral.reference import Reference, band_floor, beyond_cube, make_reference
from specphoto.spectral.velocity import make_template

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xarray as xr
    from numpy.typing import NDArray

MARK = "<!-- motion -->"
DISC, SPEED = 144.0, 250.0  # km/s: rms of the pixels, rotation
_NOISY = 20.0  # S/N below which the noise hides how well the reference fits
FAMILIES = ("two_burst", "quenched_calzetti")
WIDTHS = {0.7: "30% too narrow", 0.9: "10% too narrow", 1.1: "10% too wide", 1.3: "30% too wide"}
N_MODEL = 50_000


def reference(width: float) -> Reference:
    """The default library at the cases' redshift, for a line spread that is so much too wide."""
    models, filters = default_library(N_MODEL), load_filters(list(BANDS))
    floor = band_floor(filters, models.wave_range, REDSHIFT, 0.02, band_error={}, exclude=None,
                       name="benchmark")  # fmt: skip
    photometry, shape = summary(N_MODEL)
    beyond = beyond_cube(models, REDSHIFT, WAVE, filters, photometry)
    return make_reference(models, (photometry, shape, beyond), REDSHIFT, WAVE, width * LSF,
                          filters, floor, line_window=500.0)  # fmt: skip


def rows(n_pixel: int) -> Iterator[str]:
    """Lines of the table."""
    shared = {width: reference(width) for width in (1.0, *WIDTHS)}
    template, clean = make_template(default_library(), REDSHIFT, WAVE, 500.0)
    for name in FAMILIES:
        for snr in (5.0, 50.0):
            rest = Case(name, 0.03, snr, n_pixel=n_pixel, speed=0.0)
            disc = replace(rest, speed=DISC)
            still, moving = truth(rest), truth(disc)
            p = moving.pixels
            good = np.broadcast_to(clean, p.flux.shape)
            found = measure_velocities(p.flux, p.err**2, good, template, WAVE)
            runs = {
                "at rest": (still, None, 1.0), "moving, not known": (moving, None, 1.0),
                "moving, given": (moving, velocity(disc), 1.0),
                "moving, measured": (moving, found.velocity, 1.0),
                **{f"at rest, line spread {how}": (still, None, w) for w, how in WIDTHS.items()},
            }  # fmt: skip
            wrong = {}
            for label, (data, speed, width) in runs.items():
                known = Truth(data.pixels._replace(velocity=speed), data.factor)
                result = recover(known, shared[width])
                wrong[label] = result.wrong
                row = Row.of(f"{name}, S/N {snr:g}, {label}", "bayesian", [result])
                spectrum, err = (a * known.factor for a in (known.pixels.flux, known.pixels.err))
                left = misfit(spectrum, err, result.result.model) if snr >= _NOISY else None
                yield line(row, left)
            yield velocities(f"{name}, S/N {snr:g}", found.velocity, found.error, velocity(disc))
            for how in ("30% too narrow", "30% too wide"):
                change = 100.0 * (wrong[f"at rest, line spread {how}"] - wrong["at rest"])
                yield (f"| {name}, S/N {snr:g}: line spread {how} changes the factor by "
                       f"{np.sqrt(np.mean(change**2)):.2f} rms, {change.mean():+.3f} in the mean |"
                       + 8 * " |")  # fmt: skip


def galaxy_rows() -> Iterator[str]:
    """Lines of the table: one galaxy, at rest and turning."""
    for snr in (5.0, 20.0):
        case = f"galaxy, S/N {snr:g}"
        for speed in (0.0, SPEED):
            cube, true, factor = galaxy(speed, snr)
            ways = {"turning, not known": None, "turning, given": true,
                    "turning, measured": "measured"} if speed else {"at rest": None}  # fmt: skip
            for label, way in ways.items():
                done = match_spectral(cube.chunk(), velocity=way).compute()
                good = done.spec_region.values & np.isfinite(done.corr_coef.values[0])
                spectra = (done[v].values[:, good].T for v in ("spec_flux", "spec_err", "mod_flux"))
                left = misfit(*spectra) if snr >= _NOISY else None
                for method, own in (("bayesian", "_pixel"), ("coherent", "")):
                    found = recovered(done, own, good, factor[:, good].T)
                    yield line(Row.of(f"{case}, {label}", method, [found]), left)
                if "spec_velocity_err" in done:
                    v, e = (done[v].values[good] for v in ("spec_velocity", "spec_velocity_err"))
                    yield velocities(case, v, e, true[good])


def galaxy(speed: float, snr: float) -> tuple[xr.Dataset, NDArray[np.float64], NDArray[np.float64]]:
    """A galaxy behind the spatial match, its velocities and the factor on the same pixels."""
    with tempfile.TemporaryDirectory() as folder:
        made = simulate_galaxy(
            folder, size=127, seed=3, speed=speed, inclination=75.0, family=FAMILIES[0],
            compress=False, cube_options={"snr": snr}, photometry_options={"error": 0.03},
        )  # fmt: skip
        photometry = open_photometry(made.photometry.path)
        cube = match_spatial(open_ifs(made.cube.path), photometry).compute()
    at = np.ix_(cube.y.values, cube.x.values)
    return cube, made.velocity()[at], made.factor()[(slice(None), *at)]


def recovered(
    done: xr.Dataset, own: str, good: NDArray[np.bool_], factor: NDArray[np.float64]
) -> Recovery:
    """Factor of a matched cube's pixels against the injected one, ``(n_pixel, n_wave)``."""
    x = legendre.normalized(WAVE, WAVE[0], WAVE[-1])
    P = legendre.evaluate(done[f"corr_coef{own}"].values, x)[:, good].T
    error = legendre.evaluate_err(done[f"corr_cov{own}"].values, x)[:, good].T
    return Recovery(P / factor - 1.0, error / factor, None)


def line(row: Row, left: float | None) -> str:
    """A line of the table, with the misfit of the reference in per cent where it is known."""
    return f"{row.line()} {'' if left is None else f'{100.0 * left:.2f}'} |"


def velocities(
    case: str, found: NDArray[np.float64], error: NDArray[np.float64], true: NDArray[np.float64]
) -> str:
    """What became of the velocities, as a line of the table."""
    known = np.isfinite(found)
    off = (found - true)[known]
    spread = 1.48 * np.median(np.abs(off - np.median(off)))
    pull = 1.48 * np.median(np.abs(off / error[known]))
    words = f"{off.size} of {found.size} velocities measured, off by {np.median(off):+.0f}"
    return f"| {case}: {words}, scatter {spread:.0f} km/s, pull {pull:.1f} |" + 8 * " |"


def misfit(
    flux: NDArray[np.float64], err: NDArray[np.float64], reference: NDArray[np.float64]
) -> float:
    """Rms of references about spectra in the lines about 5200 A, noise taken off."""
    window = np.abs(WAVE / (1.0 + REDSHIFT) - 5200.0) < 100.0
    spectrum, error, model = (a[:, window] for a in (flux, err, reference))
    scale = (model * spectrum).sum(axis=1) / (model**2).sum(axis=1)
    left = (spectrum - scale[:, None] * model) / np.median(spectrum, axis=1)[:, None]
    noise = error / np.median(spectrum, axis=1)[:, None]
    return float(np.sqrt(np.nanmean(left**2 - noise**2)))


def main() -> None:
    """Print the table, and write it if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pixels", type=int, default=400, help="pixels of a case")
    parser.add_argument("--write", action="store_true", help="put the table into the README")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    lines = [
        "| case | method | median | 84% | bias | pull | 1 sigma | 2 sigma | model |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    print("\n".join(lines))
    with threadpool_limits(1):
        for text in itertools.chain(rows(options.pixels), galaxy_rows()):
            print(text, flush=True)
            lines.append(text)
    if options.write:
        command = f"python benchmarks/accuracy/motion.py --pixels {options.pixels} --write"
        stamp = f"`{command}`, {datetime.date.today()}, Python {platform.python_version()}:"
        table = "\n".join([stamp, "", *lines])
        text = README.read_text()
        README.write_text(re.sub(rf"{MARK}.*?{MARK}", f"{MARK}\n\n{table}\n\n{MARK}", text,
                                 flags=re.DOTALL))  # fmt: skip


if __name__ == "__main__":
    main()
