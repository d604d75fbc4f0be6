"""Proof that a verb only makes a graph."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import dask
from dask.callbacks import Callback
from dask.utils import key_split

if TYPE_CHECKING:
    from collections.abc import Iterator


def _refuse(dsk: Any, keys: Any, **kwargs: Any) -> Any:
    msg = f"a verb computed: {keys}"
    raise AssertionError(msg)


@contextmanager
def raise_if_computes() -> Iterator[None]:
    """Fail the test as soon as anything asks Dask for values."""
    with dask.config.set(scheduler=_refuse):
        yield


def graph_size(ds: Any) -> int:
    """Number of tasks in a dataset's graph."""
    return len(dict(ds.__dask_graph__()))


class _PlannedError(Exception):
    """A graph was handed over."""


def planned(ds: Any) -> Counter[str]:
    """Tasks that computing a dataset takes, by name; none of them runs."""
    names: Counter[str] = Counter()

    def note(dsk: Any, keys: Any, **kwargs: Any) -> Any:
        names.update(key_split(key) for key in dsk.__dask_graph__())
        raise _PlannedError

    with suppress(_PlannedError), dask.config.set(scheduler=note):
        ds.compute()
    return names


class Run(Callback):
    """Counts the tasks that run inside its ``with`` block, by name."""

    def __init__(self) -> None:
        super().__init__(pretask=self._note)
        self.names: Counter[str] = Counter()

    def _note(self, key: Any, *_: Any) -> None:
        self.names[key_split(key)] += 1


def number(names: Counter[str], name: str) -> int:
    """Tasks of a name, fused with others or not."""
    return sum(count for known, count in names.items() if name in known)
