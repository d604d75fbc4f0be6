"""The lazy face of the spectral match."""

from __future__ import annotations

import math
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import dask.array as da
import numpy as np
import xarray as xr

from specphoto.blas import single_thread
from specphoto.cube import add_provenance, annotate, identify, validate
from specphoto.errors import InputError
from specphoto.io.library import default_library, open_library, outline_library
from specphoto.io.model_cache import CachedLibrary
from specphoto.photometry.filters import load_filters
from specphoto.photometry.synthetic import photon_weights
from specphoto.spatial.psf import PSF
from specphoto.spectral import legendre
from specphoto.spectral.bins import bin_pixels
from specphoto.spectral.graph import (
    Layout,
    additive,
    assemble,
    bin_images,
    correct,
    correct_bins,
    together,
)
from specphoto.spectral.pedestal import offset
from specphoto.spectral.reference import (
    COVERED,
    Method,
    band_floor,
    beyond_cube,
    make_reference,
    summarise,
)
from specphoto.spectral.velocity import make_template, with_given, with_measured
from specphoto.tasks import task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    from numpy.typing import NDArray

    from specphoto.io.library import LibraryOutline
    from specphoto.photometry.filters import Filter
    from specphoto.spectral.library import Library
    from specphoto.spectral.reference import Reference
    from specphoto.spectral.velocity import Template

__all__ = ["match_spectral", "require_order"]


