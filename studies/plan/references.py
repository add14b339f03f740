"""Schedules that a study evaluates whatever is proposed: what is known to work, brought to the budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from studies.plan.starts import start
from tuner import presets
from tuner.errors import UserError
from tuner.flops import price
from tuner.models import Blueprint, Size, blueprint
from tuner.presets import plain_name
from tuner.schedule import Schedule, Stage
from tuner.sigmas import partial_sigmas, shift_sigma, start_and_shift

if TYPE_CHECKING:
    from studies.plan.target import Target
    from tuner.budget import Budget
    from tuner.presets import Preset


RESCALED = "-rescaled"
"""End of the label of a preset that was brought to the budget."""

_FEWEST_STEPS = 2  # of plain sampling; a single step is a blur on every model
_MULTISTEP = "dpmpp-2m"  # the best multistep rule at few steps (docs/solvers.md), and every export carries it
_FEWEST_MULTISTEPS = 4  # with fewer, its first and last step of first order leave nothing of the rule


@dataclass(frozen=True)
class Reference:
    """A schedule that a study evaluates in any case; ``label`` says where it comes from."""

    label: str
    schedule: Schedule


def references(
    model: Blueprint, size: Size, budget: Budget, starts: Sequence[str] = (), target: Target | None = None
) -> tuple[Reference, ...]:
    """Plain sampling at the budget, and with half as many steps again and again, and presets that suit the model.

    Plain sampling is there twice: with the model's own solver and with a multistep one. A preset that costs more
    than the budget is rescaled to it; one that does not fit with a single step in every stage is left out. So are
    the baseline, repetitions, and what the target does not carry. The cheapest come first.

    Args:
        model: The model.
        size: Output (height, width) in pixels.
        budget: What one image may cost.
        starts: What else to evaluate, whatever model it was made for: names and files that `start` reads.
        target: What has to carry them; None for no limit.

    Raises:
        UserError: If one of ``starts`` cannot be read, needs other model options, or is not carried.
    """

    def fits(schedule: Schedule) -> bool:
        return budget.allows(price(schedule, model, size)) and (target is None or target.carries(schedule))

    steps = next(n for n in range(model.steps, 0, -1) if n == 1 or fits(model.plain(n, size)))
    halves = [steps, *(steps >> k for k in range(1, steps.bit_length()) if steps >> k >= _FEWEST_STEPS)]
    found = [Reference(plain_name(n), model.plain(n, size)) for n in halves]
    found += [
        Reference(plain_name(n, _MULTISTEP), model.plain(n, size, _MULTISTEP))
        for n in halves
        if n >= _FEWEST_MULTISTEPS and fits(model.plain(n, size, _MULTISTEP))
    ]
    shipped = [preset for preset in map(presets.load, presets.available()) if suits(preset, model)]
    for preset in (*shipped, *(start(name, model, size, target) for name in starts)):
        name = preset.name
        if fits(preset.schedule):
            found.append(Reference(name, preset.schedule))
        elif (smaller := next(filter(fits, reductions(preset.schedule)), None)) is not None:
            found.append(Reference(f"{name}{RESCALED}", smaller))
    unlike = {reference.schedule.content_hash: reference for reference in reversed(found)}
    unlike.pop(model.baseline(size).content_hash, None)
    kept = [reference for reference in found if unlike.get(reference.schedule.content_hash) is reference]
    return tuple(sorted(kept, key=lambda reference: budget.cost(price(reference.schedule, model, size))))


def plain_steps_at(tflops: float, model: Blueprint, size: Size) -> int:
    """Returns the smallest number of plain steps that cost at least so many TFLOPs; all steps cost the same."""
    step = price(model.plain(1, size), model, size).tflops
    return max(1, math.ceil(tflops / step - 1e-9))


def suits(preset: Preset, model: Blueprint) -> bool:
    """Whether a preset was made for models of this one's family, or for all, as they are: without a LoRA."""
    if preset.model_options is not None:
        return False
    if preset.model == presets.ANY_MODEL:
        return True
    try:
        return type(blueprint(preset.model)) is type(model)
    except UserError:
        return False  # a preset for a model that is not installed here


def reductions(schedule: Schedule) -> list[Schedule]:
    """Lists a schedule with fewer and fewer steps, down to one in every stage.

    Each has the stages, scales and first and last sigmas of the original, and its steps in proportion. Shifted
    uniform grids keep their shift; between the levels of others, those of fewer steps are interpolated.
    """
    total = schedule.steps
    found: list[Schedule] = []
    for left in range(total - 1, 0, -1):
        counts = [max(1, round(stage.steps * left / total)) for stage in schedule.stages]
        if not found or counts != [stage.steps for stage in found[-1].stages]:
            stages = tuple(_with_steps(stage, n) for stage, n in zip(schedule.stages, counts, strict=True))
            found.append(Schedule(stages=stages, solver=schedule.solver, cache=schedule.cache))
    return found


def _with_steps(stage: Stage, steps: int) -> Stage:
    if steps == stage.steps:
        return stage
    changed = {
        "sigmas": _with_levels(stage.sigmas, steps),
        "reuse": tuple(k for k in range(1, steps) if (2 * k + 1) * stage.steps // (2 * steps) in stage.reuse),
        "amplitudes": (),
    }
    return Stage.model_validate(stage.model_dump() | changed)


def _with_levels(sigmas: tuple[float, ...], steps: int) -> tuple[float, ...]:
    import numpy as np

    if (cut := start_and_shift(sigmas)) is not None:
        start, shift = cut
        between = partial_sigmas(steps, start, shift, shift_sigma(sigmas[-1], 1 / shift))[1:-1]
    else:
        places = np.linspace(0, len(sigmas) - 1, steps + 1)[1:-1]
        between = tuple(np.interp(places, np.arange(len(sigmas)), sigmas).tolist())
    return (sigmas[0], *between, sigmas[-1])
