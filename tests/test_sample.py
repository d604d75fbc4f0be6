"""A sample of galaxies on this machine: whole products, recorded failures, resume."""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import dask
import numpy as np
import pyarrow.parquet as pq
import pytest
import xarray as xr
import zarr
from distributed import Client, LocalCluster, get_worker
from galaxy_files import tiny_galaxy
from sample_files import contents, product, wait_for, write_sample

import specphoto
from specphoto.errors import InputError
from specphoto.sample import Sample, read_status, run_sample, write_summary
from specphoto.sample.drive import Work, drive
from specphoto.sample.journal import Journal, locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from specphoto.sample.journal import Status

# one galaxy by a pattern
ONE = "[targets]\ncube = '{id}.f'\nphotometry = '{id}.p'"


def test_run_sample__failures_never_stop_the_rest(tmp_path: Path, two_threads: Client) -> None:
    galaxy = tiny_galaxy(3)
    (tmp_path / "bad.fits").write_bytes(b"SIMPLE  = nothing of the kind")
    photometry = galaxy.photometry.path
    rows = f"bad,{tmp_path}/bad.fits,{photometry},\ngone,{tmp_path}/gone.fits,{photometry},\n"
    file = write_sample(tmp_path, 2, rows=rows)
    # where the product of this one belongs is something that cannot be replaced
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "g1.zarr").write_text("not a product")
    outcome = run_sample(file, client=two_threads)
    status = outcome.status
    assert (status.total, status.done, status.failed, status.left) == (4, 1, 3, 0)
    assert "gone.fits: expected a file that can be read" in status.failures["gone"]
    assert "bad.fits" in status.failures["bad"]
    assert contents(tmp_path / "out") == ["g0.zarr", "g1.zarr", "summary.csv", "summary.parquet"]
    table = pq.read_table(outcome.parquet).to_pylist()
    assert [(r["name"], r["state"]) for r in table] == [
        ("bad", "failed"), ("g0", "done"), ("g1", "failed"), ("gone", "failed"),
    ]  # fmt: skip
    assert table[1]["n_spec"] > 20
    assert 0.5 < table[1]["factor_median"] < 2.0
    assert table[1]["seconds_fit"] > 0.0
    with outcome.csv.open() as text:
        assert len(list(csv.reader(text))) == 5
    assert len(product(tmp_path / "out", "g0").attrs["sample_hash"]) == 32


def test_run_sample__kept_refused_recomputed(tmp_path: Path, two_threads: Client) -> None:
    file = write_sample(tmp_path, 1)
    first = run_sample(file, client=two_threads, report=tmp_path / "report.html")
    assert (first.computed, first.kept) == (1, 0)
    assert "Dask Performance Report" in (tmp_path / "report.html").read_text()
    before = product(tmp_path / "out", "g0")
    again = run_sample(file, client=two_threads)
    assert (again.computed, again.kept) == (0, 1)
    # without its record a product is looked at, and not made again
    made = (tmp_path / "out" / "g0.zarr").stat().st_mtime_ns
    (tmp_path / "out" / "sample.jsonl").unlink()
    assert run_sample(file, client=two_threads).status.done == 1
    assert (tmp_path / "out" / "g0.zarr").stat().st_mtime_ns == made
    file = write_sample(tmp_path, 1, options="order = 2")
    with pytest.raises(InputError, match=r"1 of others \(g0: option order: None, now 2\)"):
        run_sample(file, client=two_threads)
    assert product(tmp_path / "out", "g0").identical(before)
    other = run_sample(file, client=two_threads, changed="recompute")
    assert (other.computed, other.status.done) == (1, 1)
    assert product(tmp_path / "out", "g0").sizes["order"] == 3


def test_run_sample__another_format_is_refused_before_anything_is_lost(
    tmp_path: Path, two_threads: Client
) -> None:
    run_sample(write_sample(tmp_path, 1), client=two_threads)
    file = write_sample(tmp_path, 1, formats=("zarr", "fits"))
    with pytest.raises(InputError, match=r"1 of others \(g0: formats: .*--changed recompute"):
        run_sample(file, client=two_threads)
    assert read_status(tmp_path / "out").done == 1
    assert run_sample(write_sample(tmp_path, 1), client=two_threads).kept == 1
    file = write_sample(tmp_path, 1, formats=("zarr", "fits"))
    assert run_sample(file, client=two_threads, changed="recompute").status.done == 1
    assert (tmp_path / "out" / "g0.fits").is_file()
    # one of two products that is gone is made again, with nothing said of changes
    (tmp_path / "out" / "g0.fits").unlink()
    assert run_sample(file, client=two_threads).computed == 1
    assert (tmp_path / "out" / "g0.fits").is_file()


