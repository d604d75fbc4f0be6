"""The one exception that speaks to the user."""

from __future__ import annotations

__all__ = ["InputError"]


class InputError(ValueError):
    """Input that cannot be used; the message names it and the remedy.

    The message is one sentence: the file or argument, what was expected, what was found, and
    what to do. The command line prints it without a traceback and ends with exit code 2.
    """

    def __init__(self, what: str, *, expected: str, found: str, remedy: str) -> None:
        super().__init__(f"{what}: expected {expected}, found {found}; {remedy}.")
        self._fields = (what, expected, found, remedy)

    def within(self, name: str) -> InputError:
        """Return the same error, said of a named file or dataset."""
        what, *rest = self._fields
        return _rebuild(f"{name}: {what}", *rest)

    def __reduce__(self) -> tuple[object, ...]:
        # keyword-only arguments do not survive the default pickling between workers
        return (_rebuild, self._fields)


def _rebuild(what: str, expected: str, found: str, remedy: str) -> InputError:
    return InputError(what, expected=expected, found=found, remedy=remedy)
