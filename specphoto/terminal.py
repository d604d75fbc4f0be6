"""What the terminal shows: lines, tables and the bars of a long run."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rich.progress import TaskID

    from specphoto.stages import Stage

__all__ = ["StageBars", "bar", "line", "results", "table"]

# Results on the standard output, so that they can be piped; all else beside them.
results = Console()
_aside = Console(stderr=True)


def line(text: str, *, style: str | None = None) -> None:
    """Print one line beside the results, however long, as it is."""
    _aside.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def table(title: str, rows: Iterable[tuple[str, ...]], *, columns: tuple[str, ...] = ()) -> Table:
    """Make a table; without column names, of a name and its value in each row."""
    made = Table(title=title, title_justify="left", show_header=bool(columns), box=None,
                 title_style="bold", padding=(0, 2, 0, 0))  # fmt: skip
    for i, column in enumerate(columns or ("", "")):
        made.add_column(column, justify="right" if columns and i else "left", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


@contextmanager
def bar(what: str, total: int, *, shown: bool = True) -> Iterator[Callable[[], None]]:
    """Give a function that moves a bar by one; on the terminal and in Jupyter, else nowhere."""
    there = _aside.is_terminal or _aside.is_jupyter
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(), console=_aside, transient=True, disable=not (shown and there),
    ) as progress:  # fmt: skip
        moving = progress.add_task(what, total=total)
        yield lambda: progress.advance(moving)


class StageBars:
    """A bar for each stage of a run, on the terminal; nothing where there is none.

    Examples
    --------
    >>> with StageBars() as bars:  # doctest: +SKIP
    ...     run(..., client=client, progress=bars.show)
    """

    def __init__(self) -> None:
        self.progress = Progress(
            TextColumn("{task.description:18s}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("tasks"), TimeElapsedColumn(),
            console=_aside, transient=True, disable=not _aside.is_terminal,
        )  # fmt: skip
        self._bars: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def show(self, stages: list[Stage]) -> None:
        """Bring the bars to this state; safe to call from another thread."""
        with self._lock:
            for stage in stages:
                if stage.name not in self._bars:
                    self._bars[stage.name] = self.progress.add_task(stage.name, total=stage.total)
                self.progress.update(
                    self._bars[stage.name], completed=stage.done, total=stage.total
                )
