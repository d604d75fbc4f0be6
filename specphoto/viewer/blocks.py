"""Reads pixels block by block and keeps the last few blocks: neighbours answer at once."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING

from specphoto.extract import Extract, pixel_extract

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["BLOCK", "Blocks"]

# Without the factor where it has coefficients: it is made for each pixel.
_READ = (
    "spec_flux", "spec_err", "spec_mask", "mod_flux", "corr_coef", "corr_cov", "photo_flux",
    "photo_err", "spec_region",
)  # fmt: skip
#: Pixels on a side of a block: those of a stored chunk. A larger one takes longer than one waits.
BLOCK = 8
_KEPT = 48


class Blocks:
    """Pixels of a lazy dataset.

    Parameters
    ----------
    ds
        A matched cube, corrected or not. Its maps and images are read with the first pixel; of
        its cubes the last few blocks of 8 x 8 pixels are kept (4 MB each for MaNGA).
    """

    def __init__(self, ds: xr.Dataset) -> None:
        factor = () if "corr_coef" in ds else ("corr_factor", "corr_factor_err")
        self._ds = ds[[name for name in (*_READ, *factor) if name in ds]]
        self._kept: OrderedDict[tuple[int, int], xr.Dataset] = OrderedDict()

    def pixel(self, y: int, x: int) -> Extract:
        """Read one pixel; see :func:`specphoto.extract.pixel_extract`."""
        if not (0 <= y < self._ds.sizes["y"] and 0 <= x < self._ds.sizes["x"]):
            return pixel_extract(self._ds, (y, x))  # which says what is wrong
        corner = (y // BLOCK, x // BLOCK)
        one = pixel_extract(self._block(corner), (y % BLOCK, x % BLOCK))
        return replace(one, where=f"pixel x = {x}, y = {y}")

    def _block(self, corner: tuple[int, int]) -> xr.Dataset:
        if corner not in self._kept:
            cut = {dim: slice(BLOCK * at, BLOCK * (at + 1))
                   for dim, at in zip("yx", corner, strict=True)}  # fmt: skip
            self._kept[corner] = self._ds.isel(cut).compute()
        self._kept.move_to_end(corner)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return self._kept[corner]
