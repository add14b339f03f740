"""The embedded model: a small FLUX with its own world of captioned scenes.

``scenes`` renders the world, ``checker`` reads an image back, ``training`` made the weights that lie in
``weights/pipeline``. Importing this package loads nothing heavy.
"""

from __future__ import annotations

from pathlib import Path

PIPELINE_FOLDER = Path(__file__).parent / "weights" / "pipeline"
"""The diffusers folder that ``FluxPipeline.from_pretrained`` loads with no network."""

TWO_PASS_FOLDER = PIPELINE_FOLDER.with_name("two_pass")
"""The same of `tiny-cfg`, which needs true guidance."""

__all__ = ["PIPELINE_FOLDER", "TWO_PASS_FOLDER"]
