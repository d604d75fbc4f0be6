"""The command line: exit codes, messages, products."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from astropy.io import fits
from factories import specphoto_dataset
from galaxy_files import computing, small_galaxy

import specphoto
from specphoto import cli
from specphoto.describe import describe, open_described
from specphoto.errors import InputError
from specphoto.stages import Stage
from specphoto.terminal import StageBars
from specphoto.timings import read_timings

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Client

Run = "Callable[..., tuple[int, str, str]]"


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process; exit code, standard output and error."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setenv("COLUMNS", "100")
    logger = logging.getLogger("specphoto")
    monkeypatch.setattr(logger, "propagate", logger.propagate)
    monkeypatch.setattr(logger, "handlers", [])

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["specphoto", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        said = capsys.readouterr()
        return int(stop.value.code or 0), said.out, said.err

    return call


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, two_workers: Client) -> None:
    """Let the commands compute on the tests' workers."""
    monkeypatch.setattr("specphoto.cluster.open", partial(computing, two_workers))


def test_match__in_a_process_of_its_own(tmp_path: Path) -> None:
    galaxy = small_galaxy()
    done = subprocess.run(
        [sys.executable, "-m", "specphoto", "match", str(galaxy.cube.path),
         str(galaxy.photometry.path), "-o", str(tmp_path / "out"), "--format", "fits", "-v"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = tmp_path / "out" / "corr_specphoto_fluxmap_manga-sim3_manga-sim3-LOGCUBE.fits"
    assert done.stdout.strip() == str(made)
    assert "dashboard: http://127.0.0.1:" in done.stderr
    assert "note: corr_specphoto_fluxmap_manga-sim3_manga-sim3-LOGCUBE: computed" in done.stderr
    assert specphoto.open_cube(made).attrs["corrected"] is True
    took = read_timings(made)
    assert {"open", "check", "compute and write"} < set(took)
    assert any(step.startswith("fit, ") for step in took)


def test_spatial_then_spectral__products(tmp_path: Path, run: Callable, here: None) -> None:
    galaxy = small_galaxy()
    code, out, _ = run(
        "spatial", galaxy.cube.path, galaxy.photometry.path, "-o", tmp_path / "a.zarr",
        "--no-compensate",
    )  # fmt: skip
    assert (code, out.strip()) == (0, str(tmp_path / "a.zarr"))
    region = ~specphoto.open_cube(tmp_path / "a.zarr")["spec_mask"].all("wave").values
    columns = 1 + np.arange(region.shape[1]) // 2
    fits.PrimaryHDU((region * columns).astype("i2")).writeto(tmp_path / "labels.fits")
    code, out, err = run(
        "spectral", tmp_path / "a.zarr", "-o", tmp_path / "b.fits", "--order", 1, "--exclude",
        "galex_fuv", "--velocity", "measured", "--labels", tmp_path / "labels.fits", "--min-snr", 1,
    )  # fmt: skip
    assert code == 0, err
    assert re.search(r"closure \w+: \w+ [+-]\d.\d+ .* after, [+-]\d.\d+ before", err), err
    ds = specphoto.open_cube(tmp_path / "b.fits")
    assert ds.sizes["order"] == 2
    steps = {step["step"]: step["options"] for step in ds.attrs["provenance"] if "options" in step}
    assert steps["match_spatial"]["compensate"] is False
    assert "galex_fuv" not in steps["match_spectral"]["bands_fitted"]
    assert ds["spec_velocity"].attrs["units"] == "km s-1"
    assert steps["match_spectral"]["velocity"] == "measured"
    assert steps["match_spectral"]["min_snr"] == 1.0
    chi2 = ds["chi2"].values
    known = np.isfinite(chi2)
    assert (known <= region).all()
    for column in np.unique(columns[known.any(axis=0)]):  # one fit a bin
        inside = known & (columns == column)
        assert np.ptp(chi2[inside]) == 0


@pytest.mark.parametrize("value", [1.5, np.nan])
def test_labels__are_whole_numbers(tmp_path, value):
    fits.PrimaryHDU(np.array([[1.0, value]])).writeto(tmp_path / "l.fits")
    with pytest.raises(InputError, match=r"l.fits.*whole numbers"):
        cli._labels(tmp_path / "l.fits")


def test_velocity__word_or_map(tmp_path):
    field = np.arange(6.0).reshape(2, 3)
    fits.PrimaryHDU(field).writeto(tmp_path / "v.fits")
    np.testing.assert_array_equal(cli._velocity(str(tmp_path / "v.fits")), field)
    assert cli._velocity("measured") == "measured"
    assert cli._velocity(None) is None


def test_match__recipe_of_the_peer(tmp_path: Path, run: Callable, here: None) -> None:
    peer = Path(__file__).parent / "data" / "peer"
    code, out, err = run(
        "match", peer / "manga_cropped_LOGCUBE.fits.gz", peer / "fluxmap_reference.fits.gz", "-o",
        tmp_path, "--compat", "pixedfit", "--kernel", peer / "kernel_manga_to_wise_w2.fits.gz",
        "--library", peer / "library_reduced.hdf5", "--format", "fits",
    )  # fmt: skip
    assert code == 0, err
    with fits.open(out.strip()) as ours, fits.open(peer / "peer_specphoto.fits.gz") as theirs:
        assert {hdu.name for hdu in ours} >= {"MOD_FLUX", "CORR_FACTOR", "SPEC_FLUX"}
        flux, expected = ours["PHOTO_FLUX"].data, theirs["PHOTO_FLUX"].data
        inside = theirs["PHOTO_REGION"].data == 1
        np.testing.assert_allclose(flux[:, inside], expected[:, inside], rtol=1e-5)


@pytest.mark.realdata
def test_spatial__real_cube_on_the_grid_of_a_real_image(
    realdata: Path, tmp_path: Path, run: Callable, here: None
) -> None:
    folder = realdata / "muse_a478"
    code, _, err = run(
        "spatial", folder / "minicube.fits", "--grid", folder / "a478hst-cutout.fits",
        "--pixel-scale", 0.4, "--psf", 1.5, "--source-psf", 1.05, "-o", tmp_path / "a.fits",
    )  # fmt: skip
    assert code == 0, err
    ds = specphoto.open_cube(tmp_path / "a.fits")
    assert ds.attrs["pixel_scale"] == pytest.approx(0.4, rel=1e-3)
    assert ds.sizes["wave"] == 3681


def test_spatial__options_of_pointing_noise_and_masks(
    tmp_path: Path, run: Callable, here: None
) -> None:
    galaxy = small_galaxy()
    code, out, err = run(
        "spatial", galaxy.cube.path, galaxy.photometry.path, "-o", tmp_path / "a.zarr",
        "--register", "report", "--correlation", 1.5, "--mask-bit", "DONOTUSE", "--source-psf",
        "images", "--psf", "wise_w2",
    )  # fmt: skip
    assert (code, out.strip()) == (0, str(tmp_path / "a.zarr")), err
    ds = specphoto.open_cube(tmp_path / "a.zarr")
    assert ds["register_shift"].shape == (2,)
    assert ds.attrs["psf"]["fwhm"] == pytest.approx([6.37])
    steps = {step["step"]: step["options"] for step in ds.attrs["provenance"] if "options" in step}
    assert steps["open_ifs"]["mask_bits"] == ["DONOTUSE"]
    assert steps["match_spatial"]["correlation"] == {"model": "gaussian", "scale": 1.5}
    assert steps["match_spatial"]["register"] == "report"


def test_psf__by_image_and_by_table(tmp_path: Path, run: Callable, here: None) -> None:
    galaxy = small_galaxy()
    y, x = np.indices((61, 61)) - 30.0
    star = fits.PrimaryHDU((1.0 + (x**2 + y**2) / 8.0**2) ** -2.5)
    star.header["PIXSCALE"] = 0.5
    star.writeto(tmp_path / "star.fits")
    (tmp_path / "psf.txt").write_text("# Angstrom, arcsec\n5000 2.6\n\n8000, 2.4  # red\n")
    code, _, err = run(
        "spatial", galaxy.cube.path, galaxy.photometry.path, "-o", tmp_path / "a.zarr",
        "--psf", tmp_path / "star.fits", "--source-psf", tmp_path / "psf.txt",
    )  # fmt: skip
    assert code == 0, err
    ds = specphoto.open_cube(tmp_path / "a.zarr")
    assert ds.attrs["psf"]["model"] == "image"
    assert ds["target_psf"].shape == (61, 61)
    options = ds.attrs["provenance"][-1]["options"]
    assert options["psf_wave"] == [5000.0, 8000.0]
    assert [psf["fwhm"] for psf in options["source_psf"]] == [[2.6], [2.4]]
    # the cube's own by the survey's images, against the images of the sky
    code, out, err = run(
        "register", galaxy.cube.path, galaxy.photometry.path, "--source-psf", "images"
    )
    assert code == 0, err
    assert "sdss r" in out.replace("_", " ")
    for option, text, told in (
        ("--source-psf", "5000 2.6\n6000\n", "psf.txt, line 2: expected a wavelength in"),
        ("--psf", "5000 2.6\n", "psf.txt: expected one PSF: a FWHM"),
    ):
        (tmp_path / "psf.txt").write_text(text)
        code, _, err = run(
            "spatial", galaxy.cube.path, galaxy.photometry.path, "-o", tmp_path / "b.zarr",
            option, tmp_path / "psf.txt",
        )  # fmt: skip
        assert code == 2
        assert told in err
        assert not (tmp_path / "b.zarr").exists()


def test_register__says_where_the_cube_lies(tmp_path: Path, run: Callable) -> None:
    galaxy = small_galaxy()
    code, out, err = run(
        "register", galaxy.cube.path, galaxy.photometry.path, "--figure", tmp_path / "a.png"
    )
    assert code == 0, err
    assert "shift of the cube" in out
    assert "sdss_r" in out
    assert (tmp_path / "a.png").stat().st_size > 10_000


@pytest.mark.realdata
def test_images_and_register__hst_on_muse(realdata: Path, tmp_path: Path, run: Callable) -> None:
    cube = realdata / "muse_a478" / "minicube.fits"
    image = f"{realdata / 'muse_a478' / 'a478hst-cutout.fits'},band=hst_wfpc2_f814w,psf=0.2"
    code, out, err = run("images", image, "--on", cube, "--cube-psf", 1.05, "-o",
                         tmp_path / "hst.fits")  # fmt: skip
    assert (code, out.strip()) == (0, str(tmp_path / "hst.fits")), err
    made = specphoto.open_photometry(tmp_path / "hst.fits")
    assert made["photo_flux"].shape == (1, 40, 40)
    assert run("info", tmp_path / "hst.fits")[0] == 0
    code, out, err = run("register", cube, f"{image},noise=WHT,noise_kind=weight", "--source-psf",
                         1.05, "--figure", tmp_path / "a.png")  # fmt: skip
    assert code == 0, err
    assert "-0.80" in out.replace("-0.79", "-0.80")
    correlation = float(re.search(r"correlation (0\.\d+)", out)[1])
    residual = float(re.search(r"residual (\d+\.\d+)%", out)[1])
    assert correlation >= 0.99
    assert residual <= 3.0


def test_info__every_kind(run: Callable) -> None:
    galaxy = small_galaxy()
    code, out, _ = run("info", galaxy.cube.path)
    assert code == 0
    for text in ("cube of spectra", "manga", "y 34, x 34", "gaussian, FWHM 2.4", "E(B-V)",
                 "(vacuum)"):  # fmt: skip
        assert text in out
    code, out, _ = run("info", galaxy.photometry.path)
    assert code == 0
    for text in ("photometric cube", "band 12", "galex_fuv", "0.03", "1.5 arcsec"):
        assert text in out


def test_info__products(tmp_path: Path) -> None:
    ds = specphoto_dataset(corrected=True)
    specphoto.write_fits(ds, tmp_path / "a.fits")
    specphoto.write_zarr(ds.drop_vars(["corr_factor", "corr_factor_err"]), tmp_path / "a.zarr")
    for name in ("a.fits", "a.zarr"):
        kind, opened = open_described(tmp_path / name)
        assert kind == "spectrophotometric cube, corrected"
        facts = dict(describe(opened))
        assert facts["redshift"] == "0.03"
        assert "match_spatial (" in facts["history"]
    with pytest.raises(InputError, match="expected a file that can be read"):
        open_described(tmp_path / "b.fits")


def test_simulate__writes_both_files(tmp_path: Path, run: Callable) -> None:
    code, out, _ = run("simulate", "-o", tmp_path, "--survey", "muse", "--size", 12)
    assert code == 0
    assert len([line for line in out.split() if line.startswith(str(tmp_path))]) == 2
    assert run("info", tmp_path / "muse-sim1.fits.gz")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("register", "no.fits", "no2.fits"), "no.fits: expected a file that can be"),
        (("images", "no.fits", "-o", "a.fits"), "expected the filter of the image, found none"),
        (("images", "a.fits,band=sdss_r", "-o", "a.fits"), "expected either a cube or an image"),
        (("spatial", "a", "b", "-o", "c.fits", "--correlation", "much"), "scale in spaxels, or"),
        (("match", "no.fits", "no2.fits", "-o", "out"), "no.fits: expected a file that can be"),
        (("info", "no.fits"), "no.fits: expected a file that can be read, found no such file"),
        (("spectral", "no.fits", "-o", "b.fits"), "no.fits: expected a file"),
        (("simulate", "--size", "20"), "size: expected fibres of a MaNGA bundle"),
    ],
)
def test_bad_input__one_sentence_and_exit_code_2(
    run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...],
    message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_truncated_gzip__nothing_left(run: Callable, tmp_path: Path) -> None:
    galaxy = small_galaxy()
    cube = tmp_path / "cut.fits.gz"
    cube.write_bytes(galaxy.cube.path.read_bytes()[:200_000])
    code, _, err = run("match", cube, galaxy.photometry.path, "-o", tmp_path / "out")
    assert code == 2
    assert re.search(r"cut\.fits\.gz: expected a whole gzip file, found a truncated", err)
    assert not (tmp_path / "out").exists()


