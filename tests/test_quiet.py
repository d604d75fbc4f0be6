"""Silence in threads: warnings are errors in the tests, so one that slips out fails them."""

from __future__ import annotations

import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from specphoto.quiet import quietly


def test_quietly__threads_do_not_undo_each_other() -> None:
    def whisper(number: int) -> None:
        for turn in range(30):
            with quietly(UserWarning):
                # another thread comes and goes meanwhile
                time.sleep(1e-4 * ((number + turn) % 3))
                warnings.warn("nobody hears this", stacklevel=1)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(whisper, range(8)))
    with pytest.raises(UserWarning, match="heard"):
        warnings.warn("heard", stacklevel=1)


def test_quietly__other_kinds_are_heard() -> None:
    with quietly(DeprecationWarning), pytest.raises(UserWarning, match="heard"):
        warnings.warn("heard", stacklevel=1)
    with quietly():
        warnings.warn("not heard", stacklevel=1)
