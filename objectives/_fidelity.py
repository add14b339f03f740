"""Base of the objectives that compare one pair of images at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from objectives.base import check_no_weights, check_references

if TYPE_CHECKING:
    from PIL.Image import Image


class OfPairs(ABC):
    """A `FidelityObjective` without weights.

    Args:
        weights: None.
        device: Not used.
    """

    name: str

    def __init__(self, weights: str | None = None, device: str = "cpu") -> None:
        check_no_weights(self.name, weights)

    def compare(self, images: Sequence[Image], references: Sequence[Image]) -> list[float]:
        """Scores image ``i`` against reference ``i``; see ``objectives.base.FidelityObjective.compare``."""
        check_references(images, references)
        return [self.of_pair(image, reference) for image, reference in zip(images, references, strict=True)]

    @abstractmethod
    def of_pair(self, image: Image, reference: Image) -> float:
        """Scores an image against one of the same size."""
