"""What a galaxy's result depends on, in a form that can be compared, and its hash.

The hash stands in the product. A product made of other files, of other options or by another
version is told apart by it, and the parts that differ can be named.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import specphoto
from specphoto.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from specphoto.sample.plan import Sample, Target

__all__ = ["ATTRIBUTE", "differences", "digest", "identity_of", "library_identity"]

# Attribute of the products.
ATTRIBUTE = "sample_hash"


def identity_of(sample: Sample, target: Target, libraries: dict[str, str]) -> dict[str, Any]:
    """Everything that a galaxy's products depend on.

    Parameters
    ----------
    sample, target
        The galaxy.
    libraries
        Identities found before, by path; filled.

    Returns
    -------
    dict
        Plain values; a file is its name, size and time, so that a sample can be moved as a whole.
    """
    options = sample.options_of(target)
    library = str(options.pop("library", "default"))
    if library not in libraries:
        libraries[library] = library_identity(library)
    return {
        "version": specphoto.__version__, "cube": _file(target.cube),
        "photometry": _file(target.photometry), "redshift": target.redshift,
        "library": libraries[library], "formats": sorted(sample.formats),
        **{f"option {k}": _plain(v) for k, v in sorted(options.items()) if v is not None},
    }  # fmt: skip


def library_identity(library: str) -> str:
    """Content of the default library, or name, size and time of a file."""
    if library != "default":
        return json.dumps(_file(library))
    from specphoto.io.library import default_library

    return str(default_library().identity)


def digest(identity: Mapping[str, Any]) -> str:
    """Hash of an identity.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True
    """
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name what differs, with both values.

    >>> differences({"option order": 2}, {"option order": 3})
    ['option order: 2, now 3']
    """
    return [
        f"{key}: {before.get(key)}, now {now.get(key)}"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]


def _file(path: str) -> list[Any]:
    try:
        state = Path(path).stat()
    except OSError:
        # the galaxy will fail with the reason; here it is only another input
        return [Path(path).name, None, None]
    return [Path(path).name, state.st_size, state.st_mtime_ns]


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
    try:
        return json.loads(json.dumps(value))
    except TypeError as error:
        raise InputError(
            "options of the sample", expected="numbers, texts, lists and tables",
            found=type(value).__name__, remedy="give what a TOML file could hold",
        ) from error  # fmt: skip
