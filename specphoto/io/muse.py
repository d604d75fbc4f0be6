"""MUSE cubes of the ESO pipeline and MPDAF (facts in ``data/instruments/muse.yaml``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from specphoto.cube import add_provenance, annotate
from specphoto.errors import InputError
from specphoto.io import survey
from specphoto.io.fitsfile import Chunks, FitsFile, open_fits
from specphoto.io.lazy_array import elementwise
from specphoto.io.outline import Outline
from specphoto.spectral.wavelength import vacuum_to_air

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    import xarray as xr
    from astropy.io import fits
    from numpy.typing import NDArray

    from specphoto.io.cards import Cards
    from specphoto.io.survey import Headerlike

__all__ = ["READER", "MuseReader"]

_PSF_NODES = 5


@dataclass(frozen=True)
class MuseReader:
    """Reader of MUSE cubes; see :class:`specphoto.io.registry.Reader`."""

    name: str = "muse"

    def matches(self, headers: Mapping[str, Headerlike]) -> bool:
        """Whether DATA is a cube, of MUSE or (beside STAT) of no stated instrument."""
        if "DATA" not in headers or headers["DATA"].get("NAXIS") != 3:
            return False
        said = survey.card([headers["PRIMARY"], headers["DATA"]], "INSTRUME")
        return "STAT" in headers if said is None else str(said).upper().startswith("MUSE")

    def outline(self, headers: Mapping[str, Cards], path: str) -> Outline:
        """What a table says of the cube; see :func:`specphoto.io.outline.outline`."""
        found = [headers["PRIMARY"], headers["DATA"]]
        return Outline(
            kind="ifs", survey=self.name,
            name=survey.object_name(path, survey.card(found, "OBJECT")),
            position=survey.position(found, ("RA", "DEC"), ("CRVAL1", "CRVAL2")),
            z=survey.redshift_of(found, survey.instrument("muse"), None),
            shape=headers["DATA"].shape,
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
        facts = survey.instrument("muse")
        file.require("DATA", "STAT")
        where = f"{file.path}, DATA"
        header = file["DATA"].header
        headers = [file["PRIMARY"].header, header]
        axis = survey.spectral_axis(header, where)
        axis["ctype"] = axis["ctype"] or "AWAV"
        wave = survey.vacuum_wave(axis, file["DATA"].shape[0])
        assumed: list[str] = []
        survey.assume(file.path, assumed, "line-spread function of Bacon et al. 2017")
        survey.assume(file.path, assumed, f"spaxel correlation {facts['correlation']}")
        lsf = np.polyval(facts["lsf_fwhm"], vacuum_to_air(wave)) * survey.SIGMA_PER_FWHM
        chunk = file.chunks("DATA", chunks)
        fatal = survey.fatal_bits(facts["mask"], mask_bits)
        if mask_bits is not None and "DQ" not in file:
            survey.assume(file.path, assumed, "no DQ: mask_bits changes nothing")
        ds = annotate(
            _cube(file, wave, lsf.astype(np.float32), chunk, facts, fatal),
            kind="ifs",
            survey=self.name,
            name=survey.object_name(file.name, survey.card(headers, "OBJECT")),
            **survey.place(headers, survey.celestial(header, where), ("RA", "DEC")),
            **survey.extinction_of(headers, facts),
            redshift=survey.redshift_of(headers, facts, redshift),
            psf=_psf(headers, psf_fwhm, wave, file.path),
            correlation=dict(facts["correlation"]),
            spectral_axis=axis,
            corrected=False,
        )
        air = None if axis["ctype"].startswith("WAVE") else "Ciddor 1996"
        return add_provenance(ds, "muse", assumed=assumed, air_to_vacuum=air)


def _cube(
    file: FitsFile,
    wave: NDArray[np.float64],
    lsf: NDArray[np.float32],
    chunks: tuple[Any, ...],
    facts: Mapping[str, Any],
    fatal: int,
) -> xr.Dataset:
    # the unit of STAT is the square of that of DATA, whatever its own card says
    scale = np.float32(survey.flux_scale(file["DATA"].header, facts["flux_unit"]))
    known = [file.array("DATA"), file.array("STAT")]
    if "DQ" in file:
        file.require("DQ", shape=file["DATA"].shape)
        known.append(file.array("DQ", dtype=np.uint32))
    return survey.cube_dataset(
        elementwise(survey.scaled, known[0], scale=scale, dtype=np.float32),
        elementwise(_variance, known[1], scale=scale, dtype=np.float32),
        elementwise(_unusable, *known, fatal=fatal, dtype=bool),
        wave, lsf, chunks,
    )  # fmt: skip


def _unusable(
    flux: NDArray[np.float32], stat: NDArray[np.float32], bits: NDArray[np.uint32] | None = None,
    *, fatal: int,
) -> NDArray[np.bool_]:  # fmt: skip
    bad = ~(np.isfinite(flux) & np.isfinite(stat) & (stat > 0))
    return bad if bits is None else bad | survey.flagged(bits, fatal)


def _variance(stat: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    good = np.isfinite(stat) & (stat > 0)
    return np.where(good, stat, np.float32(np.nan)) * np.float32(scale * scale)


def _psf(
    headers: Sequence[fits.Header], given: float | None, wave: NDArray[np.float64], path: str
) -> dict[str, Any] | None:
    """PSF given, or of the FSF cards, or None.

    Of several fields of a mosaic the lowest number counts (0 is the mosaic as a whole).
    """
    if given is not None:
        return survey.constant_psf(given, wave[wave.size // 2], "gaussian", None)
    nodes = np.linspace(wave[0], wave[-1], _PSF_NODES)
    for field in range(100):
        try:
            moffat = _moffat(headers, field, nodes)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{path}, cards FSF{field:02d}*", expected="a whole PSF model",
                found=f"one with missing or bad values ({error})",
                remedy="correct the cards, or give the FWHM (psf_fwhm)",
            ) from error  # fmt: skip
        if moffat is not None:
            fwhm, beta = moffat
            return {
                "model": "moffat", "wave": nodes.tolist(),
                "fwhm": fwhm.tolist(), "beta": beta.tolist(),
            }  # fmt: skip
    return None


def _moffat(
    headers: Sequence[fits.Header], field: int, wave: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """FWHM (arcsec) and beta at wavelengths, by FSF model 1 or 2, or None without its cards.

    Model 1: FWHM = FWA + FWB lambda, one beta. Model 2: polynomials, highest power first, in
    (lambda - LB1) / (LB2 - LB1) - 1/2.
    """

    def value(name: str) -> float:
        return float(survey.card(headers, name))

    prefix = f"FSF{field:02d}"
    if survey.card(headers, f"{prefix}FNC") is not None:
        blue, red = value("FSFLB1"), value("FSFLB2")
        x = (wave - blue) / (red - blue) - 0.5
        fwhm = [value(f"{prefix}F{k:02d}") for k in range(int(value(f"{prefix}FNC")))]
        beta = [value(f"{prefix}B{k:02d}") for k in range(int(value(f"{prefix}BNC")))]
        return np.asarray(np.polyval(fwhm, x)), np.asarray(np.polyval(beta, x))
    if survey.card(headers, f"{prefix}FWA") is not None:
        fwhm_1 = value(f"{prefix}FWA") + value(f"{prefix}FWB") * wave
        return fwhm_1, np.full(wave.shape, value(f"{prefix}BET"))
    return None


READER = MuseReader()
