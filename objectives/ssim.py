"""SSIM: how close an image is to the baseline's in local brightness, contrast and structure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from objectives._fidelity import OfPairs
from objectives.base import About, Direction
from tuner.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

WINDOW = 11
"""Pixels per side of the window that SSIM looks through."""


class Ssim(OfPairs):
    """Structural similarity to the baseline's image for the same noise.

    As published (Wang et al. 2004, IEEE Transactions on Image Processing 13(4), section III-C): an 11 x 11
    Gaussian window of standard deviation 1.5, K1 = 0.01, K2 = 0.03; the mean over the RGB channels. Computed by
    scikit-image.
    """

    name = "ssim"
    unit = "similarity"
    direction: Direction = "maximize"
    about = About(range=(-1, 1))

    def of_pair(self, image: Image, reference: Image) -> float:
        """Scores an image against one of the same size.

        Raises:
            UserError: If they are smaller than the window.
        """
        from skimage.metrics import structural_similarity

        from objectives._pixels import LEVELS, rgb

        if min(image.size) < WINDOW:
            raise UserError(
                f"ssim looks through windows of {WINDOW} pixels, but got an image of "
                f"{image.width}x{image.height}. Draw larger images."
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