def test_run_sample__second_run_refused(tmp_path: Path) -> None:
    file = write_sample(tmp_path, 1)
    (tmp_path / "out").mkdir()
    with (
        locked(tmp_path / "out"),
        pytest.raises(
            InputError, match=rf"no other run works on, found one \(process {os.getpid()}"
        ),
    ):
        run_sample(file)


def test_locked__while_the_status_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")
    with (tmp_path / "sample.lock").open("w") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        monkeypatch.setattr(time, "sleep", lambda _: fcntl.flock(reader, fcntl.LOCK_UN))
        with locked(tmp_path):
            assert "process" in (tmp_path / "sample.lock").read_text()


def test_run__driver_killed_and_resumed(tmp_path: Path, two_threads: Client) -> None:
    calm = write_sample(tmp_path / "undisturbed", 3)
    run_sample(calm, client=two_threads)
    file = write_sample(tmp_path, 3)
    command = [sys.executable, "-m", "specphoto", "run", str(file), "-j", "1", "--memory", "2GB"]
    driver = subprocess.Popen(command, start_new_session=True)
    try:
        journal = Journal(tmp_path / "out")
        wait_for(lambda: bool(journal.records()) or driver.poll() is not None)
        assert driver.poll() is None
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait(timeout=30)
    before = read_status(tmp_path / "out")
    assert not before.active
    assert before.done < 3
    again = run_sample(file, client=two_threads)
    assert (again.kept, again.status.done) == (before.done, 3)
    assert contents(tmp_path / "out") == [
        "g0.zarr", "g1.zarr", "g2.zarr", "summary.csv", "summary.parquet",
    ]  # fmt: skip
    for name in ("g0", "g1", "g2"):
        xr.testing.assert_identical(
            product(tmp_path / "out", name), product(tmp_path / "undisturbed" / "out", name)
        )


def test_run_sample__interrupted_on_a_client_that_goes_on(
    tmp_path: Path, two_threads: Client
) -> None:
    file = write_sample(tmp_path, 1)
    aside = tmp_path / "out" / ".g0.zarr.1-ab.part"

    def interrupt(_: Status) -> None:
        aside.mkdir()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sample(file, client=two_threads, progress=interrupt)
    # a worker may still be at it; whoever starts next cleans up
    assert aside.is_dir()
    run_sample(file, client=two_threads)
    assert contents(tmp_path / "out") == ["g0.zarr", "summary.csv", "summary.parquet"]


def test_run_sample__damaged_products_are_replaced_when_told(
    tmp_path: Path, two_threads: Client
) -> None:
    def damage() -> None:
        (out / "g0.zarr" / "zarr.json").unlink()
        os.truncate(out / "g0.fits", 1_000_000)
        # its record is lost as well, or the product would not be looked at
        (out / "sample.jsonl").unlink()

    out = tmp_path / "out"
    file = write_sample(tmp_path, 1, formats=("zarr", "fits"))
    run_sample(file, client=two_threads)
    before = product(out, "g0")
    damage()
    failures = run_sample(file, client=two_threads).status.failures
    assert "g0.zarr: expected no product" in failures["g0"]
    assert (
        "found one of unknown options, or a damaged one; say changed='recompute'"
        in (failures["g0"])
    )
    assert run_sample(file, client=two_threads, changed="recompute").status.done == 1
    xr.testing.assert_identical(product(out, "g0"), before)
    specphoto.open_cube(out / "g0.fits")


