"""Samples of the embedded denoiser, good and bad by construction, for the reward to rank."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tuner import models
from tuner.models import Blueprint
from tuner.sampling import sample
from tuner.schedule import Schedule, Stage
from tuner.tiny.scenes import captions

PLAIN_STEPS = (50, 25, 12, 8, 6, 4, 3, 2)

# Columns of the samples: plain sampling first, then schedules whose last stage starts at too low a sigma to
# repair what the low resolution lost.
POOR_SCHEDULES: tuple[tuple[tuple[float, float, int], ...], ...] = (
    ((0.5, 1.0, 8), (1.0, 0.25, 3)),
    ((0.5, 1.0, 12), (1.0, 0.12, 1)),
    ((0.75, 1.0, 6), (1.0, 0.1, 1)),
    ((1.0, 1.0, 3), (0.5, 0.6, 5), (1.0, 0.3, 3)),
)
"""Stages as (scale, first sigma, steps)."""

_CHUNK = 20


@dataclass(frozen=True)
class Samples:
    """Samples of N captions by every schedule, each caption from one noise seed.

    Attributes:
        captions: N captions.
        images: (N, schedules, 3, 64, 64), uint8.
    """

    captions: list[str]
    images: Tensor


def better_pairs() -> list[tuple[int, int]]:
    """Returns columns (i, j) where i is better than j by construction.

    Plain sampling with about twice as many steps or more wins; every poor schedule loses to 12 steps.
    """
    plain = [
        (i, j) for i, more in enumerate(PLAIN_STEPS) for j, fewer in enumerate(PLAIN_STEPS) if more >= 1.9 * fewer
    ]
    good = range(PLAIN_STEPS.index(12) + 1)
    poor = range(len(PLAIN_STEPS), len(PLAIN_STEPS) + len(POOR_SCHEDULES))
    return plain + [(i, j) for i in good for j in poor]


def schedules(blueprint: Blueprint) -> list[Schedule]:
    """Returns one schedule per column."""
    plain = [blueprint.plain(steps) for steps in PLAIN_STEPS]
    poor = [
        Schedule(
            stages=tuple(
                Stage(scale=scale, sigmas=_start_at(blueprint, start, steps)) for scale, start, steps in stages
            )
        )
        for stages in POOR_SCHEDULES
    ]
    return plain + poor


def draw(work: Path, count: int) -> Samples:
    """Samples ``count`` captions of the ``train`` split, or reads back what an earlier run sampled."""
    model = models.blueprint("tiny").load("cpu")
    folder = work / f"samples-{_weights_hash(Path(model.blueprint.source))}"
    folder.mkdir(parents=True, exist_ok=True)
    prompts = captions("train", count)
    plans = schedules(model.blueprint)
    parts = []
    for start in range(0, count, _CHUNK):
        path = folder / f"{start}.npy"
        if not path.is_file():
            chunk = prompts[start : start + _CHUNK]
            seeds = list(range(start, start + len(chunk)))
            conditioning = model.encode(chunk)
            columns = [model.decode(sample(model, plan, conditioning, seeds)) for plan in plans]
            images = np.array([[np.asarray(image) for image in column] for column in columns])
            np.save(path, images.transpose(1, 0, 4, 2, 3))
        parts.append(torch.from_numpy(np.load(path)))
    return Samples(prompts, torch.cat(parts))


def _start_at(blueprint: Blueprint, sigma: float, steps: int) -> tuple[float, ...]:
    if sigma == 1:
        return blueprint.sigmas(steps, blueprint.size)
    return tuple(float(s) for s in np.linspace(sigma, 0, steps + 1))


def _weights_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]
