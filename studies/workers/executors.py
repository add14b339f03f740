"""Who runs the tasks of a study: this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

from studies.work.task import ChunkResult, Failure
from tuner.errors import one_line
from tuner.invariance import one_thread

if TYPE_CHECKING:
    from studies.work.evaluator import Evaluator
    from studies.work.task import Task

Load: TypeAlias = "Callable[[], Evaluator]"
"""Makes the evaluator of a worker, in the worker's own process."""


def device_of(gpus_per_worker: float | None) -> str | None:
    """The device of a worker with so many GPUs; None for the first GPU, else the CPU."""
    return "cpu" if gpus_per_worker == 0 else None


class Executor(Protocol):
    """Runs tasks in any order and hands back their outcomes."""

    def submit(self, task: Task) -> None:
        """Adds a task; tasks start about in the order of submission."""

    def next(self) -> tuple[Task, ChunkResult | Failure]:
        """Waits until any submitted task is over.

        Raises:
            UserError: If no worker can be started because its weights cannot be loaded.
        """
        ...

    def close(self) -> None:
        """Stops what runs and frees every worker; may be called twice."""


class LocalExecutor:
    """Runs tasks one after another in the calling process; the evaluator is made when the first one runs.

    On a CPU it uses one core, as a worker does: threads that wait for each other are slow where anything else
    runs (8 images took 190 s on two busy cores, instead of 3 s).

    Args:
        load: Makes the evaluator.
    """

    def __init__(self, load: Load):
        self._load = load
        self._evaluator: Evaluator | None = None
        self._tasks: deque[Task] = deque()

    def submit(self, task: Task) -> None:
        """See `Executor.submit`."""
        self._tasks.append(task)

    def next(self) -> tuple[Task, ChunkResult | Failure]:
        """See `Executor.next`."""
        if self._evaluator is None:
            self._evaluator = self._load()
        task = self._tasks.popleft()
        with one_thread():
            return task, run_task(self._evaluator, task)

    def close(self) -> None:
        """See `Executor.close`."""
        self._tasks.clear()
        self._evaluator = None


def run_task(evaluator: Evaluator, task: Task) -> ChunkResult | Failure:
    """Runs a task; whatever goes wrong in it, memory that runs out included, is the task's failure."""
    try:
        return evaluator.evaluate(task)
    except Exception as error:
        return Failure(f"{type(error).__name__}: {one_line(error)}")
