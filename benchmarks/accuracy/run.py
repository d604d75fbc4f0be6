"""How right the factor is: ``python benchmarks/accuracy/run.py [--write] [--pixels N]``.

Pixels of families that the fit does not hold (see ``families.py``), corrected by each method. The
table gives, in per cent, the rms error of the factor over wavelength (median and 84th percentile
over pixels), its mean (bias), and for methods with errors the width of the pull and the share of
channels within 1 and 2 sigma. ``--write`` puts it into ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from cases import Case, Recovery, coherent, exact, oracle, recover, reference, truth
from families import TEST
from real import spectra
from real import truth as of_spectrum
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from specphoto.spectral.reference import Method, Reference

README = Path(__file__).resolve().parents[1] / "README.md"
MARK = "<!-- accuracy -->"
# told that the zero points are exact, as they are where none is drawn
BAYESIAN_EXACT, COHERENT_EXACT = (f"{m}, exact zero points" for m in ("bayesian", "coherent"))
BEAM = 41.3  # noise-equivalent area of a Gaussian of 6.4 arcsec in pixels of 1.5 arcsec


class Row(NamedTuple):
    """One line of the table; errors in per cent."""

    case: str
    method: str
    median: float
    high: float
    bias: float
    pull: float
    within_1: float
    within_2: float

    @classmethod
    def of(cls, case: str, method: str, found: list[Recovery]) -> Row:
        """Statistics of one or more recoveries, pooled."""
        wrong = np.concatenate([f.wrong for f in found])
        error = np.concatenate([f.error for f in found])
        known = np.isfinite(wrong[:, 0])
        rms = 100.0 * np.sqrt(np.mean(wrong[known] ** 2, axis=1))
        pull = wrong[known] / error[known]
        return cls(case, method, float(np.median(rms)), float(np.percentile(rms, 84)),
                   100.0 * float(wrong[known].mean()), float(pull.std()),
                   100.0 * float(np.mean(np.abs(pull) < 1)),
                   100.0 * float(np.mean(np.abs(pull) < 2)))  # fmt: skip

    def line(self) -> str:
        """Markdown."""
        numbers = f"| {self.median:.2f} | {self.high:.2f} | {self.bias:+.2f} |"
        if self.method in ("ratio", "best"):
            return f"| {self.case} | {self.method} {numbers} | | |"
        pulls = f" {self.pull:.2f} | {self.within_1:.0f} | {self.within_2:.0f} |"
        return f"| {self.case} | {self.method} {numbers}{pulls}"


def pooled(n: int) -> Iterator[Row]:
    """All test families at 3% photometry and S/N 5: the headline."""
    cases = [Case(name, 0.03, 5.0, n_pixel=n) for name in TEST]
    names = "ratio", "best", "bayesian", BAYESIAN_EXACT, "oracle"
    yield from methods("all three, 3%, S/N 5", cases, names)
    fields = [Case(name, 0.03, 5.0, "field", n_pixel=n, beam=BEAM, seed=s)
              for name in TEST for s in range(1, 7)]  # fmt: skip
    names = "best", "bayesian", "coherent", BAYESIAN_EXACT, COHERENT_EXACT
    yield from methods("the same as galaxies", fields, names)
    mixed = [replace(field, mixed=True) for field in fields]
    yield from methods("and populations mixed over the beam", mixed, names[:3])
    shared = [Case(name, 0.03, 5.0, "field", n_pixel=n, beam=BEAM, seed=s, zero_point=True)
              for name in TEST for s in range(1, 7)]  # fmt: skip
    yield from methods("and shared zero points", shared, ("best", "bayesian", "coherent"))


def single(n: int) -> Iterator[Row]:
    """Each family by itself, over photometric errors and S/N."""
    for name in (*TEST, "library"):
        for error, snr in ((0.03, 2.0), (0.03, 5.0), (0.03, 50.0), (0.1, 5.0), (0.1, 50.0)):
            case = Case(name, error, snr, n_pixel=n)
            yield from methods(f"{name}, {error:.0%}, S/N {snr:g}", [case], ("best", "bayesian"))


def low(n: int) -> Iterator[Row]:
    """A true factor of 1 for the library's own populations, down to S/N 1.5."""
    for snr in (1.5, 3.0, 10.0):
        case = Case("library", 0.03, snr, "one", n_pixel=n)
        label = f"library, factor 1, S/N {snr:g}"
        yield from methods(label, [case], ("ratio", "best", "bayesian"))


