"""Pixels inside apertures, regions and masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from specphoto.cube import celestial_wcs, identify
from specphoto.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["pixels_inside"]


def pixels_inside(ds: xr.Dataset, region: Any) -> NDArray[np.bool_]:
    """Pixels of a dataset that are inside a region, ``(y, x)``.

    Parameters
    ----------
    ds
        A dataset with pixel numbers in ``x`` and ``y``.
    region
        A mask (y, x) of bools; or an aperture of photutils or a region of ``regions``, on the sky
        or in pixel numbers: of those, pixels whose middle is inside.

    Raises
    ------
    InputError
        If it is a mask of another shape or kind, or on the sky and the dataset has no WCS.
    """
    if hasattr(region, "to_pixel"):
        region = region.to_pixel(celestial_wcs(ds))
    if hasattr(region, "to_mask"):
        return _drawn(ds, region)
    if isinstance(region, xr.DataArray):
        region = region.transpose("y", "x")
    mask, shape = np.asarray(region), (ds.sizes["y"], ds.sizes["x"])
    if mask.dtype != bool or mask.shape != shape:
        raise InputError(
            f"{identify(ds)}: aperture",
            expected=f"an aperture, a region or a mask of bools of shape (y, x) = {shape}",
            found=f"{mask.dtype} of shape {mask.shape}", remedy="make it on the cube's pixels",
        )  # fmt: skip
    return mask


def _drawn(ds: xr.Dataset, shape: Any) -> NDArray[np.bool_]:
    """Pixels of a shape in pixel numbers."""
    from photutils.aperture import PixelAperture

    # the two packages name the same option differently
    option = "method" if isinstance(shape, PixelAperture) else "mode"
    y, x = ds["y"].values, ds["x"].values
    image = shape.to_mask(**{option: "center"}).to_image((int(y.max()) + 1, int(x.max()) + 1))
    if image is None:  # it is elsewhere
        return np.zeros((y.size, x.size), bool)
    return np.asarray(image[np.ix_(y, x)] > 0)
