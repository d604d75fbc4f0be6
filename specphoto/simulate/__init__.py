"""Survey-format files of simulated galaxies whose truth is known.

One truth (:class:`Truth`) is seen by several instruments: MaNGA, CALIFA, MUSE and a photometric
cube as piXedfit writes it. All is rebuilt from the truth's seed and parameters; every writer
returns what is true of its file.
"""

from __future__ import annotations

from specphoto.simulate.califa import califa_grid, write_califa
from specphoto.simulate.exposure import Exposure, SimulatedCube
from specphoto.simulate.galaxy import SimulatedGalaxy, galaxy, patchwork, simulate_galaxy
from specphoto.simulate.manga import manga_grid, write_manga
from specphoto.simulate.muse import muse_grid, write_muse
from specphoto.simulate.photometry import DEFAULT_BANDS, SimulatedPhotometry, write_photometry
from specphoto.simulate.pixels import PixelGrid
from specphoto.simulate.populations import LINES
from specphoto.simulate.profile import Profile, Psf
from specphoto.simulate.sky import make_sky
from specphoto.simulate.truth import Component, Miscalibration, Patchwork, Rotation, Truth

__all__ = [
    "DEFAULT_BANDS",
    "LINES",
    "Component",
    "Exposure",
    "Miscalibration",
    "Patchwork",
    "PixelGrid",
    "Profile",
    "Psf",
    "Rotation",
    "SimulatedCube",
    "SimulatedGalaxy",
    "SimulatedPhotometry",
    "Truth",
    "califa_grid",
    "galaxy",
    "make_sky",
    "manga_grid",
    "muse_grid",
    "patchwork",
    "simulate_galaxy",
    "write_califa",
    "write_manga",
    "write_muse",
    "write_photometry",
]
