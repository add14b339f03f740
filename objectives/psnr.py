"""PSNR: how close an image is to the baseline's, pixel by pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from objectives._fidelity import OfPairs
from objectives.base import About, Direction

if TYPE_CHECKING:
    from PIL.Image import Image

CEILING = 100.0
"""PSNR of an image that equals its reference, where the formula is infinite."""


class Psnr(OfPairs):
    """Peak signal-to-noise ratio against the baseline's image for the same noise.

    ``10 log10(255^2 / MSE)`` over all pixels and RGB channels, at most 100 dB: a mean over prompts in which one
    image equals the baseline's stays finite.
    """

    name = "psnr"
    unit = "dB"
    direction: Direction = "maximize"
    about = About(range=(0, CEILING))

    def of_pair(self, image: Image, reference: Image) -> float:
        """Scores an image against one of the same size."""
        import numpy as np
        from skimage.metrics import mean_squared_error

        from objectives._pixels import LEVELS, rgb

        error = mean_squared_error(rgb(image), rgb(reference))
        return min(CEILING, float(10 * np.log10(LEVELS**2 / error))) if error else CEILING
