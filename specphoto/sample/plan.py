"""What a sample run is asked to do: one TOML file, read and checked before anything starts."""

from __future__ import annotations

import math
import tomllib
from collections import Counter
from dataclasses import dataclass, field, replace
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from specphoto.cluster.site import bytes_of
from specphoto.cluster.threads import GALAXY_MEMORY
from specphoto.errors import InputError
from specphoto.keys import require_kinds, require_known
from specphoto.pipeline import product_name
from specphoto.sample.targets import read_rows, rows_of_pattern
from specphoto.spatial.match import match_spatial
from specphoto.spectral.match import match_spectral, require_order

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from specphoto.keys import Kind

__all__ = ["Sample", "Target"]

_FILE_OPTIONS = ("survey", "mask_bits")
_INPUTS = ("cube", "photometry", "name", "redshift")
OPTIONS = (
    frozenset(signature(match_spatial).parameters)
    | frozenset(signature(match_spectral).parameters)
    | {*_FILE_OPTIONS, "del_wave_nebem"}
) - {"ifs", "target", "cube", "options", "compat_options", "block"}  # fmt: skip
_SECTIONS = ("output", "formats", "accept_critical", "galaxy_memory", "targets", "options",
             "cluster")  # fmt: skip
_TARGET_KEYS = ("table", "columns", "cube", "photometry", "redshift")
# Of values in a sample file, by section. What is not here is checked where it is used.
_KINDS: dict[str, Kind] = {
    "output": "a text", "formats": "a list of texts", "accept_critical": "true or false",
    "targets": "keys and values", "options": "keys and values", "cluster": "keys and values",
}  # fmt: skip
_TARGET_KINDS: dict[str, Kind] = {
    "table": "a text", "columns": "keys and values", "cube": "a text", "photometry": "a text",
    "redshift": "a number",
}  # fmt: skip
_CLUSTER_KINDS: dict[str, Kind] = {
    "kind": "a text", "site": "a text", "workers": "a whole number",
    "threads_per_worker": "a whole number", "dashboard": "true or false",
}  # fmt: skip
# A text counts as true, "false" too.
_OPTION_KINDS: dict[str, Kind] = {
    "order": "a whole number", "coherent": "true or false", "compensate": "true or false",
    "holdout": "true or false", "subtract_pedestal": "true or false",
}  # fmt: skip


@dataclass(frozen=True)
class Target:
    """One galaxy of a sample.

    Parameters
    ----------
    name
        Of its products, without ending; unique in the sample.
    cube, photometry
        Paths of the two files.
    redshift
        Where the headers have none; None takes theirs.
    options
        Options of the match for this galaxy, over those of the sample.
    """

    name: str
    cube: str
    photometry: str
    redshift: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """Targets, options, output and cluster of a run.

    Parameters
    ----------
    targets
        The galaxies.
    output
        Folder of the products.
    options
        Of :func:`specphoto.match`, for all galaxies; and ``survey``, ``mask_bits``.
    formats
        Which products: 'fits', 'zarr'.
    cluster
        Options of :func:`specphoto.cluster.open`: ``kind``, ``workers``, ``site``, ...
    galaxy_memory
        What one galaxy needs of a worker's memory, in bytes or as '3GB'.
    accept_critical
        Whether a cube that its survey calls critically bad is matched all the same.
    """

    targets: tuple[Target, ...]
    output: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    formats: tuple[Literal["fits", "zarr"], ...] = ("fits", "zarr")
    cluster: Mapping[str, Any] = field(default_factory=dict)
    galaxy_memory: str | float = GALAXY_MEMORY
    accept_critical: bool = False

    def __post_init__(self) -> None:
        _require_options(self.options, "options of the sample")
        require_kinds({"accept_critical": self.accept_critical}, _KINDS)
        require_kinds(self.cluster, _CLUSTER_KINDS, "cluster")
        bytes_of(self.galaxy_memory, "galaxy_memory")
        if not self.formats or set(self.formats) - {"fits", "zarr"}:
            raise InputError(
                "formats", expected="'fits', 'zarr' or both", found=repr(list(self.formats)),
                remedy="choose among the two",
            )  # fmt: skip
        if not self.targets:
            raise InputError(
                "targets", expected="at least one galaxy", found="none",
                remedy="look at the table or the pattern",
            )  # fmt: skip
        for target in self.targets:
            _require_options(target.options, f"options of {target.name}")
        name, count = Counter(t.name for t in self.targets).most_common(1)[0]
        if count > 1:
            raise InputError(
                "targets", expected="a name of its own for each galaxy",
                found=f"{count} named {name!r}", remedy="give the table a column 'name'",
            )  # fmt: skip

    @classmethod
    def read(cls, path: str | PathLike[str]) -> Sample:
        """Read a sample file; paths in it are relative to its folder.

        Raises
        ------
        InputError
            If the file, its table or a key cannot be used.
        """
        file = Path(path)
        try:
            given = tomllib.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise InputError(
                str(path), expected="a sample file in TOML", found=str(error),
                remedy="see deploy/sample.toml for one",
            ) from error  # fmt: skip
        require_known(given, _SECTIONS, str(path))
        require_kinds(given, _KINDS, str(path))
        home = file.absolute().parent
        targets = _targets(given.get("targets", {}), home, str(path))
        output = home / given.get("output", "results")
        options = {k: _path_of_library(k, v, home) for k, v in given.get("options", {}).items()}
        plain = {k: given[k] for k in ("galaxy_memory", "accept_critical") if k in given}
        cluster = dict(given.get("cluster", {}))
        require_kinds(cluster, _CLUSTER_KINDS, f"{path} [cluster]")
        if "site" in cluster:
            cluster["site"] = str(home / cluster["site"])
        try:
            return cls(
                targets, output, options, tuple(given.get("formats", ("fits", "zarr"))), cluster,
                **plain,
            )  # fmt: skip
        except InputError as error:
            raise error.within(str(path)) from error

    def changed(self, **fields: Any) -> Sample:
        """Return the sample with other fields."""
        return replace(self, **fields)

    def options_of(self, target: Target) -> dict[str, Any]:
        """Options that hold for one galaxy."""
        return {**self.options, **target.options}


