"""Measures what each part of Bottleneck Sampling is worth: the schedule without it, on the same prompts and noise.

The parts are those of the paper's Tables 3 and 7 (arXiv 2503.18940). The paper's own values are not repeated here:
they could not be checked against the paper's text.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from studies.judge.intervals import paired_score
from studies.work.evaluator import Evaluator
from studies.work.task import Failure, Task
from tuner import presets
from tuner.errors import UserError
from tuner.flops import price
from tuner.models import Blueprint, Size
from tuner.schedule import Resample, Schedule, Stage
from tuner.sigmas import partial_sigmas, shift_sigma, start_and_shift

if TYPE_CHECKING:
    from tuner.presets import Score

WHOLE = "whole method"
KERNELS: tuple[Resample, ...] = ("nearest", "bilinear", "bicubic", "lanczos")
_FIVE_STAGES = "bottleneck-flux-5stage"

OnProgress: TypeAlias = "Callable[[int, int], None]"
"""Called with the number of images drawn and the number of all images."""


@dataclass(frozen=True)
class Row:
    """One ablation.

    Attributes:
        name: Name of the change.
        tflops: Cost per image.
        scores: For each objective the mean, and the paired difference to the whole method.
    """

    name: str
    tflops: float
    scores: Mapping[str, Score]


def bottleneck_ablations(schedule: Schedule, blueprint: Blueprint, size: Size) -> dict[str, Schedule]:
    """Makes the ablated schedules, the whole method first.

    * without re-shifting: every stage keeps its steps and its unshifted start, with the model's own shift.
    * without renoising: a stage ends at the level at which the next begins, in as many steps, and the latent is
      resized with the noise that it still has.
    * without the first high-resolution stage: the second stage starts from pure noise, in as many steps.
    * five stages, where the schedule has three: those of the shipped five-stage preset.
    * four resampling kernels.

    Args:
        schedule: The whole method: stages at scale 1, lower ones, and 1.
        blueprint: The model, for its own shift.
        size: Output (height, width) in pixels.

    Raises:
        UserError: If the schedule is no such sequence of shifted grids.
    """
    stages = schedule.stages
    if len(stages) < 3 or stages[0].scale != 1:
        raise UserError(
            "Ablations need a bottleneck (three or more stages, the first at scale 1), but this schedule's scales "
            f"are {[stage.scale for stage in stages]}; give --preset bottleneck-flux-3x, say."
        )
    steps = blueprint.steps + blueprint.steps % 2
    own_shift = _odds(blueprint.sigmas(steps, size)[steps // 2])  # what the model makes of an unshifted 1/2
    found = {
        WHOLE: schedule,
        "without re-shifting": _with(schedule, [_regrid(stage, shift=own_shift) for stage in stages]),
        "without renoising": _with(schedule, _cascade(stages)),
        "without the first stage": _with(schedule, [_regrid(stages[1], start=1.0), *stages[2:]]),
    }
    if len(stages) == 3:
        found["five stages"] = _with(schedule, presets.load(_FIVE_STAGES).schedule.stages)
    used = {stage.resample for stage in stages[1:]}
    for kernel in KERNELS:
        if used != {kernel}:
            resampled = [stage.model_copy(update={"resample": kernel}) for stage in stages[1:]]
            found[f"{kernel} resampling"] = _with(schedule, [stages[0], *resampled])
    return found


def run_ablations(
    evaluator: Evaluator,
    blueprint: Blueprint,
    schedules: Mapping[str, Schedule],
    prompts: Sequence[str],
    size: Size,
    batch: int,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> list[Row]:
    """Draws and scores every schedule on the same prompts and noise.

    Args:
        evaluator: Model and objectives.
        blueprint: The model, for the costs.
        schedules: By name; the first is what the others are compared with.
        prompts: Two or more.
        size: Output (height, width) in pixels.
        batch: Images drawn at once.
        seed: Noise seed of the first prompt.
        on_progress: Called after every batch.

    Raises:
        UserError: If a schedule gives no valid image.
    """
    values: dict[str, dict[str, list[float]]] = {name: {} for name in schedules}
    done = 0
    for (name, schedule), start in itertools.product(schedules.items(), range(0, len(prompts), batch)):
        chunk = tuple(prompts[start : start + batch])
        seeds = tuple(range(seed + start, seed + start + len(chunk)))
        result = evaluator.evaluate(Task(schedule, chunk, seeds, size))
        if isinstance(result, Failure):
            raise UserError(f"The ablation {name!r} cannot be scored: {result.reason}")
        for objective, found in result.scores.items():
            values[name].setdefault(objective, []).extend(found)
        done += len(chunk)
        if on_progress is not None:
            on_progress(done, len(schedules) * len(prompts))
    whole = next(iter(values.values()))
    return [
        Row(
            name,
            price(schedules[name], blueprint, size).tflops,
            {objective: paired_score(scores, whole[objective]) for objective, scores in found.items()},
        )
        for name, found in values.items()
    ]


def _with(schedule: Schedule, stages: Sequence[Stage]) -> Schedule:
    return Schedule(stages=tuple(stages), solver=schedule.solver)


def _regrid(stage: Stage, start: float | None = None, shift: float | None = None) -> Stage:
    """Rebuilds a stage's grid with another unshifted start or another shift."""
    old_start, old_shift = _cut(stage)
    sigmas = partial_sigmas(
        stage.steps, old_start if start is None else start, old_shift if shift is None else shift
    )
    return stage.model_copy(update={"sigmas": sigmas})


def _cascade(stages: Sequence[Stage]) -> list[Stage]:
    """Lets every stage end at the level at which the next begins, in as many steps, shifted as before."""
    cascade = []
    for stage, after in itertools.pairwise(stages):
        _, shift = _cut(stage)
        high, low = (shift_sigma(sigma, 1 / shift) for sigma in (stage.sigmas[0], after.sigmas[0]))
        if not high > low:
            raise UserError(
                f"A stage starts at sigma {after.sigmas[0]:.6g}, no lower than the one before it, so its latent "
                "cannot be carried over at its noise level; ablate a schedule whose starts fall."
            )
        inner = partial_sigmas(stage.steps, high, shift, low)[1:-1]
        cascade.append(stage.model_copy(update={"sigmas": (stage.sigmas[0], *inner, after.sigmas[0])}))
    return [*cascade, stages[-1]]


def _cut(stage: Stage) -> tuple[float, float]:
    cut = start_and_shift(stage.sigmas)
    if cut is None:
        raise UserError(f"Sigmas {list(stage.sigmas)} are no shifted grid, so they cannot be shifted otherwise.")
    return cut


def _odds(sigma: float) -> float:
    return sigma / (1 - sigma)
