"""What a worker keeps in memory so as not to compute it again: text encodings, latents between stages, images."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import cachetools

if TYPE_CHECKING:
    from studies.evaluation import Task
    from tuner.schedule import Schedule

LIMIT = 1024**3
"""Bytes that a worker keeps, on whatever device they are."""

T = TypeVar("T")


def tensor_bytes(value: Any) -> int:
    """Counts the bytes of a tensor, or of a mapping of tensors."""
    tensors = value.values() if isinstance(value, Mapping) else [value]
    return sum(tensor.nbytes for tensor in tensors)


class LimitedCache:
    """Values by key, up to so many bytes; what was not used for longest goes first.

    Args:
        limit: Bytes that are kept at most.
        bytes_of: Counts the bytes of a value.
    """

    def __init__(self, limit: int = LIMIT, bytes_of: Callable[[Any], int] = tensor_bytes):
        self._bytes_of = bytes_of
        self._kept: cachetools.LRUCache[Hashable, Any] = cachetools.LRUCache(limit, getsizeof=bytes_of)

    def get(self, key: Hashable) -> Any:
        """Returns what is kept under a key, or None."""
        return self._kept.get(key)

    def keep(self, key: Hashable, value: T) -> T:
        """Keeps a value, unless it is larger than all that may be kept, and returns it."""
        if self._bytes_of(value) <= self._kept.maxsize:
            self._kept[key] = value
        return value


def beginning(schedule: Schedule, stages: int) -> Hashable:
    """What of a schedule the latents after its first stages depend on."""
    return schedule.stages[:stages], schedule.solver, schedule.cache


def prefix_key(task: Task, stages: int) -> Hashable:
    """What the latents after the first stages of a task depend on: equal keys, equal bits."""
    return beginning(task.schedule, stages), task.prompts, task.seeds, task.size, task.own
