"""The schedules that lead a running search, as a person watches them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from studies.judge.noninferiority import non_inferiority
from studies.propose.shortlist import unbeaten

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


class Leaders:
    """Follows a search, and keeps the schedules that no other one beats in cost and measured means.

    A trial is looked at once and compared with the leaders alone, so the time of a trial does not grow with their
    number. The front of the outcome goes by expected scores (`studies.judge.pareto.front`).

    Args:
        plan: The search.

    Attributes:
        found: The leaders, cheapest first.
        stopped_early: Number of schedules that were scored on a part of the prompts and did not go on to more.
    """

    def __init__(self, plan: Plan):
        self._plan = plan
        self._followed = 0
        self._front: list[Trial] = []
        self.found: list[Leader] = []
        self.stopped_early = 0

    def follow(self, finished: Sequence[Trial], baseline: Scores) -> None:
        """Looks at the trials that were not finished before.

        Args:
            finished: All finished trials, in order.
            baseline: The baseline's scores.
        """
        new = [trial for trial in finished[self._followed :] if trial.succeeded]
        self._followed = len(finished)
        self.stopped_early += sum(not self._plan.is_last(trial.rung) for trial in new)
        self.stopped_early -= sum(trial.continues is not None for trial in new)
        complete = [trial for trial in new if self._plan.is_last(trial.rung)]
        if complete:
            self._front = unbeaten([*self._front, *complete])
            self._front.sort(key=lambda trial: (trial.cost, trial.number))
            known = {leader.trial: leader for leader in self.found}
            self.found = [known.get(trial.number) or _leader(self._plan, trial, baseline) for trial in self._front]


def _leader(plan: Plan, trial: Trial, baseline: Scores) -> Leader:
    scores = trial.result.scores
    claims = [
        non_inferiority(scores[name], baseline[name], plan.margins[name], way)
        for name, way in plan.directions.items()
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
