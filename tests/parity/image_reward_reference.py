"""Scores with the published package ``image-reward``; runs in an environment of its own.

Use: ``python image_reward_reference.py FOLDER``. FOLDER holds ``pairs.json`` (a list of prompt and image file),
``med_config.json`` and ``bert-base-uncased/vocab.txt``. It writes random weights as the package saves them,
``ImageReward.pt``, and what the package scores with them, ``scores.json``.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import types
from pathlib import Path

import torch
from PIL import Image

# Blocks of the image tower; the published one has 24 of the very same.
VISION_BLOCKS = 3


def without_training_code() -> None:
    """Makes the package's submodules importable without its ``__init__``, which imports its training code."""
    package = types.ModuleType("ImageReward")
    package.__path__ = list(importlib.util.find_spec("ImageReward").submodule_search_locations)
    sys.modules["ImageReward"] = package


def main(folder: Path) -> None:
    """Builds the package's network with random weights, saves them, and scores the pairs one by one."""
    without_training_code()
    from ImageReward.ImageReward import ImageReward
    from ImageReward.models.BLIP import blip_pretrain
    from ImageReward.models.BLIP.vit import VisionTransformer

    def create_vit(vit: str, image_size: int, *rest: object) -> tuple[torch.nn.Module, int]:
        assert vit == "large"
        tower = VisionTransformer(
            img_size=image_size, patch_size=16, embed_dim=1024, depth=VISION_BLOCKS, num_heads=16
        )
        return tower, 1024

    blip_pretrain.create_vit = create_vit
    os.chdir(folder)  # the package asks for the tokenizer "bert-base-uncased", which is a folder here
    torch.manual_seed(0)
    model = ImageReward(med_config="med_config.json")
    for name, value in model.named_parameters():
        if value.ndim > 1:  # large enough for the pairs to differ by whole rewards
            torch.nn.init.normal_(value, std=0.3 / value.shape[1] ** 0.5 if name.startswith("mlp") else 0.03)
        elif name.endswith("bias"):
            torch.nn.init.normal_(value, std=0.03)
    with torch.no_grad():
        for layer in model.mlp.layers:
            if isinstance(layer, torch.nn.Linear):
                layer.weight *= 5
    model.eval()
    torch.save(model.state_dict(), "ImageReward.pt")
    pairs = json.loads(Path("pairs.json").read_text())
    with torch.no_grad():
        scores = [model.score(prompt, Image.open(file)) for prompt, file in pairs]
    Path("scores.json").write_text(json.dumps(scores))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
