"""Scores images or videos with one objective."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from objectives.base import AnyObjective, FidelityObjective, VideoObjective, frames_of
from tuner.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

    from tuner.models import Item

MAX_FRAMES = 16
"""Frames of a video that an objective of single images reads: evenly spaced, the first and the last included."""


def needs_references(objective: AnyObjective | type) -> bool:
    """Says whether an objective, or a class of objectives, compares with the baseline's images."""
    return hasattr(objective, "compare")


def score(
    objective: AnyObjective,
    items: Sequence[Item],
    prompts: Sequence[str],
    references: Sequence[Item] | None = None,
) -> list[float]:
    """Scores the image or video of each prompt.

    An objective that reads single images scores a video by the mean over its frames, of ``MAX_FRAMES`` evenly
    spaced ones if there are more.

    Args:
        objective: What scores.
        items: An image or the frames of a video for each prompt.
        prompts: As many prompts.
        references: The baseline's item for each prompt; only read by objectives that compare with it.

    Returns:
        One float per prompt.

    Raises:
        UserError: If a video is needed and there is an image, if references are needed and there are none, or
            as the objective says.
    """
    if isinstance(objective, VideoObjective):
        return objective.score_videos([_video(objective.name, item) for item in items])
    frames = [_frames(item) for item in items]
    images = [image for some in frames for image in some]
    if isinstance(objective, FidelityObjective):
        if references is None:
            raise UserError(f"Objective {objective.name!r} compares with the baseline's images; pass references.")
        scores = objective.compare(images, [image for item in references for image in _frames(item)])
    elif len(items) != len(prompts):
        scores = objective.score(images, prompts)  # which says what is wrong
    else:
        scores = objective.score(images, [p for p, some in zip(prompts, frames, strict=True) for _ in some])
    rest = iter(scores)
    return [fmean([next(rest) for _ in some]) for some in frames]


def _video(name: str, item: Item) -> Sequence[Image]:
    if not isinstance(item, (list, tuple)):
        raise UserError(f"Objective {name!r} scores videos, but the model draws images. Choose another objective.")
    return item


def _frames(item: Item) -> list[Image]:
    """The images of an item that are scored one by one."""
    frames = frames_of(item)
    if len(frames) <= MAX_FRAMES:
        return frames
    return [frames[round(i * (len(frames) - 1) / (MAX_FRAMES - 1))] for i in range(MAX_FRAMES)]
