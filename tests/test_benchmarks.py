"""The benchmarks run, on something small."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "run.py"


def test_measure__every_figure_beside_its_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("benchmark_run", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    monkeypatch.setattr(run, "sgemm_rate", lambda: 1e11)
    figures = run.measure(tmp_path, size=19, n_pixel=40, command_line=False)
    assert {f.what.split(" (")[0] for f in figures} == {
        "sgemm", "reading", "spatial stage",
        "spatial stage with registration and output correlation",
        "library's photometry and shapes", "SED fit",
        "library, SED fit and correction", "writing FITS", "writing Zarr",
    }  # fmt: skip
    assert all(f.seconds > 0 and f.baseline_seconds > 0 for f in figures)
    assert run.table(figures).count("\n| ") == len(figures) + 1