def match_spectral(
    cube: xr.Dataset,
    *,
    library: Literal["default"] | str | PathLike[str] | Library = "default",
    redshift: float | None = None,
    order: int = 3,
    method: Method = "bayesian",
    coherent: bool = True,
    model_error: float = 0.02,
    band_error: Mapping[str, float] | None = None,
    exclude_bands: Sequence[str] | None = None,
    line_window: float = 500.0,
    velocity: Literal["measured"] | xr.DataArray | NDArray[np.floating] | None = None,
    labels: NDArray[np.int_] | xr.DataArray | None = None,
    min_snr: float = 0.0,
    subtract_pedestal: bool = False,
    holdout: bool = False,
    block: int = 16,
    compat: Literal["pixedfit"] | None = None,
    **compat_options: Any,
) -> xr.Dataset:
    """Correct each pixel's spectrum by a smooth factor, from its photometry.

    Nothing is computed: one task prepares the library for this galaxy's redshift, bands and
    wavelengths, and blocks of pixels are corrected by :mod:`specphoto.spectral.pixel`.

    Parameters
    ----------
    cube
        From :func:`specphoto.match_spatial` or :func:`specphoto.open_cube`: ``spec_flux``,
        ``spec_err``, ``spec_mask`` (wave, y, x), ``photo_flux``, ``photo_err`` (band, y, x).
    library
        'default', a library file (of ``specphoto library build``, or piXedfit's), or an object as
        :func:`specphoto.io.library.open_library` gives it.
    redshift
        Of the galaxy; by default the attribute of the cube.
    order
        Order of the Legendre polynomial, 0 to 10.
    method
        'bayesian': the spread of all acceptable models, weighed by photometry and by the features
        of the spectrum, with a template error that is correlated in wavelength. 'best': the single
        best model of the photometry, and a fit without bias. 'ratio': the same model, and the
        published clipped fit of the ratio of model to spectrum, which noise biases. The last two
        take 5% for the relative error of models, independent between bands.
    coherent
        Whether the factors of the pixels of a galaxy are taken together: each coefficient is shrunk
        towards a field of low order, as strongly as the scatter of the pixels against their errors
        allows (:mod:`specphoto.spectral.coherence`). Where fewer than 4 beams have a factor, and
        with the other methods, pixels stay as they are.
    model_error
        Relative error of comparing images with model photometry that no other band shares
        (curves, zero points), unless ``band_error`` says otherwise.
    band_error
        Band name to that error.
    exclude_bands
        Bands left out of the SED fit; by default those beyond 2.5 micron in the rest frame, where
        dust emission enters. Bands outside the library's range are always left out.
    line_window
        Half width in km/s of the emission-line windows that the fit of the factor leaves out.
    velocity
        Of each pixel ``(y, x)``, km/s relative to the redshift; NaN: not known. 'measured' finds
        those that the absorption lines tell significantly. Models, line windows and features then
        move with the pixel, and ``spec_velocity`` is in the result. By default all move with the
        galaxy: the factor is as right up to 250 km/s, but the lines of ``mod_flux`` are not in
        their places.
    labels
        Integers ``(y, x)`` on the cube's pixels (Voronoi bins, apertures; 0 is no bin): the factor
        is found per bin, from its summed spectrum and images with errors that know how pixels are
        correlated, and given to its pixels. Pixels in no bin have none. ``mod_flux`` and
        ``corr_photo_cov`` are those of the mean pixel of a bin, closures and the rest those of the
        bin. Pixels of 1.5 arcsec oversample a PSF of 6.4 arcsec: bins lose little but time.
    min_snr
        Spectra (of pixels, or of bins) with a median S/N per channel below this have no factor.
    subtract_pedestal
        Whether the pedestal of the spectra against the images (``additive_pedestal``,
        interpolated between the bands) is taken off before the factor is found.
    holdout
        Whether ``closure_holdout`` is made: the closure of each covered band by a factor (each
        pixel's own) that did not see its image. It is the honest test, and takes a fit per band.
    block
        Pixels on a side of the blocks of a task; best a multiple of 8.
    compat
        'pixedfit' for the recipe of piXedfit v1.0, with its faults.
    **compat_options
        Options of that recipe: ``del_wave_nebem``.

    Returns
    -------
    xarray.Dataset
        The cube with ``spec_flux`` and ``spec_err`` times the factor, ``corr_coef``,
        ``corr_cov``, ``corr_photo_cov``, ``corr_factor``, ``corr_factor_err``, ``mod_flux``,
        ``chi2``, ``n_band``, ``n_eff``, ``model_index``, ``corr_order``, ``closure_before`` and
        ``closure_after``. Where the factor is
        unknown, it, the spectrum, the model and the closures are NaN and the spectrum is masked;
        ``chi2`` and the rest of the SED fit are NaN (-1, 0) only where photometry is missing.
        ``spec_region`` stays that of the spatial match (it would not be known before the last
        pixel is); ``spec_mask`` says where the factor is unknown.
        ``corr_order`` is the order that the data of a pixel fix: coefficients above it, which
        neither spectrum nor references tell to 10% of the level, are drawn to 0 with that error.
        ``corr_factor_err`` is fully correlated in wavelength. The factor rests on the photometry:
        a fit of the corrected spectrum and the same photometry as if they were independent counts
        the photometry twice; ``corr_photo_cov`` is what a fit of both needs.

        ``fit_flag`` says why a reference is not to be trusted: 1 for photometry that no model fits,
        2 for a corrected spectrum that leaves its reference by more than 5% rms, 4 for an image far
        from it.
        With ``coherent``, ``corr_coef_pixel`` and ``corr_cov_pixel`` are each pixel's own,
        ``corr_scatter`` is the scatter of pixels about the field and ``corr_terms`` the number of
        polynomials in it (0: no field). ``additive_slope`` and ``additive_pedestal``, with errors,
        are the line of the uncorrected synthetic flux against the image over the galaxy, per
        covered band: calibration, and what the sky's subtraction left.

    Raises
    ------
    InputError
        If the cube was corrected already, has no redshift, too few channels or usable bands, or
        names unknown filters; if an option names a band that the cube has not.
    """
    validate(cube, "spec_flux", "spec_err", "spec_mask", "photo_flux", "photo_err", "wave",
             verb="match_spectral")  # fmt: skip
    redshift = _redshift(cube, redshift)
    _check_numbers(
        {"order": order, "block": block, "model_error": model_error, "line_window": line_window,
         "min_snr": min_snr, **{f"band_error of {k}": v for k, v in (band_error or {}).items()}}
    )  # fmt: skip
    _check(cube, order, compat, compat_options)
    _check_method(method)
    source = _source(library)
    if compat is not None:
        from specphoto.compat import match_spectral_pixedfit

        return match_spectral_pixedfit(
            cube.assign_attrs(redshift=redshift), _opened(source), block=block, **compat_options
        )
    models = _outline(source)
    bands = [str(b) for b in cube["band"].values]
    filters = load_filters(bands)
    floor = band_floor(
        filters, models.wave_range, redshift, model_error, band_error=band_error or {},
        exclude=exclude_bands, name=identify(cube),
    )  # fmt: skip
    wave = np.asarray(cube["wave"].values, dtype=np.float64)
    lsf = cube["spec_lsf"].data if "spec_lsf" in cube else None
    cube = _moving(cube, velocity, source, redshift, wave, line_window, block)
    # a library on disk is opened by the tasks themselves: names travel lighter than models
    summary = task("fit", prepare_library)(source, redshift, wave, filters, order)
    reference = task("fit", prepare_reference)(
        source, summary, redshift, wave, lsf, filters, floor, line_window=line_window,
        method=method, holdout=holdout, min_snr=min_snr,
    )  # fmt: skip
    residuals = _additive(cube, wave, filters, block)
    if subtract_pedestal:
        cube = _without_pedestal(cube, wave, filters, residuals["pedestal"])
    layout = Layout(order + 1, wave.size, len(bands))
    image, beam = cube["photo_flux"].data, _beam(cube)
    if labels is None:
        found = correct(cube, reference, layout, block)
    else:
        bins = bin_pixels(cube, labels)
        found = correct_bins(cube, bins, reference, layout, block)
        image, beam = bin_images(cube, bins, block), max(beam, bins.size)
    part = layout.split(found)
    if coherent and method == "bayesian":
        part = together(cube, part, image, beam)
    out = assemble(cube, part, wave, holdout=holdout)
    out = out.assign({f"additive_{name}": ("band", a) for name, a in residuals.items()})
    options = {
        "library": getattr(models, "identity", type(models).__name__), "redshift": redshift,
        "order": order, "method": method, "coherent": coherent,
        "model_error": model_error, "line_window": line_window,
        "subtract_pedestal": subtract_pedestal,
        "min_snr": min_snr, "labels": None if labels is None else "given",
        "velocity": velocity if isinstance(velocity, str | None) else "given",
        "bands_fitted": [b for b, f in zip(bands, floor, strict=True) if np.isfinite(f)],
    }  # fmt: skip
    out = annotate(out, corrected=True, redshift=redshift,
                   corr_range=[float(wave[0]), float(wave[-1])])  # fmt: skip
    return add_provenance(out, "match_spectral", options=options)


