"""Kernels stay below Dask and xarray, and a plain import stays light."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import specphoto.spatial
import specphoto.spectral

# the lazy faces; everything else in the two packages is plain numpy
FACES = {"bins", "match", "graph", "inputs", "register", "sums", "velocity"}


def kernels() -> list[str]:
    return [
        f"{package.__name__}.{module.name}"
        for package in (specphoto.spatial, specphoto.spectral)
        for module in pkgutil.iter_modules(package.__path__)
        if module.name not in FACES
    ]


def loaded_by(*modules: str, among: tuple[str, ...]) -> list[str]:
    """Packages that a fresh interpreter has loaded after importing modules."""
    code = (
        f"import sys, {', '.join(modules)}\n"
        f"print(*[name for name in {among!r} if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.split()


def test_kernels__import_neither_dask_nor_xarray():
    names = kernels()
    assert "specphoto.spatial.operator" in names
    assert "specphoto.spectral.legendre" in names
    assert loaded_by(*names, among=("dask", "distributed", "xarray", "zarr", "h5py")) == []


@pytest.mark.parametrize("module", ["specphoto", "specphoto.io"])
def test_import__is_light(module):
    heavy = ("dask", "distributed", "xarray", "zarr", "h5py", "astropy", "scipy", "matplotlib")
    assert loaded_by(module, among=heavy) == []


def test_viewer__starts_without_what_it_may_need_later():
    later = ("matplotlib", "distributed", "scipy.signal")
    assert loaded_by("specphoto.cli_look", "specphoto.viewer", among=later) == []


def test_faces__are_lazy_layers_only():
    # the check above can fail: the faces do import Dask
    assert "dask" in loaded_by("specphoto.spatial.match", among=("dask",))
