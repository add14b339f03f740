"""A study's images, small enough for one file."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

Files: TypeAlias = Mapping[str, Sequence[Path]]
"""PNG files by the hash of the schedule that drew them; a file's name is the number of its prompt."""

_PIXEL_ART = 128
_SAMPLE = 12
_SLACK = 1.1
_LOSSLESS: tuple[int, dict[str, Any]] = (_PIXEL_ART, {"lossless": True})
_LOSSY: tuple[tuple[int, dict[str, Any]], ...] = (
    (768, {"quality": 85}),
    (512, {"quality": 80}),
    (384, {"quality": 75}),
    (256, {"quality": 70}),
    (192, {"quality": 60}),
    (128, {"quality": 50}),
    (96, {"quality": 40}),
)


def packed(files: Files, limit: int) -> tuple[dict[str, dict[int, str]], int]:
    """Makes images WebP, as large as a limit for all of them allows.

    Images of up to 128 pixels stay as they are if that fits.

    Args:
        files: What to pack.
        limit: Characters of all images together, as base64.

    Returns:
        For each schedule base64 by the number of the prompt, and the longest side of an image in pixels. If even
        the smallest form does not fit, the last prompts are left out for all schedules alike.
    """
    named = [(schedule, path) for schedule, paths in files.items() for path in paths]
    if not named:
        return {}, 0
    largest = _longest_side(named[0][1])
    sample = named[:: -(-len(named) // _SAMPLE)]
    share = len(sample) / len(named)
    for side, how in ([_LOSSLESS] if largest <= _PIXEL_ART else []) + list(_LOSSY):
        if _encoded(sample, side, how, int(limit * share * _SLACK)) is None:
            continue
        encoded = _encoded(named, side, how, limit)
        if encoded is not None:
            return encoded, min(side, largest)
    fewer = max(map(len, files.values())) - 1
    return packed({schedule: paths[:fewer] for schedule, paths in files.items()}, limit)


def _longest_side(path: Path) -> int:
    from PIL import Image

    with Image.open(path) as image:
        return max(image.size)


def _encoded(
    named: Sequence[tuple[str, Path]], side: int, how: Mapping[str, Any], limit: int
) -> dict[str, dict[int, str]] | None:
    """Encodes all images, or gives up as soon as they are over the limit."""
    from PIL import Image

    made: dict[str, dict[int, str]] = {}
    for schedule, path in named:
        content = io.BytesIO()
        with Image.open(path) as image:
            small = image.convert("RGB")
            small.thumbnail((side, side), Image.Resampling.LANCZOS)
            small.save(content, "WEBP", **how)
        text = base64.b64encode(content.getvalue()).decode()
        limit -= len(text)
        if limit < 0:
            return None
        made.setdefault(schedule, {})[int(path.stem)] = text
    return made
