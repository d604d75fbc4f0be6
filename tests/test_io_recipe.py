"""Libraries built from recipes, on disk and back."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import h5py
import numpy as np
import pytest
from ssp_files import FACTS, emiles_like, write_fits

from specphoto.errors import InputError
from specphoto.io import fsps as fsps_module
from specphoto.io.fsps import fsps_grid
from specphoto.io.library import default_library, open_library, outline_library
from specphoto.io.library_file import write_composites, write_pixedfit_library
from specphoto.io.recipe import Recipe, build_library, read_recipe
from specphoto.photometry.filters import load_filters
from specphoto.spectral.dust import ism_transmission

FILTERS = load_filters(["galex_nuv", "sdss_g", "sdss_z"])


def recipe(folder, text):
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def test_build_library__nothing_said_is_the_default_library():
    built, own = build_library(Recipe(models=64)), default_library(64)
    assert built.fingerprint == own.fingerprint
    assert built.identity == own.identity


def test_write_composites__comes_back_to_the_bit(tmp_path):
    for nebular in (False, True):
        library = build_library(Recipe(models=32, nebular=nebular, log_u=-2.0))
        path = tmp_path / f"{nebular}.h5"
        write_composites(library, path, recipe="models: 32")
        again = open_library(path)
        assert again.fingerprint == library.fingerprint
        assert again.identity.startswith(f"{nebular}.h5 {library.fingerprint[:16]}")
        np.testing.assert_array_equal(
            again.photometry(0.03, FILTERS), library.photometry(0.03, FILTERS)
        )
        assert outline_library(path) == (again.wave_range, again.identity)
        assert path.stat().st_size < 20e6


def test_write_pixedfit_library__holds_the_same_models(tmp_path):
    library = build_library(Recipe(models=20, nebular=True))
    path = tmp_path / "table.hdf5"
    write_pixedfit_library(library, path)
    table = open_library(path)
    assert table.n_model == 20
    np.testing.assert_allclose(table.parameters["a_v"], library.parameters.a_v)
    # the composites' bands are cut at dust knots, the table's are integrated
    np.testing.assert_allclose(
        table.photometry(0.03, FILTERS), library.photometry(0.03, FILTERS), rtol=3e-3
    )


def test_write_composites__never_over_a_file(tmp_path):
    path = tmp_path / "library.h5"
    path.write_text("mine")
    with pytest.raises(InputError, match=r"library\.h5: expected a name not taken"):
        write_composites(default_library(4), path)
    assert path.read_text() == "mine"
    write_composites(default_library(4), path, overwrite=True)
    assert open_library(path).n_model == 4


def test_open_library__a_built_file_that_lacks_something(tmp_path):
    path = tmp_path / "library.h5"
    write_composites(default_library(4), path)
    with h5py.File(path, "a") as file:
        del file["parameters/tau"]
    with pytest.raises(InputError, match=r"library\.h5: .* 'specphoto library build', found .*tau"):
        open_library(path)


def test_read_recipe__the_example_in_deploy():
    example = read_recipe(Path(__file__).parents[1] / "deploy" / "library.yaml")
    assert example.nebular
    assert list(example.priors.histories) == ["delayed", "gaussian"]
    assert example.priors.a_v == Recipe().priors.a_v


def test_read_recipe__a_grid_beside_it(tmp_path):
    write_fits(tmp_path / "emiles.fits", emiles_like(), FACTS)
    library = build_library(read_recipe(recipe(tmp_path, "grid: emiles.fits\nmodels: 16\n")))
    assert library.n_model == 16
    assert library.identity.startswith("emiles.fits ")
    with pytest.raises(InputError, match="expected nebular emission in the grid"):
        build_library(read_recipe(recipe(tmp_path, "grid: emiles.fits\nnebular: true\n")))


def test_build_library__priors_histories_and_dust_come_back_from_disk(tmp_path):
    text = """
models: 64
dust: Calzetti
priors:
  a_v: {flat: [0.5, 1.5]}
  birth_ratio: 0
histories:
  log-normal: {share: 3}
  constant:
