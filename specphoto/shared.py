"""Settings of the whole process that threads share."""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

__all__ = ["Shared"]


class Shared:
    """Makes a setting when the first thread comes in, and takes it back when the last one is out.

    Examples
    --------
    >>> def setting():
    ...     print("made")
    ...     return ExitStack()
    >>> shared = Shared()
    >>> with shared.held(setting), shared.held(setting):
    ...     print("inside")
    made
    inside
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made = ExitStack()
        self._inside = 0

    @contextmanager
    def held(self, setting: Callable[[], AbstractContextManager[object]]) -> Iterator[None]:
        """Hold the setting, made by whoever is first; threads come and go as they like."""
        with self._lock:
            if self._inside == 0:
                self._made.enter_context(setting())
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    self._made.close()
