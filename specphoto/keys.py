"""Names that a user wrote, held against those that exist."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from specphoto.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["require_known"]


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
