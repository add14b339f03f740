"""Exact cost of a schedule on a model, without weights, memory or a run.

TFLOPs are 1e12 floating point operations of the denoiser per image, a multiply-add counted as two; the text
encoders and the VAE are excluded, as in the papers.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tuner import counts
from tuner.feature_cache import FeatureCache, FirstBlockCache
from tuner.models._configuration import trusting
from tuner.models.base import Blueprint, Size
from tuner.schedule import Schedule, Stage
from tuner.solvers import call_sigmas


@dataclass(frozen=True)
class StagePrice:
    """Cost of one stage per image.

    Attributes:
        scale: The stage's scale.
        height: Stage height in pixels.
        width: Stage width in pixels.
        steps: Solver steps.
        sigmas: The stage's noise levels.
        calls: Network calls, each of which makes a velocity; without a feature cache all cost the same.
        nfe: Network forward passes, those of guidance included.
        tflops_per_step: TFLOPs of all network calls, averaged over the steps.
    """

    scale: float
    height: int
    width: int
    steps: int
    sigmas: tuple[float, ...]
    calls: int
    nfe: int
    tflops_per_step: float

    @property
    def tflops(self) -> float:
        """TFLOPs of all steps."""
        return self.steps * self.tflops_per_step


@dataclass(frozen=True)
class Price:
    """Cost of a schedule per image.

    Attributes:
        tflops: All network calls together.
        nfe: Network forward passes; one that a feature cache shortens counts as any other.
        stages: Both by stage.
        exact: Whether every run costs this; otherwise it is the most that a run can cost.
    """

    tflops: float
    nfe: int
    stages: tuple[StagePrice, ...]
    exact: bool = True

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
        UserError: If the model cannot produce this size or start at this level, or if its network cannot be
            cached as the schedule says.
    """
    size = blueprint.check_size(size or blueprint.size)
    blueprint.start(schedule.stages[0].sigmas[0])
    stages = []
    for index, stage in enumerate(schedule.stages):
        height, width = blueprint.stage_size(size, stage.scale)
        called = call_sigmas(schedule.solver_of(index), stage.sigmas, stage.reuse)
        passes, tflops = 0, 0.0
        for known, sigmas in _by_passes(blueprint, stage, called):
            passes += known.passes * len(sigmas)
            tflops += tflops_of_calls(known, (height, width), sigmas, schedule.cache)
        stages.append(
            StagePrice(
                scale=stage.scale,
                height=height,
                width=width,
                steps=stage.steps,
                sigmas=stage.sigmas,
                calls=len(called),
                nfe=passes,
                tflops_per_step=tflops / stage.steps,
            )
        )
    return Price(
        tflops=sum(stage.tflops for stage in stages),
        nfe=sum(stage.nfe for stage in stages),
        stages=tuple(stages),
        exact=not isinstance(schedule.cache, FirstBlockCache),
    )


def _by_passes(blueprint: Blueprint, stage: Stage, sigmas: Sequence[float]) -> list[tuple[Blueprint, list[float]]]:
    """Groups the network calls of a stage by the model that is called: with all passes, or with fewer.

    A guidance scale that is another but leaves the passes costs nothing, and is not counted anew.
    """
    groups: dict[int, tuple[Blueprint, list[float]]] = {}
    for sigma in sigmas:
        known = blueprint.called(stage, sigma)
        if known.passes == blueprint.passes:
            known = blueprint
        groups.setdefault(known.passes, (known, []))[1].append(sigma)
    return list(groups.values())


def tflops_of_calls(
    blueprint: Blueprint, size: Size, sigmas: Sequence[float], cache: FeatureCache | None
) -> float:
    """Counts the TFLOPs of all network calls of a stage for one image, all guidance passes included.

    Args:
        blueprint: The model.
        size: The stage's height and width in pixels.
        sigmas: Noise level of every call.
        cache: What shortens some of them.
    """
    tflops = len(sigmas) * tflops_per_call(blueprint, size)
    return tflops - _saved(blueprint, size, cache, sigmas) if cache else tflops


def tflops_per_call(blueprint: Blueprint, size: Size) -> float:
    """Counts the TFLOPs of one velocity for one image of this size, all its guidance passes included."""
    return blueprint.passes * tflops_per_pass(blueprint, size)


def tflops_per_pass(blueprint: Blueprint, size: Size) -> float:
    """Counts the TFLOPs of one network pass for one image of this size, on meta tensors; cached.

    Where the guidance passes of a model differ, it is their mean.
    """
    return _count(_Hashed(blueprint), size)


def _saved(blueprint: Blueprint, size: Size, cache: FeatureCache, sigmas: Sequence[float]) -> float:
    """Counts the TFLOPs that a cache saves in a stage whose network calls have these noise levels."""
    key = _Hashed(blueprint)
    saved = 0.0
    for probe, calls in cache.shortened(sigmas):
        full = _count(key, size)
        shortened = _count(key, size, probe) - full
        saved += calls * blueprint.passes * (full - shortened)
    return saved


class _Hashed:
    """A blueprint as a cache key, by its text, because its configurations are dictionaries."""

    def __init__(self, blueprint: Blueprint):
        self.blueprint = blueprint
        self._key = (type(blueprint), blueprint.text)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashed) and self._key == other._key


@contextlib.contextmanager
def counting() -> Iterator[Callable[[], float]]:
    """Counts the TFLOPs of all that runs inside the context, by the same rules as a price.

    Yields:
        A function that returns the TFLOPs so far.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        yield lambda: counter.get_total_flops() / 1e12


@functools.lru_cache(maxsize=1024)
def _count(key: _Hashed, size: Size, cache: FeatureCache | None = None) -> float:
    return counts.once(key.blueprint, size, cache, lambda: count(key.blueprint, size, cache))


def count(blueprint: Blueprint, size: Size, cache: FeatureCache | None = None) -> float:
    """Builds the network on the meta device and counts the TFLOPs of a pass; with a cache, of two calls.

    Raises:
        UserError: If the network cannot be built as its configuration says, or cached in this way.
    """
    with counting() as tflops, trusting(blueprint.name, "network"):
        if cache is None:
            blueprint.meta_forward(size)
        else:
            blueprint.meta_forward(size, cache)
        return tflops() / blueprint.counted_passes
