"""Model photometry on disk: the same bits, whoever looks, whatever happened to the file."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING

import numpy as np
import pytest
from cache_worker import BOXES, LIBRARY, look_up
from lazy import raise_if_computes
from spectral_cases import BANDS, Z, dataset, toy_library

from specphoto import match_spectral
from specphoto.io.library import default_library
from specphoto.io.model_cache import CachedLibrary
from specphoto.photometry.filters import load_filters
from specphoto.spectral.parameters import sample_parameters

if TYPE_CHECKING:
    from pathlib import Path

FILTERS = load_filters(list(BANDS))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPECPHOTO_CACHE", str(tmp_path))
    monkeypatch.setenv("SPECPHOTO_MODEL_CACHE", "1")
    return tmp_path


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("models-*.npz"))


class Counted:
    """A library that counts how often its photometry is computed."""

    def __init__(self, library, fingerprint="own"):
        self._library, self.fingerprint, self.count = library, fingerprint, 0
        self.identity, self.n_model = library.identity, library.n_model

    def photometry(self, redshift, filters):
        self.count += 1
        return self._library.photometry(redshift, filters)


def test_cached_library__computes_once_and_gives_the_same_bits(folder):
    library = toy_library()
    counted = Counted(library)
    wanted = library.photometry(Z, FILTERS)
    for _ in range(3):
        np.testing.assert_array_equal(CachedLibrary(counted).photometry(Z, FILTERS), wanted)
    assert counted.count == 1
    assert len(entries(folder)) == 1


def test_cached_library__one_entry_per_library_redshift_and_filters(folder):
    grid = default_library(8)
    other = type(grid)(grid.grid, sample_parameters(9).take(slice(1, 9)))
    gas = type(grid)(grid.grid, grid.parameters, nebular=True)
    cases = [
        (grid, Z, FILTERS), (grid, 0.031, FILTERS), (grid, Z, FILTERS[:3]),
        (grid, Z, FILTERS[::-1]), (other, Z, FILTERS), (gas, Z, FILTERS),
        (toy_library(), Z, FILTERS), (toy_library(seed=8), Z, FILTERS),
    ]  # fmt: skip
    for _ in range(2):
        for library, redshift, filters in cases:
            np.testing.assert_array_equal(
                CachedLibrary(library).photometry(redshift, filters),
                library.photometry(redshift, filters),
            )
    assert len(entries(folder)) == len(cases)


def test_fingerprint__same_content_same_name():
    assert default_library(8).fingerprint == default_library(8).fingerprint
    assert toy_library().fingerprint == toy_library().fingerprint


@pytest.mark.parametrize("damage", ["empty", "short", "text", "flipped", "other shape"])
def test_cached_library__damaged_entry_is_computed_again(folder, damage):
    counted = Counted(toy_library())
    wanted = CachedLibrary(counted).photometry(Z, FILTERS)
    (entry,) = entries(folder)
    content = bytearray(entry.read_bytes())
    content[len(content) // 2] ^= 1
    new = {"empty": b"", "short": content[:1000], "text": b"no", "flipped": content}
    if damage == "other shape":
        np.savez(entry, photometry=wanted[:, :2])
    else:
        entry.write_bytes(new[damage])
    np.testing.assert_array_equal(CachedLibrary(counted).photometry(Z, FILTERS), wanted)
    assert counted.count == 2
    np.testing.assert_array_equal(CachedLibrary(counted).photometry(Z, FILTERS), wanted)
    assert counted.count == 2  # and was put right on disk


def test_cached_library__many_processes_at_once(folder):
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        results = list(pool.map(look_up, range(4)))
    for found in results:
        for turn, photometry in enumerate(found):
            # the threads of BLAS may add up in another order
            wanted = LIBRARY.photometry(0.01 * (turn % 3), BOXES)
            np.testing.assert_allclose(photometry, wanted, rtol=1e-13)
    assert list(folder.glob("*.part")) == []


def test_cached_library__is_bounded(folder, monkeypatch):
    library = CachedLibrary(toy_library())
    library.photometry(0.0, FILTERS)
    (first,) = entries(folder)
    monkeypatch.setenv("SPECPHOTO_CACHE_GB", str(2.5 * first.stat().st_size / 1e9))
    os.utime(first, (1.0, 1.0))
    library.photometry(0.01, FILTERS)
    second = next(e for e in entries(folder) if e != first)
    os.utime(second, (2.0, 2.0))
    library.photometry(0.0, FILTERS)  # used again: now the second is the older one
    library.photometry(0.02, FILTERS)
    assert len(entries(folder)) == 2
    assert first.exists()
    assert not second.exists()


def test_cached_library__off_or_without_a_folder(folder, monkeypatch):
    counted = Counted(toy_library())
    monkeypatch.setenv("SPECPHOTO_MODEL_CACHE", "0")
    for _ in range(2):
        CachedLibrary(counted).photometry(Z, FILTERS)
    assert (counted.count, entries(folder)) == (2, [])
    monkeypatch.setenv("SPECPHOTO_MODEL_CACHE", "1")
    (folder / "file").write_text("")
    monkeypatch.setenv("SPECPHOTO_CACHE", str(folder / "file" / "cache"))
    CachedLibrary(counted).photometry(Z, FILTERS)
    assert counted.count == 3


def test_cached_library__unknown_libraries_are_computed(folder):
    counted = Counted(toy_library(), fingerprint=None)
    for _ in range(2):
        CachedLibrary(counted).photometry(Z, FILTERS)
    assert (counted.count, entries(folder)) == (2, [])


def test_match_spectral__the_task_looks_and_the_verb_does_not(folder):
    data = dataset()
    with raise_if_computes():
        lazy = match_spectral(data, library=toy_library())
    assert entries(folder) == []
    first = lazy["corr_coef"].compute()
    assert entries(folder)
    np.testing.assert_array_equal(lazy["corr_coef"].compute(), first)
