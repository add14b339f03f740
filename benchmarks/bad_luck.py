"""An objective that once hangs, kills its process, or runs out of memory, if the environment asks for it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

VARIABLE = "TUNER_BAD_LUCK"
"""``KIND:FILE``: what happens, and a file that says that it has happened."""


def darkness(images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
    """Scores images by how dark they are; see `studies` for objectives of one's own."""
    kind, _, file = os.environ.get(VARIABLE, "").partition(":")
    if kind and not Path(file).exists():
        Path(file).touch()
        _strike(kind)
    return [-float(np.asarray(image, dtype=float).mean()) for image in images]


def _strike(kind: str) -> None:
    if kind == "hang":
        time.sleep(10**6)
    elif kind == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        raise MemoryError
