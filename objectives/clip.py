"""CLIP score: how well an image matches its prompt, by any CLIP model that open_clip knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from objectives._open_clip import DEFAULT_WEIGHTS, load_clip
from objectives.base import About, Direction, split_dtype

if TYPE_CHECKING:
    from PIL.Image import Image


class Clip:
    """How well an image matches its prompt: 100 times the cosine of their CLIP embeddings.

    This is ``100 * cos(E_image, E_prompt)`` in [-100, 100], without the clamp at zero. CLIP-S of Hessel et
    al. 2021 (arXiv 2104.08718, Eq. 1) is ``2.5 * max(cos, 0)``: divide by 40 and clamp to get it;
    torchmetrics' is ``max(100 cos, 0)``. The prompt is used as it is, without the prefix "A photo depicts"
    that Hessel et al. add.

    Prompts longer than the model's context (77 tokens for OpenAI's models) are cut; a warning says so
    once.

    Args:
        weights: See ``load_clip``, or ``None`` for ``ViT-L-14/openai``; ``@bfloat16`` or ``@float16`` at the
            end casts the network.
        device: A torch device string.
        batch_size: Images per forward pass.

    Raises:
        UserError: If the weights are unknown, missing or cannot be fetched.
    """

    name = "clip"
    unit = "cosine x 100"
    direction: Direction = "maximize"
    about = About(range=(-100, 100), weights=DEFAULT_WEIGHTS, license="MIT", embedded=True, tokens=77)

    def __init__(self, weights: str | None = None, device: str = "cpu", batch_size: int = 32) -> None:
        source, dtype = split_dtype(weights, DEFAULT_WEIGHTS)
        self._clip = load_clip(source, device, dtype, batch_size)

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        """Scores image ``i`` against prompt ``i``; see ``objectives.base.Objective.score``."""
        return self._clip.cosines(images, prompts, 100)
