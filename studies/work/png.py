"""Images as PNG files in memory."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


def png(image: Image, compress_level: int = -1) -> bytes:
    """Writes an image as a PNG file, which loses nothing.

    Args:
        image: The image.
        compress_level: From 1, the fastest, to 9, the smallest; -1 for zlib's own.
    """
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=compress_level)
    return buffer.getvalue()
