"""What Bagpipes makes of a pixel that holds its own model of a galaxy."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from factories import disc_dataset, with_spectra

if TYPE_CHECKING:
    from pathlib import Path

GALAXY = {
    "redshift": 0.03,
    "exponential": {"age": 5.0, "tau": 2.0, "massformed": 9.5, "metallicity": 0.7},
}


class Found(NamedTuple):
    """Bagpipes' own numbers, in erg s-1 cm-2 A-1."""

    true_images: np.ndarray
    images: np.ndarray
    spectrum: np.ndarray
    corrected: np.ndarray
    lnlike: float
    lnlike_elsewhere: float
    chisq_phot: float
    chisq_spec: float
    exists: dict[str, Any]


def ask_bagpipes(folder: Path) -> Found:
    """Write a model of Bagpipes into a dataset, and ask Bagpipes how well it fits there.

    Channels 100 to 109 are masked and band 3 is missing; the factor is 1.2.
    """
    os.chdir(folder)  # it makes folders where it is
    import bagpipes
    from bagpipes.fitting.fitted_model import fitted_model

    ds = disc_dataset()
    curves = ds.specphoto.to_bagpipes(9, 12)["filt_list"]
    model = bagpipes.model_galaxy(GALAXY, filt_list=curves, spec_wavs=ds["wave"].values)
    ds = with_spectra(ds, model.spectrum[:, 1] / 1e-17, model.photometry / 1e-17, factor=1.2)
    bad, image = ds["spec_mask"].values.copy(), ds["photo_flux"].values.copy()
    bad[100:110], image[3] = True, np.nan
    ds = ds.assign(spec_mask=(("wave", "y", "x"), bad), photo_flux=(("band", "y", "x"), image))
    galaxy, corrected, edge = (
        bagpipes.galaxy(**ds.specphoto.to_bagpipes(x, y, spectrum=which))
        for x, y, which in ((9, 12, "observed"), (9, 12, "corrected"), (10, 1, "observed"))
    )
    fitted = fitted_model(galaxy, {**GALAXY, "redshift": (0.02, 0.04)})
    elsewhere = fitted.lnlike(np.array([0.031]))
    at_truth = fitted.lnlike(np.array([0.03]))
    exists = {
        name: (one.spectrum_exists, one.photometry_exists)
        for name, one in (("corrected", corrected), ("edge", edge))
    }
    return Found(
        model.photometry, galaxy.photometry, galaxy.spectrum, corrected.spectrum, at_truth,
        elsewhere, fitted.chisq_phot, fitted.chisq_spec, exists,
    )  # fmt: skip
