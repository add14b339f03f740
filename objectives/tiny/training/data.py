"""Captioned renders that the embedded scorers learn from; only captions of the ``train`` split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tuner.tiny.scenes import (
    VOCABULARY,
    change_one_attribute,
    draw_scene,
    parse_caption,
    random_description,
    render,
)

IMAGE_SIZE = 64
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

# CLIP's own normalisation, which ImageReward uses too.
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


def vocabulary() -> list[str]:
    """Returns the words of both scorers' tokenizers, special tokens first."""
    return [*SPECIAL_TOKENS, *VOCABULARY]


@dataclass(frozen=True)
class Bank:
    """Captions, each with two renders of different geometry.

    Attributes:
        captions: N captions.
        images: (N, 2, 3, 64, 64), uint8.
    """

    captions: list[str]
    images: Tensor


def load_bank(work: Path, size: int, seed: int) -> Bank:
    """Renders ``size`` captioned pairs, or reads them back if an earlier run did."""
    path = work / f"renders-{size}-{seed}.npz"
    if not path.is_file():
        captions, images = _draw_bank(size, seed)
        np.savez(path, captions=np.array(captions), images=images)
    with np.load(path) as stored:
        return Bank([str(caption) for caption in stored["captions"]], torch.from_numpy(stored["images"]))


def _draw_bank(size: int, seed: int) -> tuple[list[str], np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    rng = np.random.default_rng(seed)
    images = np.empty((size, 2, 3, IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)
    captions = []
    for i in range(size):
        description = random_description(rng, "train")
        captions.append(description.caption)
        for j in range(2):
            images[i, j] = render(draw_scene(description, rng), IMAGE_SIZE).transpose(2, 0, 1)
    return captions, images


def wrong_caption(caption: str, rng: np.random.Generator) -> str:
    """Returns a caption of the ``train`` split that differs in one attribute from the given one."""
    description = parse_caption(caption)
    while True:
        changed = change_one_attribute(description, rng)
        if changed.split == "train":
            return changed.caption


def normalise(pixels: Tensor) -> Tensor:
    """Turns (B, 3, H, W) pixels in [0, 1] into what both scorers read."""
    mean = torch.tensor(PIXEL_MEAN)[:, None, None]
    return (pixels - mean) / torch.tensor(PIXEL_STD)[:, None, None]
