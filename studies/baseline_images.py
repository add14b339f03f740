"""The baseline's images of a task's prompts and seeds, for objectives that compare with them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from objectives.base import frames_of

if TYPE_CHECKING:
    from objectives import Item
    from studies.evaluation import Task

_LIMIT_BYTES = 512 * 2**20


class BaselineImages:
    """Draws the baseline of each chunk of prompts once and keeps the latest ones.

    Args:
        draw: Draws a task's prompts and seeds with the baseline.
        limit_bytes: How much of memory the images may take; the least recently used chunks make room.
    """

    def __init__(self, draw: Callable[[Task], Sequence[Item]], limit_bytes: int = _LIMIT_BYTES):
        self._draw = draw
        self._limit = limit_bytes
        self._chunks: OrderedDict[Any, Sequence[Item]] = OrderedDict()

    def of(self, task: Task) -> Sequence[Item]:
        """Returns the baseline's item for each prompt of a task, for the same noise and size."""
        chunk = self._chunks.get(_key(task))
        if chunk is None:
            chunk = self._draw(task)
        self.keep(task, chunk)
        return chunk

    def keep(self, task: Task, items: Sequence[Item]) -> None:
        """Keeps what the baseline drew for a task's prompts and seeds."""
        self._chunks[_key(task)] = items
        self._chunks.move_to_end(_key(task))
        while len(self._chunks) > 1 and self._bytes() > self._limit:
            self._chunks.popitem(last=False)

    def _bytes(self) -> int:
        return sum(_bytes(item) for chunk in self._chunks.values() for item in chunk)


def _key(task: Task) -> Any:
    return task.prompts, task.seeds, task.size


def _bytes(item: Item) -> int:
    return sum(frame.width * frame.height * len(frame.getbands()) for frame in frames_of(item))
