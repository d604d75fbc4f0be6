"""The lazy face of the spectral match."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import dask.array as da
import numpy as np
from dask.delayed import delayed

from specphoto.blas import single_thread
from specphoto.cube import add_provenance, annotate, identify, rechunk, validate
from specphoto.errors import InputError
from specphoto.io.library import default_library, open_library, outline_library
from specphoto.photometry.filters import load_filters
from specphoto.spectral import legendre
from specphoto.spectral.pixel import Pixels, correct_pixels
from specphoto.spectral.reference import (
    Method,
    band_floor,
    beyond_cube,
    make_reference,
    summarise,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    import xarray as xr
    from dask.delayed import Delayed
    from numpy.typing import NDArray

    from specphoto.io.library import LibraryOutline
    from specphoto.photometry.filters import Filter
    from specphoto.spectral.library import Library
    from specphoto.spectral.reference import Reference

__all__ = ["match_spectral"]


def match_spectral(
    cube: xr.Dataset,
    *,
    library: Literal["default"] | str | PathLike[str] | Library = "default",
    redshift: float | None = None,
    order: int = 3,
    method: Method = "bayesian",
    model_error: float = 0.01,
    band_error: Mapping[str, float] | None = None,
    exclude_bands: Sequence[str] | None = None,
    line_window: float = 500.0,
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
        'default', a piXedfit HDF5 library, or a library object.
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
        ``chi2``, ``n_band``, ``n_eff``, ``model_index``, ``closure_before`` and
        ``closure_after``. Where the factor is
        unknown, it, the spectrum, the model and the closures are NaN and the spectrum is masked;
        ``chi2`` and the rest of the SED fit are NaN (-1, 0) only where photometry is missing.
        ``spec_region`` stays that of the spatial match (it would not be known before the last
        pixel is); ``spec_mask`` says where the factor is unknown.
        ``corr_factor_err`` is fully correlated in wavelength. The factor rests on the photometry:
        a fit of the corrected spectrum and the same photometry as if they were independent counts
        the photometry twice; ``corr_photo_cov`` is what a fit of both needs.

    Raises
    ------
    InputError
        If the cube was corrected already, has no redshift, too few channels or usable bands, or
        names unknown filters; if an option names a band that the cube has not.
    """
    validate(cube, "spec_flux", "spec_err", "spec_mask", "photo_flux", "photo_err", "wave",
             verb="match_spectral")  # fmt: skip
    redshift = _redshift(cube, redshift)
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
    # a library on disk is opened by the tasks themselves: names travel lighter than models
    summary = delayed(prepare_library, pure=True)(source, redshift, wave, filters, order)
    reference = delayed(prepare_reference, pure=True)(
        source, summary, redshift, wave, lsf, filters, floor, line_window=line_window,
        method=method,
    )  # fmt: skip
    layout = _Layout(order + 1, wave.size, len(bands))
    corrected = _correct(cube, reference, layout, block)
    out = _assemble(cube, corrected, layout, wave)
    options = {
        "library": getattr(models, "identity", type(models).__name__), "redshift": redshift,
        "order": order, "method": method, "model_error": model_error, "line_window": line_window,
        "bands_fitted": [b for b, f in zip(bands, floor, strict=True) if np.isfinite(f)],
    }  # fmt: skip
    out = annotate(out, corrected=True, redshift=redshift,
                   corr_range=[float(wave[0]), float(wave[-1])])  # fmt: skip
    return add_provenance(out, "match_spectral", options=options)


def _redshift(cube: xr.Dataset, option: float | None) -> float:
    value = cube.attrs.get("redshift") if option is None else option
    if value is None or not np.isfinite(value) or value <= -1.0:
        raise InputError(
            identify(cube), expected="a redshift for the spectral match",
            found=f"{value}", remedy="give one (redshift=..., --redshift)",
        )  # fmt: skip
    return float(value)


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
    if not 0 <= order <= 10:
        raise InputError(
            "order", expected="0 to 10", found=f"{order}", remedy="choose a smoother polynomial"
        )
    fewest = legendre.channels_needed(order)
    if cube.sizes["wave"] < fewest:
        raise InputError(
            name, expected=f"at least {fewest} channels for a factor of order {order}",
            found=f"{cube.sizes['wave']}", remedy="take more of the cube, or a lower order",
        )  # fmt: skip


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


# The names of these two are those of their tasks on the dashboard.


