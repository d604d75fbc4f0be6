"""FITS and Zarr of one dataset in one pass: what both need is computed once."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Literal

from specphoto.io.blocks import in_blocks, stream
from specphoto.io.fits_writer import prepare_fits
from specphoto.io.staging import staged
from specphoto.io.zarr_store import prepare_zarr

if TYPE_CHECKING:
    import os

    import xarray as xr

    from specphoto.io.blocks import Target

__all__ = ["write_products"]


def write_products(
    ds: xr.Dataset,
    *,
    fits: str | os.PathLike[str] | None = None,
    zarr: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    compat: Literal["pixedfit"] | None = None,
) -> None:
    """Write a dataset as FITS, as Zarr, or as both, computing it once.

    Each block is written to both as it comes and then dropped. Neither product appears under its
    name before both are complete.

    Parameters
    ----------
    ds
        A spectrophotometric dataset.
    fits, zarr
        What to write; None leaves it out.
    overwrite
        Whether products already there are replaced.
    compat
        Layout of the FITS file, see :func:`specphoto.write_fits`.

    Raises
    ------
    InputError
        As :func:`specphoto.write_fits` and :func:`specphoto.write_zarr` do.
    """
    with ExitStack() as stack:
        ds = in_blocks(ds)
        pairs: list[tuple[xr.Variable, Target]] = []
        if fits is not None:
            aside = stack.enter_context(staged(fits, overwrite=overwrite))
            pairs += prepare_fits(ds, aside, name=str(fits), compat=compat)
        if zarr is not None:
            aside = stack.enter_context(staged(zarr, overwrite=overwrite))
            pairs += prepare_zarr(ds, aside, path=zarr)
        stream(pairs)
