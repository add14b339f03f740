"""Which worker gets which of the tasks that wait."""

from __future__ import annotations

import itertools
from collections import defaultdict, deque
from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from studies.work.reuse import prefix_keys

if TYPE_CHECKING:
    from studies.work.task import Task

W = TypeVar("W", bound=Hashable)

_AHEAD = 32  # of the tasks that wait, so many may overtake the first


class _Waiting(NamedTuple):
    task: Task
    beginnings: frozenset[Hashable]


class TaskQueue(Generic[W]):
    """Tasks in the order of submission, but for one thing: a worker rather gets what it has run the beginning of.

    It keeps the stages that a schedule begins with for others that begin so (`studies.work.reuse`).
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
            task, beginnings = self._tasks[number]
            del self._tasks[number]
            idle.remove(worker)
            self._run[worker] |= beginnings
            yield worker, task

    def clear(self) -> None:
        """Forgets the tasks that wait."""
        self._tasks.clear()

    def _match(self, idle: list[W]) -> tuple[W, int]:
        """Finds a free worker, and the place of a task for it: no worker stays free for want of a match."""
        for number, (_, beginnings) in enumerate(itertools.islice(self._tasks, _AHEAD)):
            for worker in idle:
                if not beginnings.isdisjoint(self._run[worker]):
                    return worker, number
        return idle[-1], 0


def _waiting(task: Task) -> _Waiting:
    return _Waiting(task, frozenset(prefix_keys(task)))
