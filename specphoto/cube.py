"""The schema of every dataset that flows: dims, dtype, unit, meaning.

A galaxy is one :class:`xarray.Dataset` with dims ``(band, wave, y, x)``. Readers, verbs and
writers use the names registered here; :func:`validate` opens a verb, :func:`annotate` closes it.

Attributes of a dataset (all JSON: they survive Zarr and FITS)
--------------------------------------------------------------
``kind``            'ifs', 'photometry', 'specphoto', or 'sums' (:func:`specphoto.sum_spectra`)
``survey``          'manga', 'califa', 'muse', 'pixedfit', ...
``name``            what to call the object in messages and figures
``flux_unit``       :data:`FLUX_UNIT`, per pixel
``ra``, ``dec``     degrees, where known
``redshift``        absent when unknown
``wcs``             celestial WCS as a FITS header string; see :func:`celestial_wcs`
``pixel_scale``     arcsec
``ebv``             E(B-V) as the source states it; ``ebv_scale`` 'SFD' or 'SF11';
                    ``ebv_corrected`` whether the flux is dereddened already, ``ebv_law`` by what
``psf``             ``{"model": "gaussian" | "moffat", "wave": [], "fwhm": [], "beta": None | []}``:
                    FWHM in arcsec at wavelengths in Angstrom (one entry: the same everywhere);
                    or ``{"model": "image", ..., "scale": arcsec, "centre": [y, x]}`` with the
                    image in the variable ``target_psf``
``correlation``     ``{"model": "gaussian", "scale": ..., "cutoff": ...}`` in spaxels, or
                    ``{"model": "none"}``; the variable ``spec_corr``, where there is one, is
                    nearer to the data and goes before it
``photo_correlation``  by band name, scale in pixels of the Gaussian correlation of the images'
                    noise; absent where pixels are independent or nothing is known
``band_scale``      by band name, the factor that made its images photon-weighted means
``spectral_axis``   ``{"ctype", "crval", "cdelt", "crpix"}`` of the survey's third axis, Angstrom
``corrected``       whether ``spec_flux`` already carries the correction factor
``provenance``      list of steps: what ran, on what, with which options
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dask
import numpy as np
import xarray as xr
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning
from astropy.wcs.utils import proj_plane_pixel_scales

import specphoto
from specphoto.errors import InputError
from specphoto.quiet import quietly

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from specphoto.accessor import Accessor
    from specphoto.spatial.psf import PSF

__all__ = [
    "BLOCK_MULTIPLE",
    "FLUX_LABEL",
    "FLUX_UNIT",
    "SCHEMA_VERSION",
    "VARIABLES",
    "Grid",
    "Variable",
    "add_provenance",
    "annotate",
    "band_scale",
    "celestial_wcs",
    "identify",
    "own_wcs",
    "pixel_scale",
    "rechunk",
    "validate",
    "wcs_string",
]

SCHEMA_VERSION = 1
FLUX_UNIT = "1e-17 erg s-1 cm-2 Angstrom-1"
# the same for people
FLUX_LABEL = "10⁻¹⁷ erg s⁻¹ cm⁻² Å⁻¹"
#: Blocks of pixels begin at multiples of this on the sky, so that those of one stage are whole
#: chunks of the next and of the Zarr store.
BLOCK_MULTIPLE = 8


@dataclass(frozen=True)
class Variable:
    """What one variable is: allowed dims, numpy kind, unit, and meaning."""

    name: str
    dims: tuple[tuple[str, ...], ...]
    kind: str
    unit: str
    doc: str


_CUBE = ("wave", "y", "x")
_MAP = ("y", "x")
_SUM = ("label", "wave")

VARIABLES: Mapping[str, Variable] = {
    v.name: v
    for v in [
        Variable(
            "photo_flux", (("band", *_MAP), ("label", "band")), "f", FLUX_UNIT,
            "image F_lambda per pixel or bin",
        ),
        Variable(
            "photo_err", (("band", *_MAP), ("label", "band")), "f", FLUX_UNIT,
            "1-sigma error of photo_flux",
        ),
        Variable("photo_region", (_MAP,), "b", "", "galaxy pixels with photometry"),
        Variable("spec_region", (_MAP,), "b", "", "pixels with a trustworthy spectrum"),
        Variable("stamp_image", (_MAP,), "f", "", "image of the band that set the grid"),
        Variable("recon_image", (_MAP,), "f", "", "survey's broad-band image made of the cube"),
        Variable(
            "spec_flux", (_CUBE, _SUM), "f", FLUX_UNIT, "spectrum F_lambda per pixel or bin"
        ),
        Variable("spec_var", (_CUBE,), "f", f"({FLUX_UNIT})2", "variance of spec_flux"),
        Variable(
            "spec_err", (_CUBE, _SUM), "f", FLUX_UNIT,
            "1-sigma error with input-spaxel covariance",
        ),
        Variable("spec_mask", (_CUBE, _SUM), "b", "", "True = do not use"),
        Variable(
            "spec_lsf", (("wave",), _CUBE, _SUM), "f", "Angstrom", "1-sigma line-spread width"
        ),
        Variable(
            "spec_velocity", (_MAP,), "f", "km s-1", "velocity relative to the galaxy's redshift"
        ),
        Variable("spec_velocity_err", (_MAP,), "f", "km s-1", "1-sigma error of spec_velocity"),
        Variable(
            "spec_corr", (("lag", *_MAP), ("corr_wave", "lag", *_MAP)), "f", "",
            "noise correlation of a pixel with the one lag_y, lag_x away",
        ),
        Variable(
            "spec_corr_clipped", ((),), "f", "",
            "negative eigenvalues of the cube's own spec_corr, clipped: the largest over the "
            "largest positive one",
        ),
        Variable("foreground", (_MAP,), "b", "", "spaxels of a foreground star or other object"),
        Variable(
            "psf_image", (("psf_wave", "psf_y", "psf_x"),), "f", "",
            "survey's images of a point source, on the cube's pixels",
        ),
        Variable(
            "target_psf", (("target_psf_y", "target_psf_x"),), "f", "",
            "image of the PSF that all was brought to, where it is no model",
        ),
        Variable("coverage", (_MAP, _CUBE), "f", "", "share of operator weight on good spaxels"),
        Variable("edge_factor", (_MAP,), "f", "", "compensation for light beyond the bundle"),
        Variable("edge_bias", (_MAP,), "f", "", "estimated residual relative bias at the edge"),
        Variable("corr_coef", (("order", *_MAP),), "f", "", "Legendre coefficients of the factor"),
        Variable(
            "corr_cov", (("order", "order_2", *_MAP),), "f", "", "covariance of corr_coef"
        ),
        Variable(
            "corr_coef_pixel", (("order", *_MAP),), "f", "",
            "corr_coef of each pixel by itself, before pixels are taken together",
        ),
        Variable(
            "corr_cov_pixel", (("order", "order_2", *_MAP),), "f", "",
            "covariance of corr_coef_pixel",
        ),
        Variable(
            "corr_scatter", (("order",),), "f", "",
            "1-sigma scatter of the pixels' coefficients about their field",
        ),
        Variable(
            "corr_terms", (("order",),), "i", "", "polynomials in the field, 0 = no field"
        ),
        Variable(
            "corr_photo_cov", (("order", "band", *_MAP),), "f", FLUX_UNIT,
            "covariance of corr_coef with the errors of photo_flux",
        ),
        Variable(
            "additive_slope", (("band",),), "f", "",
            "synthetic over image flux of the galaxy less 1, before the factor",
        ),
        Variable("additive_slope_err", (("band",),), "f", "", "1-sigma error of additive_slope"),
        Variable(
            "additive_pedestal", (("band",),), "f", FLUX_UNIT,
            "synthetic flux where the image has none, before the factor",
        ),
        Variable(
            "additive_pedestal_err", (("band",),), "f", FLUX_UNIT,
            "1-sigma error of additive_pedestal",
        ),
        Variable(
            "corr_order", (_MAP,), "i", "",
            "order of the factor that the pixel's data fix, -1 = unknown",
        ),
        Variable("corr_factor", (_CUBE,), "f", "", "spectrophotometric correction factor"),
        Variable("corr_factor_err", (_CUBE,), "f", "", "1-sigma error, correlated in wavelength"),
        Variable("mod_flux", (_CUBE,), "f", FLUX_UNIT, "reference model at the IFS resolution"),
        Variable("chi2", (_MAP,), "f", "", "chi-square of the best model"),
        Variable("n_pixel", (("label",),), "i", "", "pixels in the bin"),
        Variable("n_band", (_MAP,), "i", "", "bands that entered the SED fit"),
        Variable("n_eff", (_MAP,), "f", "", "effective number of models, 1 / sum w^2"),
        Variable(
            "fit_flag", (_MAP,), "i", "",
            "doubt of the reference: 1 chi2, 2 spectrum leaves it, 4 image far from the spectrum",
        ),
        Variable("model_index", (_MAP,), "i", "", "library index of the best model, -1 = none"),
        Variable(
            "closure_before", (("band", *_MAP),), "f", "mag",
            "synthetic minus image magnitude before the factor",
        ),
        Variable(
            "closure_after", (("band", *_MAP),), "f", "mag",
            "synthetic minus image magnitude after the factor",
        ),
        Variable(
            "closure_holdout", (("band", *_MAP),), "f", "mag",
            "synthetic minus image magnitude after a factor that did not see the band",
        ),
        Variable(
            "register_shift", (("sky_axis",),), "f", "arcsec",
            "what brings the cube onto the images, east and north",
        ),
        Variable(
            "register_cov", (("sky_axis", "sky_axis_2"),), "f", "arcsec2",
            "covariance of register_shift",
        ),
        Variable(
            "register_fit", (("register_band", "register_term"),), "f", "",
            "per band: shift east and north (arcsec), flux scale, sky offset, PSF width difference",
        ),
        Variable(
            "register_err", (("register_band", "register_term"),), "f", "",
            "1-sigma errors of register_fit",
        ),
        Variable("register_status", ((),), "i", "", "whether a shift was found, and why not"),
        Variable("register_band_status", (("register_band",),), "i", "", "the same of each band"),
        Variable(
            "register_chi2", (("register_band",),), "f", "", "chi-square per degree of freedom"
        ),
        Variable(
            "register_correlation", (("register_band",),), "f", "",
            "correlation of image and synthetic image after the fit",
        ),
        Variable(
            "register_residual", (("register_band",),), "f", "",
            "rms difference of the two after the fit, over the core's height above the sky",
        ),
        Variable(
            "register_image", (("register_band", *_MAP),), "f", FLUX_UNIT,
            "image as compared, at the common PSF",
        ),
        Variable(
            "register_synthetic", (("register_band", *_MAP),), "f", FLUX_UNIT,
            "the cube's image after the fit, on the scale of the images",
        ),
    ]
}  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """A target pixel grid with its PSF.

    Parameters
    ----------
    wcs
        Celestial WCS.
    shape
        ``(n_y, n_x)``.
    psf
        FWHM of the target PSF in arcsec, a :class:`~specphoto.spatial.psf.PSF`, or a PSF attribute
        dictionary (see the module).
    """

    wcs: WCS
    shape: tuple[int, int]
    psf: PSF | float | dict[str, Any]


def validate(ds: xr.Dataset, *names: str, verb: str) -> None:
    """Refuse a dataset that lacks variables, or has them with other dims or kinds.

    Parameters
    ----------
    ds
        The dataset at a verb's entrance.
    *names
        Variables that must be there. Every registered variable that is there is checked too.
    verb
        The verb's name, for the message.

    Raises
    ------
    InputError
        Naming the variable, what was expected and what was found.
    """
    if not isinstance(ds, xr.Dataset):
        raise InputError(
            verb, expected="an xarray.Dataset", found=f"a {type(ds).__name__}",
            remedy="open the file with specphoto.open_ifs, open_photometry or open_cube",
        )  # fmt: skip
    missing = [n for n in names if n not in ds.variables]
    if missing:
        raise InputError(
            verb, expected=f"a dataset with {', '.join(names)}", found=f"no {', '.join(missing)}",
            remedy="open the file with specphoto.open_ifs, open_photometry or open_cube, "
            "or run the stage before",
        )  # fmt: skip
    if "label" in ds.dims:
        raise InputError(
            verb, expected="pixels, dims y and x", found="sums over bins, dim label",
            remedy="sum (specphoto.sum_spectra) after this step, not before",
        )  # fmt: skip
    for name, variable in VARIABLES.items():
        if name in ds.variables:
            _check(ds[name], variable, verb)
    if "wave" in names:
        _check_wave(np.asarray(ds["wave"].values), verb)


def _check(array: xr.DataArray, variable: Variable, verb: str) -> None:
    if array.dims not in variable.dims:
        raise InputError(
            f"{verb}: {variable.name}",
            expected="dims " + " or ".join(str(d) for d in variable.dims), found=f"{array.dims}",
            remedy="transpose the variable",
        )  # fmt: skip
    if array.dtype.kind != variable.kind:
        raise InputError(
            f"{verb}: {variable.name}", expected=f"a dtype of kind {variable.kind!r}",
            found=f"{array.dtype}", remedy="convert it with astype",
        )  # fmt: skip


def _check_wave(wave: NDArray[np.float64], verb: str) -> None:
    steps = np.diff(wave)
    if not np.all(np.isfinite(wave)) or np.any(steps <= 0):
        bad = int(np.argmax(~(steps > 0)))
        raise InputError(
            f"{verb}: wave", expected="wavelengths that increase (Angstrom, vacuum)",
            found=f"{wave[bad]:g} followed by {wave[bad + 1]:g} at channel {bad}",
            remedy="sort the cube in wavelength or drop the channels",
        )  # fmt: skip


def annotate(ds: xr.Dataset, **attrs: Any) -> xr.Dataset:
    """Set the units and meanings of all registered variables, and dataset attributes.

    Returns a new dataset; nothing is computed. A value of None removes the attribute.
    """
    out = ds.copy()  # attributes too, of the dataset and of its variables; no values
    out.attrs["specphoto_schema"] = SCHEMA_VERSION
    for name, variable in VARIABLES.items():
        if name in out.variables:
            out.variables[name].attrs.update(long_name=variable.doc, units=variable.unit)
    for name, value in attrs.items():
        out.attrs.pop(name, None)
        if value is not None:
            out.attrs[name] = value
    return out


def add_provenance(ds: xr.Dataset, step: str, **details: Any) -> xr.Dataset:
    """Append one step to ``provenance``: the step, the package version and JSON details."""
    entry = {"step": step, "version": specphoto.__version__, **details}
    return ds.assign_attrs(provenance=[*ds.attrs.get("provenance", []), entry])


def band_scale(ds: xr.Dataset) -> NDArray[np.float64]:
    """Factors that were applied to the images, ``(n_band,)``: 1 where the attribute has none."""
    factors = ds.attrs.get("band_scale") or {}
    return np.array([factors.get(str(band), 1.0) for band in ds["band"].values], dtype=float)


def rechunk(ds: xr.Dataset, chunks: Mapping[Any, Any]) -> xr.Dataset:
    """Chunk a dataset anew, by tasks.

    Blocks of planes and blocks of spectra meet in a few hundred small tasks. Dask's shuffle
    through the disk, its default on a cluster, takes several times as long for that.
    """
    with dask.config.set({"array.rechunk.method": "tasks"}):
        # coordinates are small, and read when graphs are made: they stay as they are
        return ds.chunk(chunks).assign_coords(ds.coords)


def identify(ds: xr.Dataset) -> str:
    """Name of a dataset for messages: the object's, and the files it was read from.

    >>> identify(xr.Dataset(attrs={"name": "NGC 309", "provenance": [{"input": "a.fits"}]}))
    'NGC 309 (a.fits)'
    """
    name = str(ds.attrs.get("name") or ds.attrs.get("kind") or "dataset")
    files = [str(step["input"]) for step in ds.attrs.get("provenance", []) if step.get("input")]
    return f"{name} ({', '.join(files)})" if files else name


def wcs_string(wcs: WCS) -> str:
    """Celestial WCS as a FITS header string, for the ``wcs`` attribute."""
    return str(wcs.celestial.to_header(relax=True).tostring(sep="\n"))


def celestial_wcs(ds: xr.Dataset) -> WCS:
    """Celestial WCS of a dataset, for the pixel numbers in its ``x`` and ``y`` coordinates.

    Raises
    ------
    InputError
        If the dataset has no ``wcs`` attribute.
    """
    if not ds.attrs.get("wcs"):
        raise InputError(
            identify(ds), expected="a celestial WCS (attribute 'wcs')",
            found="none", remedy="give the dataset one, or read it from a file that has one",
        )  # fmt: skip
    with quietly(FITSFixedWarning):
        # the header was fixed when it was read; saying so again helps nobody
        return WCS(fits.Header.fromstring(ds.attrs["wcs"], sep="\n"))


def own_wcs(ds: xr.Dataset) -> WCS:
    """Celestial WCS of a dataset's own pixels, counted from 0: a slice knows its sky.

    Raises
    ------
    InputError
        If the dataset has no ``wcs`` attribute, or its pixels are not evenly spaced.
    """
    view = tuple(_even(ds, dim) for dim in ("y", "x"))
    with quietly(FITSFixedWarning):
        return celestial_wcs(ds).slice(view)


def _even(ds: xr.Dataset, dim: str) -> slice:
    if dim not in ds.coords or ds.sizes[dim] == 0:
        return slice(0, None)
    pixels = ds[dim].values
    steps = np.unique(np.diff(pixels))
    if steps.size > 1 or (steps.size == 1 and steps[0] < 1):
        raise InputError(
            identify(ds), expected=f"evenly spaced pixels in {dim!r}",
            found=f"steps of {', '.join(f'{s:g}' for s in steps[:4])}",
            remedy="select a rectangle of pixels first; Zarr takes any",
        )  # fmt: skip
    return slice(int(pixels[0]), None, int(steps[0]) if steps.size else 1)


def pixel_scale(wcs: WCS) -> float:
    """Pixel side in arcsec: the geometric mean of the two axes."""
    return float(np.sqrt(np.prod(proj_plane_pixel_scales(wcs.celestial))) * 3600.0)


def _accessor(ds: xr.Dataset) -> Accessor:
    from specphoto.accessor import Accessor

    return Accessor(ds)


# Here, because every dataset of ours passes this module.
xr.register_dataset_accessor("specphoto")(_accessor)
