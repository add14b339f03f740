"""Assigns queued tasks to workers."""

from __future__ import annotations

import itertools
from collections import defaultdict, deque
from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import cachetools

from studies.work.reuse import prefix_keys

if TYPE_CHECKING:
    from studies.work.task import Task

W = TypeVar("W", bound=Hashable)

_AHEAD = 32  # of the tasks that wait, as many may overtake the first
_REMEMBERED = 128  # prefixes of each worker; it has no memory for many more


class _Waiting(NamedTuple):
    task: Task
    beginnings: frozenset[Hashable]


class TaskQueue(Generic[W]):
    """A queue of tasks that prefers cache hits.

    Tasks leave in the order of submission, except that a worker prefers a task whose first stages it has cached
    (`studies.work.reuse`).
    """

    def __init__(self) -> None:
        self._tasks: deque[_Waiting] = deque()
        self._run: defaultdict[W, cachetools.LRUCache[Hashable, None]] = defaultdict(
            lambda: cachetools.LRUCache(_REMEMBERED)
        )

    def put(self, task: Task) -> None:
        """Adds a task at the end."""
        self._tasks.append(_waiting(task))

    def put_first(self, task: Task) -> None:
        """Puts a task back at the front."""
        self._tasks.appendleft(_waiting(task))

    def assign(self, idle: list[W]) -> Iterator[tuple[W, Task]]:
        """Yields pairs of a worker and its task until either runs out; removes the workers from the list."""
        while idle and self._tasks:
            worker, number = self._match(idle)
            task, beginnings = self._tasks[number]
            del self._tasks[number]
            idle.remove(worker)
            self._run[worker].update(dict.fromkeys(beginnings))
            yield worker, task

    def clear(self) -> None:
        """Drops all queued tasks."""
        self._tasks.clear()

    def _match(self, idle: list[W]) -> tuple[W, int]:
        """Finds a worker and the place of its task. Without a cache hit, the last worker gets the first task."""
        for number, (_, beginnings) in enumerate(itertools.islice(self._tasks, _AHEAD)):
            for worker in idle:
                if any(key in self._run[worker] for key in beginnings):
                    return worker, number
        return idle[-1], 0


def _waiting(task: Task) -> _Waiting:
    return _Waiting(task, frozenset(prefix_keys(task)))
