"""Scorers of the published sizes with random weights: what they cost does not depend on the values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from PIL.Image import Image

Score = Callable[[Sequence["Image"], Sequence[str]], Sequence[float]]

CLIP = "ViT-L-14"  # of objectives._open_clip.DEFAULT_WEIGHTS
BERT = {  # med_config.json of zai-org/ImageReward
    "hidden_act": "gelu",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 0,
    "vocab_size": 30524,
}


def clip(device: str, dtype: str, small: bool) -> Score:
    """Returns CLIP's score of images and prompts, preprocessing included.

    Raises:
        ImportError: If open_clip is not installed.
    """
    import open_clip

    from objectives._open_clip import PRECISIONS, ClipEmbedder, load_clip

    if small:
        embedder = load_clip("tiny", device, dtype)
    else:
        with torch.device(device):
            network, _, preprocess = open_clip.create_model_and_transforms(
                CLIP, precision=PRECISIONS[dtype], device=device
            )
        embedder = ClipEmbedder(network.eval(), preprocess, open_clip.get_tokenizer(CLIP), device, dtype)
    return lambda images, prompts: embedder.cosines(images, prompts, 100)


def image_reward(device: str, dtype: str, small: bool) -> Score:
    """Returns ImageReward's score of images and prompts, preprocessing included; its tokenizer is tiny's."""
    from objectives import _image_reward_checkpoint as checkpoint
    from objectives._blip_reward import BlipReward, RewardConfig, tokenize
    from objectives.image_reward import PROMPT_TOKENS, TINY_FOLDER, preprocess

    files = checkpoint.locate(str(TINY_FOLDER))
    if small:
        network: Any = checkpoint.load_reward(files)
    else:
        with torch.device(device):
            network = BlipReward(RewardConfig(224, 16, 1024, 24, 4096, BERT, (1024, 128, 64, 16, 1))).eval()
    network.to(device).cast_towers(dtype)
    tokenizer, read = checkpoint.load_tokenizer(files.vocabulary), preprocess(network.config.image_size)

    def score(images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        pixels_BCHW = torch.stack([read(image) for image in images]).to(device)
        ids_BL, mask_BL, _ = tokenize(tokenizer, list(prompts), PROMPT_TOKENS)
        with torch.inference_mode():
            rewards: list[float] = network(pixels_BCHW, ids_BL.to(device), mask_BL.to(device)).tolist()
        return rewards

    return score


SCORERS: dict[str, Callable[[str, str, bool], Score]] = {"CLIP": clip, "ImageReward": image_reward}
