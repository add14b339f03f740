"""Caches the baseline's images, which some objectives compare with."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

from objectives.base import frames_of
from studies.work.reuse import LimitedCache

if TYPE_CHECKING:
    from objectives import Item
    from studies.work.task import Task

_LIMIT_BYTES = 512 * 2**20


class BaselineImages:
    """Draws the baseline of each chunk of prompts once and keeps the latest ones.

    Args:
        draw: Draws a task's prompts and seeds with the baseline.
        limit_bytes: Memory for the images; the least recently used chunks are dropped first.
    """

    def __init__(self, draw: Callable[[Task], Sequence[Item]], limit_bytes: int = _LIMIT_BYTES):
        self._draw = draw
        self._chunks = LimitedCache(limit_bytes, _bytes)

    def of(self, task: Task) -> Sequence[Item]:
        """Returns the baseline's items for a task's prompts, seeds and size."""
        return self._chunks.once(_key(task), lambda: self._draw(task))

    def keep(self, task: Task, items: Sequence[Item]) -> None:
        """Caches the baseline's items for a task's prompts and seeds."""
        self._chunks.keep(_key(task), items)


def _key(task: Task) -> Hashable:
    return task.prompts, task.seeds, task.size


def _bytes(items: Sequence[Item]) -> int:
    frames = (frame for item in items for frame in frames_of(item))
    return sum(frame.width * frame.height * len(frame.getbands()) for frame in frames)
