"""The free space: one to five stages, each with its own size, share of the compute, noise levels and resize."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import optuna

from search_spaces.base import ROUNDING, Budget
from tuner.flops import tflops_per_call
from tuner.schedule import RESAMPLE_MODES, Resample, Schedule, Stage
from tuner.sigmas import partial_sigmas, shift_sigma, start_and_shift

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

    from tuner.models import Blueprint, Size

_MOST_STAGES = 5
_SMALLEST_SCALE = 0.25
_START = (0.1, 0.98)
_SHIFT = (0.5, 12.0)
_SHIFT_DECIMALS = 9  # what is rounded here can be read back from the sigmas exactly


class Free:
    """Schedules of one to five stages, solved by Euler's rule, every stage ending at sigma 0.

    =================== ===============================================================================
    ``stages``          how many, 1 to 5, as far as one step of each is affordable
    ``spend``           the part of the budget to spend, from one full-size step to all of it
    ``stageK.scale``    on the finest even grid of scales whose sizes differ; 1 for the last stage
    ``stageK.share``    of what stages 1 to K spend together, the part that stage K spends; K >= 2
    ``stageK.start``    sigma to which the resized result of stage K - 1 is renoised; K >= 2
    ``stageK.shift``    shift of the stage's uniform grid, log scale; not for a single step
    ``stageK.resample`` how the result of stage K - 1 is resized; not where the size stays
    =================== ===============================================================================

    Shares are counted from the end because the last stage is the dear one: its part is one parameter.

    Steps are what a stage's part buys at the exact price of a call of its size (of any size, under a limit of
    network calls), rounded to the nearest whole number, at least 1, and at most the steps of the model's
    baseline. If that exceeds the budget, the stage that spends most gives up a step, again and again. If one
    step of every stage exceeds it, the first stage is left out, again and again.
    """

    def __init__(self, blueprint: Blueprint, size: Size, budget: Budget):
        self._budget = budget
        self._most_steps = blueprint.steps
        self._passes = blueprint.passes
        self._scales = _distinct_scales(blueprint, size)
        self._tflops = {
            scale: tflops_per_call(blueprint, blueprint.stage_size(size, scale)) for scale in self._scales
        }

    def suggest(self, trial: BaseTrial, budget: Budget) -> Schedule:
        """Asks for stages, scales and compute, which give the steps, and then for the noise levels."""
        stages: list[Stage] = []
        for number, (scale, steps) in self._suggest_sizes_and_steps(trial, budget).items():
            stages.append(_suggest_stage(trial, number, scale, steps, stages[-1].scale if stages else None))
        return Schedule(stages=tuple(stages))

    def _suggest_sizes_and_steps(self, trial: BaseTrial, budget: Budget) -> dict[int, tuple[float, int]]:
        """Returns scale and steps by stage number; the numbers of stages left out are missing."""
        prices, limit = self._prices(budget)
        affordable = 1 + int((limit - prices[1.0]) / min(prices.values()))
        count = trial.suggest_int("stages", 1, min(_MOST_STAGES, affordable))
        low, step = self._scales[0], (1 - self._scales[-2] if len(self._scales) > 1 else None)
        scales = [trial.suggest_float(f"stage{k}.scale", low, 1.0, step=step) for k in range(1, count)] + [1.0]
        spend = trial.suggest_float("spend", min(1.0, prices[1.0] / limit), 1.0)
        shares = [trial.suggest_float(f"stage{k}.share", 0.0, 1.0) for k in range(2, count + 1)]
        costs = [prices[scale] for scale in scales]
        while sum(costs) > limit * (1 + ROUNDING):
            del costs[0]
        first = count - len(costs)
        steps = _steps(costs, shares[first:], spend * limit, limit, self._most_steps)
        return dict(enumerate(zip(scales[first:], steps, strict=True), start=first + 1))

    def params_of(self, schedule: Schedule) -> dict[str, Any]:
        """Reads the parameters off the stages, and makes sure that they give the schedule back."""
        prices, limit = self._prices(self._budget)
        params: dict[str, Any] = {
            "stages": _within((1, _MOST_STAGES), len(schedule.stages), "the number of stages")
        }
        spent = 0.0
        for k, stage in enumerate(schedule.stages, start=1):
            if stage.scale not in prices:
                raise ValueError(f"scale {stage.scale} of stage {k} is not one of {', '.join(map(str, prices))}.")
            if (cut := start_and_shift(stage.sigmas)) is None:
                raise ValueError(f"the sigmas of stage {k} are not a shifted uniform grid.")
            spent += stage.steps * prices[stage.scale]
            if k > 1:
                params[f"stage{k}.share"] = stage.steps * prices[stage.scale] / spent
                params[f"stage{k}.start"] = _within(_START, stage.sigmas[0], f"the first sigma of stage {k}")
                if stage.scale != schedule.stages[k - 2].scale:
                    params[f"stage{k}.resample"] = stage.resample
            if stage.steps > 1:
                params[f"stage{k}.shift"] = _within(
                    _SHIFT, round(cut[1], _SHIFT_DECIMALS), f"the shift of stage {k}"
                )
            if k < len(schedule.stages):
                params[f"stage{k}.scale"] = stage.scale
        if spent > limit * (1 + ROUNDING):
            raise ValueError(f"the schedule costs {spent / limit:.3g} times the budget.")
        params["spend"] = min(1.0, spent / limit)
        if not _alike(self.suggest(optuna.trial.FixedTrial(params), self._budget), schedule):
            raise ValueError(
                f"its solver is not euler, or a stage has more than {self._most_steps} steps, or a stage that "
                "keeps the size names a resample mode."
            )
        return params

    def _prices(self, budget: Budget) -> tuple[dict[float, float], float]:
        """What one step costs at each scale, and what all steps may cost, in what the budget limits."""
        if budget.nfe is not None:
            return dict.fromkeys(self._scales, float(self._passes)), float(budget.nfe)
        return self._tflops, budget.tflops


def _distinct_scales(blueprint: Blueprint, size: Size) -> tuple[float, ...]:
    """Returns the finest even grid from a quarter to 1 whose stage sizes differ on this model."""
    grids = (np.arange(np.ceil(_SMALLEST_SCALE * parts), parts + 1) / parts for parts in (8, 4, 2, 1))
    return next(
        tuple(grid.tolist())
        for grid in grids
        if len({blueprint.stage_size(size, scale) for scale in grid}) == len(grid)
    )


def _steps(prices: Sequence[float], shares: Sequence[float], spend: float, limit: float, most: int) -> list[int]:
    """Turns shares into steps; ``prices`` of all stages, ``shares`` of the later ones. See `Free`."""
    steps = []
    for price, share in zip(reversed(prices), [*reversed(shares), 1.0], strict=True):
        steps.append(min(most, max(1, round(share * spend / price))))
        spend -= share * spend
    steps.reverse()
    while np.dot(steps, prices) > limit * (1 + ROUNDING):
        spent = [n * price if n > 1 else 0.0 for n, price in zip(steps, prices, strict=True)]
        steps[spent.index(max(spent))] -= 1
    return steps


def _suggest_stage(trial: BaseTrial, number: int, scale: float, steps: int, scale_before: float | None) -> Stage:
    """Asks for what is left to choose in a stage whose size and steps are known."""
    name = f"stage{number}"
    start = 1.0 if scale_before is None else trial.suggest_float(f"{name}.start", *_START)
    shift = trial.suggest_float(f"{name}.shift", *_SHIFT, log=True) if steps > 1 else 1.0
    sigmas = _sigmas(steps, start, shift)
    if scale_before in (None, scale):
        return Stage(scale=scale, sigmas=sigmas)
    resample = cast(Resample, trial.suggest_categorical(f"{name}.resample", RESAMPLE_MODES))
    return Stage(scale=scale, sigmas=sigmas, resample=resample)


def _sigmas(steps: int, start: float, shift: float) -> tuple[float, ...]:
    """Builds a stage's sigmas from its first level as it is run, which the shift does not move."""
    shift = round(shift, _SHIFT_DECIMALS)
    return (start, *partial_sigmas(steps, shift_sigma(start, 1 / shift), shift)[1:])


def _within(bounds: tuple[float, float], value: float, what: str) -> float:
    if not bounds[0] <= value <= bounds[1]:
        raise ValueError(f"{what} must lie in [{bounds[0]}, {bounds[1]}], but it is {value:.6g}.")
    return value


def _alike(a: Schedule, b: Schedule) -> bool:
    """Whether two schedules are equal but for the rounding of their sigmas."""
    return a.solver == b.solver and all(
        x is not None
        and y is not None
        and (x.scale, x.steps, x.resample) == (y.scale, y.steps, y.resample)
        and np.allclose(x.sigmas, y.sigmas, rtol=0, atol=1e-7)
        for x, y in itertools.zip_longest(a.stages, b.stages)
    )
