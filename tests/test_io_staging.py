"""Products that are whole or not there, whatever else happens in their folder."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from specphoto.errors import InputError
from specphoto.io.staging import staged, sweep

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_TAKEN = r"g\.\w+: expected what is written to stay until it is whole, found it taken away"


def _write(aside: Path) -> None:
    """A folder as Zarr has it, of several files."""
    (aside / "flux").mkdir(parents=True)
    for name in ("zarr.json", "flux/zarr.json", "flux/0", "flux/1"):
        (aside / name).write_text("{}")


def _publish(path: Path, write: Callable[[Path], None]) -> None:
    with staged(path, overwrite=True) as aside:
        write(aside)


def _names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


_WHOLE = ["g.zarr", "g.zarr/flux", "g.zarr/flux/0", "g.zarr/flux/1", "g.zarr/flux/zarr.json",
          "g.zarr/zarr.json"]  # fmt: skip


def test_sweep__a_product_published_meanwhile_is_whole_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publishing = staged(tmp_path / "g.zarr", overwrite=False)
    _write(publishing.__enter__())
    unlink, ended = os.unlink, []

    def publish_first(*arguments: object, **options: object) -> None:
        # the sweep has the folder open and is about to remove its first file
        if not ended:
            ended.append("begun")
            with pytest.raises(InputError, match=_TAKEN):
                publishing.__exit__(None, None, None)
            ended.append("refused")
        unlink(*arguments, **options)

    monkeypatch.setattr(os, "unlink", publish_first)
    sweep(tmp_path)
    assert ended == ["begun", "refused"]
    assert _names(tmp_path) == []


@pytest.mark.parametrize("old", [False, True])
def test_sweep__between_the_data_reaching_the_disk_and_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bool
) -> None:
    if old:
        _write(tmp_path / "g.zarr")
    fsync, told = os.fsync, []

    def sweep_after(descriptor: int) -> None:
        fsync(descriptor)
        told.append(descriptor)
        if len(told) == 4:
            sweep(tmp_path)

    monkeypatch.setattr(os, "fsync", sweep_after)
    with pytest.raises(InputError, match=_TAKEN):
        _publish(tmp_path / "g.zarr", _write)
    assert len(told) == 4
    assert _names(tmp_path) == (_WHOLE if old else [])


def test_sweep__a_folder_put_back_by_a_late_block_is_not_published(tmp_path: Path) -> None:
    def write(aside: Path) -> None:
        _write(aside)
        sweep(tmp_path)
        (aside / "flux").mkdir(parents=True)
        (aside / "flux" / "2").write_text("{}")

    with pytest.raises(InputError, match=_TAKEN):
        _publish(tmp_path / "g.zarr", write)
    assert _names(tmp_path) == []


def test_sweep__a_file_swept_is_not_published(tmp_path: Path) -> None:
    def write(aside: Path) -> None:
        aside.write_text("new")
        sweep(tmp_path)

    (tmp_path / "g.fits").write_text("old")
    with pytest.raises(InputError, match=_TAKEN):
        _publish(tmp_path / "g.fits", write)
    assert (tmp_path / "g.fits").read_text() == "old"
    assert _names(tmp_path) == ["g.fits"]


def test_sweep__what_an_interrupted_sweep_left_goes_and_products_stay(tmp_path: Path) -> None:
    _write(tmp_path / "g.zarr")
    _write(tmp_path / ".h.zarr.1-ab.part.cd.swept")
    _write(tmp_path / ".h.zarr.1-ab.old")
    (tmp_path / ".i.fits.1-ab.part").write_text("half")
    sweep(tmp_path)
    assert _names(tmp_path) == _WHOLE
