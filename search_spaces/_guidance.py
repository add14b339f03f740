"""Guidance of a stage as parameters of a trial: its scale, and the network calls that go without it.

Calls without guidance are counted, not placed: so many of the first and so many of the last calls of a stage.
Their cost follows from the number of calls, so that a share of the budget buys steps before the noise levels are
known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuner.errors import UserError
from tuner.schedule import Stage

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

    from search_spaces._choices import Choices
    from tuner.models import Blueprint

_FACTORS = (0.5, 1.5, 0.25)  # least, most, step
_MOST_UNGUIDED = 0.5
_UNGUIDED = Stage(sigmas=(1.0, 0.0), guidance=0.0)
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Guidance:
    """Guidance of one stage.

    Attributes:
        factor: The scale, as a multiple of the model's own.
        high: Part of the calls, the first ones, that make the prompt's own pass alone.
        low: The same of the last ones.
    """

    factor: float = 1.0
    high: float = 0.0
    low: float = 0.0

    @property
    def everywhere(self) -> bool:
        """Whether every call has guidance, however many there are."""
        return self.high == self.low == 0

    def guided(self, calls: int) -> tuple[int, int]:
        """Returns the numbers of the first call with guidance and of the first one without it that follows.

        One call at least has guidance.
        """
        first = int(self.high * calls + _ROUNDING)
        return first, max(first + 1, calls - int(self.low * calls + _ROUNDING))


class GuidanceChoice:
    """Guidance parameters of a model.

    Args:
        blueprint: The model.
        choices: What the runtime carries.
    """

    def __init__(self, blueprint: Blueprint, choices: Choices):
        self.own = blueprint.guidance or 0.0
        scaled, cut = Stage(sigmas=(1.0, 0.0), guidance=self.own), Stage(sigmas=(1.0, 0.0), guide=(1.0, 0.0))
        self.scales = self.own > 0 and _takes(blueprint, scaled) and choices.guidance(_FACTORS[1] * self.own)
        self.intervals = _takes(blueprint, cut) and choices.intervals()

    def suggest(self, trial: BaseTrial, prefix: str, cached: bool) -> Guidance:
        """Asks for a stage's guidance; a feature cache leaves no choice of calls.

        Args:
            trial: Optuna's.
            prefix: What the parameters' names begin with.
            cached: Whether there is a feature cache.
        """
        least, most, step = _FACTORS
        factor = trial.suggest_float(f"{prefix}guidance", least, most, step=step) if self.scales else 1.0
        if not self.intervals or cached:
            return Guidance(factor)
        parts = [trial.suggest_float(f"{prefix}unguided_{end}", 0.0, _MOST_UNGUIDED) for end in ("high", "low")]
        return Guidance(factor, *parts)

    def suggest_stages(self, trial: BaseTrial, stages: int, cached: bool) -> list[Guidance]:
        """Asks whether the stages have guidance of their own, and then for that of each."""
        if not self._any(cached) or not trial.suggest_categorical("own_guidance", (False, True)):
            return [Guidance()] * stages
        return [self.suggest(trial, f"stage{k}.", cached) for k in range(1, stages + 1)]

    def _any(self, cached: bool) -> bool:
        return self.scales or (self.intervals and not cached)

    def fields(self, guidance: Guidance, called: Sequence[float]) -> dict[str, Any]:
        """Returns the fields of a stage whose network calls are at these noise levels."""
        found: dict[str, Any] = {}
        if guidance.factor != 1:
            found["guidance"] = self.own * guidance.factor
        first, end = guidance.guided(len(called))
        if first > 0 or end < len(called):
            # Half way between calls, so that rounding a level moves no call across.
            high = (called[first - 1] + called[first]) / 2 if first > 0 else 1.0
            low = (called[end - 1] + called[end]) / 2 if end < len(called) else 0.0
            found["guide"] = (high, low)
        return found

    def of_stage(self, stage: Stage, called: Sequence[float]) -> Guidance:
        """Reads the guidance off a stage whose network calls are at these noise levels."""
        high, low = stage.guide or (1.0, 0.0)
        before, after = sum(sigma > high for sigma in called), sum(sigma <= low for sigma in called)
        factor = 1.0 if stage.guidance is None or not self.scales else stage.guidance / self.own
        return Guidance(factor, before / len(called), after / len(called))

    def params_of(self, guidance: Guidance, prefix: str, cached: bool) -> dict[str, Any]:
        """Inverts ``suggest``.

        Raises:
            ValueError: If the scale is out of bounds, or if more calls go without guidance than may.
        """
        params: dict[str, Any] = {}
        least, most, step = _FACTORS
        if self.scales:
            factor = least + round((guidance.factor - least) / step) * step
            if not least <= factor <= most:
                raise ValueError(
                    f"a guidance scale must be {least:g} to {most:g} times the model's {self.own:g}, but one is "
                    f"{guidance.factor:g} times it."
                )
            params[f"{prefix}guidance"] = factor
        if self.intervals and not cached:
            if max(guidance.high, guidance.low) > _MOST_UNGUIDED:
                raise ValueError(
                    f"at most a part of {_MOST_UNGUIDED:g} of a stage's first calls, and of its last ones, may go "
                    f"without guidance, but {max(guidance.high, guidance.low):g} do."
                )
            params |= {f"{prefix}unguided_high": guidance.high, f"{prefix}unguided_low": guidance.low}
        return params

    def params_of_stages(self, guidances: Sequence[Guidance], cached: bool) -> dict[str, Any]:
        """Inverts ``suggest_stages``.

        Raises:
            ValueError: As `params_of`.
        """
        if not self._any(cached):
            return {}
        own = any(guidance != Guidance() for guidance in guidances)
        params: dict[str, Any] = {"own_guidance": own}
        for k, guidance in enumerate(guidances, start=1) if own else ():
            params |= self.params_of(guidance, f"stage{k}.", cached)
        return params


def unguided(blueprint: Blueprint) -> Blueprint:
    """Returns the model as it is called where a stage leaves guidance out; itself if it makes one pass."""
    return blueprint.called(_UNGUIDED, 1.0) if blueprint.passes > 1 else blueprint


def _takes(blueprint: Blueprint, stage: Stage) -> bool:
    try:
        blueprint.called(stage, 1.0)
    except UserError:
        return False
    return True
