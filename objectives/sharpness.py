"""Sharpness: how much fine detail an image has, which CLIP hardly sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from objectives.base import About, Direction, check_no_weights, check_pairs

if TYPE_CHECKING:
    from PIL.Image import Image


class Sharpness:
    """How much fine detail an image has: the standard deviation of its luminance's Laplacian.

    The square root of LAPV, "variance of Laplacian", the focus measure of Pech-Pacheco et al. 2000 (Diatom
    autofocusing in brightfield microscopy, ICPR; operator LAP4 of Pertuz et al. 2013, Pattern Recognition 46(5),
    section A.2), on levels of 0 to 255. It is a mean over pixels, so it does not grow with their number; but
    detail is what differs from one pixel to the next, so compare images of one size.

    Noise and ringing count as detail: use it beside a reward, not alone.

    Args:
        weights: None.
        device: Not used.
    """

    name = "sharpness"
    unit = "grey levels"
    direction: Direction = "maximize"
    about = About(range=(0, 1020))  # a pixel less four neighbours: at most 4 x 255

    def __init__(self, weights: str | None = None, device: str = "cpu") -> None:
        check_no_weights(self.name, weights)

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        """Scores image ``i`` without its prompt; see ``objectives.base.Objective.score``."""
        from scipy.ndimage import laplace

        from objectives._pixels import luminance

        check_pairs(images, prompts)
        return [float(laplace(luminance(image), mode="reflect").std()) for image in images]
