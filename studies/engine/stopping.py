"""Stop rules: pure functions of the trials so far, so that a study ends at the same trial in every run."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from objectives.base import loss_sign
from studies.judge.pareto import hypervolume
from studies.records.results import PROPOSED

if TYPE_CHECKING:
    from studies.plan.plan import Plan
    from studies.propose.trial import Trial
    from studies.records.results import EndedBy

GAIN = 1e-3
"""Relative growth of the hypervolume that counts as a gain."""


def ended_by(plan: Plan, visible: Sequence[Trial], started: Sequence[Trial]) -> EndedBy | None:
    """Returns the rule that forbids another proposal, if one does.

    TFLOPs count whether they were spent or reused, so that the scores of other studies do not change where a study
    ends.

    Args:
        plan: The search.
        visible: The trials whose outcomes the next one may depend on, in order.
        started: All trials so far.
    """
    settings = plan.settings
    at_most = len(plan.prompts.search) * plan.budget.tflops
    if settings.max_tflops is not None and _taken(plan, started) + at_most > settings.max_tflops:
        return "max tflops"
    if settings.patience is not None and _has_stalled(plan, visible, settings.patience):
        return "patience"
    return None


def pays_for(plan: Plan, trial: Trial, started: Sequence[Trial]) -> bool:
    """Whether ``max_tflops`` pays for one more trial after those so far."""
    limit = plan.settings.max_tflops
    if limit is None or trial.label != PROPOSED:
        return True
    return _taken(plan, started) + plan.rung_tflops(trial.price, trial.rung) <= limit


def _taken(plan: Plan, started: Sequence[Trial]) -> float:
    """Returns the largest cost of a study that ends after these trials; it always includes all references."""
    proposed = (trial for trial in started if trial.label == PROPOSED)
    return plan.least_tflops + sum(plan.rung_tflops(trial.price, trial.rung) for trial in proposed)


def _has_stalled(plan: Plan, visible: Sequence[Trial], patience: int) -> bool:
    """Whether none of the last ``patience`` proposals made the hypervolume grow.

    The hypervolume is that of the trials within the budget that were scored on all prompts, over cost and all
    objectives. Its reference point is the budget and, for each objective, the worst mean of the references so far.
    """
    recent = {trial.number for trial in [trial for trial in visible if trial.label == PROPOSED][-patience:]}
    scored = [
        trial
        for trial in visible
        if trial.succeeded and plan.is_last(trial.rung) and plan.budget.allows(trial.price)
    ]
    losses = np.array(
        [
            [
                trial.cost,
                *(loss_sign(way) * fmean(trial.result.scores[name]) for name, way in plan.directions.items()),
            ]
            for trial in scored
        ]
    )
    compared = np.array([i == 0 or trial.label != PROPOSED for i, trial in enumerate(scored)])

    def volume(count: int) -> float:
        if count == 0:
            return 0.0
        worst = losses[:count][compared[:count]].max(axis=0)
        return hypervolume(losses[:count], [plan.budget.limit, *worst[1:]])

    gained = (volume(i + 1) > volume(i) * (1 + GAIN) for i, trial in enumerate(scored) if trial.number in recent)
    return len(recent) == patience and not any(gained)
