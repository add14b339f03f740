"""Base of the spaces of several stages: everything except the choice of scales."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import optuna

from search_spaces._caches import kinds_for, params_of_cache, suggest_cache
from search_spaces._choices import Choices, anything
from search_spaces._costs import Costs, Ladder, buy, reused_steps
from search_spaces._guidance import GuidanceChoice
from search_spaces._solvers import called, params_of_solvers, suggest_solvers
from search_spaces.base import Carries
from tuner.budget import Budget
from tuner.schedule import Kernel, Schedule, Stage
from tuner.sigmas import partial_sigmas, shift_sigma, start_and_shift

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

    from tuner.models import Blueprint, Size

START = (0.1, 0.98)
SHIFT = (0.5, 12.0)
_END = (0.05, 1.0)
_LOWEST_DROP = 0.95  # a stage that ends early still comes down to this part of the level it started from
_MOST_EVERY = 3
_ROUNDING = 1e-9  # of parameters that are read back from sigmas


class StagedSpace(ABC):
    """Schedules of several stages; a space adds how their scales are chosen, and which options it has.

    =================== ===============================================================================
    ``spend``           the part of the budget to spend, from one full-size step to all, log scale
    ``stageK.share``    of what stages 1 to K spend together, the part that stage K spends; K >= 2
    ``stageK.start``    sigma to which the resized result of stage K - 1 is renoised; K >= 2
    ``stageK.shift``    shift of the stage's uniform grid, log scale; not for a single step
    ``stageK.resample`` how the result of stage K - 1 is resized; not where the size stays
    ``stageK.early``    (option) whether the stage, not the last, ends above sigma 0
    ``stageK.end``      (option) that level, as a part of the next stage's start; only if early
    ``solver``          the step rule, one of `SOLVERS`, or `BY_STAGE`
    ``stageK.solver``   the stage's step rule; only by stage
    ``own_guidance``    whether stages differ from the model's guidance; for models whose guidance can change
    ``stageK.guidance`` the guidance scale, as a multiple of the model's own; for models that take one
    ``stageK.unguided_high``, ``stageK.unguided_low``  of the stage's network calls, the part at its beginning and
                        at its end that make the prompt's pass alone; for models that make more, without a cache
    ``reuse``           (option) amid each stage, one step in this many calls the network
    ``cache``           (option) kind of the feature cache, or none
    ``cache.interval``  (option) of the calls that the cache may shorten, one in this many is full
    ``cache.warmup``    (option) leading calls of a stage that are full; taylorseer
    ``cache.order``     (option) order of the series; taylorseer
    =================== ===============================================================================

    Shares are counted from the end because the last stage is the dear one: its part is one parameter.

    Steps are what a stage's part buys at the exact price of a call of its size (of any size, under a limit of
    network calls), counting the calls that reuse and the passes that guidance saves; see `_costs.buy`. If one step
    of every stage exceeds the budget, stages are left out.
    """

    options: ClassVar[frozenset[str]] = frozenset()
    """Those of ``early``, ``reuse`` and ``cache`` that the space searches; the others are off."""

    def __init__(self, blueprint: Blueprint, size: Size, budget: Budget, carries: Carries = anything):
        choices, costs = Choices(carries), Costs.of(blueprint, size, budget)
        self._solvers, self._kernels = choices.solvers(), choices.kernels(costs.scales[0])
        self._costs = costs if self._kernels else costs.at_full_size()
        self._guidance = GuidanceChoice(blueprint, choices)
        self._ends_early = "early" in self.options and choices.early_ends()
        self._reuses = "reuse" in self.options and choices.reuse()
        self._cache_kinds: tuple[str, ...] = ()
        if "cache" in self.options and costs.shortened:
            self._cache_kinds = kinds_for(blueprint, blueprint.stage_size(size, costs.scales[0]), choices)

    @abstractmethod
    def _suggest_scales(self, trial: BaseTrial) -> list[float]:
        """Asks for the scales of all stages; the last is 1."""

    @abstractmethod
    def _without_a_stage(self, scales: list[float]) -> list[float]:
        """Drops scales until the rest is affordable together."""

    @abstractmethod
    def _params_of_scales(self, scales: Sequence[float]) -> dict[str, Any]:
        """Inverts ``_suggest_scales``; every scale is one that has a price.

        Raises:
            ValueError: If no parameters give these scales; the message says why.
        """

    def suggest(self, trial: BaseTrial) -> Schedule:
        """Asks for scales and compute, which give the steps, and then for the noise levels."""
        every = trial.suggest_int("reuse", 1, _MOST_EVERY) if self._reuses else 1
        cache = suggest_cache(trial, self._cache_kinds)
        scales = self._suggest_scales(trial)
        while not self._costs.allow(self._least_cost(scales)):
            scales = self._without_a_stage(scales)
        numbers = range(1, len(scales) + 1)
        early = [
            self._ends_early and k < len(scales) and trial.suggest_categorical(f"stage{k}.early", (False, True))
            for k in numbers
        ]
        least = min(1.0, self._costs.per_call[1.0] / self._costs.limit)
        spend = trial.suggest_float("spend", least, 1.0, log=True)
        shares = [trial.suggest_float(f"stage{k}.share", 0.0, 1.0) for k in numbers[1:]]
        guidances = self._guidance.suggest_stages(trial, len(scales), cache is not None)
        solvers = suggest_solvers(trial, len(scales), self._solvers)
        ladders = [
            Ladder(self._costs, scale, every, cache, guidance)
            for scale, guidance in zip(scales, guidances, strict=True)
        ]
        bought = buy(ladders, shares, spend, self._costs)
        steps = [rung.steps for rung in bought]
        starts = [1.0, *(trial.suggest_float(f"stage{k}.start", *START) for k in numbers[1:])]
        stages = []
        for k in numbers:
            end = 0.0
            if early[k - 1]:
                end = trial.suggest_float(f"stage{k}.end", *_END) * _highest_end(starts[k - 1], starts[k])
            shift = trial.suggest_float(f"stage{k}.shift", *SHIFT, log=True) if steps[k - 1] > 1 else 1.0
            resized = k > 1 and scales[k - 1] != scales[k - 2]
            sigmas, reuse = _sigmas(steps[k - 1], starts[k - 1], end, shift), reused_steps(steps[k - 1], every)
            stages.append(
                Stage(
                    scale=scales[k - 1],
                    sigmas=sigmas,
                    resample=self._suggest_resample(trial, k) if resized else "bilinear",
                    reuse=reuse,
                    solver=solvers[k - 1],
                    **self._guidance.fields(guidances[k - 1], called(sigmas, reuse)),
                )
            )
        full = sum(rung.calls * self._costs.per_call[scale] for rung, scale in zip(bought, scales, strict=True))
        shortens = sum(rung.cost for rung in bought) < full  # a cache that shortens no call is none
        return Schedule(stages=tuple(stages), cache=cache if shortens else None)

    def params_of(self, schedule: Schedule) -> dict[str, Any]:
        """Reads the parameters off the stages, and makes sure that they give the schedule back."""
        params = params_of_cache(schedule.cache, self._cache_kinds)
        scales = [stage.scale for stage in schedule.stages]
        known = ", ".join(map(str, self._costs.scales))
        for k, scale in enumerate(scales, start=1):
            if scale not in self._costs.scales:
                raise ValueError(f"scale {scale} of stage {k} is not one of {known}.")
        params |= self._params_of_compute(schedule) | self._params_of_scales(scales)
        for k, stage in enumerate(schedule.stages, start=1):
            params |= self._params_of_stage(schedule, k, stage)
        for every in range(1, _MOST_EVERY + 1) if self._reuses else (1,):
            found = params | ({"reuse": every} if self._reuses else {})
            if all(stage.reuse == reused_steps(stage.steps, every) for stage in schedule.stages) and alike(
                self.suggest(optuna.trial.FixedTrial(found)), schedule
            ):
                return found
        raise ValueError(
            f"its guidance or its reused steps are not in this space, or a stage has more than "
            f"{self._costs.most_steps} steps, or one that keeps the size names a resample mode."
        )

    def _suggest_resample(self, trial: BaseTrial, k: int) -> Kernel:
        return cast(Kernel, trial.suggest_categorical(f"stage{k}.resample", self._kernels))

    def _least_cost(self, scales: Sequence[float]) -> float:
        """Returns the cost of one step of every stage."""
        return sum(self._costs.per_call[scale] for scale in scales)

    def _params_of_compute(self, schedule: Schedule) -> dict[str, Any]:
        calls = [called(stage.sigmas, stage.reuse) for stage in schedule.stages]
        guidances = [self._guidance.of_stage(*pair) for pair in zip(schedule.stages, calls, strict=True)]
        params = self._guidance.params_of_stages(guidances, schedule.cache is not None)
        params |= params_of_solvers([schedule.solver_of(k) for k in range(len(schedule.stages))], self._solvers)
        spent = 0.0
        for k, (stage, made, guidance) in enumerate(zip(schedule.stages, calls, guidances, strict=True), start=1):
            cost = self._costs.of_calls(stage.scale, len(made), schedule.cache, guidance)
            spent += cost
            if k > 1:
                params[f"stage{k}.share"] = cost / spent
        if not self._costs.allow(spent):
            raise ValueError(f"the schedule costs {spent / self._costs.limit:.3g} times the budget.")
        return params | {"spend": min(1.0, spent / self._costs.limit)}

    def _params_of_stage(self, schedule: Schedule, k: int, stage: Stage) -> dict[str, Any]:
        if (cut := start_and_shift(stage.sigmas)) is None:
            raise ValueError(f"the sigmas of stage {k} are not a shifted uniform grid.")
        name, params = f"stage{k}", dict[str, Any]()
        if k > 1:
            params[f"{name}.start"] = within(START, stage.sigmas[0], f"the first sigma of stage {k}")
            if stage.scale != schedule.stages[k - 2].scale:
                if stage.resample not in self._kernels:
                    raise ValueError(
                        f"stage {k} is resized by {stage.resample!r}, which this space does not have."
                    )
                params[f"{name}.resample"] = stage.resample
        if stage.steps > 1:
            params[f"{name}.shift"] = within(SHIFT, cut[1], f"the shift of stage {k}")
        if k < len(schedule.stages) and stage.sigmas[-1] > 0 and not self._ends_early:
            raise ValueError(f"stage {k} ends at sigma {stage.sigmas[-1]}, and in this space stages end at 0.")
        if k < len(schedule.stages) and self._ends_early:
            params[f"{name}.early"] = stage.sigmas[-1] > 0
            if stage.sigmas[-1] > 0:
                part = stage.sigmas[-1] / _highest_end(stage.sigmas[0], schedule.stages[k].sigmas[0])
                params[f"{name}.end"] = within(_END, part, f"the part of the next start that stage {k} ends at")
        return params


def suggest_scale(trial: BaseTrial, name: str, scales: Sequence[float]) -> float:
    """Asks for one of several evenly spaced scales."""
    step = scales[1] - scales[0] if len(scales) > 1 else None
    return trial.suggest_float(name, scales[0], scales[-1], step=step)


def within(bounds: tuple[float, float], value: float, what: str) -> float:
    """Clamps a parameter that was read from sigmas to its bounds, against rounding.

    Raises:
        ValueError: If it is out of bounds.
    """
    if not bounds[0] - _ROUNDING <= value <= bounds[1] + _ROUNDING:
        raise ValueError(f"{what} must lie in [{bounds[0]}, {bounds[1]}], but it is {value:.6g}.")
    return min(max(value, bounds[0]), bounds[1])


def alike(a: Schedule, b: Schedule) -> bool:
    """Whether two schedules are equal but for the rounding of their sigmas, and of levels between them."""
    return (a.solver, a.cache) == (b.solver, b.cache) and all(
        x is not None
        and y is not None
        and len(x.sigmas) == len(y.sigmas)
        and (x.guide is None) == (y.guide is None)
        and x.model_dump(exclude={"sigmas", "guide"}) == y.model_dump(exclude={"sigmas", "guide"})
        and np.allclose(x.sigmas, y.sigmas, rtol=0, atol=1e-7)
        and np.allclose(x.guide or (), y.guide or (), rtol=0, atol=1e-7)
        for x, y in itertools.zip_longest(a.stages, b.stages)
    )


def _highest_end(start: float, next_start: float) -> float:
    """The highest level at which a stage may end: no step goes up, and the next stage starts there or above."""
    return min(next_start, _LOWEST_DROP * start)


def _sigmas(steps: int, start: float, end: float, shift: float) -> tuple[float, ...]:
    """Builds a stage's sigmas between its first and last level as they are run, which the shift does not move."""
    grid = partial_sigmas(steps, shift_sigma(start, 1 / shift), shift, shift_sigma(end, 1 / shift))
    return (start, *grid[1:-1], end)
