"""Silence about what headers of archives are full of, safe in threads."""

from __future__ import annotations

import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["quietly"]

# Python's filters are the process's: threads that change them at once leave each other's behind.
_lock = threading.RLock()


@contextmanager
def quietly(*kinds: type[Warning]) -> Iterator[None]:
    """Ignore warnings of some kinds, all if none is named; one thread at a time.

    Examples
    --------
    >>> import warnings
    >>> with quietly(UserWarning):
    ...     warnings.warn("nobody hears this", stacklevel=1)
    """
    with _lock, warnings.catch_warnings():
        for kind in kinds or (Warning,):
            warnings.simplefilter("ignore", kind)
        yield
