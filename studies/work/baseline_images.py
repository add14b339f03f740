"""Keeps the baseline's images, which some objectives compare with."""

from __future__ import annotations

import io
import shutil
import tempfile
import weakref
from collections.abc import Hashable, Sequence
from typing import IO, TYPE_CHECKING, TypeAlias

from objectives.base import frames_of
from studies.work.png import png

if TYPE_CHECKING:
    from PIL.Image import Image

    from objectives import Item
    from studies.work.task import Task

LIMIT = 16 * 2**30
"""Bytes that a worker may keep on disk: 80 videos of 129 frames at 720x1280, at 200 MB each."""

_LEFT_FREE = 0.1  # of the disk
_FASTEST = 1  # of the levels of PNG, all of which are lossless

_Place: TypeAlias = tuple[int, int]
"""Where a frame is in the file: offset and length in bytes."""


class BaselineImages:
    """The baseline's images of each chunk of prompts, lossless in a temporary file.

    The file has no name, so nothing is left of it however the process ends. No chunk is dropped for another one:
    schedules run on the same chunks in turn, and a cache that dropped the least recently used chunk would drop
    each one just before its next use.

    Args:
        limit_bytes: Most bytes on disk. Further chunks are not kept, nor are chunks for which a tenth of the disk
            would not stay free.
    """

    def __init__(self, limit_bytes: int = LIMIT):
        self._limit = limit_bytes
        self._file: IO[bytes] | None = None
        self._end = 0
        self._chunks: dict[Hashable, list[_Place | list[_Place]]] = {}

    def of(self, task: Task) -> list[Item] | None:
        """Returns the baseline's items for a task's prompts, seeds and size; None if they are not kept."""
        if (places := self._chunks.get(_key(task))) is None:
            return None
        return [
            [self._read(frame) for frame in place] if isinstance(place, list) else self._read(place)
            for place in places
        ]

    def keep(self, task: Task, items: Sequence[Item]) -> None:
        """Keeps the baseline's items for a task's prompts, seeds and size, if there is room on the disk."""
        if _key(task) in self._chunks:
            return
        frames = [[png(frame, _FASTEST) for frame in frames_of(item)] for item in items]
        size = sum(len(frame) for item in frames for frame in item)
        if self._end + size > self._limit:
            return
        begin = self._end
        try:
            if not _has_room(size):
                return
            places = [[self._write(frame) for frame in item] for item in frames]
        except OSError:  # there is no temporary folder, or the disk is full after all, or broken
            self._end = begin
            return
        self._chunks[_key(task)] = [
            of_item if isinstance(item, list) else of_item[0] for item, of_item in zip(items, places, strict=True)
        ]

    def _write(self, frame: bytes) -> _Place:
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed with this object
            weakref.finalize(self, self._file.close)
        place = self._end, len(frame)
        self._file.seek(self._end)
        if self._file.write(frame) < len(frame):
            raise OSError("no room for a whole frame")
        self._end += len(frame)
        return place

    def _read(self, place: _Place) -> Image:
        from PIL import Image

        assert self._file is not None  # there is a place in it
        self._file.seek(place[0])
        return Image.open(io.BytesIO(self._file.read(place[1]))).copy()


def _key(task: Task) -> Hashable:
    return task.prompts, task.seeds, task.size


def _has_room(size: int) -> bool:
    disk = shutil.disk_usage(tempfile.gettempdir())
    return disk.free - size >= _LEFT_FREE * disk.total
