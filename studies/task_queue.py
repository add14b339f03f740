"""Which worker gets which of the tasks that wait."""

from __future__ import annotations

import itertools
from collections import defaultdict, deque
from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from studies.caches import opening_keys, prefix_keys

if TYPE_CHECKING:
    from studies.evaluation import Task

W = TypeVar("W", bound=Hashable)

_AHEAD = 32  # of the tasks that wait, so many may overtake the first


class _Waiting(NamedTuple):
    task: Task
    parts: frozenset[Hashable]  # that are kept where it has run


class TaskQueue(Generic[W]):
    """Tasks in the order of submission, but for one thing: a worker rather gets what it has run most parts of.

    It keeps the stages that a schedule begins with, and the first velocities of stages, for others that have them
    in common (`studies.caches`).
    """

    def __init__(self) -> None:
        self._tasks: deque[_Waiting] = deque()
        self._run: defaultdict[W, set[Hashable]] = defaultdict(set)

    def put(self, task: Task) -> None:
        """Adds a task that waits."""
        self._tasks.append(_waiting(task))

    def put_first(self, task: Task) -> None:
        """Puts a task back that has waited before."""
        self._tasks.appendleft(_waiting(task))

    def assign(self, idle: list[W]) -> Iterator[tuple[W, Task]]:
        """Takes workers off a list of free ones, each with the task that it gets, until none is left of either."""
        while idle and self._tasks:
            worker, number = self._match(idle)
            task, parts = self._tasks[number]
            del self._tasks[number]
            idle.remove(worker)
            self._run[worker] |= parts
            yield worker, task

    def clear(self) -> None:
        """Forgets the tasks that wait."""
        self._tasks.clear()

    def _match(self, idle: list[W]) -> tuple[W, int]:
        """Finds a free worker, and the place of a task for it: no worker stays free for want of a match."""
        most, match = 0, (idle[-1], 0)
        for number, (_, parts) in enumerate(itertools.islice(self._tasks, _AHEAD)):
            for worker in idle:
                shared = len(parts & self._run[worker])
                if shared > most:
                    most, match = shared, (worker, number)
        return match


def _waiting(task: Task) -> _Waiting:
    return _Waiting(task, frozenset([*prefix_keys(task), *opening_keys(task)]))
