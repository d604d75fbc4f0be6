"""Real MaNGA spectra with factors and images of known truth.

The spectra are those of ``SPECPHOTO_DATA`` (S/N 1.5 to 153). Images in the bands that they cover
are synthesised and perturbed; there are no others, for those would be of a model. The spectrum is
divided by factors, so that its own noise and residuals of the sky are real.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from astropy.io import fits
from cases import BANDS, Truth

from specphoto.io.library import default_library
from specphoto.photometry.filters import load_filters
from specphoto.photometry.synthetic import photon_weights
from specphoto.spectral import legendre
from specphoto.spectral.pixel import Pixels
from specphoto.spectral.reference import (
    COVERED,
    band_floor,
    beyond_cube,
    make_reference,
    summarise,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from specphoto.spectral.reference import Method, Reference

__all__ = ["Spectrum", "spectra", "truth"]

FILES = (("MaNGA_test_spectra", 8), ("MaNGA_multicomp_test_spectra", 3))


class Spectrum(NamedTuple):
    """One spectrum: wavelengths, flux, error, what is bad, 1-sigma line spread, redshift."""

    wave: NDArray[np.float64]
    flux: NDArray[np.float64]
    err: NDArray[np.float64]
    bad: NDArray[np.bool_]
    lsf: NDArray[np.float64]
    redshift: float

    def references(self, methods: Sequence[Method]) -> dict[str, Reference]:
        """The default library at its redshift, for each method."""
        library, filters = default_library(), load_filters(list(BANDS))
        floor = band_floor(filters, library.wave_range, self.redshift, 0.02, band_error={},
                           exclude=None, name="real")  # fmt: skip
        photometry, shape = summarise(library, self.redshift, self.wave, filters, 3)
        beyond = beyond_cube(library, self.redshift, self.wave, filters, photometry)
        summary = photometry, shape, beyond
        made = make_reference(library, summary, self.redshift, self.wave, self.lsf, filters, floor,
                              line_window=500.0)  # fmt: skip
        return {
            method: made if method == "bayesian" else replace(made, method=method, features=None)
            for method in methods
        }


@lru_cache(maxsize=1)
def spectra(folder: Path) -> list[Spectrum]:
    """All that hold anything."""
    found = []
    for name, count in FILES:
        with fits.open(folder / "manga" / f"{name}.fits.gz") as file:
            for row in range(count):
                flux, ivar, mask, resolution = (
                    file[k].data[row].astype(float) for k in ("FLUX", "IVAR", "MASK", "SRES")
                )
                bad = (mask != 0) | ~(ivar > 0)
                if bad.all():
                    continue
                wave = file["WAVE"].data.astype(float)
                err = np.where(bad, np.nan, 1.0 / np.sqrt(np.where(bad, 1.0, ivar)))
                lsf = np.where(resolution > 0, wave / np.abs(resolution) / 2.3548, np.nan)
                flux = np.where(bad, np.nan, flux)
                found.append(Spectrum(wave, flux, err, bad, lsf, float(file["Z"].data[row])))
    return found


def photometry(spectrum: Spectrum) -> NDArray[np.float64]:
    """Fluxes in the bands that the spectrum covers; the others are not known."""
    weights, share = photon_weights(spectrum.wave, load_filters(list(BANDS)))
    good = ~spectrum.bad
    flux = np.interp(spectrum.wave, spectrum.wave[good], spectrum.flux[good]) @ weights
    return np.asarray(np.where(share >= COVERED, flux, np.nan))


def truth(spectrum: Spectrum, n: int, photo_error: float, seed: int) -> Truth:
    """Copies of a spectrum behind factors of tilts up to 15%, each with images of its own noise."""
    rng = np.random.default_rng(seed)
    x = legendre.normalized(spectrum.wave, spectrum.wave[0], spectrum.wave[-1])
    coef = rng.uniform(-0.15, 0.15, (n, 3)) * (1.0, 1.0, 0.3)
    P = 1.05 + coef @ legendre.basis(x, 3)[1:]
    images = photometry(spectrum)
    err = photo_error * np.abs(images)
    photo = images + err * rng.normal(size=(n, images.size))
    data = Pixels(photo, np.broadcast_to(err, photo.shape), spectrum.flux / P, spectrum.err / P,
                  np.broadcast_to(spectrum.bad, P.shape))  # fmt: skip
    return Truth(data, P)
