"""What a worker caches: text encodings, latents between stages, first velocities."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import cachetools

if TYPE_CHECKING:
    from studies.work.task import Task
    from tuner.schedule import Schedule

LIMIT = 1024**3
"""Size of a worker's cache in bytes, on the model's device."""

T = TypeVar("T")


def tensor_bytes(value: Any) -> int:
    """Counts the bytes of a tensor, or of a mapping of tensors."""
    tensors = value.values() if isinstance(value, Mapping) else [value]
    return sum(tensor.nbytes for tensor in tensors)


class LimitedCache:
    """A least-recently-used cache with a limit in bytes.

    Args:
        limit: Largest size of all values together, bytes.
        bytes_of: Counts the bytes of a value.
    """

    def __init__(self, limit: int = LIMIT, bytes_of: Callable[[Any], int] = tensor_bytes):
        self._bytes_of = bytes_of
        self._kept: cachetools.LRUCache[Hashable, Any] = cachetools.LRUCache(limit, getsizeof=bytes_of)

    def __contains__(self, key: Hashable) -> bool:
        """Whether a key is cached; asking does not count as use."""
        return key in self._kept

    def get(self, key: Hashable) -> Any:
        """Returns the cached value, or None."""
        return self._kept.get(key)

    def keep(self, key: Hashable, value: T) -> T:
        """Caches a value unless it exceeds the limit alone, and returns it."""
        if self._bytes_of(value) <= self._kept.maxsize:
            self._kept[key] = value
        return value

    def clear(self) -> None:
        """Empties the cache."""
        self._kept.clear()

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Returns the cached value; makes and caches it on a miss."""
        kept: T | None = self.get(key)
        return kept if kept is not None else self.keep(key, make())


def beginnings(schedule: Schedule) -> list[bytes]:
    """Cache keys of the schedule's proper prefixes: stage 1, stages 1 and 2, and so on.

    They are digests, because a search keeps those of all its trials.
    """
    keys = []
    digest = hashlib.blake2b(repr(schedule.cache).encode(), digest_size=16)
    for index, stage in enumerate(schedule.stages[:-1]):
        digest.update(f"{schedule.solver_of(index)}{stage.model_dump_json(exclude={'solver'})}".encode())
        keys.append(digest.digest())
    return keys


def openings(schedule: Schedule) -> list[Hashable]:
    """Cache keys of each stage's first velocity; empty with a feature cache, which every call fills.

    The first velocity depends on where the stage starts, not on its later steps or its solver. All schedules that
    start from pure noise at one scale share it.
    """
    if schedule.cache:
        return []
    starts = [
        stage.model_copy(
            update={"sigmas": stage.sigmas[:1], "solver": None, "reuse": (), "amplitudes": stage.amplitudes[:1]}
        )
        for stage in schedule.stages
    ]
    return list(zip([None, *beginnings(schedule)], starts, strict=True))


def prefix_keys(task: Task) -> list[Hashable]:
    """Cache keys of a task's latents after each proper prefix: equal keys mean equal bits."""
    return [(begun, *_noise(task)) for begun in beginnings(task.schedule)]


def opening_keys(task: Task) -> list[Hashable]:
    """Cache keys of the first velocity of each stage of a task; see `openings`."""
    return [(opening, *_noise(task)) for opening in openings(task.schedule)]


def _noise(task: Task) -> tuple[Hashable, ...]:
    return task.prompts, task.seeds, task.size, task.own


def kept_stages(keys: Sequence[Hashable], kept: Container[Hashable]) -> int:
    """Counts the leading stages that a cache hit makes unnecessary.

    Args:
        keys: Of a schedule's or a task's proper prefixes.
        kept: The cached keys.
    """
    return max((count for count, key in enumerate(keys, start=1) if key in kept), default=0)
