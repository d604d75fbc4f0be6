"""CALIFA rscubes: COMB, V500, V1200 (facts in ``data/instruments/califa.yaml``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from specphoto.cube import add_provenance, annotate
from specphoto.io import survey
from specphoto.io.fitsfile import Chunks, FitsFile, open_fits
from specphoto.io.lazy_array import elementwise
from specphoto.io.outline import Outline

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    import xarray as xr
    from astropy.io import fits
    from numpy.typing import NDArray

    from specphoto.io.cards import Cards
    from specphoto.io.survey import Headerlike

__all__ = ["READER", "CalifaReader"]


@dataclass(frozen=True)
class CalifaReader:
    """Reader of CALIFA cubes; see :class:`specphoto.io.registry.Reader`."""

    name: str = "califa"

    def matches(self, headers: Mapping[str, Headerlike]) -> bool:
        """Whether the primary HDU is a cube, and errors with CALIFA's companions follow."""
        cube = headers["PRIMARY"].get("NAXIS") == 3
        return cube and "ERROR" in headers and not headers.keys().isdisjoint(
            {"BADPIX", "ERRWEIGHT", "FIBCOVER"}
        )  # fmt: skip

    def outline(self, headers: Mapping[str, Cards], path: str) -> Outline:
        """What a table says of the cube; see :func:`specphoto.io.outline.outline`."""
        found = [headers["PRIMARY"]]
        return Outline(
            kind="ifs", survey=self.name,
            name=survey.object_name(path, survey.card(found, "OBJECT")),
            position=survey.position(found, ("RA", "DEC"), ("CRVAL1", "CRVAL2")),
            z=survey.redshift_of(found, survey.instrument("califa"), None),
            shape=headers["PRIMARY"].shape,
        )  # fmt: skip

    def open(
        self,
        path: str | os.PathLike[str],
        *,
        chunks: Chunks = "auto",
        redshift: float | None = None,
        psf_fwhm: float | None = None,
        mask_bits: Sequence[str | int] | None = None,
    ) -> xr.Dataset:
        """Open a cube lazily; options as in :func:`specphoto.io.open_ifs`."""
        file = open_fits(path)
        facts = survey.instrument("califa")
        file.require("PRIMARY", "ERROR", "BADPIX")
        header = file["PRIMARY"].header
        axis = _axis(header, file.path)
        wave = survey.vacuum_wave(axis, file["PRIMARY"].shape[0])
        setup = _setup(axis, facts)
        fwhm = facts["setups"][setup]["lsf_fwhm"]
        assumed: list[str] = []
        survey.assume(file.path, assumed, f"line-spread function of {fwhm} A FWHM ({setup})")
        survey.assume(file.path, assumed, f"spaxel correlation {facts['correlation']}")
        psf = facts["psf"]
        if psf_fwhm is None:
            survey.assume(file.path, assumed, f"PSF of {psf['fwhm']} arcsec ({psf['model']})")
        lsf = np.full(wave.shape, fwhm * survey.SIGMA_PER_FWHM, np.float32)
        chunk = file.chunks("PRIMARY", chunks)
        fatal = survey.fatal_bits(facts["mask"], mask_bits)
        ds = _cube(file, wave, lsf, chunk, facts, fatal)
        ds = annotate(
            ds,
            kind="ifs",
            survey=self.name,
            setup=setup,
            name=survey.object_name(file.name, header.get("OBJECT")),
            **survey.place([header], survey.celestial(header, file.path), ("RA", "DEC")),
            **survey.extinction_of([header], facts),
            redshift=survey.redshift_of([header], facts, redshift),
            psf=survey.constant_psf(
                psf_fwhm or psf["fwhm"], wave[wave.size // 2], psf["model"], psf["beta"]
            ),
            correlation=dict(facts["correlation"]),
            spectral_axis=axis,
            corrected=False,
        )
        return add_provenance(ds, "califa", assumed=assumed, air_to_vacuum="Ciddor 1996")


def _axis(header: fits.Header, path: str) -> dict[str, Any]:
    """Wavelength axis; its type card, where there is one, is not relied on: it is air."""
    return {**survey.spectral_axis(header, path), "ctype": "AWAV"}


def _setup(axis: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    first = axis["crval"] + (1.0 - axis["crpix"]) * axis["cdelt"]
    for name, about in facts["setups"].items():
        if axis["cdelt"] <= about["max_step"] and first <= about["max_start"]:
            return str(name)
    return "V500"


def _cube(
    file: FitsFile,
    wave: NDArray[np.float64],
    lsf: NDArray[np.float32],
    chunks: tuple[Any, ...],
    facts: Mapping[str, Any],
    fatal: int,
) -> xr.Dataset:
    scale = np.float32(survey.flux_scale(file["PRIMARY"].header, facts["flux_unit"]))
    flux, error = file.array("PRIMARY"), file.array("ERROR")
    known = [flux, error, file.array("BADPIX", dtype=np.uint32)]
    if "FIBCOVER" in file and file["FIBCOVER"].shape == file["PRIMARY"].shape:
        known.append(file.array("FIBCOVER", dtype=np.int32))
    limit = facts["bad_error"]
    return survey.cube_dataset(
        elementwise(survey.scaled, flux, scale=scale, dtype=np.float32),
        elementwise(_variance, error, scale=scale, limit=limit, dtype=np.float32),
        elementwise(_unusable, *known, fatal=fatal, limit=limit, dtype=bool),
        wave, lsf, chunks,
    )  # fmt: skip


def _unusable(
    flux: NDArray[np.float32], error: NDArray[np.float32], bits: NDArray[np.uint32],
    cover: NDArray[np.int32] | None = None, *, fatal: int, limit: float,
) -> NDArray[np.bool_]:  # fmt: skip
    bad = survey.flagged(bits, fatal) | ~((error > 0) & (error < limit)) | ~np.isfinite(flux)
    return bad if cover is None else bad | (cover == 0)


def _variance(error: NDArray[np.float32], scale: float, limit: float) -> NDArray[np.float32]:
    good = (error > 0) & (error < limit)
    return np.square(np.where(good, error, np.float32(np.nan)) * scale)


READER = CalifaReader()