def test_version(run: Callable) -> None:
    assert run("--version")[:2] == (0, f"specphoto {specphoto.__version__}\n")


@pytest.mark.parametrize(
    "command", ["match", "spatial", "spectral", "info", "demo", "simulate", None]
)
def test_help__says_how_and_shows_an_example(run: Callable, command: str | None) -> None:
    code, out, _ = run(*([command] if command else []), "--help")
    assert code == 0
    assert ("Example:" in out) == (command is not None)


def test_warnings__one_line_each(run: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    run("--version")
    warnings.showwarning("DRP3QUAL is critical", UserWarning, "somewhere.py", 3)
    warnings.showwarning("some arithmetic", RuntimeWarning, "somewhere.py", 3)
    logging.getLogger("specphoto.any").warning("band %s has weight 0", "w4")
    assert capsys.readouterr().err == (
        "warning: DRP3QUAL is critical\nwarning: band w4 has weight 0\n"
    )


def test_interrupt__says_so(run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", stop)
    code, _, err = run("match")
    assert code == 130
    assert "nothing is left half-written" in err


def test_stage_bars__follow_the_stages() -> None:
    with StageBars() as bars:
        bars.show([Stage("write", 1, 3, 0.1)])
        bars.show([Stage("rechunk", 0, 2, 0.0), Stage("write", 3, 3, 0.2)])
        done = {task.description: (task.completed, task.total) for task in bars.progress.tasks}
    assert done == {"write": (3, 3), "rechunk": (0, 2)}


def test_library__build_info_check(run, tmp_path):
    recipe, made = tmp_path / "small.yaml", tmp_path / "small.h5"
    recipe.write_text("models: 40\nnebular: true\n")
    code, out, _ = run("library", "build", recipe, "-o", made)
    assert (code, out.strip()) == (0, str(made))
    code, out, _ = run("library", "info", made)
    assert code == 0
    assert re.search(r"models +40", out)
    assert "log U = -3" in out
    code, out, _ = run("library", "check", made, "-z", "0.03", "--band", "sdss_r")
    assert code == 0
    assert "BAD" not in out
    code, out, _ = run("library", "check", made, "--band", "wise_w4")
    assert code == 1
    assert re.search(r"wise_w4 +BAD +0\.0% inside", out)
    code, _, err = run("library", "build", recipe, "-o", made)
    assert code == 2
    assert "expected a name not taken" in err
    table = tmp_path / "table.hdf5"
    assert run("library", "build", recipe, "-o", table, "--layout", "pixedfit")[0] == 0
    assert "median" in run("library", "info", table)[1]
    assert run("library", "check", recipe)[0] == 0


def test_library__what_is_no_library(run, tmp_path):
    code, _, err = run("library", "check", tmp_path / "none.h5")
    assert code == 2
    assert "expected a piXedfit library" in err
