"""What every objective has to offer: images and prompts in, one float per prompt out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from tuner.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

Direction = Literal["maximize", "minimize"]


@runtime_checkable
class Objective(Protocol):
    """A score of images, made comparable by its name, its unit and its direction.

    An objective is built as ``ClassName(weights, device)`` where ``weights`` is what the user wrote
    after the colon in ``name:weights`` (``None`` if nothing) and ``device`` is a torch device string.

    Attributes:
        name: The name of the file that holds the class, e.g. ``"clip"``.
        unit: What one point of the score is, e.g. ``"cosine x 100"``.
        direction: ``"maximize"`` if more is better, else ``"minimize"``.
    """

    name: str
    unit: str
    direction: Direction

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        """Scores image ``i`` against prompt ``i``.

        Args:
            images: PIL images of any size and mode; they are not changed.
            prompts: As many prompts as images.

        Returns:
            One finite float per prompt, in the order given, independent of what else is in the batch.

        Raises:
            UserError: If the two lists differ in length.
        """
        ...


def check_pairs(images: Sequence[Image], prompts: Sequence[str]) -> None:
    """Makes sure that there is one image per prompt.

    Raises:
        UserError: If the two lists differ in length.
    """
    if len(images) != len(prompts):
        raise UserError(
            f"Got {len(images)} images for {len(prompts)} prompts: every prompt needs exactly one image. "
            "Pass two lists of the same length."
        )
