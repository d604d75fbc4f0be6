"""Names of tasks, by which Dask's dashboard groups and colours them, and runs are timed.

A name begins with the stage that the task belongs to: ``read-``, ``spatial-``, ``fit-``,
``correct-`` or ``write-``. What has no such name only arranges arrays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from dask.base import tokenize
from dask.delayed import delayed
from dask.utils import funcname

if TYPE_CHECKING:
    from collections.abc import Callable

    from dask.delayed import Delayed

__all__ = ["StageName", "task", "task_name"]

StageName = Literal["read", "spatial", "fit", "correct", "write"]


def task_name(stage: StageName, function: Callable[..., Any]) -> str:
    """Name of the tasks of a function, without what tells one from the other.

    Dask takes words of letters alone for a name.

    >>> task_name("read", str.upper)
    'read-upper'
    """
    return f"{stage}-{funcname(function).strip('_').replace('_', '-')}"


def task(stage: StageName, function: Callable[..., Any]) -> Callable[..., Delayed]:
    """Make a function lazy, as ``dask.delayed`` does, with a name that tells the stage.

    Parameters
    ----------
    stage
        What it belongs to.
    function
        Pure: of the same arguments it makes the same.
    """

    def call(*arguments: Any, **options: Any) -> Delayed:
        token = tokenize(function, arguments, options)
        made: Delayed = delayed(function, pure=True)(
            *arguments, dask_key_name=f"{task_name(stage, function)}-{token}", **options
        )
        return made

    return call
