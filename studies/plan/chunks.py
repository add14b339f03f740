"""How many prompts make a unit of work."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tuner.models import Blueprint, Size

_PIXELS = 4 * 1024 * 1024
_LARGEST = 8


def default_chunk(model: Blueprint, size: Size) -> int:
    """Returns the default number of prompts per unit of work: 8, fewer for large images, 1 for most videos."""
    return max(1, min(_LARGEST, _PIXELS // (size[0] * size[1] * model.frames)))
