"""Trains the embedded reward to rank renders over spoiled renders and true captions over wrong ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from objectives._blip_reward import BlipReward, RewardConfig
from objectives._image_reward_checkpoint import VOCABULARY_NAME, load_tokenizer
from objectives.image_reward import TINY_FOLDER
from objectives.tiny.training import data, degradations
from objectives.tiny.training.loop import Run, train

BATCH = 48
LEVELS = 3  # a clean image, a spoiled one and a worse one
WRONG_CAPTIONS = 3  # per image, each wrong in one attribute
PROMPT_TOKENS = 12  # the longest caption has eleven; what is padded beyond is masked

# Keeps the scale of the rewards from growing without bound: ranking alone does not set it.
_MAGNITUDE_WEIGHT = 1e-3

TEXT_CONFIG: dict[str, Any] = {
    "hidden_act": "gelu",
    "hidden_size": 128,
    "intermediate_size": 256,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 40,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "pad_token_id": 0,
    "vocab_size": len(data.vocabulary()) + 2,  # two special tokens are added, as in the published model
}
CONFIG = RewardConfig(
    image_size=data.IMAGE_SIZE,
    patch_size=8,
    vision_width=128,
    vision_layers=3,
    vision_mlp_width=256,
    text=TEXT_CONFIG,
    head_widths=(128, 64, 32, 16, 1),
)

# From our names to the published checkpoint's, the inverse of what loading does.
_PUBLISHED_NAMES = (
    ("vision.embeddings.class_embedding", "blip.visual_encoder.cls_token"),
    ("vision.embeddings.position_embedding", "blip.visual_encoder.pos_embed"),
    ("vision.embeddings.patch_embedding.", "blip.visual_encoder.patch_embed.proj."),
    ("vision.encoder.layers.", "blip.visual_encoder.blocks."),
    ("vision.post_layernorm.", "blip.visual_encoder.norm."),
    (".self_attn.qkv.", ".attn.qkv."),
    (".self_attn.projection.", ".attn.proj."),
    (".layer_norm", ".norm"),
    ("text.", "blip.text_encoder."),
    *((f"head.{ours}.", f"mlp.layers.{theirs}.") for ours, theirs in enumerate((0, 2, 4, 6, 7))),
)


class Texts:
    """Turns captions into what the network reads."""

    def __init__(self, vocabulary_file: Path) -> None:
        self._tokenizer = load_tokenizer(str(vocabulary_file))

    def __call__(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Returns token ids and masks, both (B, PROMPT_TOKENS)."""
        batch = self._tokenizer(
            captions, padding="max_length", max_length=PROMPT_TOKENS, truncation=True, return_tensors="pt"
        )
        return batch["input_ids"], batch["attention_mask"]


