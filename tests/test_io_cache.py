from __future__ import annotations

import gzip
import os
import pickle
import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from specphoto.errors import InputError
from specphoto.io import cache
from specphoto.io.cache import Source, cache_folder

if TYPE_CHECKING:
    from pathlib import Path

CONTENT = np.random.default_rng(1).integers(0, 255, 300_000, dtype=np.uint8).tobytes()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cache"
    monkeypatch.setenv("SPECPHOTO_CACHE", str(path))
    return path


def packed(path: Path, content: bytes = CONTENT) -> Path:
    path.write_bytes(gzip.compress(content, 1))
    return path


def read(source: Source) -> bytes:
    with source.open() as stream:
        return stream.read()


def test_source__plain_file_is_read_where_it_is(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "a.fits.gz"  # the name says gzip, the content does not
    path.write_bytes(CONTENT)
    assert read(Source.of(path)) == CONTENT
    assert not folder.exists()


def test_source__gzip_is_decompressed_once(tmp_path: Path, folder: Path) -> None:
    source = Source.of(packed(tmp_path / "a.fits.gz"))
    assert read(source) == CONTENT
    (copy,) = folder.iterdir()
    written = copy.stat().st_ino
    assert read(pickle.loads(pickle.dumps(source))) == CONTENT
    assert [p.stat().st_ino for p in folder.iterdir()] == [written]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_source__decompresses_where_the_cache_lacks_it(tmp_path: Path, folder: Path) -> None:
    # as on another machine: the description travels, the copy does not
    source = Source.of(packed(tmp_path / "a.fits.gz"))
    read(source)
    for copy in folder.iterdir():
        copy.unlink()
    assert read(source) == CONTENT


def test_source__threads_share_one_decompression(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source.of(packed(tmp_path / "a.fits.gz"))
    calls = []
    gunzip = cache._gunzip
    monkeypatch.setattr(cache, "_gunzip", lambda *args: (calls.append(1), gunzip(*args)))
    barrier, results = threading.Barrier(6), []

    def work() -> None:
        barrier.wait()
        results.append(read(source))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [CONTENT] * 6
    assert len(calls) == 1


def test_source__processes_do_not_disturb_each_other(tmp_path: Path, folder: Path) -> None:
    path = packed(tmp_path / "a.fits.gz")
    code = (
        "import sys; from specphoto.io.cache import Source\n"
        "with Source.of(sys.argv[1]).open() as s: sys.exit(len(s.read()) != int(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, str(path), str(len(CONTENT))]
    running = [subprocess.Popen(command, env=dict(os.environ)) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert [p.suffix for p in folder.iterdir()] == [".fits"]


@pytest.mark.parametrize("keep", [20, 1000, -4])
def test_source__truncated_gzip_is_named(tmp_path: Path, folder: Path, keep: int) -> None:
    path = packed(tmp_path / "cut.fits.gz")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"cut\.fits\.gz: expected a whole gzip file"):
        Source.of(path).open()
    assert list(folder.iterdir()) == []


def test_source__damaged_gzip_is_named(tmp_path: Path, folder: Path) -> None:
    path = packed(tmp_path / "bad.fits.gz", b"0123456789" * 10_000)
    content = bytearray(path.read_bytes())
    content[-8:-4] = b"\0\0\0\0"  # the checksum
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.fits\.gz: expected a whole gzip file"):
        Source.of(path).open()


def test_source__changed_file_is_refused(tmp_path: Path, folder: Path) -> None:
    path = packed(tmp_path / "a.fits.gz")
    source = Source.of(path)
    packed(path, CONTENT[:1000])
    with pytest.raises(InputError, match="as it was when it was opened"):
        source.open()


def test_source__missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.fits: expected a file .* found no such file"):
        Source.of(tmp_path / "none.fits")
    with pytest.raises(InputError, match="found is a directory"):
        Source.of(tmp_path)


def test_cache__removes_the_least_recently_used(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECPHOTO_CACHE_GB", str(2.5 * len(CONTENT) / 1e9))
    sources = [Source.of(packed(tmp_path / f"{i}.fits.gz")) for i in range(3)]
    read(sources[0])
    read(sources[1])
    for age, source in ((100, sources[0]), (200, sources[1])):
        copy = folder / f"{source.key}.fits"
        os.utime(copy, (copy.stat().st_mtime - age,) * 2)
    held = sources[1].open()  # touches it: now the first is the older one
    read(sources[2])
    left = {p.stem for p in folder.glob("*.fits")}
    assert left == {sources[1].key, sources[2].key}
    monkeypatch.setenv("SPECPHOTO_CACHE_GB", "0")
    assert read(sources[0]) == CONTENT  # the one that is asked for is kept whatever its size
    assert held.read() == CONTENT  # and one that is being read outlives its name
    held.close()
    assert {p.stem for p in folder.glob("*.fits")} == {sources[0].key}


def test_cache_folder__that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPECPHOTO_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(InputError, match="expected a cache folder that can be made"):
        cache_folder()


def test_cache_folder__of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPECPHOTO_CACHE", raising=False)
    monkeypatch.setattr(cache.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = cache_folder()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o777)
    with pytest.raises(InputError, match="a folder that only you can write to"):
        cache_folder()