def methods(label: str, cases: list[Case], names: tuple[str, ...]) -> Iterator[Row]:
    """Rows of some methods on the same data."""
    found: dict[str, list[Recovery]] = {name: [] for name in names}
    for case in cases:
        data = truth(case)
        for name in names:
            if name in ("coherent", COHERENT_EXACT):
                own = found[name.replace("coherent", "bayesian")][-1]
                found[name].append(coherent(data, own, case.beam))
            elif name == BAYESIAN_EXACT:
                found[name].append(recover(data, exact(reference("bayesian"))))
            elif name == "oracle":
                found[name].append(recover(data, oracle(case.family)))
            else:
                found[name].append(recover(data, reference(name)))
    yield from shown(label, found)


def real(n: int) -> Iterator[Row]:
    """Real MaNGA spectra, where they are at hand; each as if it were many pixels."""
    folder = os.environ.get("SPECPHOTO_DATA")
    if not folder:
        print("SPECPHOTO_DATA is not set: no real spectra")
        return
    names: tuple[Method, ...] = ("ratio", "best", "bayesian")
    found: dict[float, dict[str, list[Recovery]]] = {
        error: {name: [] for name in (*names, BAYESIAN_EXACT)} for error in (0.03, 0.1)
    }
    for k, spectrum in enumerate(spectra(Path(folder))):
        shared: dict[str, Reference] = {**spectrum.references(names)}
        shared[BAYESIAN_EXACT] = exact(shared["bayesian"])
        for error, by_method in found.items():
            data = of_spectrum(spectrum, max(n // 20, 10), error, seed=k)
            for name, one in shared.items():
                by_method[name].append(recover(data, one))
    for error, by_method in found.items():
        yield from shown(f"real MaNGA spectra, {error:.0%}", by_method)


def shown(label: str, found: dict[str, list[Recovery]]) -> Iterator[Row]:
    """Rows of methods, printed as they come."""
    for name, recoveries in found.items():
        row = Row.of(label, name, recoveries)
        print(row.line(), flush=True)
        yield row


def main() -> None:
    """Print the table, and write it if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pixels", type=int, default=400, help="pixels of a case")
    parser.add_argument("--write", action="store_true", help="put the table into the README")
    options = parser.parse_args()
    # library's grid and dust_extinction's units say what does not matter here
    warnings.simplefilter("ignore")
    start = time.perf_counter()
    head = ("| case | method | median | 84% | bias | pull | 1 sigma | 2 sigma |\n"
            "|---|---|---:|---:|---:|---:|---:|---:|")  # fmt: skip
    print(head)
    with threadpool_limits(1):
        rows = [
            *pooled(options.pixels),
            *single(options.pixels),
            *low(options.pixels),
            *real(options.pixels),
        ]
    print(f"{time.perf_counter() - start:.0f} s")
    if options.write:
        command = f"python benchmarks/accuracy/run.py --pixels {options.pixels} --write"
        stamp = f"`{command}`, {datetime.date.today()}, Python {platform.python_version()}:"
        table = "\n".join([stamp, "", head, *(r.line() for r in rows)])
        text = README.read_text()
        README.write_text(re.sub(rf"{MARK}.*?{MARK}", f"{MARK}\n\n{table}\n\n{MARK}", text,
                                 flags=re.DOTALL))  # fmt: skip


if __name__ == "__main__":
    main()
