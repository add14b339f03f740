"""The plain space: one stage at full size, and where its noise levels lie."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import optuna
from scipy.optimize import brentq

from search_spaces._choices import Choices, anything
from search_spaces._costs import Costs
from search_spaces._guidance import GuidanceChoice
from search_spaces._solvers import called, params_of_solver, suggest_solver
from search_spaces._staged import SHIFT, alike, within
from search_spaces.base import Carries
from tuner.budget import Budget
from tuner.schedule import Schedule, Stage
from tuner.sigmas import (
    beta_sigmas,
    exponential_sigmas,
    karras_sigmas,
    partial_sigmas,
)

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

    from tuner.models import Blueprint, Size

_FAMILIES = ("uniform", "karras", "exponential", "beta")
_LOWEST = (0.005, 0.6)
_RHO = (1.0, 15.0)
_CONCENTRATION = (0.3, 1.0)
_BOUNDS = {"shift": SHIFT, "lowest": _LOWEST, "rho": _RHO, "concentration": _CONCENTRATION}


class Plain:
    """Schedules of one stage at full size: which steps, how many of them, and by which rule.

    =================== ===============================================================================
    ``steps``           1 to as many as the budget buys, at most the baseline's
    ``family``          of the noise levels: uniform, karras, exponential or beta; from three steps on
    ``shift``           of the uniform and the beta family, log scale; from two steps on
    ``lowest``          last sigma above 0 of the karras and the exponential family, log scale
    ``rho``             exponent of the karras family (arXiv 2206.00364, Eq. 5)
    ``concentration``   alpha = beta of the beta family (arXiv 2407.12173)
    ``solver``          the step rule, one of `SOLVERS`; from two steps on, as one step is the same by all
    ``guidance``        the guidance scale, as a multiple of the model's own; for models that take one
    ``unguided_high``   of the network calls, the part at the beginning that make the prompt's pass alone; for
                        models that make more
    ``unguided_low``    the same at the end
    =================== ===============================================================================

    Two steps have one level between 1 and 0, which a shift of the uniform grid puts anywhere.
    """

    def __init__(self, blueprint: Blueprint, size: Size, budget: Budget, carries: Carries = anything):
        choices = Choices(carries)
        self._costs = Costs.of(blueprint, size, budget)
        self._solvers, self._guidance = choices.solvers(), GuidanceChoice(blueprint, choices)

    def suggest(self, trial: BaseTrial) -> Schedule:
        """Asks for the steps, the family of noise levels, and the family's parameters."""
        steps = trial.suggest_int("steps", 1, self._costs.most_full_steps)
        family = trial.suggest_categorical("family", _FAMILIES) if steps > 2 else "uniform"
        if family in ("karras", "exponential"):
            lowest = trial.suggest_float("lowest", *_LOWEST, log=True)
            if family == "exponential":
                sigmas = exponential_sigmas(steps, lowest)
            else:
                sigmas = karras_sigmas(steps, lowest, trial.suggest_float("rho", *_RHO))
        else:
            shift = trial.suggest_float("shift", *SHIFT, log=True) if steps > 1 else 1.0
            if family == "uniform":
                sigmas = partial_sigmas(steps, 1.0, shift)
            else:
                sigmas = beta_sigmas(steps, trial.suggest_float("concentration", *_CONCENTRATION), shift)
        solver = suggest_solver(trial, "", self._solvers) if steps > 1 else "euler"
        fields = self._guidance.fields(self._guidance.suggest(trial, "", cached=False), called(sigmas, ()))
        return Schedule(stages=(Stage(sigmas=sigmas, **fields),), solver=solver)

    def params_of(self, schedule: Schedule) -> dict[str, Any]:
        """Tries one family after the other, and makes sure that the parameters give the schedule back."""
        steps, most = schedule.steps, self._costs.most_full_steps
        if len(schedule.stages) != 1:
            raise ValueError(f"in this space a schedule has one stage, but it has {len(schedule.stages)}.")
        if steps > most:
            raise ValueError(f"the budget buys {most} steps at full size, but the schedule has {steps}.")
        stage = schedule.stages[0]
        guidance = self._guidance.of_stage(stage, called(stage.sigmas, ()))
        rules = params_of_solver(schedule.solver, "", self._solvers) if steps > 1 else {}
        rules |= self._guidance.params_of(guidance, "", cached=False)
        for family in _families_of(schedule.stages[0].sigmas):
            try:
                params = {name: _checked(name, value) for name, value in family.items()}
            except ValueError:
                continue
            params |= rules | {"steps": steps}
            if alike(self.suggest(optuna.trial.FixedTrial(params)), schedule):
                return params
        raise ValueError(
            f"its sigmas are of none of the families {', '.join(_FAMILIES)} with parameters within bounds, or "
            "its guidance is not in this space, or it reuses steps."
        )


def _families_of(sigmas: Sequence[float]) -> list[dict[str, Any]]:
    """Returns the parameters of each family that come nearest to these levels."""
    steps = len(sigmas) - 1
    if steps == 1:
        return [{}]
    shift = math.sqrt(_odds(sigmas[1]) * _odds(sigmas[-2]))  # the odds of symmetric levels multiply to shift^2
    if steps == 2:
        return [{"shift": shift}]
    rho = _root(lambda rho: karras_sigmas(steps, sigmas[-2], rho)[1] - sigmas[1], _RHO)
    concentration = _root(lambda alpha: beta_sigmas(steps, alpha, shift)[1] - sigmas[1], _CONCENTRATION)
    return [
        {"family": "uniform", "shift": shift},
        {"family": "exponential", "lowest": sigmas[-2]},
        {"family": "karras", "lowest": sigmas[-2], "rho": rho},
        {"family": "beta", "shift": shift, "concentration": concentration},
    ]


def _checked(name: str, value: Any) -> Any:
    return within(_BOUNDS[name], value, name) if name in _BOUNDS else value


def _odds(sigma: float) -> float:
    return sigma / (1 - sigma)


def _root(function: Callable[[float], float], bounds: tuple[float, float]) -> float:
    """Finds where a monotone function crosses 0; without a crossing, the bound that comes nearest."""
    low, high = (function(bound) for bound in bounds)
    if low * high >= 0:
        return bounds[abs(high) < abs(low)]
    return float(brentq(function, *bounds, xtol=1e-12))
