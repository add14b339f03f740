"""Who runs the tasks of a study in a simulation: workers with a virtual clock, which nobody has to wait for.

It serves to test what depends on time and chance (stragglers, crashes, idle workers) with the real loop.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from studies.work.task import ChunkResult, Failure
from studies.workers.deaths import Deaths
from studies.workers.task_queue import TaskQueue

if TYPE_CHECKING:
    from studies.work.task import Task


@dataclass(frozen=True)
class Attempt:
    """What happens when a worker runs a task.

    Attributes:
        seconds: How long it takes; until the crash, if there is one.
        crashes: Whether the worker dies of it; the task is then given to another.
    """

    seconds: float
    crashes: bool = False


@dataclass(frozen=True)
class Run:
    """A worker's time on a task, from ``start`` to ``end``, in virtual seconds."""

    worker: int
    task: Task
    start: float
    end: float


Fate: TypeAlias = "Callable[[Task, int], Attempt]"
"""Decides what happens to a task; the number counts the times that it has crashed before."""


class SimulatedExecutor:
    """Runs tasks as `RayExecutor` does, on workers that exist in a virtual clock only.

    A worker that replaces a crashed one has a number of its own. The driver takes no virtual time.

    Args:
        workers: Number of workers.
        evaluate: What a task gives; called in this process when its virtual time is over.
        fate: How long each task takes, and whether it crashes.
        restart_s: Virtual seconds until a crashed worker is replaced.
    """

    def __init__(
        self,
        workers: int,
        evaluate: Callable[[Task], ChunkResult | Failure],
        fate: Fate,
        restart_s: float = 0.0,
    ):
        self.now = 0.0
        """Virtual seconds since the start."""
        self.runs: list[Run] = []
        """What the workers have done and are doing, in the order of starts."""
        self._workers = workers
        self._evaluate = evaluate
        self._fate = fate
        self._restart_s = restart_s
        self._idle = list(range(workers))
        self._tasks = TaskQueue[int]()
        self._deaths = Deaths()
        self._order = itertools.count()
        self._numbers = itertools.count(workers)
        self._events: list[tuple[float, int, int, Task | None, Attempt | None]] = []  # no task: a worker starts

    def submit(self, task: Task) -> None:
        """See `Executor.submit`."""
        self._tasks.put(task)
        self._assign()

    def next(self) -> tuple[Task, ChunkResult | Failure]:
        """See `Executor.next`."""
        while True:
            self.now, _, worker, task, attempt = heapq.heappop(self._events)
            if task is None or attempt is None:
                self._idle.append(worker)
                self._assign()
            elif attempt.crashes:
                self._push(self._restart_s, next(self._numbers), None, None)
                failed = self._deaths.count(task, "it crashed")
                if failed is not None:
                    return task, failed
                self._tasks.put_first(task)
                self._assign()
            else:
                self._idle.append(worker)
                self._assign()
                return task, self._evaluate(task)

    def close(self) -> None:
        """See `Executor.close`."""
        self._tasks.clear()
        self._events.clear()

    def busy_share(self, until: float) -> float:
        """The part of all workers' time from 0 to ``until`` that they spent on tasks."""
        busy = sum(max(0.0, min(run.end, until) - run.start) for run in self.runs)
        return busy / (self._workers * until)

    def _assign(self) -> None:
        for worker, task in self._tasks.assign(self._idle):
            attempt = self._fate(task, self._deaths.of(task))
            self.runs.append(Run(worker, task, self.now, self.now + attempt.seconds))
            self._push(attempt.seconds, worker, task, attempt)

    def _push(self, seconds: float, worker: int, task: Task | None, attempt: Attempt | None) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), worker, task, attempt))