@pytest.mark.parametrize("what", ["folder", "group", "cube"])
def test_run_sample__what_is_no_product_is_never_replaced(
    tmp_path: Path, two_threads: Client, what: str
) -> None:
    kind = "fits" if what == "cube" else "zarr"
    file = write_sample(tmp_path, 1, formats=(kind,))
    there = tmp_path / "out" / f"g0.{kind}"
    there.parent.mkdir()
    if what == "cube":
        shutil.copy(tiny_galaxy(3).cube.path, there)
    elif what == "group":
        zarr.create_group(there).create_array("work", data=np.arange(3))
    else:
        there.mkdir()
        (there / "thesis.tex").write_text("years of work")
    before = [p.read_bytes() for p in (there, *sorted(there.rglob("*"))) if p.is_file()]
    outcome = run_sample(file, client=two_threads, changed="recompute")
    assert re.search(r"expected a (Zarr folder|product) to replace", outcome.status.failures["g0"])
    after = [p.read_bytes() for p in (there, *sorted(there.rglob("*"))) if p.is_file()]
    assert before == after


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MB of its own, or a skip that says why."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "specphoto-test", str(disk)]
    if shutil.which("mount") is None:
        pytest.skip("no disk to fill: there is no mount")
    asked = subprocess.run(mount, capture_output=True, text=True, check=False)
    if asked.returncode != 0:
        pytest.skip(f"no disk to fill: {asked.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_run_sample__disk_full(tmp_path: Path, small_disk: Path, two_threads: Client) -> None:
    run_sample(write_sample(tmp_path, 1), client=two_threads)
    undisturbed = tmp_path / "out" / "g0.zarr"
    size = sum(p.stat().st_size for p in undisturbed.rglob("*"))
    file = write_sample(small_disk, 1)
    filler = small_disk / "filler"
    with filler.open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, shutil.disk_usage(small_disk).free - size // 2)
    full = run_sample(file, client=two_threads)
    assert "No space left" in full.status.failures["g0"]
    assert contents(small_disk / "out") == ["summary.csv", "summary.parquet"]
    filler.unlink()
    assert run_sample(file, client=two_threads).status.done == 1
    xr.testing.assert_identical(product(small_disk / "out", "g0"), product(tmp_path / "out", "g0"))


def test_run_sample__no_room_for_the_journal(
    tmp_path: Path, small_disk: Path, two_threads: Client
) -> None:
    file = write_sample(small_disk, 1)
    with (small_disk / "filler").open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, shutil.disk_usage(small_disk).free)
    with pytest.raises(InputError, match=r"expected .* that can be written.*no space left"):
        run_sample(file, client=two_threads)


def ends_its_worker(name: str, folder: str) -> dict[str, str]:
    """A galaxy that ends the process that it is computed in, if it is named so."""
    get_worker().log_event(folder, name)
    if name == "poison":
        os._exit(1)
    time.sleep(0.1)
    return {"state": "done"}


def outlasts_its_worker(name: str, folder: str) -> dict[str, str]:
    """A galaxy that takes longer than its worker lives, if it is named so."""
    get_worker().log_event(folder, name)
    if name == "poison":
        time.sleep(2.0)
    return {"state": "done"}


@pytest.fixture
def short_lived() -> Iterator[Client]:
    """Return a client of workers that each leave after a second, and are replaced."""
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "200ms"}),
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0",
            memory_limit=0, lifetime="1s",
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):  # fmt: skip
        cluster.adapt(minimum=1, maximum=1, interval="200ms")
        yield client


