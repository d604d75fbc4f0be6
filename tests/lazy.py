"""Proof that a verb only makes a graph."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dask

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
