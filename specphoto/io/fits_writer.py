"""Datasets to FITS: a file laid out first, then filled block by block as blocks are computed."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from operator import mul
from typing import TYPE_CHECKING, Literal

import numpy as np

from specphoto.errors import InputError
from specphoto.io.blocks import in_blocks, stream
from specphoto.io.fits_compat import layout_pixedfit
from specphoto.io.fits_header import header_of
from specphoto.io.fits_layout import layout
from specphoto.io.staging import require_space, staged

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr
    from numpy.typing import NDArray

    from specphoto.io.blocks import Target

__all__ = ["FitsTarget", "prepare_fits", "write_fits"]

_BLOCK = 2880


def write_fits(
    ds: xr.Dataset,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    compat: Literal["pixedfit"] | None = None,
) -> None:
    """Write a dataset as FITS, in piXedfit's layout and with what that leaves out.

    The dataset is computed once, block by block, by whatever scheduler is active, and never held
    whole. The file appears under its name when it is complete.

    Parameters
    ----------
    ds
        A spectrophotometric dataset; photometry or factor may be missing.
    path
        File to write, ``.fits``. On a cluster, on a file system that all workers share.
    overwrite
        Whether a file already there is replaced.
    compat
        'pixedfit': exactly piXedfit's HDUs, in float64, and nothing that it does not have.

    Raises
    ------
    InputError
        If the file exists, its folder does not, its name ends otherwise, the disk is too small,
        or the dataset holds what FITS cannot keep.
    """
    with staged(path, overwrite=overwrite) as aside:
        stream(prepare_fits(in_blocks(ds), aside, name=str(path), compat=compat))


def prepare_fits(
    ds: xr.Dataset, aside: Path, *, name: str, compat: Literal["pixedfit"] | None = None
) -> list[tuple[xr.Variable, Target]]:
    """Lay out the file: all headers, and room for the data; return what goes where.

    Parameters
    ----------
    ds
        The dataset, :func:`~specphoto.io.blocks.in_blocks`.
    aside
        File to make.
    name
        Its name to be, for messages.
    compat
        As in :func:`write_fits`.
    """
    if not name.endswith(".fits"):
        raise InputError(
            name, expected="a name that ends in .fits", found="another one",
            remedy="name it so, and gzip the file afterwards if it shall be small",
        )  # fmt: skip
    plans = layout(ds) if compat is None else layout_pixedfit(ds)
    pairs: list[tuple[xr.Variable, Target]] = []
    offset = 0
    with aside.open("xb") as file:
        for i, plan in enumerate(plans):
            header = header_of(
                plan.cards, name=plan.name, shape=plan.shape, bitpix=plan.bitpix, primary=i == 0
            )
            file.seek(offset)
            offset += file.write(header.tostring().encode("ascii"))
            if plan.values is not None:
                target = FitsTarget(str(aside.absolute()), offset, plan.shape, plan.dtype.str)
                pairs.append((plan.values, target))
                size = math.prod(plan.shape) * plan.dtype.itemsize
                offset += -(-size // _BLOCK) * _BLOCK
        require_space(aside, offset, name)
        file.truncate(offset)
    return pairs


@dataclass(frozen=True)
class FitsTarget:
    """The data of one image HDU in a file laid out before; blocks are assigned to regions.

    Every run of bytes that is contiguous in the file is one plain write: a full disk is an
    error and not a signal, and two machines may write to one page of a network file system.

    Parameters
    ----------
    path
        The file. It must exist: a task that comes too late does not bring it back.
    offset
        Byte where the data begin.
    shape
        Of the image.
    dtype
        Stored dtype, big-endian.
    """

    path: str
    offset: int
    shape: tuple[int, ...]
    dtype: str

    def __setitem__(self, region: tuple[slice, ...], block: NDArray[np.generic]) -> None:
        """Write `block` into the `region` (slices of step 1, one per axis)."""
        if block.size == 0:
            return
        # axes from `run` on lie together in the file: all but the first of them are whole; of
        # a cube one plane is written at a time, so that no block is held in both byte orders
        run = block.ndim - 1
        while run > 0 and block.shape[run] == self.shape[run]:
            run -= 1
        run = max(run, min(1, block.ndim - 1))
        itemsize = np.dtype(self.dtype).itemsize
        strides = [itemsize * math.prod(self.shape[k + 1 :]) for k in range(block.ndim)]
        corner = sum(s.start * stride for s, stride in zip(region, strides, strict=True))
        with os.fdopen(os.open(self.path, os.O_WRONLY), "wb") as file:
            for index in np.ndindex(block.shape[:run]):
                part = np.ascontiguousarray(block[index], dtype=self.dtype)
                # the file is all zeros to begin with: the empty part of a frame stays a hole
                if part.any():
                    file.seek(self.offset + corner + sum(map(mul, index, strides)))
                    file.write(part.data)