@pytest.mark.parametrize(
    ("cluster", "function"),
    [("two_workers", ends_its_worker), ("short_lived", outlasts_its_worker)],
)
def test_drive__a_galaxy_that_loses_its_workers_is_a_failure(
    tmp_path: Path, cluster: str, function: Callable[..., dict[str, str]],
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    names = ["a", "poison", "b", "c", "d", "e"]
    work = [Work(name, function, (name, str(tmp_path)), {}, {}) for name in names]
    journal = Journal(tmp_path)
    drive(request.getfixturevalue(cluster), work, journal, "1MB")
    records = journal.records()
    assert {n: r["event"] for n, r in records.items()} == {
        n: "failed" if n == "poison" else "done" for n in names
    }
    assert "its worker died or left each time" in records["poison"]["reason"]


def slow(name: str, folder: str, made: str) -> dict[str, str]:
    """A galaxy that takes a moment and tells which run it is of."""
    get_worker().log_event(folder, name)
    time.sleep(0.5)
    return {"state": "done", "made": made}


def test_drive__what_an_interrupted_run_had_sent_is_not_taken_for_the_next_runs(
    tmp_path: Path, one_worker: Client
) -> None:
    def work(made: str) -> list[Work]:
        return [Work(f"g{i}", slow, (f"g{i}", str(tmp_path), made), {}, {}) for i in range(3)]

    def interrupt(status: Status) -> None:
        if status.running:
            raise KeyboardInterrupt

    journal = Journal(tmp_path)
    # the traceback of an interrupted cell keeps what it was at alive
    with pytest.raises(KeyboardInterrupt) as kept:
        drive(one_worker, work("first"), journal, "1MB", interrupt)
    drive(one_worker, work("second"), Journal(tmp_path), "1MB")
    assert {r["made"] for r in journal.records().values()} == {"second"}
    assert kept.tb is not None


def test_journal__torn_line_is_skipped(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("start", total=2, whole=0)
    journal.append("done", name="a")
    with journal.path.open("ab") as file:
        file.write(b'{"event": "done", "na')
    journal.append("failed", name="b", reason="a cloud")
    status = read_status(tmp_path)
    assert (status.done, status.failures) == (1, {"b": "a cloud"})


def test_run_sample__galaxies_no_longer_of_the_sample_do_not_count(
    tmp_path: Path, two_threads: Client
) -> None:
    gone = f"gone,{tmp_path}/gone.fits,{tiny_galaxy(3).photometry.path},\n"
    assert run_sample(write_sample(tmp_path, 2, rows=gone), client=two_threads).status.failed == 1
    outcome = run_sample(write_sample(tmp_path, 1), client=two_threads)
    for status in (outcome.status, read_status(tmp_path / "out")):
        assert (status.total, status.done, status.failed, status.failures) == (1, 1, 0, {})
    assert [r["name"] for r in pq.read_table(outcome.parquet).to_pylist()] == ["g0"]
    # the one that comes back is still known to be whole
    assert run_sample(write_sample(tmp_path, 2), client=two_threads).kept == 2


def test_journal__of_an_earlier_version_counts_all(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("start", total=2, whole=0)
    journal.extend([{"event": "done", "name": "a"}, {"event": "failed", "name": "b"}])
    assert read_status(tmp_path).done == read_status(tmp_path).failed == 1
    assert [r["name"] for r in pq.read_table(write_summary(tmp_path)[0]).to_pylist()] == ["a", "b"]
    journal.append("start", total=1, whole=1, names=["a"])
    assert (read_status(tmp_path).done, read_status(tmp_path).failed) == (1, 0)
    assert [r["name"] for r in pq.read_table(write_summary(tmp_path)[0]).to_pylist()] == ["a"]


def test_run_sample__sent_again_and_not_ended_is_looked_at(
    tmp_path: Path, two_threads: Client
) -> None:
    file = write_sample(tmp_path, 1)
    run_sample(file, client=two_threads)
    told = (tmp_path / "out" / "sample.jsonl").read_text()
    other = write_sample(tmp_path, 1, options="order = 2")
    run_sample(other, client=two_threads, changed="recompute")
    # the driver was killed when the new product was there and had not been told of
    (tmp_path / "out" / "sample.jsonl").write_text(told + '{"event": "sent", "name": "g0"}\n')
    assert run_sample(other, client=two_threads).status.done == 1
    (tmp_path / "out" / "sample.jsonl").write_text(told + '{"event": "sent", "name": "g0"}\n')
    again = run_sample(write_sample(tmp_path, 1), client=two_threads)
    assert again.kept == 0
    assert "expected no product, or one of these options" in again.status.failures["g0"]


@pytest.mark.parametrize("ending", [".csv", ".fits", ".parquet"])
def test_sample_read__tables(tmp_path: Path, ending: str) -> None:
    from astropy.table import Table
    from pyarrow import Table as Arrow

    columns = {"cube": ["a.fits", "b.fits"], "photometry": ["c.fits", "d.fits"],
               "z": [0.1, 0.2], "order": [2, 3]}  # fmt: skip
    path = tmp_path / f"t{ending}"
    if ending == ".parquet":
        pq.write_table(Arrow.from_pydict(columns), path)
    else:
        Table(columns).write(path)
    file = tmp_path / "sample.toml"
    file.write_text(f'[targets]\ntable = "t{ending}"\ncolumns = {{ redshift = "z" }}\n')
    first, second = Sample.read(file).targets
    assert (first.cube, first.redshift, first.options) == (
        str(tmp_path / "a.fits"), 0.1, {"order": 2}
    )  # fmt: skip
    assert second.name == "corr_specphoto_d_b"


def test_sample_read__names_and_paths_that_look_like_numbers(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "t.csv").write_text(
        "id,cube,photometry,library,order\n007,1E5,2.50,0x1,2\n1e5,010,1,default,\n1_0,a,b,,3\n"
    )
    file = tmp_path / "sample.toml"
    file.write_text('[targets]\ntable = "tables/t.csv"\ncolumns = { name = "id" }\n')
    targets = Sample.read(file).targets
    assert [t.name for t in targets] == ["007", "1e5", "1_0"]
    home = tmp_path / "tables"
    assert [(t.cube, t.photometry) for t in targets] == [
        (f"{home}/{cube}", f"{home}/{photometry}")
        for cube, photometry in [("1E5", "2.50"), ("010", "1"), ("a", "b")]
    ]
    # a library's path is relative to the table, as the other paths in it are
    assert [t.options for t in targets] == [
        {"library": f"{home}/0x1", "order": 2}, {"library": "default"}, {"order": 3},
    ]  # fmt: skip


def test_sample_read__pattern(tmp_path: Path) -> None:
    (tmp_path / "sky").mkdir()
    for name in ("manga-1-2-LOGCUBE.fits", "manga-3-4-LOGCUBE.fits", "other.fits"):
        (tmp_path / "sky" / name).touch()
    file = tmp_path / "sample.toml"
    file.write_text('[targets]\ncube = "sky/manga-{id}-LOGCUBE.fits"\nphotometry = "f_{id}.fits"\n')
    targets = Sample.read(file).targets
    assert [t.name for t in targets] == ["1-2", "3-4"]
    assert targets[0].photometry == str(tmp_path / "f_1-2.fits")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("outptu = 3", "found 'outptu'; did you mean 'output'"),
        ("[options]\nordr = 3", "expected table = FILE"),
        ("[targets]\ntabel = 'a'", "did you mean 'table'"),
        ("[targets]\ntable = 'a.txt'", "ending in .csv"),
        ("not toml", "a sample file in TOML"),
        ("output = 3", "output: expected a text, found 3"),
        ("formats = 'zarr'", "formats: expected a list of texts, found 'zarr'"),
        ("options = 3", "options: expected keys and values, found 3"),
        ("cluster = 'local'", "cluster: expected keys and values, found 'local'"),
        ("targets = 'a.csv'", "targets: expected keys and values"),
        ("[targets]\ntable = 3", "[targets]: table: expected a text, found 3"),
        ("[targets]\ntable = 't.csv'\ncolumns = 'z'", "columns: expected keys and values"),
        ("[targets]\ntable = 't.csv'\ncolumns = { name = 3 }", "name: expected a text, found 3"),
        (
            "[targets]\ntable = 't.csv'",
            "row 2: expected a number in the column redshift, found 'unknown'",
        ),
        (f"accept_critical = 'false'\n{ONE}", "accept_critical: expected true or false"),
        (f"galaxy_memory = true\n{ONE}", "galaxy_memory: expected bytes"),
        (f"{ONE}\nredshift = '0.1'", "redshift: expected a number, found '0.1'"),
        (f"{ONE}\n[cluster]\nworkers = '2'", "[cluster]: workers: expected a whole number"),
        (f"{ONE}\n[cluster]\nsite = 2", "[cluster]: site: expected a text"),
        (f"{ONE}\n[options]\norder = 30", "options of the sample: order: expected 0 to 10"),
        (f"{ONE}\n[options]\norder = 2.5", "order: expected a whole number"),
        (f"{ONE}\n[options]\nholdout = 'false'", "holdout: expected true or false"),
        (
            f"galaxy_memory = 'plenty'\n{ONE}",
            "galaxy_memory: expected bytes, or a size such as '4GB', found 'plenty'",
        ),
    ],
)
def test_sample_read__wrong(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "sample.toml"
    (tmp_path / "a.f").touch()
    (tmp_path / "t.csv").write_text("cube,photometry,redshift\na,b,0.1\nc,d,unknown\n")
    file.write_text(text)
    with pytest.raises(InputError, match=re.escape(message)):
        Sample.read(file)


def test_sample__unknown_option_and_twice_the_name(tmp_path: Path) -> None:
    file = write_sample(tmp_path, 1, options="model_eror = 0.1")
    with pytest.raises(InputError, match="did you mean 'model_error'"):
        Sample.read(file)
    file = write_sample(tmp_path, 1, rows="g0,a.fits,b.fits,\n")
    with pytest.raises(InputError, match="found 2 named 'g0'"):
        Sample.read(file)
