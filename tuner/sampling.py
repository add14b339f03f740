"""Runs a `Schedule` through a `FlowModel`: the loop that everything else is built around."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from tuner.feature_cache import FirstBlockCache
from tuner.models.base import Conditioning, FlowModel, Size
from tuner.pixels import resize_pixels
from tuner.resample import expand_spectrum, resize
from tuner.schedule import Schedule, Stage
from tuner.sigmas import renoising
from tuner.solvers import call_sigmas, reusing, solve

if TYPE_CHECKING:
    import torch

    from tuner.solvers.base import Noise, Velocity

QUANTILES = (0.05, 0.95)
"""The quantiles of a latent that ``Stage.amplitudes`` states."""

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
    size = model.blueprint.check_size(size or model.blueprint.size)
    x: torch.Tensor | None = None
    for index in range(len(schedule.stages)):
        x = run_stage(model, schedule, index, x, conditioning, seeds, size, on_step)
    assert x is not None  # a schedule has at least one stage
    return x


def run_stage(
    model: FlowModel,
    schedule: Schedule,
    index: int,
    x_before: torch.Tensor | None,
    conditioning: Conditioning,
    seeds: Sequence[int],
    size: Size,
    on_step: StepCallback | None = None,
) -> torch.Tensor:
    """Runs one stage: resizes the previous stage's latents, renoises them, and solves down to the last sigma.

    What it returns depends on the stages up to this one, the solver and the cache alone, so it may be kept for
    another schedule that begins with the same stages.

    Args:
        model: The model to call.
        schedule: What is run.
        index: Number of the stage, from 0.
        x_before: What the stage before returned; None for the first stage, which starts from pure noise.
        conditioning: B rows, from ``model.encode``.
        seeds: B seeds of the images.
        size: Output (height, width) in pixels of the whole schedule.
        on_step: Called before every network call.

    Returns:
        Latents (B, C, h, w), float32, at the stage's size and last sigma.
    """
    import torch

    stage, solver = schedule.stages[index], schedule.solver_of(index)
    if isinstance(schedule.cache, FirstBlockCache) and len(seeds) > 1:
        # It decides for a batch as a whole, and an image must not depend on the batch it is in.
        rows = [
            run_stage(
                model,
                schedule,
                index,
                None if x_before is None else x_before[i : i + 1],
                {name: value[i : i + 1] for name, value in conditioning.items()},
                [seed],
                size,
                on_step,
            )
            for i, seed in enumerate(seeds)
        ]
        return torch.cat(rows)
    cached: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if schedule.cache:
        cached = model.cached(schedule.cache, call_sigmas(solver, stage.sigmas, stage.reuse))

    guiding: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if stage.guidance is not None or stage.guide is not None:
        guiding = model.guiding(stage)

    def velocity(x: torch.Tensor, sigma: float) -> torch.Tensor:
        if on_step is not None:
            on_step(index, sigma)
        return model.velocity(x, sigma, conditioning)

    def noise(step: int) -> torch.Tensor:
        return model.noise(model.blueprint.stage_size(size, stage.scale), step_seeds(seeds, index, step))

    with torch.inference_mode(), cached, guiding:
        x = stage_start(model, schedule, index, x_before, seeds, size)
        return solve_stage(reusing(velocity, stage.sigmas, stage.reuse), x, stage, solver, noise)


def stage_start(
    model: FlowModel,
    schedule: Schedule,
    index: int,
    x_before: torch.Tensor | None,
    seeds: Sequence[int],
    size: Size,
) -> torch.Tensor:
    """Makes the latent that a stage starts from: noise alone, or the stage before, resized and renoised.

    Takes what ``run_stage`` takes, and returns latents (B, C, h, w) at the stage's size and first sigma.
    """
    stage = schedule.stages[index]
    noise = model.noise(model.blueprint.stage_size(size, stage.scale), stage_seeds(seeds, index))
    if x_before is None:
        return model.blueprint.start(stage.sigmas[0]) * noise
    before = schedule.stages[index - 1]
    level, picture = before.sigmas[-1], model.picture(x_before)
    if stage.resample == "dct":
        fresh = model.picture(noise)
        expanded = expand_spectrum(picture, fresh, level, stage.scale / before.scale)
        # Where the size stays, so does the level, but for its rounding.
        beside = renoise(model.with_picture(x_before, fresh), noise, level, max(level, stage.sigmas[0]))
        return model.with_picture(beside, expanded)
    if stage.resample == "pixel":
        resized = resize_pixels(model, x_before, model.blueprint.stage_size(size, stage.scale), stage.upscaler)
    else:
        resized = resize(picture, (noise.shape[-2], noise.shape[-1]), stage.resample)
    return renoise(model.with_picture(x_before, resized), noise, level, stage.sigmas[0])


def solve_stage(
    velocity: Velocity[torch.Tensor], x: torch.Tensor, stage: Stage, solver: str, noise: Noise[torch.Tensor]
) -> torch.Tensor:
    """Solves a stage from its first sigma to its last, rescaling before every step where amplitudes are given.

    Args:
        velocity: The network, with the stage's reuse applied.
        x: Latents (B, C, h, w) at the stage's first sigma.
        stage: What to run.
        solver: Its step rule.
        noise: Unit noise of each step, where the rule draws any.
    """
    if not stage.amplitudes:
        return solve(solver, velocity, x, stage.sigmas, noise)
    for amplitude, step in zip(stage.amplitudes, pairwise(stage.sigmas), strict=True):
        x = solve(solver, velocity, calibrate(x, amplitude), step, noise)
    return x


def calibrate(x: torch.Tensor, amplitude: tuple[float, float]) -> torch.Tensor:
    """Scales and shifts each latent so that its 5 % and 95 % quantiles are the given ones.

    Amplitude calibration of Optimal Stepsize (arXiv 2503.21774): with few steps the latent drifts away from the
    range of values that the teacher's has at the same noise level.

    Args:
        x: Latents (B, C, h, w).
        amplitude: The two quantiles, taken over all values of a latent.
    """
    low, high = x.flatten(1).quantile(x.new_tensor(QUANTILES), dim=1).view(2, -1, *[1] * (x.ndim - 1))
    gain = (amplitude[1] - amplitude[0]) / (high - low)
    calibrated: torch.Tensor = amplitude[0] + gain * (x - low)
    return calibrated


def renoise(x: torch.Tensor, noise: torch.Tensor, level: float, target: float) -> torch.Tensor:
    """Brings a latent from one noise level to a higher one by adding fresh noise; see `tuner.sigmas.renoising`.

    Args:
        x: Latent at noise level ``level``.
        noise: Fresh unit noise of the same shape.
        level: Noise level of ``x``, below 1.
        target: Noise level wanted, at least ``level``.
    """
    kept, added = renoising(level, target)
    return kept * x + added * noise


def stage_seeds(seeds: Sequence[int], stage: int) -> list[int]:
    """Returns the noise seeds of a stage: the image's own seed at first, a hash of (seed, stage) after it.

    The first stage thus starts from the same noise as the stock pipeline with the same seed, and the noise of
    a later stage does not depend on what was drawn before it. A hash has 53 bits, which every reader of JSON keeps
    as they are, so that an exported workflow draws the same noise.
    """
    if stage == 0:
        return list(seeds)
    return [_hashed(f"{seed}/{stage}") for seed in seeds]


def step_seeds(seeds: Sequence[int], stage: int, step: int) -> list[int]:
    """Returns the noise seeds of a stochastic solver's step: a hash of (seed, stage, step)."""
    return [_hashed(f"{seed}/{stage}/{step}") for seed in seeds]


def _hashed(text: str) -> int:
    """Returns a seed below 2^53, which a JSON number holds exactly."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 11
