"""The files of deploy/: sites, the jobs that they ask for, a SLURM that comes and goes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from specphoto.cluster import Site, driver_script, job_script, read_site
from specphoto.errors import InputError
from specphoto.sample import Sample

DEPLOY = Path(__file__).parents[1] / "deploy"
SITES = sorted((DEPLOY / "slurm").glob("*.yaml"))
ONE_MACHINE = DEPLOY / "slurm" / "one_machine.sh"


@pytest.mark.parametrize("path", SITES, ids=lambda path: path.stem)
def test_read_site__the_examples(path: Path) -> None:
    site = read_site(path)
    assert site.lifetime is not None
    assert 0 < site.lifetime < site.walltime_seconds
    script = driver_script(site, ["specphoto", "run", "a file.toml"])
    asked = [line for line in script.splitlines() if line.startswith("#SBATCH")]
    assert f"#SBATCH -p {site.driver.queue or site.jobqueue['queue']}" in asked
    assert f"#SBATCH --signal=B:USR1@{site.driver.margin}" in asked
    assert "specphoto run 'a file.toml' &" in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_job_script__of_a_site_without_memory(tmp_path: Path) -> None:
    assert len(SITES) == 3
    for path in SITES:
        site = read_site(path).changed(
            interface="lo", shared_directory=str(tmp_path), log_directory=str(tmp_path),
            scheduler_options={"host": "127.0.0.1"},
        )  # fmt: skip
        scripts = job_script(site), driver_script(site, ["true"])
        found = ["#SBATCH --mem=" in script for script in scripts]
        assert found == [path.stem != "no_memory"] * 2
    assert not list(tmp_path.glob("keys-*"))


@pytest.mark.parametrize(
    ("driver", "message"),
    [
        ({"waltime": "01:00:00"}, "did you mean 'walltime'"),
        ({"walltime": "00:01:00", "margin": 60}, "a margin above 0 and below the walltime"),
        ({"memory": "plenty"}, "found 'plenty'"),
    ],
)
def test_site__driver_that_cannot_be(driver: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Site().changed(driver=driver)


@pytest.mark.parametrize(
    ("given", "jobs"),
    [
        ({}, (1, 1)),
        ({"workers": 3}, (3, 3)),
        ({"adaptive": {"maximum": 5}}, (0, 5)),
        ({"workers": 3, "adaptive": {"minimum": 2, "maximum": 5}}, (2, 5)),
    ],
)
def test_site__jobs(given: dict[str, object], jobs: tuple[int, int]) -> None:
    assert Site().changed(**given).jobs == jobs


def test_site__workers_asked_for_take_the_place_of_adaptive() -> None:
    # so that 'specphoto cluster check' starts one
    assert read_site(DEPLOY / "slurm" / "large.yaml").jobs == (4, 200)
    assert read_site(DEPLOY / "slurm" / "large.yaml").changed(workers=1).jobs == (1, 1)


@pytest.mark.parametrize(
    "adaptive",
    [{"minimum": 3, "maximum": 2}, {"minimum": 1}, {"minimum": -1, "maximum": 2},
     {"maximum": 2.5}],
)  # fmt: skip
def test_site__adaptive_that_cannot_be(adaptive: dict[str, float]) -> None:
    with pytest.raises(InputError, match="whole numbers 0 <= minimum <= maximum"):
        Site().changed(adaptive=adaptive)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"walltime": "00:01:00", "retire": 60}, "retire: expected fewer seconds"),
        ({"memory": "plenty"}, "memory: expected bytes, or a size"),
        ({"memory": 0}, "memory: expected bytes, or a size"),
        ({"walltime": 14400}, "in quotes"),
    ],
)
def test_site__numbers_that_cannot_be(given: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Site().changed(**given)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('open_dashboard: "no"', "open_dashboard: expected true or false, found 'no'"),
        ("job_extra_directives: --exclusive", "job_extra_directives: expected a list of texts"),
        ("job_script_prologue: module load x", "job_script_prologue: expected a list of texts"),
        ("worker_extra_args: [--nthreads, 3]", "worker_extra_args: expected a list of texts"),
        ("scheduler_options: 127.0.0.1", "scheduler_options: expected keys and values"),
        ("adaptive: 3", "adaptive: expected keys and values, found 3"),
        ("wait: long", "wait: expected a number, found 'long'"),
        ("wait: .nan", "wait: expected a number, found nan"),
        ("workers: 2.5", "workers: expected a whole number, found 2.5"),
        ('workers: "3"', "workers: expected a whole number, found '3'"),
        ("cores: true", "cores: expected a whole number, found True"),
        ("cores:", "cores: expected a whole number, found None"),
        ("memory: true", "memory: expected bytes, or a size"),
        ("account: 0123", "account: expected a text, found 83; put it in quotes"),
        ("driver: long", "driver: expected keys and values, found 'long'"),
        ("driver: {margin: '60'}", "margin: expected a whole number, found '60'"),
        ("host: here", "expected known keys, found 'host'"),
    ],
)
def test_read_site__values_of_other_kinds(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(line)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        read_site(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_read_site__null_is_left_out_and_the_log_directory_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "site.yaml"
    path.write_text("log_directory: ~/logs\nscheduler_options:\nqueue:\nretire:\ninterface: lo\n")
    site = read_site(path)
    assert (site.retire, site.jobqueue) == (
        None, {"log_directory": f"{tmp_path}/logs", "interface": "lo"}
    )  # fmt: skip
    # SLURM does not know what ~ is
    assert f"#SBATCH -o {tmp_path}/logs/" in job_script(site)
    assert f"#SBATCH -o {tmp_path}/logs/" in driver_script(site, ["true"])


def test_sample_read__the_example(tmp_path: Path) -> None:
    shutil.copy(DEPLOY / "sample.toml", tmp_path)
    (tmp_path / "targets.csv").write_text("cube,photometry\na.fits,b.fits\n")
    sample = Sample.read(tmp_path / "sample.toml")
    assert sample.options["order"] == 3


def one_machine(what: str, root: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ONE_MACHINE), what, root], env={**os.environ, "SLURM_PORT": "17980"},
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip


def daemons(root: str) -> dict[str, int]:
    return {p.name: int(p.read_text()) for p in Path(root).glob("*/*.pid")}


def command_line(pid: int) -> bytes:
    """Empty where there is no such process, or a dead one that nobody has asked after."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


@pytest.mark.slurm
def test_one_machine__up_and_down_twice_and_nobody_elses_processes() -> None:
    if os.geteuid() != 0 or shutil.which("slurmctld") is None or shutil.which("munged") is None:
        pytest.skip("no SLURM: needs root, and the packages slurm-wlm and munge")
    root = tempfile.mkdtemp(prefix="slurm-", dir="/tmp")
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    try:
        first = one_machine("up", root)
        assert first.returncode == 0, first.stderr
        there = daemons(root)
        assert len(there) == 4
        assert one_machine("up", root).stdout == first.stdout
        assert daemons(root) == there
        assert one_machine("down", root).returncode == 0
        assert not [pid for pid in there.values() if command_line(pid)]
        # the number of a daemon that died has gone to a process of somebody else
        (Path(root) / "run" / "slurmd-n1.pid").write_text(str(other.pid))
        assert one_machine("down", root).returncode == 0
        assert other.poll() is None
    finally:
        one_machine("down", root)
        other.kill()
        other.wait()
        shutil.rmtree(root, ignore_errors=True)
