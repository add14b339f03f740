"""Decides after how many dead workers a task fails, and when a worker that does not answer counts as dead."""

from __future__ import annotations

from collections.abc import Callable
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
SLOWEST = 10.0
"""TFLOP/s below which a GPU counts as hanging; a T4 reaches more in half precision."""
_TIMES_LONGEST = 20.0


class TaskLimit:
    """How long a task may take: as given, or 20 times the longest that has finished, at least 10 minutes.

    A task may always take as long as its FLOPs do at `SLOWEST`. The baseline of a large video takes hours, and a
    schedule at a thirtieth of its cost may finish before it.

    Args:
        given: Seconds; None to follow the tasks that have finished.
        tflops: Prices a task.
    """

    def __init__(self, given: float | None = None, tflops: Callable[[Task], float] = lambda task: 0.0):
        self._given = given
        self._tflops = tflops
        self._longest: float | None = None

    def seconds(self, task: Task) -> float:
        """Returns the limit of a task by what is known now."""
        if self._given is not None:
            return self._given
        known = FIRST_TASK_S if self._longest is None else max(SHORTEST_LIMIT_S, _TIMES_LONGEST * self._longest)
        return max(known, self._tflops(task) / SLOWEST)

    def finished(self, seconds: float) -> None:
        """Counts a finished task."""
        self._longest = max(self._longest or 0.0, seconds)