def _require_options(options: Mapping[str, Any], what: str) -> None:
    """Refuse now what would fail galaxy by galaxy, or mean something else."""
    require_known(options, OPTIONS, what)
    given = {k: v for k, v in options.items() if v is not None}
    require_kinds(given, _OPTION_KINDS, what)
    if "order" in given:
        try:
            require_order(given["order"])
        except InputError as error:
            raise error.within(what) from error


def _path_of_library(key: str, value: Any, home: Path) -> Any:
    is_file = key == "library" and isinstance(value, str) and value != "default"
    return str(home / value) if is_file else value


def _targets(section: Mapping[str, Any], home: Path, file: str) -> tuple[Target, ...]:
    require_known(section, _TARGET_KEYS, f"{file} [targets]")
    require_kinds(section, _TARGET_KINDS, f"{file} [targets]")
    if "table" in section:
        table = home / section["table"]
        rows = read_rows(table, section.get("columns", {}), OPTIONS | set(_INPUTS))
        return tuple(_target(row, table.parent, f"{table}, row {i}") for i, row in
                     enumerate(rows, 1))  # fmt: skip
    if {"cube", "photometry"} <= set(section):
        rows = rows_of_pattern(section["cube"], section["photometry"], home)
        redshift = section.get("redshift")
        return tuple(_target({"redshift": redshift, **row}, home, file) for row in rows)
    raise InputError(
        f"{file} [targets]", expected="table = FILE, or patterns cube and photometry",
        found=", ".join(section) or "neither",
        remedy='such as cube = "sky/manga-{id}-LOGCUBE.fits.gz", photometry = "fluxmap_{id}.fits"',
    )  # fmt: skip


def _target(row: Mapping[str, Any], home: Path, where: str) -> Target:
    missing = [key for key in ("cube", "photometry") if not row.get(key)]
    if missing:
        raise InputError(
            where, expected="a path in each of the columns cube and photometry",
            found=f"no {' and no '.join(missing)}",
            remedy="fill it in, or name the columns under [targets.columns]",
        )  # fmt: skip
    cube, photometry = str(home / str(row["cube"])), str(home / str(row["photometry"]))
    return Target(
        _plain_name(str(row.get("name") or product_name(cube, photometry)), where), cube,
        photometry, _redshift(row.get("redshift"), where),
        {k: _path_of_library(k, v, home) for k, v in row.items() if k not in _INPUTS},
    )  # fmt: skip


def _redshift(cell: Any, where: str) -> float | None:
    if cell is None:
        return None
    try:
        # where one cell of a CSV is no number, all of the column are texts
        redshift = float(cell)
    except (TypeError, ValueError):
        redshift = math.nan
    if not math.isfinite(redshift):
        raise InputError(
            where, expected="a number in the column redshift", found=repr(cell),
            remedy="correct it, or leave it empty to take that of the headers",
        )  # fmt: skip
    return redshift


def _plain_name(name: str, where: str) -> str:
    if "/" in name or name.startswith(".") or "\0" in name or len(name) > 200:
        raise InputError(
            where, expected="a name that a file can have", found=repr(name),
            remedy="leave out slashes and leading dots, and keep it below 200 letters",
        )  # fmt: skip
    return name
