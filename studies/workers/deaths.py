"""Decides after how many dead workers a task fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from studies.work.task import Failure

if TYPE_CHECKING:
    from studies.work.task import Task

MOST_DEATHS = 3
"""A task that kills its worker this often fails; workers that die this often while loading end the study."""


class Deaths:
    """Counts for each task the workers that died while running it."""

    def __init__(self) -> None:
        self._of_task: dict[Any, int] = {}

    def of(self, task: Task) -> int:
        """Returns how many workers died while running a task."""
        return self._of_task.get(task.key, 0)

    def count(self, task: Task, reason: str) -> Failure | None:
        """Counts one more death.

        Args:
            task: What the worker ran.
            reason: Why it died.

        Returns:
            The task's failure if it has killed too many workers; None if another worker should try it.
        """
        deaths = self._of_task[task.key] = self.of(task) + 1
        if deaths < MOST_DEATHS:
            return None
        return Failure(f"its worker died {deaths} times, the last time: {reason}", transient=True)
