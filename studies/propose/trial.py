"""A trial: a schedule that the study scores on the search prompts of one rung."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from objectives.base import loss_sign
from studies.work.reuse import beginnings
from studies.work.task import Failure
from tuner.schedule import Schedule

if TYPE_CHECKING:
    import optuna

    from studies.judge.early_stopping import Scores
    from studies.plan.plan import Plan
    from tuner.flops import Price


@dataclass(frozen=True)
class Outcome:
    """What a trial that succeeded found.

    Attributes:
        scores: Scores by objective, on the prompts up to the trial's rung.
        losses: Estimated mean score of each objective on all search prompts, signed so that less is better.
        errors: Standard errors of the losses.
        promotable: Whether prompts are left and the trial was not stopped early.
    """

    scores: Scores
    losses: tuple[float, ...]
    errors: tuple[float, ...]
    promotable: bool


@dataclass(frozen=True)
class Trial:
    """A schedule that the study scores on the search prompts of one rung.

    Attributes:
        number: From 0, in the order of their start.
        label: Where the schedule comes from; see `Candidate`.
        schedule: The schedule.
        price: Its price per image.
        cost: The part of the price that the budget limits: TFLOPs or seconds per image.
        params: The parameters that the search space makes the schedule from; None if it cannot make it.
        rung: The rung; earlier trials scored the schedule on the rungs below. See `studies.judge.early_stopping`.
        continues: Number of the trial that scored the schedule on the rung below; None on the first rung.
        outcome: What the trial found, or why it failed; None while it is pending.
        started: When it was started; only the Optuna study needs it.
    """

    number: int
    label: str
    schedule: Schedule
    price: Price
    cost: float
    params: Mapping[str, Any] | None
    rung: int = 0
    continues: int | None = None
    outcome: Outcome | Failure | None = None
    started: datetime | None = field(default=None, compare=False)

    @property
    def succeeded(self) -> bool:
        """Whether the trial has scores."""
        return isinstance(self.outcome, Outcome)

    @property
    def result(self) -> Outcome:
        """The outcome of a trial that succeeded.

        Raises:
            ValueError: If the trial is pending or has failed.
        """
        if not isinstance(self.outcome, Outcome):
            raise ValueError(f"trial {self.number} has no scores.")
        return self.outcome

    @cached_property
    def prefixes(self) -> list[bytes]:
        """Cache keys of the proper prefixes of the schedule; see `beginnings`."""
        return beginnings(self.schedule)


def latest(trials: Iterable[Trial]) -> list[Trial]:
    """Keeps the trial on most prompts of each schedule, in the order of their numbers."""
    kept: dict[str, Trial] = {}
    for trial in trials:
        known = kept.get(trial.schedule.content_hash)
        if known is None or trial.rung > known.rung:
            kept[trial.schedule.content_hash] = trial
    return sorted(kept.values(), key=lambda trial: trial.number)


def as_optuna(plan: Plan, trial: Trial) -> optuna.trial.FrozenTrial:
    """Converts a finished trial to one of an Optuna study."""
    import optuna

    asked = optuna.trial.FixedTrial(dict(trial.params or {}))
    if trial.params is not None:
        plan.space.suggest(asked)  # tells the distributions
    losses = [*trial.result.losses, trial.cost] if trial.succeeded else None
    values = losses and [loss_sign(way) * loss for way, loss in zip(plan.value_directions, losses, strict=True)]
    converted = optuna.trial.create_trial(
        state=optuna.trial.TrialState.COMPLETE if values else optuna.trial.TrialState.FAIL,
        values=values,
        params=asked.params,
        distributions=asked.distributions,
        user_attrs={
            "label": trial.label,
            "schedule": trial.schedule.model_dump(mode="json"),
            "prompts": plan.rungs[trial.rung],
            "partial": not plan.is_last(trial.rung),
            "continues": trial.continues,
            "tflops": trial.price.tflops,
            "cost": trial.cost,
            "nfe": trial.price.nfe,
        },
    )
    converted.datetime_start = trial.started
    return converted