def _redshift(cube: xr.Dataset, option: float | None) -> float:
    value = cube.attrs.get("redshift") if option is None else option
    if not isinstance(value, Real) or not math.isfinite(value) or value <= -1.0:
        raise InputError(
            identify(cube), expected="a redshift for the spectral match",
            found=f"{value!r}", remedy="give one (redshift=..., --redshift)",
        )  # fmt: skip
    return float(value)


def _check_numbers(options: Mapping[str, Any]) -> None:
    """Refuse numbers that are none, or have no meaning."""
    for name, value in options.items():
        whole = name in ("order", "block")
        least = {"block": 1, "line_window": 1.0}.get(name, 0)
        kind = Integral if whole else Real
        if isinstance(value, bool) or not isinstance(value, kind) or not math.isfinite(value):
            raise InputError(
                name, expected="a whole number" if whole else "a finite number",
                found=repr(value), remedy="give one",
            )  # fmt: skip
        if name != "order" and value < least:
            raise InputError(
                name, expected=f"{least:g} or more", found=f"{value:g}",
                remedy="leave it at its default",
            )  # fmt: skip


def require_order(order: int) -> None:
    """Refuse an order that no factor has.

    Raises
    ------
    InputError
        If it is not 0 to 10.
    """
    if not 0 <= order <= 10:
        raise InputError(
            "order", expected="0 to 10", found=f"{order}", remedy="choose a smoother polynomial"
        )


def _check(
    cube: xr.Dataset, order: int, compat: str | None, compat_options: dict[str, Any]
) -> None:
    """Refuse options and cubes that cannot be matched."""
    name = identify(cube)
    if compat not in (None, "pixedfit"):
        raise InputError(
            "compat", expected="'pixedfit' or None", found=repr(compat), remedy="choose one"
        )
    unknown = set(compat_options) - ({"del_wave_nebem"} if compat else set())
    if unknown:
        raise InputError(
            "match_spectral", expected="options that it has (del_wave_nebem with compat only)",
            found=", ".join(sorted(unknown)), remedy="leave them out",
        )  # fmt: skip
    if cube.attrs.get("corrected"):
        raise InputError(
            name, expected="a cube that was not corrected yet",
            found="spec_flux that carries the factor (attribute 'corrected')",
            remedy="start from the result of the spatial match",
        )  # fmt: skip
    require_order(order)
    fewest = legendre.channels_needed(order)
    if cube.sizes["wave"] < fewest:
        raise InputError(
            name, expected=f"at least {fewest} channels for a factor of order {order}",
            found=f"{cube.sizes['wave']}", remedy="take more of the cube, or a lower order",
        )  # fmt: skip


