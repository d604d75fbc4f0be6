"""What a table of many galaxies says of each file: found in its headers, in a millisecond."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from specphoto.io.cards import Cards, read_cards

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import xarray as xr

    from specphoto.io.registry import Reader

__all__ = ["COLUMNS", "Outline", "outline", "outline_of"]

#: Columns of a table of galaxies that a file fills, in order.
COLUMNS = (
    "plateifu", "ra", "dec", "z", "kind", "survey", "n_wave", "n_y", "n_x", "quality", "critical",
)  # fmt: skip


@dataclass(frozen=True)
class Outline:
    """The facts of a file that stand in a table; None where they are unknown.

    Parameters
    ----------
    name
        Of the object.
    kind, survey
        As the attributes of a dataset, see :mod:`specphoto.cube`.
    plateifu
        MaNGA's plate and bundle.
    position
        Right ascension and declination, degrees.
    z
        Redshift.
    shape
        Of the cube or the images, ``(n_wave or n_band, n_y, n_x)``.
    quality, critical
        The survey's flag, and whether it advises against any use.
    """

    name: str
    kind: str
    survey: str
    plateifu: str | None = None
    position: tuple[float, float] | None = None
    z: float | None = None
    shape: tuple[int, ...] = ()
    quality: int | None = None
    critical: bool | None = None

    def row(self) -> dict[str, Any]:
        """Return the values of :data:`COLUMNS`."""
        ra, dec = self.position or (None, None)
        n_wave, n_y, n_x = self.shape or (None, None, None)
        values = (
            self.plateifu, ra, dec, self.z, self.kind, self.survey, n_wave, n_y, n_x,
            self.quality, self.critical,
        )  # fmt: skip
        return dict(zip(COLUMNS, values, strict=True))


@runtime_checkable
class Outlining(Protocol):
    """What a reader may have beside :class:`specphoto.io.registry.Reader`, to be quick."""

    def outline(self, headers: Mapping[str, Cards], path: str) -> Outline:
        """Outline of a file, from the headers that its ``matches`` knew it by."""


def outline(path: Path, readers: Mapping[str, Reader]) -> Outline:
    """Outline of a file: from its first headers if they suffice, else from the opened file.

    Parameters
    ----------
    path
        A FITS file, or a Zarr product.
    readers
        Installed readers, :func:`specphoto.io.registry.readers`.

    Raises
    ------
    InputError
        If it is nothing that specphoto reads.
    """
    if path.is_dir():
        return _product(path)
    for leading in (True, False):
        headers = read_cards(path, leading=leading)
        matching = [reader for reader in readers.values() if reader.matches(headers)]
        if len(matching) == 1 and isinstance(matching[0], Outlining):
            return matching[0].outline(headers, str(path))
    return outline_of(_open_any(path))


def outline_of(ds: xr.Dataset) -> Outline:
    """Outline of an opened dataset."""
    return _from_attributes(
        ds.attrs, tuple(ds.sizes.get(d, 0) for d in (_first(ds.attrs), "y", "x"))
    )


def _product(path: Path) -> Outline:
    """Outline of a Zarr product, from the metadata of two of its nodes."""
    try:
        attrs = json.loads((path / "zarr.json").read_text())["attributes"]
        variable = "photo_flux" if attrs["kind"] == "photometry" else "spec_flux"
        shape = json.loads((path / variable / "zarr.json").read_text())["shape"]
    except (OSError, ValueError, KeyError, TypeError):
        return outline_of(_open_any(path))  # which says what is wrong
    return _from_attributes(attrs, tuple(shape))


def _first(attrs: Mapping[Any, Any]) -> str:
    return "band" if attrs.get("kind") == "photometry" else "wave"


def _from_attributes(attrs: Mapping[Any, Any], shape: tuple[int, ...]) -> Outline:
    quality = attrs.get("quality") or {}
    name = str(attrs.get("name", ""))
    known = attrs.get("ra") is not None and attrs.get("dec") is not None
    return Outline(
        name=name, kind=str(attrs.get("kind", "")), survey=str(attrs.get("survey", "")),
        plateifu=name if attrs.get("survey") == "manga" else None,
        position=(float(attrs["ra"]), float(attrs["dec"])) if known else None,
        z=attrs.get("redshift"), shape=shape,
        quality=quality.get("value"), critical=quality.get("critical"),
    )  # fmt: skip


def _open_any(path: Path) -> xr.Dataset:
    # readers make outlines: what knows all readers is loaded when it is called
    from specphoto.io.opening import open_any

    return open_any(path)
