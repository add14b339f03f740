"""Decides after how many dead workers a task fails, and when a worker that does not answer counts as dead."""

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


FIRST_TASK_S = 3600.0
"""Seconds that a task may take before any has finished: a first call may compile."""
SHORTEST_LIMIT_S = 600.0
_TIMES_LONGEST = 20.0


class TaskLimit:
    """How long a task may take: as given, or 20 times the longest that has finished, at least 10 minutes.

    Args:
        given: Seconds; None to follow the tasks that have finished.
    """

    def __init__(self, given: float | None = None):
        self._given = given
        self._longest: float | None = None

    @property
    def seconds(self) -> float:
        """The limit by what is known now."""
        if self._given is not None:
            return self._given
        return FIRST_TASK_S if self._longest is None else max(SHORTEST_LIMIT_S, _TIMES_LONGEST * self._longest)

    def finished(self, seconds: float) -> None:
        """Counts a finished task."""
        self._longest = max(self._longest or 0.0, seconds)
