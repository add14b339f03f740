"""Runs a `Schedule` through a `FlowModel`: the loop that everything else is built around."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tuner.models.base import Conditioning, FlowModel, Size
from tuner.resample import resize
from tuner.schedule import Schedule
from tuner.solvers import SOLVERS

if TYPE_CHECKING:
    import torch

StepCallback = Callable[[int, float], None]
"""Called with (stage index, sigma) before every network call."""


def sample(
    model: FlowModel,
    schedule: Schedule,
    conditioning: Conditioning,
    seeds: Sequence[int],
    size: Size | None = None,
    on_step: StepCallback | None = None,
) -> torch.Tensor:
    """Samples one clean latent per seed.

    Every stage starts from ``x = (1 - s) x_previous + s noise`` at its first sigma ``s`` (Bottleneck Sampling,
    arXiv 2503.18940, Eq. 8), with the previous result resized; the first stage has s = 1, pure noise.

    Args:
        model: The model to call.
        schedule: What to run.
        conditioning: B rows, from ``model.encode``.
        seeds: B seeds; image i depends on its own row and seed alone, not on the batch it is in.
        size: Output (height, width) in pixels; the model's default if None.
        on_step: Called before every network call, e.g. to move a progress bar.

    Returns:
        Latents (B, C, h, w), float32, at the output size.

    Raises:
        UserError: If the model cannot produce this size.
    """
    import torch

    blueprint = model.blueprint
    size = blueprint.check_size(size or blueprint.size)
    x: torch.Tensor
    with torch.inference_mode():
        for index, stage in enumerate(schedule.stages):
            noise = model.noise(blueprint.stage_size(size, stage.scale), stage_seeds(seeds, index))
            if index == 0:
                x = noise
            else:
                start = stage.sigmas[0]
                x = (1 - start) * resize(x, (noise.shape[-2], noise.shape[-1]), stage.resample) + start * noise

            def velocity(x: torch.Tensor, sigma: float, index: int = index) -> torch.Tensor:
                if on_step is not None:
                    on_step(index, sigma)
                return model.velocity(x, sigma, conditioning)

            x = SOLVERS[schedule.solver](velocity, x, stage.sigmas)
    return x


def stage_seeds(seeds: Sequence[int], stage: int) -> list[int]:
    """Returns the noise seeds of a stage: the image's own seed at first, a hash of (seed, stage) after it.

    The first stage thus starts from the same noise as the stock pipeline with the same seed, and the noise of
    a later stage does not depend on what was drawn before it.
    """
    if stage == 0:
        return list(seeds)
    return [int.from_bytes(hashlib.sha256(f"{seed}/{stage}".encode()).digest()[:8], "big") >> 1 for seed in seeds]
