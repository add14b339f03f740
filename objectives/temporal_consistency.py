"""Temporal consistency: how alike neighbouring frames of a video are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from objectives._open_clip import load_clip
from objectives.base import About, Direction, split_dtype
from tuner.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

DEFAULT_WEIGHTS = "ViT-B-32/openai"


class TemporalConsistency:
    """How alike neighbouring frames of a video are: 100 times the mean cosine of their CLIP embeddings.

    The frame consistency of Esser et al. 2023 (Gen-1, arXiv 2302.03011). VBench's background consistency (Huang
    et al. 2023, arXiv 2311.17982) takes the mean of this and of the likeness to the first frame, with the same
    CLIP model, ViT-B/32. All frames are read.

    A still video scores 100: use it beside an objective of single frames, not alone.

    Args:
        weights: As for ``clip``, or ``None`` for ``ViT-B-32/openai``.
        device: A torch device string.
        batch_size: Frames per forward pass.

    Raises:
        UserError: If the weights are unknown, missing or cannot be fetched.
    """

    name = "temporal_consistency"
    unit = "cosine x 100"
    direction: Direction = "maximize"
    about = About(range=(-100, 100), weights=DEFAULT_WEIGHTS, license="MIT", embedded=True)

    def __init__(self, weights: str | None = None, device: str = "cpu", batch_size: int = 32) -> None:
        source, dtype = split_dtype(weights, DEFAULT_WEIGHTS)
        self._clip = load_clip(source, device, dtype, batch_size)

    def score_videos(self, videos: Sequence[Sequence[Image]]) -> list[float]:
        """Scores each video; see ``objectives.base.VideoObjective.score_videos``."""
        return [self._score(frames) for frames in videos]

    def _score(self, frames: Sequence[Image]) -> float:
        if len(frames) < 2:
            raise UserError(f"{self.name} needs videos of two frames or more, but got {len(frames)}.")
        embeds = self._clip.images(frames)
        return 100 * float((embeds[1:] * embeds[:-1]).sum(dim=-1).mean())
