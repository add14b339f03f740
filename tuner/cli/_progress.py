"""Progress of long work, on stderr."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

from tuner.errors import readable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType
    from rich.progress import TaskID


class ProgressDisplay:
    """A bar for the phase that runs, or lines where stderr is no terminal: its start, its end, and some between.

    Args:
        every: Print a line after so many units, too.
    """

    def __init__(self, every: int | None = None) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            Task,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.text import Text

        class TwoLines(Progress):
            """The bar, and below it the details, line by line."""

            def get_renderables(self) -> Iterable[RenderableType]:
                yield self.make_tasks_table(self.tasks)
                for task in self.tasks:
                    for line in task.fields["details"].splitlines():
                        yield Text(f"  {line}", no_wrap=True, overflow="ellipsis")

        class Left(TimeRemainingColumn):
            """The estimate of the remaining time, unless the details have a better one."""

            def render(self, task: Task) -> Text:
                known = task.total is not None and not task.fields["details"]
                return Text("left ") + super().render(task) if known else Text()

        class Counted(MofNCompleteColumn):
            """The units, where they are counted."""

            def render(self, task: Task) -> Text:
                return Text() if task.total is None else super().render(task)

        self._bar = TwoLines(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            Counted(),
            TimeElapsedColumn(),
            Left(),
            console=Console(stderr=True),
            transient=True,
        )
        self._every = every
        self._task: TaskID | None = None
        self._shown: tuple[str, int | None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def used(self) -> bool:
        """Whether anything was shown."""
        return self._shown is not None

    def show(self, phase: str, done: int | None = None, total: int | None = None, details: str = "") -> None:
        """Shows where the work is.

        Args:
            phase: What runs now; another one starts a new bar.
            done: Units of it that are finished; None if they are not counted.
            total: Units that it has; None if that is not known.
            details: What else is worth knowing; only a terminal shows more than the first line.
        """
        phase, details = readable(phase), readable(details)
        new = self._shown is None or self._shown[0] != phase
        if self._bar.console.is_terminal:
            self._move(new, phase, done or 0, total, details)
        elif new or (done != (self._shown or ("", None))[1] and self._prints(done, total)):
            count = "" if done is None else f": {done}" if total is None else f": {done}/{total}"
            first = details.partition("\n")[0]
            click.echo(f"{phase}{count} {first}".rstrip(), err=True)
        self._shown = phase, done

    def stop(self) -> None:
        """Takes the bar away, before anything else is printed."""
        if self._task is not None:  # stopping a bar that never started prints an empty line
            self._bar.stop()
            self._task = None

    def _prints(self, done: int | None, total: int | None) -> bool:
        return done == total or bool(self._every and done is not None and done % self._every == 0)

    def _move(self, new: bool, phase: str, done: int, total: int | None, details: str) -> None:
        if self._task is None:
            self._bar.start()
            self._task = self._bar.add_task(phase, total=total, completed=done, details=details)
        elif new:
            self._bar.reset(self._task, description=phase, total=total, completed=done, details=details)
        else:
            self._bar.update(self._task, total=total, completed=done, details=details)
