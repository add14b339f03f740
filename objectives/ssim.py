"""SSIM: how close an image is to the baseline's in local brightness, contrast and structure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from objectives.base import About, Direction, check_no_weights, check_references
from tuner.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

WINDOW = 11
"""Pixels per side of the window that SSIM looks through."""


class Ssim:
    """Structural similarity to the baseline's image for the same noise.

    As published (Wang et al. 2004, IEEE Transactions on Image Processing 13(4), section III-C): an 11 x 11
    Gaussian window of standard deviation 1.5, K1 = 0.01, K2 = 0.03; the mean over the RGB channels. Computed by
    scikit-image.

    Args:
        weights: None.
        device: Not used.
    """

    name = "ssim"
    unit = "similarity"
    direction: Direction = "maximize"
    about = About(range=(-1, 1))

    def __init__(self, weights: str | None = None, device: str = "cpu") -> None:
        check_no_weights(self.name, weights)

    def compare(self, images: Sequence[Image], references: Sequence[Image]) -> list[float]:
        """Scores image ``i`` against reference ``i``; see ``objectives.base.FidelityObjective.compare``."""
        check_references(images, references)
        return [_ssim(image, reference) for image, reference in zip(images, references, strict=True)]


def _ssim(image: Image, reference: Image) -> float:
    from skimage.metrics import structural_similarity

    from objectives._pixels import LEVELS, rgb

    if min(image.size) < WINDOW:
        raise UserError(
            f"ssim looks through windows of {WINDOW} pixels, but got an image of {image.width}x{image.height}. "
            "Draw larger images."
        )
    similarity = structural_similarity(
        rgb(image),
        rgb(reference),
        data_range=LEVELS,
        channel_axis=-1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    return float(similarity)
