"""Take the filter curves that astro-sedpy lacks from piXedfit, thinned.

The curves are in piXedfit's ``filters_w.hdf5`` and ``filters_t.hdf5`` (MIT licence)::

    python tools/build_filters.py filters_w.hdf5 filters_t.hdf5

What is done to a curve
-----------------------
- it is sorted in wavelength; a negative response is 0; what lies beyond its support is cut;
- one of response per energy (AKARI's, whose pages say so and which equal 1 at 65, 90, 140 and
  160 micron) is divided by the wavelength;
- nodes are left out that a line between the nodes kept meets to 1e-4 of the peak, or nearer where
  the area or the pivot would change by more than 1e-5.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import h5py
import numpy as np

from specphoto.photometry import filters

OUT = Path(__file__).parents[1] / "specphoto" / "data" / "filter_curves.txt"
TOLERANCE, UNCHANGED = 1e-4, 1e-5
PER_ENERGY = ("akari_n60", "akari_wide_s", "akari_wide_l", "akari_n160")
HEADER = """\
# Filter curves of piXedfit (filters_w.hdf5 and filters_t.hdf5; Abdurro'uf et al. 2021, ApJS 254,
# 15; MIT licence) whose filters astro-sedpy has not: detector signal per photon, any scale. Thinned
# to 1e-4 of the peak by tools/build_filters.py, which says what else was done.
# Most are signal per photon in piXedfit: of 182 filters that astro-sedpy has too, 155 have a pivot
# nearer to that of its photon curve as they are than divided by the wavelength; of the others WISE,
# MIPS and PACS are per energy, and the curves of the rest differ otherwise. AKARI's are per energy
# by the mission's own word and were divided by the wavelength.
# Two lines per filter: name and wavelengths (Angstrom), name and response.
"""


def main(wave_file: str, response_file: str) -> None:
    """Write the curves."""
    known = {*filters._sedpy_names(), *filters._sedpy_available()}
    lines = [HEADER]
    with h5py.File(wave_file) as waves, h5py.File(response_file) as responses:
        for name in sorted(set(waves) - known):
            wave, response = clean(name, waves[name][:], responses[name][:])
            keep = thin(name, wave, response)
            lines.append(f"{name} " + " ".join(f"{w:.8g}" for w in wave[keep]) + "\n")
            lines.append(f"{name} " + " ".join(f"{r:.5g}" for r in response[keep]) + "\n")
            sys.stdout.write(f"{name}: {wave.size} nodes, {keep.size} kept\n")
    OUT.write_text("".join(lines), encoding="utf-8")


def clean(name: str, wave: np.ndarray, response: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Curve in increasing wavelength, per photon, peak 1, with no more than its support."""
    order = np.argsort(wave, kind="stable")
    wave, response = wave[order].astype(float), np.clip(response[order], 0.0, None).astype(float)
    if name in PER_ENERGY:
        response = response / wave
    response /= response.max()
    keep = filters._trim(wave, response)
    return wave[keep], response[keep]


def thin(name: str, wave: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Nodes that the curve needs."""
    whole = filters.Filter(name, wave, response)
    tolerance = TOLERANCE
    while True:
        keep = nodes(wave, response, tolerance)
        part = filters.Filter(name, wave[keep], response[keep])
        change = part.pivot / whole.pivot - 1, part.effective_width / whole.effective_width - 1
        if np.abs(change).max() < UNCHANGED:
            return keep
        tolerance /= 2


def nodes(wave: np.ndarray, response: np.ndarray, tolerance: float) -> np.ndarray:
    """Nodes that lines need to stay within a tolerance (Douglas & Peucker 1973)."""
    keep = {0, wave.size - 1}
    todo = [(0, wave.size - 1)]
    while todo:
        first, last = todo.pop()
        ends = [first, last]
        line = np.interp(wave[first : last + 1], wave[ends], response[ends])
        off = np.abs(response[first : last + 1] - line)
        if off.max() > tolerance:
            middle = first + int(np.argmax(off))
            keep.add(middle)
            todo += [(first, middle), (middle, last)]
    return np.array(sorted(keep))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("waves")
    parser.add_argument("responses")
    options = parser.parse_args()
    main(options.waves, options.responses)
