"""PSNR: how close an image is to the baseline's, pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from objectives.base import About, Direction, check_no_weights, check_references

if TYPE_CHECKING:
    from PIL.Image import Image

CEILING = 100.0
"""PSNR of an image that equals its reference, where the formula is infinite."""


class Psnr:
    """Peak signal-to-noise ratio against the baseline's image for the same noise.

    ``10 log10(255^2 / MSE)`` over all pixels and RGB channels, at most 100 dB: a mean over prompts in which one
    image equals the baseline's stays finite.

    Args:
        weights: None.
        device: Not used.
    """

    name = "psnr"
    unit = "dB"
    direction: Direction = "maximize"
    about = About(range=(0, CEILING))

    def __init__(self, weights: str | None = None, device: str = "cpu") -> None:
        check_no_weights(self.name, weights)

    def compare(self, images: Sequence[Image], references: Sequence[Image]) -> list[float]:
        """Scores image ``i`` against reference ``i``; see ``objectives.base.FidelityObjective.compare``."""
        check_references(images, references)
        return [_psnr(image, reference) for image, reference in zip(images, references, strict=True)]


def _psnr(image: Image, reference: Image) -> float:
    import numpy as np
    from skimage.metrics import mean_squared_error

    from objectives._pixels import LEVELS, rgb

    error = mean_squared_error(rgb(image), rgb(reference))
    return min(CEILING, float(10 * np.log10(LEVELS**2 / error))) if error else CEILING
