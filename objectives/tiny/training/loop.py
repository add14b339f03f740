"""The training loop of both embedded scorers: seeded, resumable, logged."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_WARMUP_STEPS = 50
_WEIGHT_DECAY = 0.02
_AVERAGE_DECAY = 0.995
_CHECKPOINT_SECONDS = 60
_LOG_EVERY = 20

LossFunction = Callable[[np.random.Generator], tuple[Tensor, dict[str, float]]]
"""Draws a batch with the given generator; returns its loss and what to log of it."""


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        folder: Where its checkpoint ``state.pt`` and its log ``log.jsonl`` are.
        steps: Optimiser steps in all.
        learning_rate: Peak of the cosine schedule.
        seed: The batch of step k depends on the seed and k only, so a resumed run repeats nothing.
    """

    folder: Path
    steps: int
    learning_rate: float
    seed: int


def train(network: nn.Module, loss_of: LossFunction, run: Run) -> None:
    """Trains a network and leaves it with its averaged weights, in evaluation mode.

    An unfinished run in the same folder is continued.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    optimiser = torch.optim.AdamW(
        _parameter_groups(network), lr=run.learning_rate, betas=(0.9, 0.98), weight_decay=_WEIGHT_DECAY
    )
    average = torch.optim.swa_utils.AveragedModel(
        network,
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(_AVERAGE_DECAY),  # type: ignore[no-untyped-call]
    )
    checkpoint = run.folder / "state.pt"
    parts: dict[str, Any] = {"network": network, "average": average, "optimiser": optimiser}
    step, spent = 0, 0.0
    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        step, spent = state["step"], state["seconds"]
    started = saved = time.monotonic()

    network.train()
    while step < run.steps:
        for group in optimiser.param_groups:
            group["lr"] = run.learning_rate * _rate(step, run.steps)
        seed = [run.seed, step]
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        loss, numbers = loss_of(np.random.default_rng(seed))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        average.update_parameters(network)
        step += 1
        now = time.monotonic()
        seconds = spent + now - started
        if step % _LOG_EVERY == 0 or step == run.steps:
            record = {"step": step, "seconds": round(seconds, 1), "loss": loss.item(), **numbers}
            with (run.folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(record) + "\n")
        if now - saved > _CHECKPOINT_SECONDS or step == run.steps:
            saved = now
            state = {name: part.state_dict() for name, part in parts.items()}
            _write(checkpoint, {**state, "step": step, "seconds": seconds})

    network.load_state_dict(average.module.state_dict())
    network.eval()


def _write(path: Path, state: dict[str, object]) -> None:
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)  # an interruption leaves the old checkpoint whole


def _parameter_groups(network: nn.Module) -> list[dict[str, object]]:
    matrices = [p for p in network.parameters() if p.ndim >= 2]
    rest = [p for p in network.parameters() if p.ndim < 2]
    return [{"params": matrices}, {"params": rest, "weight_decay": 0.0}]


def _rate(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / _WARMUP_STEPS)
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
