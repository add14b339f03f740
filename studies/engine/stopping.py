"""When a search has done enough: rules that look at finished trials in order, so that every run ends alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from objectives.base import loss_sign
from studies.records.results import PROPOSED
from studies.work.task import Failure

if TYPE_CHECKING:
    from studies.judge.early_stopping import Scores
    from studies.plan.plan import Plan
    from studies.propose.proposer import Proposal
    from studies.propose.trial import Trial
    from studies.records.results import EndedBy

GAIN = 1e-3
"""Relative growth of the hypervolume that counts as a gain."""


class StopRules:
    """Decides before each proposal whether there is to be one.

    TFLOPs count whether they were spent or reused, so that a study ends at the same trial wherever its scores come
    from. The hypervolume is that of the front within the budget, over cost and all objectives. Its reference
    point is the budget itself and, for each objective, the worst mean so far among the references within the
    budget that were scored on all prompts.

    Args:
        plan: The search.
    """

    def __init__(self, plan: Plan):
        self._plan = plan
        self._seen = 0
        self._losses: list[list[float]] = []  # cost first
        self._worst: list[float] = []
        self._hypervolume = 0.0
        self._since_gain = 0

    def ended_by(
        self, visible: Sequence[Trial], outcomes: Mapping[int, Scores | Failure], started: Sequence[Trial]
    ) -> EndedBy | None:
        """Returns the rule that forbids another proposal, if one does.

        Args:
            visible: The trials whose outcomes the next one may depend on, in order; as many as last time or more.
            outcomes: Their scores, by number.
            started: All trials so far.
        """
        for trial in visible[self._seen :]:
            self._see(trial, outcomes[trial.number])
        self._seen = len(visible)
        settings = self._plan.settings
        at_most = len(self._plan.prompts.search) * self._plan.budget.tflops
        if settings.max_tflops is not None and self._taken(started) + at_most > settings.max_tflops:
            return "max tflops"
        if settings.patience is not None and self._since_gain >= settings.patience:
            return "patience"
        return None

    def pay_for(self, wanted: Proposal, started: Sequence[Trial]) -> bool:
        """Whether the TFLOPs that the study may take are enough for one more trial, after those so far."""
        limit = self._plan.settings.max_tflops
        if limit is None or wanted.label != PROPOSED:
            return True
        price = self._plan.price(wanted.schedule)
        return self._taken(started) + self._plan.rung_tflops(price, wanted.rung) <= limit

    def _taken(self, started: Sequence[Trial]) -> float:
        """What the study takes at most if it ends after these trials; references are counted from the start."""
        proposed = (trial for trial in started if trial.label == PROPOSED)
        return self._plan.least_tflops + sum(self._plan.rung_tflops(one.price, one.rung) for one in proposed)

    def _see(self, trial: Trial, scores: Scores | Failure) -> None:
        """Counts trials since the hypervolume grew last."""
        proposed = trial.label == PROPOSED
        self._since_gain += proposed
        whole = self._plan.is_last(trial.rung)
        if isinstance(scores, Failure) or not whole or not self._plan.budget.allows(trial.price):
            return
        losses = [loss_sign(way) * fmean(scores[name]) for name, way in self._plan.directions.items()]
        self._losses.append([self._plan.budget.cost(trial.price), *losses])
        if not proposed or not self._worst:
            self._worst = [max(worst) for worst in zip(self._worst or losses, losses, strict=True)]
        grown = hypervolume(self._losses, [self._plan.budget.limit, *self._worst])
        if proposed and grown > self._hypervolume * (1 + GAIN):
            self._since_gain = 0
        self._hypervolume = grown


def hypervolume(losses: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """Volume that points, of which less is better, dominate up to a reference point."""
    import moocore

    return float(moocore.hypervolume(list(losses), ref=list(reference)))
