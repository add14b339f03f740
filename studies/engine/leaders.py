"""The schedules that lead a running search, as a person watches them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from objectives.base import loss_sign
from studies.judge.noninferiority import non_inferiority
from studies.judge.pareto import nondominated
from studies.plan.margins import parse_margins

if TYPE_CHECKING:
    from studies.judge.early_stopping import Scores
    from studies.plan.plan import Plan
    from studies.propose.trial import Trial
    from tuner.schedule import Schedule


@dataclass(frozen=True)
class Leader:
    """A schedule that no other measured one beats so far.

    Attributes:
        trial: Number of its trial.
        schedule: The schedule.
        speedup: TFLOPs of the baseline divided by its own.
        scores: Mean of each objective on the search prompts.
        differences: The same less the baseline's; empty for an objective that compares with the baseline's images.
        within: Whether it is shown to lose less than the margin on every objective.
    """

    trial: int
    schedule: Schedule
    speedup: float
    scores: Mapping[str, float]
    differences: Mapping[str, float]
    within: bool


def leaders(plan: Plan, complete: Sequence[Trial], baseline: Scores) -> list[Leader]:
    """Finds the schedules that no other one beats in cost and measured means.

    It takes milliseconds, because it is asked for while the search runs. The front of the outcome goes by expected
    scores (`studies.judge.pareto.front`).

    Args:
        plan: The search.
        complete: Trials that were scored on all search prompts.
        baseline: The baseline's scores.

    Returns:
        The leaders, cheapest first.
    """
    ways = plan.directions
    ordered = sorted(complete, key=lambda trial: (trial.cost, trial.number))
    losses = [
        [trial.cost, *(loss_sign(way) * fmean(trial.result.scores[name]) for name, way in ways.items())]
        for trial in ordered
    ]
    kept = nondominated(losses, keep_equal=False)
    return [_leader(plan, trial, baseline) for trial, is_kept in zip(ordered, kept, strict=True) if is_kept]


def _leader(plan: Plan, trial: Trial, baseline: Scores) -> Leader:
    scores, margins = trial.result.scores, parse_margins(plan.settings.margin, list(plan.directions))
    claims = [
        non_inferiority(scores[name], baseline[name], margins[name], way) for name, way in plan.directions.items()
    ]
    means = {name: fmean(values) for name, values in scores.items()}
    return Leader(
        trial=trial.number,
        schedule=trial.schedule,
        speedup=plan.baseline_price.tflops / trial.price.tflops,
        scores=means,
        differences={
            name: mean - fmean(baseline[name]) for name, mean in means.items() if name not in plan.fidelity
        },
        within=all(claim.holds for claim in claims),
    )
