"""The space around a schedule of Optimal Stepsize (arXiv 2503.21774): its levels, warped, in any number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna

from search_spaces._costs import Costs
from search_spaces._staged import alike, within
from tuner.budget import Budget
from tuner.errors import UserError
from tuner.presets import load
from tuner.schedule import Schedule, Stage
from tuner.sigmas import shift_sigma
from tuner.solvers import network_calls

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

    from tuner.models import Blueprint, Size

_SKEW = (0.25, 4.0)
_STRETCH = (0.5, 2.0)


class Oss:
    """Schedules of one full-size stage: the levels of a distilled schedule, the anchor, warped.

    The anchor's levels, joined by straight lines, are a function on positions from 0, its start, to 1, its end. A
    schedule of n steps takes it at n + 1 positions: even ones whose odds are raised to a power and multiplied.

    =================== ===============================================================================
    ``steps``           1 to as many as the budget buys, at most the baseline's
    ``skew``            factor of the positions' odds, log scale: above 1, levels lie nearer to the end
    ``stretch``         power of the positions' odds, log scale: above 1, levels lie nearer to both ends
    =================== ===============================================================================

    Skew and stretch 1 at the anchor's own number of steps are the anchor. Two steps have one inner level, which
    the skew puts anywhere, and a single step has none.
    """

    def __init__(self, blueprint: Blueprint, size: Size, budget: Budget, preset: str | None = None):
        """Reads the anchor.

        Args:
            blueprint: The model.
            size: Output (height, width) in pixels.
            budget: What one image may cost.
            preset: The anchor: a preset of one stage, by name or file.

        Raises:
            UserError: If no preset is given, or one that is no anchor.
        """
        if preset is None:
            name = f"oss-{blueprint.name.replace('/', '-')}-10.yaml"
            raise UserError(
                f"The space 'oss' needs a distilled schedule; make one with `tuner schedule oss --model "
                f"{blueprint.name} --steps 10 -o {name}` and search with --space oss:{name}."
            )
        anchor = load(preset).schedule
        if len(anchor.stages) != 1 or anchor.stages[0].reuse or anchor.stages[0].amplitudes or anchor.cache:
            raise UserError(
                f"The space 'oss' needs a preset of one stage without reuse, amplitudes and cache, but {preset!r} "
                "has other stages or options; distil it without --preset and --calibrate."
            )
        self._levels = anchor.stages[0].sigmas
        self._solver = anchor.solver_of(0)
        self._costs = Costs.of(blueprint, size, budget)
        self._most_steps = next(n for n in range(self._costs.most_steps, 0, -1) if n == 1 or self._affordable(n))

    def suggest(self, trial: BaseTrial) -> Schedule:
        """Asks for the steps, and then for where they lie."""
        steps = trial.suggest_int("steps", 1, self._most_steps)
        skew = trial.suggest_float("skew", *_SKEW, log=True) if steps > 1 else 1.0
        stretch = trial.suggest_float("stretch", *_STRETCH, log=True) if steps > 2 else 1.0
        inner = [shift_sigma(_powered(k / steps, stretch), skew) for k in range(1, steps)]
        sigmas = np.interp(inner, np.linspace(0, 1, len(self._levels)), self._levels).tolist()
        return Schedule(stages=(Stage(sigmas=(self._levels[0], *sigmas, self._levels[-1])),), solver=self._solver)

    def params_of(self, schedule: Schedule) -> dict[str, Any]:
        """Reads skew and stretch off the outermost levels, and makes sure that they give the schedule back."""
        steps = schedule.steps
        if steps > self._most_steps:
            raise ValueError(f"the budget buys {self._most_steps} steps, but the schedule has {steps}.")
        params: dict[str, Any] = {"steps": steps}
        first, last = (self._log_odds(schedule.stages[0].sigmas[k]) for k in (1, -2)) if steps > 1 else (0.0, 0.0)
        if steps > 1:
            params["skew"] = within(_SKEW, math.exp((first + last) / 2), "the skew")
        if steps > 2:
            params["stretch"] = within(_STRETCH, (last - first) / (2 * math.log(steps - 1)), "the stretch")
        if not alike(self.suggest(optuna.trial.FixedTrial(params)), schedule):
            raise ValueError("its levels are not those of the anchor, warped, or it has other stages or options.")
        return params

    def _affordable(self, steps: int) -> bool:
        levels: Sequence[float] = np.linspace(1, 0, steps + 1).tolist()
        return self._costs.allow(network_calls(self._solver, levels) * self._costs.per_call[1.0])

    def _log_odds(self, sigma: float) -> float:
        """The logarithm of the odds of the position at which the anchor has this level."""
        position = float(
            np.interp(-sigma, [-level for level in self._levels], np.linspace(0, 1, len(self._levels)))
        )
        if not 0 < position < 1:
            raise ValueError(f"an inner level lies strictly between the anchor's ends, but one is {sigma}.")
        return math.log(position / (1 - position))


def _powered(position: float, power: float) -> float:
    """Raises the odds of a position to a power."""
    odds: float = (position / (1 - position)) ** power
    return odds / (1 + odds)
