"""Attribute accuracy: whether an image of the model ``tiny`` shows all that its caption says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from objectives.base import About, Direction, check_no_weights, check_pairs
from tuner.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

MIN_SIDE = 32


class Attributes:
    """Whether an image of the model ``tiny`` shows all that its caption says: 1 if so, else 0.

    As GenEval does for photographs (Ghosh et al. 2023, arXiv 2310.11513, section 3.2): a program looks for the
    objects, their colours and their places, and an image is right only if all of it is. The mean over prompts
    is the accuracy. ``tuner.tiny.checker`` looks, and says what counts.

    Args:
        weights: None.
        device: Not used.
    """

    name = "attributes"
    unit = "share right"
    direction: Direction = "maximize"
    about = About(range=(0, 1))

    def __init__(self, weights: str | None = None, device: str = "cpu") -> None:
        check_no_weights(self.name, weights)

    @staticmethod
    def check_prompts(prompts: Sequence[str]) -> None:
        """Refuses prompts that are not captions of tiny; see ``objectives.check_fit``.

        Raises:
            UserError: If there is one.
        """
        from tuner.tiny.descriptions import parse_caption

        for prompt in prompts:
            try:
                parse_caption(prompt)
            except UserError as error:
                raise UserError(f"Objective 'attributes' cannot judge a prompt. {error}") from None

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        """Scores image ``i`` against caption ``i``; see ``objectives.base.Objective.score``.

        Raises:
            UserError: If a prompt is not one of tiny's captions, or an image is not square or under 32 pixels.
        """
        import numpy as np

        from tuner.tiny.checker import check

        check_pairs(images, prompts)
        for image in images:
            if image.width != image.height or image.width < MIN_SIDE:
                raise UserError(
                    f"attributes reads square images of {MIN_SIDE} pixels and more, as tiny draws them, but got "
                    f"one of {image.width}x{image.height}. Choose another objective."
                )
        pixels = [np.asarray(image.convert("RGB")) for image in images]
        return [float(check(some, prompt).joint) for some, prompt in zip(pixels, prompts, strict=True)]