def prepare_library(
    source: Any, redshift: float, wave: NDArray[np.float64], filters: list[Filter], order: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Open the library and summarise its models for the fits; waits for no data."""
    with single_thread():
        models = _opened(source)
        photometry, shape = summarise(models, redshift, wave, filters, order)
        return photometry, shape, beyond_cube(models, redshift, wave, filters, photometry)


def prepare_reference(source: Any, *args: Any, **options: Any) -> Reference:
    """Open the library and bring it to the galaxy."""
    with single_thread():
        return make_reference(_opened(source), *args, **options)


class _Layout(NamedTuple):
    """How the results of a pixel are stacked along one axis."""

    n_coef: int
    n_wave: int
    n_band: int

    def parts(self) -> dict[str, tuple[slice, tuple[int, ...]]]:
        """Position and shape of each result."""
        shapes: dict[str, tuple[int, ...]] = {
            "coef": (self.n_coef,), "cov": (self.n_coef, self.n_coef),
            "photo_cov": (self.n_coef, self.n_band), "model": (self.n_wave,),
            "chi2": (), "n_band": (), "n_eff": (), "best": (),
            "closure_before": (self.n_band,), "closure_after": (self.n_band,),
        }  # fmt: skip
        out, start = {}, 0
        for name, shape in shapes.items():
            stop = start + int(np.prod(shape, dtype=int))
            out[name] = (slice(start, stop), shape)
            start = stop
        return out

    @property
    def size(self) -> int:
        """Length of the stacked axis."""
        wide = self.n_coef * (1 + self.n_coef + self.n_band)
        return wide + self.n_wave + 4 + 2 * self.n_band


def _correct(cube: xr.Dataset, reference: Delayed, layout: _Layout, block: int) -> da.Array:
    """All results of all pixels, ``(layout.size, y, x)``: whole spectra, split in the sky."""
    cube = rechunk(cube, {"wave": -1, "band": -1, **_split(cube, block)})
    arrays: list[Any] = []
    for name, index in (("photo_flux", "byx"), ("photo_err", "byx"), ("spec_flux", "wyx"),
                        ("spec_err", "wyx"), ("spec_mask", "wyx")):  # fmt: skip
        arrays += [cube[name].data, index]
    corrected: da.Array = da.blockwise(
        _correct_block, "ryx", *arrays, reference, None, layout, None,
        new_axes={"r": layout.size}, concatenate=True, dtype=np.float32,
        meta=np.empty((0, 0, 0), np.float32), token="match-spectra",
    )  # fmt: skip
    return corrected


def _split(cube: xr.Dataset, block: int) -> dict[str, tuple[int, ...]]:
    """Chunks of at most ``block`` pixels a side that respect those of the spectra.

    The spatial stage keeps the frame's empty border in chunks of its own: merging them with the
    rest would move nothing but NaN.
    """
    out = {}
    for axis in ("y", "x"):
        sizes = cube["spec_flux"].chunksizes.get(axis, (cube.sizes[axis],))
        out[axis] = tuple(min(block, n - k) for n in sizes for k in range(0, n, block))
    return out


def _correct_block(
    photo_flux: Any, photo_err: Any, flux: Any, err: Any, bad: Any, reference: Any, layout: _Layout
) -> NDArray[np.float32]:
    """Correct the pixels of a block that have both spectrum and photometry."""
    out = np.full((layout.size, *flux.shape[1:]), np.nan, dtype=np.float32)
    parts = layout.parts()
    out[parts["best"][0]] = -1.0
    out[parts["n_band"][0]] = 0.0
    some = (~bad & np.isfinite(flux) & (err > 0)).any(axis=0)
    some &= (np.isfinite(photo_flux) & (photo_err > 0)).any(axis=0)
    if not some.any():
        return out
    with single_thread():
        result = correct_pixels(
            Pixels(*(a[:, some].T for a in (photo_flux, photo_err, flux, err, bad))), reference
        )
    for name, (where, _) in parts.items():
        out[where, some] = getattr(result, name).reshape(int(some.sum()), -1).T
    return out


def _assemble(
    cube: xr.Dataset, corrected: da.Array, layout: _Layout, wave: NDArray[np.float64]
) -> xr.Dataset:
    """The corrected cube with all that was found, as one dataset."""
    part = {
        name: corrected[where].reshape(*shape, *corrected.shape[1:]) if len(shape) == 2
        else corrected[where][0] if shape == () else corrected[where]
        for name, (where, shape) in layout.parts().items()
    }  # fmt: skip
    x = legendre.normalized(wave, wave[0], wave[-1])
    factor = part["coef"].map_blocks(
        legendre.evaluate, x, dtype=np.float32,
        chunks=((wave.size,), *part["coef"].chunks[1:]), token="factor",
    )  # fmt: skip
    factor_err = part["cov"].map_blocks(
        legendre.evaluate_err, x, dtype=np.float32, drop_axis=0,
        chunks=((wave.size,), *part["cov"].chunks[2:]), token="factor-err",
    )  # fmt: skip
    cube_dims, map_dims = ("wave", "y", "x"), ("y", "x")
    out = cube.assign(
        corr_coef=(("order", *map_dims), part["coef"]),
        corr_cov=(("order", "order_2", *map_dims), part["cov"]),
        corr_photo_cov=(("order", "band", *map_dims), part["photo_cov"]),
        corr_factor=(cube_dims, factor),
        corr_factor_err=(cube_dims, factor_err),
        mod_flux=(cube_dims, part["model"]),
        chi2=(map_dims, part["chi2"]),
        n_band=(map_dims, part["n_band"].astype(np.int16)),
        n_eff=(map_dims, part["n_eff"]),
        model_index=(map_dims, part["best"].astype(np.int32)),
        closure_before=(("band", *map_dims), part["closure_before"]),
        closure_after=(("band", *map_dims), part["closure_after"]),
    )
    blocks = dict(zip(cube_dims, factor.chunks, strict=True))
    spectra = rechunk(cube[["spec_flux", "spec_err", "spec_mask"]], blocks)
    out["spec_flux"] = spectra["spec_flux"] * out["corr_factor"]
    out["spec_err"] = spectra["spec_err"] * out["corr_factor"]
    out["spec_mask"] = spectra["spec_mask"] | ~np.isfinite(out["corr_coef"].isel(order=0))
    out["spec_mask"] = out["spec_mask"].transpose(*cube_dims)
    return out
