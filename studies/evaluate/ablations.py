"""Measures what each part of Bottleneck Sampling is worth: the schedule without it, on the same prompts and noise.

The parts are those of the paper's Tables 3 and 7 (arXiv 2503.18940, FLUX.1-dev, 400 prompts), whose values stand
beside ours in `PAPER`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from studies.judge.intervals import paired_score
from studies.plan.references import plain_steps_at
from studies.work.evaluator import Evaluator
from studies.work.own_options import Contender
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

Values: TypeAlias = "tuple[float, float]"

_TABLE_3: Values = (0.460, 1.257)
_TABLE_7: Values = (0.457, 1.254)
_PAPER: Mapping[str, tuple[Values, Values]] = {
    "baseline": ((0.460, 1.258), _TABLE_3),
    "without re-shifting": ((0.276, 0.781), _TABLE_3),
    "without renoising": ((0.379, 0.923), _TABLE_3),
    "without the first stage": ((0.448, 1.134), _TABLE_3),
    "five stages": ((0.451, 1.253), _TABLE_7),
    "nearest resampling": ((0.461, 1.249), _TABLE_7),
    "bilinear resampling": ((0.453, 1.249), _TABLE_7),
    "bicubic resampling": ((0.454, 1.251), _TABLE_7),
    WHOLE: (_TABLE_7, _TABLE_7),
}
"""CLIP score and ImageReward of each row, and of the whole method in the same table of the paper.

Table 3 prints as the whole method ("Ours x3") the values of Table 1's x2 row, a misprint. Table 1's x3 row and
Table 7 agree on others.
"""
_PAPER_OBJECTIVES = ("clip", "image_reward")

OnProgress: TypeAlias = "Callable[[int, int], None]"
"""Called with the number of images drawn and the number of all images."""


@dataclass(frozen=True)
class Row:
    """One ablation.

    Attributes:
        name: Name of the change.
        tflops: Cost per image.
        scores: For each objective the mean, and the paired difference to the whole method.
        paper: For each objective that the paper has, its value and the difference to the whole method there.
    """

    name: str
    tflops: float
    scores: Mapping[str, Score]
    paper: Mapping[str, Values]


def bottleneck_ablations(schedule: Schedule, blueprint: Blueprint, size: Size) -> dict[str, Schedule]:
    """Makes the ablated schedules, the whole method first.

    * baseline, and plain steps: the cheapest that cost at least as much as the whole method.
    * without re-shifting: every stage keeps its steps and its unshifted start, with the model's own shift.
    * without renoising: a stage ends at the level at which the next begins, in as many steps, and the latent is
      resized with the noise that it still has.
    * one continuous grid: the same, but all stages share the model's own grid, each with as many steps as before.
    * without the first stage: the second stage starts from pure noise, and the others have more steps, so that the
      cost is that of the whole method (section 4.4).
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
    plain = blueprint.plain(plain_steps_at(price(schedule, blueprint, size).tflops, blueprint, size), size)
    found = {
        WHOLE: schedule,
        "baseline": blueprint.baseline(size),
        presets.plain_name(plain.steps): plain,
        "without re-shifting": _with(schedule, [_regrid(stage, shift=own_shift) for stage in stages]),
        "without renoising": _with(schedule, _cascade(stages)),
        "one continuous grid": _with(schedule, _one_grid(stages, blueprint.sigmas(schedule.steps, size))),
        "without the first stage": _without_the_first(schedule, blueprint, size),
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
    contenders = [Contender(name, schedule) for name, schedule in schedules.items()]
    values = score_all(evaluator, contenders, prompts, size, batch, seed, on_progress)
    whole = next(iter(values.values()))
    return [
        Row(
            name,
            price(schedules[name], blueprint, size).tflops,
            {objective: paired_score(scores, whole[objective]) for objective, scores in found.items()},
            _in_the_paper(name),
        )
        for name, found in values.items()
    ]


def score_all(
    evaluator: Evaluator,
    contenders: Sequence[Contender],
    prompts: Sequence[str],
    size: Size,
    batch: int,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> dict[str, dict[str, list[float]]]:
    """Draws every contender on the same prompts and noise; the other arguments are those of `run_ablations`.

    Returns:
        For each contender's name and each objective one score per prompt.

    Raises:
        UserError: If a contender gives no valid image.
    """
    values: dict[str, dict[str, list[float]]] = {one.name: {} for one in contenders}
    done = 0
    for one, start in itertools.product(contenders, range(0, len(prompts), batch)):
        chunk = tuple(prompts[start : start + batch])
        seeds = tuple(range(seed + start, seed + start + len(chunk)))
        result = evaluator.evaluate(Task(one.schedule, chunk, seeds, size, own=one.own))
        if isinstance(result, Failure):
            raise UserError(f"The ablation {one.name!r} cannot be scored: {result.reason}")
        for objective, found in result.scores.items():
            values[one.name].setdefault(objective, []).extend(found)
        done += len(chunk)
        if on_progress is not None:
            on_progress(done, len(contenders) * len(prompts))
    return values


def _in_the_paper(name: str) -> dict[str, Values]:
    if name not in _PAPER:
        return {}
    return {
        objective: (value, round(value - whole, 3))
        for objective, value, whole in zip(_PAPER_OBJECTIVES, *_PAPER[name], strict=True)
    }


def _without_the_first(schedule: Schedule, blueprint: Blueprint, size: Size) -> Schedule:
    """Drops the first stage and gives the others as many steps as the cost of the whole schedule pays for."""
    limit = price(schedule, blueprint, size).tflops
    rest = [_regrid(schedule.stages[1], start=1.0), *schedule.stages[2:]]
    found = _with(schedule, rest)
    for more in itertools.count(rest[0].steps + 1):
        share = more / rest[0].steps
        longer = _with(schedule, [_regrid(stage, steps=round(share * stage.steps)) for stage in rest])
        if price(longer, blueprint, size).tflops > limit:
            return found
        found = longer
    raise AssertionError("more steps cost more")


def _one_grid(stages: Sequence[Stage], sigmas: Sequence[float]) -> list[Stage]:
    """Lets the stages share one grid of sigmas, each with its own number of steps."""
    ends = [0, *itertools.accumulate(stage.steps for stage in stages)]
    return [
        stage.model_copy(update={"sigmas": tuple(sigmas[first : last + 1])})
        for stage, (first, last) in zip(stages, itertools.pairwise(ends), strict=True)
    ]


def _with(schedule: Schedule, stages: Sequence[Stage]) -> Schedule:
    return Schedule(stages=tuple(stages), solver=schedule.solver)


def _regrid(
    stage: Stage, start: float | None = None, shift: float | None = None, steps: int | None = None
) -> Stage:
    """Rebuilds a stage's grid with another unshifted start, another shift or another number of steps."""
    old_start, old_shift = _cut(stage)
    sigmas = partial_sigmas(
        steps or stage.steps, old_start if start is None else start, old_shift if shift is None else shift
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
