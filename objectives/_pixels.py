"""PIL images as arrays of RGB levels and of luminance."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image

Array: TypeAlias = npt.NDArray[np.float64]

LEVELS = 255
"""The brightest level of a channel."""
_REC_601 = (0.299, 0.587, 0.114)


def rgb(image: Image) -> Array:
    """Returns the (H, W, 3) levels of an image of any mode, 0 to ``LEVELS``; transparency is dropped."""
    return np.asarray(image.convert("RGB"), dtype=np.float64)


def luminance(image: Image) -> Array:
    """Returns the (H, W) luminance of an image of any mode (ITU-R BT.601, section 2.5.1), 0 to ``LEVELS``."""
    return np.asarray(rgb(image) @ _REC_601)
