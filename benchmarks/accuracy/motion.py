"""What motion and line spread do to the factor: ``python benchmarks/accuracy/motion.py [--write]``.

Pixels of families that the fit does not hold, at 3% photometry, with a dispersion of 100 km/s: at
rest, and with velocities of 144 km/s rms, as a disc of 250 km/s has. The fit knows nothing of the
motion, is given it, or measures it; or it takes a line spread that is 10% off. ``--write`` puts the
table into ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import re
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

from specphoto.io.library import default_library
from specphoto.photometry.filters import load_filters
from specphoto.spectral.motion import measure_velocities
from specphoto.spectral.reference import Reference, band_floor, beyond_cube, make_reference
from specphoto.spectral.velocity import make_template

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK = "<!-- motion -->"
DISC = 144.0  # km/s rms
_NOISY = 20.0  # S/N below which the noise hides how well the reference fits
FAMILIES = ("two_burst", "quenched_calzetti")
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
    shared = {width: reference(width) for width in (1.0, 0.9, 1.1)}
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
                "at rest, line spread 10% too narrow": (still, None, 0.9),
                "at rest, line spread 10% too wide": (still, None, 1.1),
            }  # fmt: skip
            for label, (data, speed, width) in runs.items():
                known = Truth(data.pixels._replace(velocity=speed), data.factor)
                result = recover(known, shared[width])
                row = Row.of(f"{name}, S/N {snr:g}, {label}", "bayesian", [result])
                left = f"{100.0 * misfit(known, result):.2f}" if snr > _NOISY else ""
                yield f"{row.line()} {left} |"
            off = (found.velocity - velocity(disc))[np.isfinite(found.velocity)]
            scatter = 1.48 * np.median(np.abs(off))
            yield (f"| {name}, S/N {snr:g}: {off.size} of {n_pixel} velocities measured, scatter "
                   f"{scatter:.0f} km/s |" + 8 * " |")  # fmt: skip


def misfit(data: Truth, found: Recovery) -> float:
    """Rms of the reference about the true spectrum in the lines about 5200 A, without the noise."""
    window = np.abs(WAVE / (1.0 + REDSHIFT) - 5200.0) < 100.0
    spectrum = (data.pixels.flux * data.factor)[:, window]
    error = (data.pixels.err * data.factor)[:, window]
    model = found.result.model[:, window]
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
        for line in rows(options.pixels):
            print(line, flush=True)
            lines.append(line)
    if options.write:
        command = f"python benchmarks/accuracy/motion.py --pixels {options.pixels} --write"
        stamp = f"`{command}`, {datetime.date.today()}, Python {platform.python_version()}:"
        table = "\n".join([stamp, "", *lines])
        text = README.read_text()
        README.write_text(re.sub(rf"{MARK}.*?{MARK}", f"{MARK}\n\n{table}\n\n{MARK}", text,
                                 flags=re.DOTALL))  # fmt: skip


if __name__ == "__main__":
    main()
