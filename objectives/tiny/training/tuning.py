"""Second stage of the reward: ranks the embedded denoiser's own samples beside the spoiled renders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from objectives._blip_reward import BlipReward
from objectives._image_reward_checkpoint import VOCABULARY_NAME, load_reward, locate
from objectives.image_reward import TINY_FOLDER
from objectives.tiny.training import data, reward
from objectives.tiny.training.loop import Run, train
from objectives.tiny.training.samples import Samples, better_pairs, draw

CAPTIONS = 24
PAIRS = 4  # per caption
RENDERS = 24
CROP = 2  # pixels of random shift: samples are few, and a shift changes no rank


def run(work: Path, steps: int, seed: int, bank_size: int, samples: int) -> None:
    """Continues from the shipped weights, in a new folder of ``work`` per set of samples, and replaces them."""
    bank = data.load_bank(work, bank_size, seed)
    drawn = draw(work, samples)
    texts = reward.Texts(TINY_FOLDER / VOCABULARY_NAME)
    network = load_reward(locate(str(TINY_FOLDER)))

    def loss_of(rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        renders, numbers = reward.render_loss(network, texts, bank, RENDERS, rng)
        ranked, accuracy = sample_loss(network, texts, drawn, rng)
        return renders + ranked, {**numbers, "better_sample": accuracy}

    train(network, loss_of, Run(work / "tune", steps, learning_rate=4e-4, seed=seed))
    reward.scale_head(network, texts, bank, seed)
    reward.save(network, TINY_FOLDER)


def sample_loss(
    network: BlipReward, texts: reward.Texts, drawn: Samples, rng: np.random.Generator
) -> tuple[Tensor, float]:
    """Ranks pairs of samples of one caption and one noise; returns the loss and the share ranked right."""
    pairs = np.array(better_pairs())
    rows = rng.choice(len(drawn.captions), CAPTIONS, replace=False).repeat(PAIRS)
    columns = pairs[rng.integers(len(pairs), size=len(rows))]  # (CAPTIONS PAIRS, 2)
    images = drawn.images[rows[:, None], columns].float() / 255
    images = _shift(images.flatten(0, 1), rng)
    prompts = [drawn.captions[row] for row in rows.repeat(2)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rewards = network.raw_reward(network.encode_image(data.normalise(images)), *texts(prompts)).view(-1, 2)
    margins = rewards[:, 0] - rewards[:, 1]
    return reward.ranking_loss(margins), (margins > 0).float().mean().item()


def _shift(images: Tensor, rng: np.random.Generator) -> Tensor:
    x, y = (int(v) for v in rng.integers(-CROP, CROP + 1, size=2))
    padded = torch.nn.functional.pad(images, (CROP,) * 4, mode="replicate")
    size = images.shape[-1]
    return padded[..., CROP + y : CROP + y + size, CROP + x : CROP + x + size]
