"""What a worker keeps in memory so as not to compute it again: text encodings, latents between stages, images."""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Mapping, Sequence
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


def beginnings(schedule: Schedule) -> list[Hashable]:
    """What of a schedule the latents depend on after its first stage, its first two, and so on but for all."""
    stages = schedule.stages
    return [(stages[:count], schedule.solver, schedule.cache) for count in range(1, len(stages))]


def prefix_keys(task: Task) -> list[Hashable]:
    """What the latents of a task depend on after as many stages: equal keys, equal bits."""
    return [(begun, task.prompts, task.seeds, task.size, task.own) for begun in beginnings(task.schedule)]


def kept_stages(keys: Sequence[Hashable], kept: Container[Hashable]) -> int:
    """Counts the leading stages that need not run, of a schedule or task with these keys, if some are kept."""
    return max((count for count, key in enumerate(keys, start=1) if key in kept), default=0)
