"""What the spatial verbs read of a cube and of images: frames, PSFs, the noise's correlation.

Headers only, no pixel: this happens when a graph is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from specphoto.cube import Grid, celestial_wcs, identify, pixel_scale
from specphoto.errors import InputError
from specphoto.spatial.correlation import stencil_of
from specphoto.spatial.geometry import PixelFrame
from specphoto.spatial.psf import PSF, known_psf, psf_attrs, psf_nodes
from specphoto.spatial.resolution import Resolution, common_resolution

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

__all__ = [
    "carry_psf",
    "frame_of",
    "noise_of",
    "resolution_of",
    "sky_per_pixel",
    "source_psfs",
    "stated_psf",
    "wanted_psf",
]


def frame_of(ds: xr.Dataset | Grid) -> PixelFrame:
    """Pixels of a dataset or grid on the sky."""
    if isinstance(ds, Grid):
        return PixelFrame(ds.wcs.celestial, 0, 0, ds.shape)
    return PixelFrame.of(celestial_wcs(ds), ds["y"].values, ds["x"].values, name=identify(ds))


def sky_per_pixel(frame: PixelFrame) -> NDArray[np.float64]:
    """Arcsec east and north (rows) per pixel along x and y (columns), in the frame's middle."""
    x = frame.first_x + 0.5 * (frame.shape[1] - 1)
    y = frame.first_y + 0.5 * (frame.shape[0] - 1)
    middle = frame.wcs.celestial.pixel_to_world(x, y)
    steps = [frame.wcs.celestial.pixel_to_world(x + dx, y + dy) for dx, dy in ((1, 0), (0, 1))]
    offsets = [middle.spherical_offsets_to(step) for step in steps]
    return np.array([[float(o[k].arcsec) for o in offsets] for k in (0, 1)])


def stated_psf(ds: xr.Dataset) -> PSF | dict[str, Any] | None:
    """What a dataset says of its PSF: a model as its attribute has it, or its image."""
    stated: dict[str, Any] | None = ds.attrs.get("psf")
    if stated is None or stated.get("model") != "image" or "target_psf" not in ds:
        return stated
    return PSF.from_attrs(stated, 0.0, ds["target_psf"].values)


def carry_psf(ds: xr.Dataset, psf: PSF) -> xr.Dataset:
    """Say of a dataset that it is at a PSF: the attribute, and the image where it is one."""
    out = ds.drop_vars("target_psf", errors="ignore").assign_attrs(psf=psf_attrs(psf))
    if psf.image is not None:
        out["target_psf"] = (("target_psf_y", "target_psf_x"), psf.image)
    return out


def wanted_psf(ifs: xr.Dataset, target: xr.Dataset | Grid, target_psf: Any) -> PSF:
    """PSF of the images, or of the grid, in the middle of the cube's range."""
    name = "grid" if isinstance(target, Grid) else identify(target)
    stated = target.psf if isinstance(target, Grid) else stated_psf(target)
    given = PSF.named(target_psf) if isinstance(target_psf, str) else target_psf
    return known_psf(given, stated, float(np.median(ifs["wave"].values)), name)


def resolution_of(
    ifs: xr.Dataset, target: xr.Dataset | Grid, source_psf: Any, target_psf: Any
) -> Resolution:
    """PSF of the result, and kernels at the wavelengths where the cube's PSF is known."""
    wave, sources = source_psfs(ifs, source_psf)
    scale = pixel_scale(celestial_wcs(ifs))
    wanted = wanted_psf(ifs, target, target_psf)
    try:
        return common_resolution(wave, sources, wanted, scale, images=not isinstance(target, Grid))
    except InputError as error:
        raise error.within(identify(ifs)) from None


def source_psfs(ifs: xr.Dataset, source_psf: Any) -> tuple[NDArray[np.float64], tuple[PSF, ...]]:
    """Wavelengths where the cube's PSF is known, and what it is there: what is given or stated."""
    if isinstance(source_psf, str) and source_psf == "images":
        source_psf = _psf_images(ifs)
    return psf_nodes(source_psf, ifs.attrs.get("psf"), identify(ifs))


def _psf_images(ifs: xr.Dataset) -> list[tuple[float, PSF]]:
    if "psf_image" not in ifs:
        raise InputError(
            identify(ifs), expected="images of the PSF (variable psf_image)",
            found="none", remedy="give source_psf as a FWHM in arcsec instead of 'images'",
        )  # fmt: skip
    scale, name = pixel_scale(celestial_wcs(ifs)), f"{identify(ifs)}: psf_image"
    psfs = ifs["psf_image"]
    return [
        (float(wave), PSF.from_image(image, scale, name=f"{name} at {wave:g} A"))
        for wave, image in zip(psfs["psf_wave"].values, psfs.values, strict=True)
    ]


def noise_of(ifs: xr.Dataset, correlation: dict[str, Any] | None) -> NDArray[np.float64] | None:
    """Stencil of the cube's noise; None where the cube has a correlation of its own."""
    if correlation is None and "spec_corr" in ifs:
        return None
    return stencil_of(correlation or ifs.attrs.get("correlation", {}))
