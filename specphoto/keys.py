"""Names and values that a user wrote, held against those that exist."""

from __future__ import annotations

import math
from collections.abc import Mapping
from difflib import get_close_matches
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

from specphoto.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = ["Kind", "require_kinds", "require_known"]

Kind = Literal[
    "true or false", "a whole number", "a number", "a text", "a list of texts", "keys and values"
]


def _whole(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Integral)


def _number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)


def _texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)


_TESTS: dict[Kind, Callable[[Any], bool]] = {
    "true or false": lambda value: isinstance(value, bool),
    "a whole number": _whole,
    "a number": _number,
    "a text": lambda value: isinstance(value, str),
    "a list of texts": _texts,
    "keys and values": lambda value: isinstance(value, Mapping),
}
_REMEDIES: dict[Kind, str] = {
    "true or false": "write one of the two, without quotes",
    "a whole number": "write it without quotes and without a point",
    "a number": "write it without quotes",
    "a text": "put it in quotes",
    "a list of texts": "put each text in quotes, and all of them in [ ]",
    "keys and values": "write them as a table",
}


def require_kinds(given: Mapping[str, Any], kinds: Mapping[str, Kind], what: str = "") -> None:
    """Refuse a value that is not of the kind that its key has; keys without one are not looked at.

    Parameters
    ----------
    given
        What the user wrote.
    kinds
        Key to the kind of its value.
    what
        File and section, for the message.

    Raises
    ------
    InputError
        At the first value of another kind.

    Examples
    --------
    >>> require_kinds({"open_dashboard": "no"}, {"open_dashboard": "true or false"})
    Traceback (most recent call last):
    specphoto.errors.InputError: open_dashboard: expected true or false, found 'no'; write one \
of the two, without quotes.
    """
    for key, value in given.items():
        kind = kinds.get(key)
        if kind is not None and not _TESTS[kind](value):
            raise InputError(
                f"{what}: {key}" if what else key, expected=kind, found=repr(value),
                remedy=_REMEDIES[kind],
            )  # fmt: skip


def require_known(given: Mapping[str, Any], known: Collection[str], what: str) -> None:
    """Refuse a key that is not one of the known, and name the nearest that is.

    Parameters
    ----------
    given
        What the user wrote.
    known
        What may be written.
    what
        File and section, for the message.

    Raises
    ------
    InputError
        At the first unknown key.

    Examples
    --------
    >>> require_known({"waltime": "1:00:00"}, ["queue", "walltime"], "site.yaml")
    Traceback (most recent call last):
    specphoto.errors.InputError: site.yaml: expected known keys, found 'waltime'; did you mean \
'walltime'.
    """
    for key in given:
        if key in known:
            continue
        near = get_close_matches(str(key), list(known), n=1, cutoff=0.6)
        raise InputError(
            what, expected="known keys", found=repr(key),
            remedy=f"did you mean '{near[0]}'" if near
            else f"choose among {', '.join(sorted(known))}",
        )  # fmt: skip