def run(work: Path, steps: int, seed: int, bank_size: int) -> None:
    """Trains the network in ``work/reward`` and writes the weights that the package ships."""
    bank = data.load_bank(work, bank_size, seed)
    write_folder(TINY_FOLDER)
    texts = Texts(TINY_FOLDER / VOCABULARY_NAME)
    torch.manual_seed(seed)
    network = BlipReward(CONFIG)

    def loss_of(rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        return render_loss(network, texts, bank, BATCH, rng)

    train(network, loss_of, Run(work / "reward", steps, learning_rate=1e-3, seed=seed))
    scale_head(network, texts, bank, seed)
    save(network, TINY_FOLDER)


def render_loss(
    network: BlipReward, texts: Texts, bank: data.Bank, batch: int, rng: np.random.Generator
) -> tuple[Tensor, dict[str, float]]:
    """Ranks clean > spoiled > worse, and the true caption over a one-attribute-wrong one for either."""
    rows = rng.choice(len(bank.captions), batch, replace=False)
    captions = [bank.captions[row] for row in rows]
    levels = spoiled_levels(bank.images[rows].float() / 255, rng)  # (LEVELS, batch, 3, H, W)
    # The caption matters for a spoiled image as much; that of the worst may be past reading.
    level = torch.from_numpy(rng.choice(2, batch))
    wrong_captions = [data.wrong_caption(caption, rng) for _ in range(WRONG_CAPTIONS) for caption in captions]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        patches = network.encode_image(data.normalise(levels.flatten(0, 1)))
        judged = patches.view(LEVELS, batch, *patches.shape[1:])[level, torch.arange(batch)]
        true = network.raw_reward(patches, *texts(captions * LEVELS)).view(LEVELS, batch)
        wrong = network.raw_reward(judged.repeat(WRONG_CAPTIONS, 1, 1), *texts(wrong_captions))

    quality = torch.cat([true[0] - true[1], true[1] - true[2], true[0] - true[2]])
    caption = true[level, torch.arange(batch)] - wrong.view(WRONG_CAPTIONS, batch)
    loss = ranking_loss(quality) + ranking_loss(caption) + _MAGNITUDE_WEIGHT * true.square().mean()
    return loss, {
        "clean_over_spoiled": (true[0] > true[1]).float().mean().item(),
        "spoiled_over_worse": (true[1] > true[2]).float().mean().item(),
        "true_over_wrong": (caption > 0).float().mean().item(),
    }


def spoiled_levels(pairs: Tensor, rng: np.random.Generator) -> Tensor:
    """Returns clean, spoiled and worse images: (LEVELS, B, 3, H, W) from (B, 2, 3, H, W).

    Each quarter of the batch is spoiled in its own way; "worse" is the same way with more of it, and half of
    the time in a second way too.
    """
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    mild_parts, strong_parts = [], []
    for part in pairs.chunk(4):
        clean, other = part[:, 0], part[:, 1]
        mild = 0.6 * torch.rand(len(part), generator=generator) ** 1.5
        strong = mild + 0.15 + (0.85 - mild) * torch.rand(len(part), generator=generator)
        kind = int(rng.integers(len(degradations.DEGRADATIONS) + 1))
        if kind == len(degradations.DEGRADATIONS):
            spoiled = degradations.ghost(clean, other, mild)
            worse = degradations.ghost(clean, other, strong)
        else:
            spoil = degradations.DEGRADATIONS[kind]
            # The same noise or bend for both amounts, so that they differ in the amount alone.
            noise_seed = int(rng.integers(2**31))
            spoiled = spoil(clean, mild, torch.Generator().manual_seed(noise_seed))
            worse = spoil(clean, strong, torch.Generator().manual_seed(noise_seed))
        if rng.random() < 0.5:
            second = degradations.DEGRADATIONS[int(rng.integers(len(degradations.DEGRADATIONS)))]
            worse = second(worse, mild, generator)
        mild_parts.append(spoiled)
        strong_parts.append(worse)
    levels = torch.stack([pairs[:, 0], torch.cat(mild_parts), torch.cat(strong_parts)])
    return degradations.quantise(levels)


def ranking_loss(margins: Tensor) -> Tensor:
    """The Bradley-Terry loss of ImageReward (Eq. 1): ``-log sigmoid(better - worse)``, averaged."""
    return F.softplus(-margins).mean()


@torch.no_grad()
def scale_head(network: BlipReward, texts: Texts, bank: data.Bank, seed: int) -> None:
    """Shifts and scales the last layer so that rewards of clean and spoiled renders have mean 0, deviation 1."""
    from objectives._blip_reward import REWARD_MEAN, REWARD_STD

    rows = np.random.default_rng(seed).choice(len(bank.captions), 256, replace=False)
    levels = spoiled_levels(bank.images[rows].float() / 255, np.random.default_rng(seed))
    ids, mask = texts([bank.captions[row] for row in rows])
    pixels = data.normalise(levels.flatten(0, 1))
    raw = network.raw_reward(network.encode_image(pixels), ids.repeat(LEVELS, 1), mask.repeat(LEVELS, 1))
    scale = REWARD_STD / float(raw.std())
    last = network.head[-1]
    assert isinstance(last, nn.Linear)
    last.weight.mul_(scale)
    last.bias.sub_(float(raw.mean())).mul_(scale).add_(REWARD_MEAN)


def write_folder(folder: Path) -> None:
    """Writes what stands beside the weights: the text tower's config and the vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "med_config.json").write_text(json.dumps(TEXT_CONFIG, indent=2) + "\n")
    (folder / VOCABULARY_NAME).write_text("\n".join(data.vocabulary()) + "\n")


def save(network: BlipReward, folder: Path) -> None:
    """Writes the weights in the published checkpoint's layout, in half precision."""
    from safetensors.torch import save_file

    weights = {
        published_name(name): value.to(torch.float16).contiguous() for name, value in network.state_dict().items()
    }
    save_file(weights, folder / "ImageReward.safetensors")


def published_name(name: str) -> str:
    """Returns a weight's name in the published checkpoint."""
    for ours, theirs in _PUBLISHED_NAMES:
        name = name.replace(ours, theirs)
    return name