def _moving(
    cube: xr.Dataset, velocity: Any, source: Any, redshift: float, wave: NDArray[np.float64],
    line_window: float, block: int,
) -> xr.Dataset:  # fmt: skip
    """The cube with the velocities of its pixels, where they are given or wanted."""
    if velocity is None:
        return cube
    if not isinstance(velocity, str):
        return with_given(cube, velocity)
    if velocity != "measured":
        raise InputError(
            "velocity", expected="a map in km/s, or 'measured'", found=repr(velocity),
            remedy="give one of the two",
        )  # fmt: skip
    template = task("fit", prepare_template)(source, redshift, wave, line_window)
    return with_measured(cube, template, wave, block)


def _additive(
    cube: xr.Dataset, wave: NDArray[np.float64], filters: list[Filter], block: int
) -> dict[str, da.Array]:
    """Additive residuals in the bands that the cube covers."""
    weights, covered = photon_weights(wave, filters)
    return additive(cube, np.where(covered >= COVERED, weights, 0.0), _beam(cube), block)


def _without_pedestal(
    cube: xr.Dataset, wave: NDArray[np.float64], filters: list[Filter], pedestal: da.Array
) -> xr.Dataset:
    """The cube less its pedestal."""
    pivot = np.array([f.pivot for f in filters])
    sky = task("correct", offset)(wave, pivot, pedestal)
    values = da.from_delayed(sky, (wave.size,), dtype=float).astype(np.float32)
    return cube.assign(spec_flux=cube["spec_flux"] - xr.DataArray(values, dims="wave"))


def _beam(cube: xr.Dataset) -> float:
    """Pixels that share noise: the noise-equivalent area of the PSF, 1 where it is not known."""
    if not cube.attrs.get("psf") or not cube.attrs.get("pixel_scale"):
        return 1.0
    psf = PSF.from_attrs(cube.attrs["psf"], float(np.median(cube["wave"])))
    return max(float(psf.area / cube.attrs["pixel_scale"] ** 2), 1.0)


def _check_method(method: str) -> None:
    if method not in get_args(Method):
        raise InputError(
            "method", expected=" or ".join(repr(m) for m in get_args(Method)),
            found=repr(method), remedy="choose one",
        )  # fmt: skip


def _source(library: Any) -> Literal["default"] | Path | Library:
    """Library as the tasks get it: a file by its full path, for workers may be elsewhere."""
    if isinstance(library, str) and library == "default":
        return "default"
    if hasattr(library, "photometry"):
        models: Library = library
        return models
    return Path(library).absolute()


def _opened(source: Literal["default"] | Path | Library) -> Library:
    if isinstance(source, Path):
        return open_library(source)
    return default_library() if source == "default" else source


def _outline(source: Literal["default"] | Path | Library) -> Library | LibraryOutline:
    """Range and identity of a library; a file's spectra are read by the tasks alone."""
    return outline_library(source) if isinstance(source, Path) else _opened(source)


# The names of these are those of their tasks on the dashboard.


def prepare_library(
    source: Any, redshift: float, wave: NDArray[np.float64], filters: list[Filter], order: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Open the library and summarise its models for the fits; waits for no data."""
    with single_thread():
        models = CachedLibrary(_opened(source))
        photometry, shape = summarise(models, redshift, wave, filters, order)
        return photometry, shape, beyond_cube(models, redshift, wave, filters, photometry)


def prepare_reference(source: Any, *args: Any, **options: Any) -> Reference:
    """Open the library and bring it to the galaxy."""
    with single_thread():
        return make_reference(_opened(source), *args, **options)


def prepare_template(source: Any, *args: Any) -> Template:
    """Open the library and make of it what velocities are measured against."""
    with single_thread():
        return make_template(_opened(source), *args)
