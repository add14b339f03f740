"""Aesthetic score: how pleasing an image is, without its prompt (LAION's improved aesthetic predictor)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from objectives import _weights
from objectives._open_clip import load_clip
from objectives.base import About, Direction, check_pairs, split_dtype
from tuner.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

FILE_NAME = "sac+logos+ava1-l14-linearMSE.pth"
URL = "https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/main/sac%2Blogos%2Bava1-l14-linearMSE.pth"
LAYERS = (0, 2, 4, 6, 7)
"""The numbers of the linear layers in the file, which counts the dropout between them."""
CLIP = "ViT-L-14/openai"
CLIP_CONFIG = "open_clip_config.json"


class Aesthetic:
    """How pleasing an image is, from 1 to 10, without its prompt: LAION's improved aesthetic predictor.

    Linear layers, with nothing between them, on the unit CLIP ViT-L/14 embedding of the image, fitted to people's
    ratings (Schuhmann et al. 2022, LAION-5B, arXiv 2210.08402, by which its "aesthetics" subset is chosen). It
    cannot leave the range by much, but nothing clamps it.

    Args:
        weights: ``sac+logos+ava1-l14-linearMSE.pth``, or a folder that holds it and may hold the CLIP model, too,
            in the layout of ``clip:FOLDER``; None to fetch both. ``@bfloat16`` or ``@float16`` at the end casts
            CLIP, not the layers.
        device: A torch device string.
        batch_size: Images per forward pass.

    Raises:
        UserError: If weights are missing, cannot be fetched or do not fit each other.
    """

    name = "aesthetic"
    unit = "rating"
    direction: Direction = "maximize"
    about = About(range=(1, 10), weights=f"{FILE_NAME}, CLIP {CLIP}", license="Apache-2.0, MIT (CLIP)")

    def __init__(self, weights: str | None = None, device: str = "cpu", batch_size: int = 32) -> None:
        source, dtype = split_dtype(weights, "")
        path = _weights.find_weights(
            self.name, FILE_NAME, source or None, lambda: _weights.fetch_url(URL, FILE_NAME)
        )
        self._head = _build_head(path)
        beside = path.parent if (path.parent / CLIP_CONFIG).is_file() else None
        self._clip = load_clip(str(beside or CLIP), device, dtype, batch_size)
        if self._head[0].in_features != self._clip.width:
            raise UserError(
                f"{str(path)!r} rates embeddings of {self._head[0].in_features} numbers, but CLIP "
                f"{str(beside or CLIP)!r} gives {self._clip.width}. Use the CLIP model that it was trained on."
            )

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        """Scores image ``i`` without its prompt; see ``objectives.base.Objective.score``."""
        import torch

        check_pairs(images, prompts)
        if not images:
            return []
        with torch.inference_mode():
            ratings: list[float] = self._head(self._clip.images(images)).squeeze(-1).tolist()
        return ratings


def _build_head(path: Path) -> Any:
    """Builds the linear layers with the weights of the published file."""
    from torch import nn

    state = _weights.read_state(Aesthetic.name, path)
    try:
        weights = [state[f"layers.{i}.weight"] for i in LAYERS]
        widths = [weights[0].shape[1], *(weight.shape[0] for weight in weights)]
        head = nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(widths)))
        for ours, theirs in enumerate(LAYERS):
            head[ours].load_state_dict({part: state[f"layers.{theirs}.{part}"] for part in ("weight", "bias")})
    except (KeyError, RuntimeError) as error:
        raise _weights.wrong_weights(Aesthetic.name, path, error) from error
    return head.float().eval()
