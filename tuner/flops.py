"""Exact cost of a schedule on a model, without weights, memory or a run.

TFLOPs are 1e12 floating point operations of the denoiser per image, a multiply-add counted as two; the text
encoders and the VAE are excluded, as in the papers.
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass
from typing import Any

from tuner.models.base import Blueprint, Size
from tuner.schedule import Schedule
from tuner.solvers import network_calls


@dataclass(frozen=True)
class StagePrice:
    """Cost of one stage per image.

    Attributes:
        scale: The stage's scale.
        height: Stage height in pixels.
        width: Stage width in pixels.
        steps: Solver steps.
        sigmas: The stage's noise levels.
        nfe: Network forward passes, those of guidance included.
        tflops_per_step: TFLOPs of one call of the model times the calls per step, averaged over the stage.
    """

    scale: float
    height: int
    width: int
    steps: int
    sigmas: tuple[float, ...]
    nfe: int
    tflops_per_step: float


@dataclass(frozen=True)
class Price:
    """Cost of a schedule per image: TFLOPs, network forward passes (NFE), and both by stage."""

    tflops: float
    nfe: int
    stages: tuple[StagePrice, ...]

    def as_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        return asdict(self)


def price(schedule: Schedule, blueprint: Blueprint, size: Size | None = None) -> Price:
    """Prices a schedule.

    Args:
        schedule: What would be run.
        blueprint: The model it would be run on.
        size: Output (height, width) in pixels; the model's default if None.

    Raises:
        UserError: If the model cannot produce this size.
    """
    size = blueprint.check_size(size or blueprint.size)
    stages = []
    for stage in schedule.stages:
        height, width = blueprint.stage_size(size, stage.scale)
        calls = network_calls(schedule.solver, stage.sigmas, stage.reuse)
        per_call = tflops_per_call(blueprint, (height, width))
        stages.append(
            StagePrice(
                scale=stage.scale,
                height=height,
                width=width,
                steps=stage.steps,
                sigmas=stage.sigmas,
                nfe=calls * blueprint.passes,
                tflops_per_step=calls * per_call / stage.steps,
            )
        )
    return Price(
        tflops=sum(stage.steps * stage.tflops_per_step for stage in stages),
        nfe=sum(stage.nfe for stage in stages),
        stages=tuple(stages),
    )


def tflops_per_call(blueprint: Blueprint, size: Size) -> float:
    """Counts the TFLOPs of one velocity for one image of this size, all its guidance passes included."""
    return blueprint.passes * tflops_per_pass(blueprint, size)


def tflops_per_pass(blueprint: Blueprint, size: Size) -> float:
    """Counts the TFLOPs of one network pass for one image of this size, on meta tensors; cached."""
    return _count(_Hashed(blueprint), size)


class _Hashed:
    """A blueprint as a cache key: by name and configuration, since configurations are dictionaries."""

    def __init__(self, blueprint: Blueprint):
        self.blueprint = blueprint
        self._key = (type(blueprint), repr(sorted(blueprint.transformer.items())), blueprint.text_tokens)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashed) and self._key == other._key


@functools.lru_cache(maxsize=256)
def _count(key: _Hashed, size: Size) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter:
        key.blueprint.meta_forward(size)
    return counter.get_total_flops() / 1e12
