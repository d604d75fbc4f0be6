"""Attributes as JSON: what Zarr and the FITS product can both keep."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from specphoto.errors import InputError

__all__ = ["plain_attributes"]


def plain_attributes(attrs: dict[Any, Any], where: str) -> dict[str, Any]:
    """Attributes as plain JSON values: numpy scalars and arrays become numbers and lists.

    Parameters
    ----------
    attrs
        Attributes of a dataset or of a variable.
    where
        What they belong to, for the message.

    Raises
    ------
    InputError
        For a value JSON does not have, NaN and infinity included, naming the attribute.
    """
    return {str(key): _plain(value, f"{where}: attribute {key!r}") for key, value in attrs.items()}


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, dict):
        return plain_attributes(value, where)
    if isinstance(value, list | tuple):
        return [_plain(item, where) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(
            where, expected="a value JSON has", found=f"{value}",
            remedy="leave the attribute out when it is unknown",
        )  # fmt: skip
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise InputError(
        where, expected="a value JSON has (number, text, list, mapping)",
        found=f"a {type(value).__name__}", remedy="convert it or remove it before writing",
    )  # fmt: skip
