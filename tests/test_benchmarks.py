"""The benchmarks run, on something small."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import specphoto

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPT = FOLDER / "run.py"


def test_measure__every_figure_beside_its_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))  # for what benchmarks share
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


def test_readme__a_section_is_replaced_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import readme  # type: ignore[import-not-found]

    page = tmp_path / "page.md"
    page.write_text("a\n<!-- b -->\nold\n<!-- end of b -->\nc\n")
    readme.put("b", "new", page)
    assert page.read_text() == "a\n<!-- b -->\n\nnew\n\n<!-- end of b -->\nc\n"
    with pytest.raises(ValueError, match="expected the marks <!-- d --> and <!-- end of d -->"):
        readme.put("d", "lost", page)


def test_exploration__one_pixel_is_less_than_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import exploration  # type: ignore[import-not-found]

    files, store = tmp_path / "files", tmp_path / "sample.zarr"
    exploration.write_sample(files, 3)
    specphoto.ingest(files, store)
    rows = {row.what: row for row in exploration.sample_rows(files, store)}
    size = sum(path.stat().st_size for path in files.iterdir()) / 3
    assert rows["reading and decompressing all files"].read == pytest.approx(3 * size, rel=0.01)
    assert rows["pixel's spectrum from the store, galaxy opened"].read < size / 2
    assert rows["open_sample(store)"].read < 100_000
    cube = exploration.cube_rows(next(files.iterdir()), tmp_path)
    assert all(row.seconds > 0 for row in cube)
    assert exploration.lines(cube)[-1].startswith("| whole flux, store |")
    lines = exploration.layout_lines(next(files.iterdir()), tmp_path)
    assert len(lines) == len(exploration.LAYOUTS) + len(exploration.CODECS) - 1
    assert all(line.count("|") == 9 for line in lines)


def test_sample__the_engine_with_galaxies_that_only_sleep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import sample  # type: ignore[import-not-found]

    took, memory = sample.load(12, 0.1, 1, 4)
    assert took > 0.3  # three rounds of four
    assert memory > 0.1
    assert 100 < sample.message_size() < 4000


def test_accuracy__ours_is_much_nearer_than_the_best_model_and_knows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # one family that the fit does not hold, at 3% photometry and S/N 5 per channel
    monkeypatch.syspath_prepend(str(FOLDER / "accuracy"))
    import cases  # type: ignore[import-not-found]

    case = cases.Case("two_burst", 0.03, 5.0, "field", n_pixel=144, beam=10.0)
    data = cases.truth(case)
    ours, best, ratio = (
        cases.recover(data, cases.reference(m)) for m in ("bayesian", "best", "ratio")
    )
    together = cases.coherent(data, ours, case.beam)
    rms = {
        name: np.sqrt(np.mean(found.wrong**2, axis=1))
        for name, found in
        {"ours": ours, "best": best, "ratio": ratio, "together": together}.items()
    }  # fmt: skip
    assert np.median(rms["ours"]) < 0.65 * np.median(rms["best"])
    assert np.percentile(rms["ours"], 84) < 0.6 * np.percentile(rms["best"], 84)
    assert np.median(rms["together"]) < 0.35 * np.median(rms["best"])
    assert np.median(rms["best"]) < np.median(rms["ratio"])
    pull = (ours.wrong / ours.error)[:, ::50]
    assert 0.8 < pull.std() < 1.2
    assert 0.6 < np.mean(np.abs(pull) < 1.0) < 0.8


def test_motion__lines_of_a_few_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER / "accuracy"))
    import motion  # type: ignore[import-not-found]

    monkeypatch.setattr(motion, "N_MODEL", 1000)
    monkeypatch.setattr(motion, "FAMILIES", ("two_burst",))
    monkeypatch.setattr(motion, "WIDTHS", {0.7: "30% too narrow", 1.3: "30% too wide"})
    lines = list(motion.rows(9))
    assert all(line.count("|") == 10 for line in lines)
    # at each S/N six fits, one line on velocities and two on the line spread
    assert len(lines) == 2 * (6 + 1 + 2)
    assert sum("velocities measured" in line for line in lines) == 2
