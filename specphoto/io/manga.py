"""MaNGA LOGCUBE and LINCUBE files, DR13 to DR17 (facts in ``data/instruments/manga.yaml``)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from specphoto.cube import add_provenance, annotate
from specphoto.io import survey
from specphoto.io.correlation import spec_corr
from specphoto.io.fitsfile import Chunks, FitsFile, open_fits
from specphoto.io.lazy_array import Counted, as_dask, elementwise
from specphoto.io.outline import Outline

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    import xarray as xr
    from astropy.io import fits
    from numpy.typing import NDArray

    from specphoto.io.cards import Cards
    from specphoto.io.lazy_array import LazyArray
    from specphoto.io.survey import Headerlike

__all__ = ["READER", "MangaReader"]

# share of its channels that makes a spaxel one of a foreground star
_HALF = 0.5
_POSITION = (("OBJRA", "OBJDEC"), ("IFURA", "IFUDEC"))


@dataclass(frozen=True)
class MangaReader:
    """Reader of MaNGA cubes; see :class:`specphoto.io.registry.Reader`."""

    name: str = "manga"

    def matches(self, headers: Mapping[str, Headerlike]) -> bool:
        """Whether the headers say MaNGA, in the primary HDU or with the flux."""
        found = [headers[name] for name in ("PRIMARY", "FLUX") if name in headers]
        instrument = str(survey.card(found, "INSTRUME") or "").strip().lower()
        return instrument == "manga" or survey.card(found, "MANGAID") is not None

    def outline(self, headers: Mapping[str, Cards], path: str) -> Outline:
        """What a table says of the cube; see :func:`specphoto.io.outline.outline`."""
        found = [headers["PRIMARY"], headers["FLUX"]]
        facts = survey.instrument("manga")
        plate_ifu = _plate_ifu(found)
        quality = _quality(found, facts) or {}
        return Outline(
            kind="ifs", survey=self.name, name=survey.object_name(path, plate_ifu),
            plateifu=plate_ifu, position=survey.position(found, *_POSITION, ("CRVAL1", "CRVAL2")),
            z=survey.redshift_of(found, facts, None), shape=headers["FLUX"].shape,
            quality=quality.get("value"), critical=quality.get("critical"),
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
        facts = survey.instrument("manga")
        file.require("FLUX", "IVAR", "MASK")
        shape = file["FLUX"].shape
        file.require("WAVE", shape=shape[:1], ndim=1)
        wave = file.values("WAVE")
        headers = [file["PRIMARY"].header, file["FLUX"].header]
        assumed: list[str] = []
        ds = _cube(file, wave, file.chunks("FLUX", chunks), facts, mask_bits)
        if "RIMG" in file and file["RIMG"].shape == shape[1:]:
            ds["recon_image"] = (("y", "x"), file.values("RIMG").astype(np.float32))
        ds = ds.assign(_psf_images(file, facts["psf"]["images"]))
        reach = facts["correlation"]["cutoff"]
        ds = ds.assign(spec_corr(file, facts["correlation_tables"], shape[1:], reach))
        ds = ds.set_coords([name for name in ("lag_y", "lag_x") if name in ds])
        wcs = survey.celestial(file["FLUX"].header, f"{file.path}, FLUX")
        ds = annotate(
            ds,
            kind="ifs",
            survey=self.name,
            name=survey.object_name(file.name, _plate_ifu(headers)),
            **survey.place(headers, wcs, *_POSITION),
            **survey.extinction_of(headers, facts),
            redshift=survey.redshift_of(headers, facts, redshift),
            psf=_psf(headers, facts, psf_fwhm, wave, file.path, assumed),
            correlation=dict(facts["correlation"]),
            spectral_axis=survey.spectral_axis(file["FLUX"].header, f"{file.path}, FLUX"),
            quality=_warned(_quality(headers, facts), file.path),
            corrected=False,
        )
        return add_provenance(ds, "manga", assumed=assumed)


def _cube(
    file: FitsFile,
    wave: NDArray[np.float64],
    chunks: tuple[Any, ...],
    facts: Mapping[str, Any],
    mask_bits: Sequence[str | int] | None,
) -> xr.Dataset:
    scale = np.float32(survey.flux_scale(file["FLUX"].header, facts["flux_unit"]))
    flux, ivar = file.array("FLUX"), file.array("IVAR")
    bits = file.array("MASK", dtype=np.uint32)
    fatal = survey.fatal_bits(facts["mask"], mask_bits)
    ds = survey.cube_dataset(
        elementwise(survey.scaled, flux, scale=scale, dtype=np.float32),
        elementwise(_variance, ivar, scale=scale, dtype=np.float32),
        elementwise(_unusable, flux, ivar, bits, fatal=fatal, dtype=bool),
        wave, _line_spread(file, wave, facts), chunks,
    )  # fmt: skip
    star = survey.fatal_bits(facts["mask"], facts["mask"]["foreground"])
    starry = Counted(elementwise(survey.flagged, bits, fatal=star, dtype=bool), _HALF)
    return ds.assign(foreground=(("y", "x"), as_dask(starry, starry.shape, "foreground")))


def _unusable(
    flux: NDArray[np.float32], ivar: NDArray[np.float32], bits: NDArray[np.uint32], fatal: int
) -> NDArray[np.bool_]:
    good = np.isfinite(flux) & np.isfinite(ivar) & (ivar > 0)
    return ~good | survey.flagged(bits, fatal)


def _variance(ivar: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    var = np.full_like(ivar, np.nan)
    with np.errstate(over="ignore"):  # a denormal inverse variance is as good as none
        np.divide(scale * scale, ivar, out=var, where=ivar > 0)
    return var


def _psf_images(file: FitsFile, bands: Mapping[str, float]) -> dict[str, Any]:
    """Images of a point source, as variable and coordinate; empty where the file has none."""
    names = [name for name in bands if name in file and len(file[name].shape) == 2]
    if not names:
        return {}
    file.require(*names, ndim=2)
    about = {"units": "Angstrom", "long_name": "wavelength of the PSF image"}
    return {
        "psf_image": (
            ("psf_wave", "psf_y", "psf_x"),
            np.stack([file.values(name) for name in names]).astype(np.float32),
        ),
        "psf_wave": ("psf_wave", np.array([bands[name] for name in names]), about),
    }


def _line_spread(
    file: FitsFile, wave: NDArray[np.float64], facts: Mapping[str, Any]
) -> LazyArray | NDArray[np.float32] | None:
    for name in facts["lsf"]["cubes"]:
        if name in file:
            file.require(name, shape=file["FLUX"].shape)
            return elementwise(_positive, file.array(name), dtype=np.float32)
    name = facts["lsf"]["resolution"]
    if name not in file:
        return None
    file.require(name, shape=wave.shape, ndim=1)
    resolution = _positive(file.values(name))
    return np.asarray(wave / resolution * survey.SIGMA_PER_FWHM, dtype=np.float32)


def _positive(values: NDArray[Any]) -> NDArray[Any]:
    """Values, NaN where they are not positive: there is no line-spread function there."""
    return np.where(values > 0, values, np.nan).astype(values.dtype)


def _plate_ifu(headers: Sequence[Headerlike]) -> Any:
    plate, ifu = survey.card(headers, "PLATEID"), survey.card(headers, "IFUDSGN")
    both = None if plate is None or ifu is None else f"{plate}-{ifu}"
    return survey.card(headers, "PLATEIFU") or both


def _psf(
    headers: Sequence[fits.Header],
    facts: Mapping[str, Any],
    given: float | None,
    wave: NDArray[np.float64],
    path: str,
    assumed: list[str],
) -> dict[str, Any]:
    about = facts["psf"]
    middle = float(wave[wave.size // 2])
    if given is not None:
        return survey.constant_psf(given, middle, about["model"], None)
    nodes = [
        (node, float(fwhm))
        for name, node in about["cards"].items()
        if isinstance(fwhm := survey.card(headers, name), int | float) and fwhm > 0
    ]
    if not nodes:
        survey.assume(path, assumed, f"no FWHM cards: PSF of {about['fwhm']} arcsec")
        return survey.constant_psf(about["fwhm"], middle, about["model"], None)
    return {
        "model": about["model"], "wave": [n for n, _ in nodes], "fwhm": [f for _, f in nodes],
        "beta": None,
    }  # fmt: skip


def _quality(headers: Sequence[Headerlike], facts: Mapping[str, Any]) -> dict[str, Any] | None:
    about = facts["quality"]
    value = survey.card(headers, about["card"])
    if value is None:
        return None
    critical = bool((int(value) >> about["critical"]) & 1)
    return {"card": about["card"], "value": int(value), "critical": critical}


def _warned(quality: dict[str, Any] | None, path: str) -> dict[str, Any] | None:
    if quality and quality["critical"]:
        warnings.warn(
            f"{path}: {quality['card']} = {quality['value']} has the CRITICAL bit set: "
            "the survey advises against any use of this cube",
            stacklevel=4,
        )
    return quality


READER = MangaReader()