"""
    library = build_library(read_recipe(recipe(tmp_path, text)))
    assert library.dust == "Calzetti"
    assert set(library.parameters.history) == {3, 5}
    assert 0.5 <= library.parameters.a_v.min() < library.parameters.a_v.max() <= 1.5
    path = tmp_path / "library.h5"
    write_composites(library, path, recipe=text)
    again = open_library(path)
    assert again.fingerprint == library.fingerprint
    np.testing.assert_array_equal(
        again.photometry(0.03, FILTERS), library.photometry(0.03, FILTERS)
    )
    # spectra and photometry know the same law: a table of the spectra has the same photometry
    table = tmp_path / "table.hdf5"
    write_pixedfit_library(library, table)
    np.testing.assert_allclose(
        open_library(table).photometry(0.03, FILTERS), library.photometry(0.03, FILTERS), rtol=3e-3
    )
    # and it is the law: against the same stars without dust
    bare = build_library(read_recipe(recipe(tmp_path, text.replace("[0.5, 1.5]", "[0, 0]"))))
    wave = np.array([3000.0, 5500.0, 9000.0])
    index, nodes = np.arange(64), np.searchsorted(library.grid.wave, wave)
    ratio = (library.rest_frame().spectra(index) / bare.rest_frame().spectra(index))[:, nodes]
    wanted = ism_transmission(library.grid.wave[nodes], library.parameters, "Calzetti")
    np.testing.assert_allclose(ratio, wanted, rtol=2e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modls: 5", r"found 'modls'; did you mean 'models'"),
        ("models: many", r"recipe\.yaml: models: expected int, found 'many'"),
        ("nebular: 1", r"nebular: expected bool, found 1"),
        ("models: true", r"models: expected int, found True"),
        ("dust: Calzeti", r"dust: expected power law or Calzetti, found 'Calzeti'"),
        ("priors: {a_v: [1]}", r"a_v: expected a number, found \[1\]"),
        ("histories: {constant: {beta: -1}}", r"constant: beta: expected low to high within"),
        ("- 5", r"expected keys and values, found a list"),
        ("grid: [", r"expected a recipe in YAML"),
        ("grid: !!python/name:os.system", r"expected a recipe in YAML"),
    ],
)
def test_read_recipe__says_what_is_wrong(text, message, tmp_path):
    with pytest.raises(InputError, match=message):
        read_recipe(recipe(tmp_path, text))
    with pytest.raises(InputError, match=r"none\.yaml: expected a recipe in YAML"):
        read_recipe(tmp_path / "none.yaml")


def test_fsps_grid__says_what_is_missing(monkeypatch):
    monkeypatch.delenv("SPS_HOME", raising=False)
    with pytest.raises(InputError, match=r"grid fsps: .* found no SPS_HOME; get FSPS"):
        fsps_grid()
    monkeypatch.setenv("SPS_HOME", "/somewhere")
    monkeypatch.setitem(sys.modules, "fsps", None)
    with pytest.raises(InputError, match=r"expected python-fsps that works.*pip install fsps"):
        fsps_grid()


def test_fsps_grid__asks_of_python_fsps_only_what_it_has():
    # read, not run: without the data of FSPS it cannot even be imported
    installed = importlib.util.find_spec("fsps")
    if installed is None:
        pytest.skip("python-fsps has no wheel for this machine")
    theirs = ast.parse((Path(installed.origin).parent / "fsps.py").read_text())
    [population] = [node for node in theirs.body if isinstance(node, ast.ClassDef)
                    and node.name == "StellarPopulation"]  # fmt: skip
    methods = {node.name for node in population.body if isinstance(node, ast.FunctionDef)}
    options = {word.arg for node in ast.walk(population) if isinstance(node, ast.Call)
               for word in node.keywords}  # fmt: skip
    options |= {arg.arg for node in ast.walk(population) if isinstance(node, ast.arguments)
                for arg in node.args}  # fmt: skip
    ours = ast.parse(inspect.getsource(fsps_module))
    asked = {node.attr for node in ast.walk(ours) if isinstance(node, ast.Attribute)
             and isinstance(node.value, ast.Name) and node.value.id == "population"}  # fmt: skip
    assert asked >= {"wavelengths", "zlegend", "ssp_ages", "get_spectrum"}
    assert asked <= methods
    given = {word.arg for node in ast.walk(ours) if isinstance(node, ast.Call)
             and ast.unparse(node.func) in ("fsps.StellarPopulation", "population.get_spectrum")
             for word in node.keywords}  # fmt: skip
    assert given >= {"sfh", "imf_type", "zmet", "peraa"}
    assert given <= options


def test_fsps_grid__asks_for_stars_alone_and_arranges_them(monkeypatch):
    """A stand-in with python-fsps's names and shapes: FSPS itself and its data are not here."""
    wave, log_age = np.linspace(500.0, 7e4, 400), np.linspace(5.5, 10.15, 94)

    class StellarPopulation:
        wavelengths, ssp_ages, zlegend = wave, log_age, np.array([0.004, 0.02])
        resolutions = np.where(wave < 9000.0, 70.0, -1.0)
        libraries = (b"mist", b"miles", b"DL07")

        def __init__(self, **options):
            given.update(options)

        def get_spectrum(self, *, zmet, tage, peraa):
            assert tage == 0.0
            assert peraa
            return wave, zmet * 10.0 ** (5.0 - log_age)[:, None] * np.ones(wave.size)

    given: dict = {}
    module = ModuleType("fsps")
    module.__dict__.update(vars(SimpleNamespace(StellarPopulation=StellarPopulation)))
    monkeypatch.setitem(sys.modules, "fsps", module)
    monkeypatch.setenv("SPS_HOME", "/somewhere")
    grid = fsps_grid(imf=1)
    assert given["imf_type"] == 1
    assert not given["add_neb_emission"]
    assert given["dust1"] == given["dust2"] == 0.0
    assert grid.wave[0] >= 912.0
    assert grid.age[0] == 0.0
    assert 1e7 in grid.age
    node = int(np.argmin(np.abs(grid.age - 10.0 ** log_age[60])))
    np.testing.assert_allclose(grid.flux[1, node], 2 * 10.0 ** (5.0 - log_age[60]), rtol=1e-6)
    blue = grid.wave < 9000.0
    np.testing.assert_allclose(grid.fwhm[blue], 70.0 / 299_792.458 * 2.3548 * grid.wave[blue], 1e-4)
    assert np.all(grid.fwhm > 0)
    assert "mist miles DL07 imf_type=1" in grid.identity
