"""Expected scores: the posterior means of measured scores, which remove evaluation noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from objectives.base import loss_sign
from studies.propose.features import features
from studies.propose.improvement import reference_point
from studies.propose.surrogate import LEAST_KNOWN, Results
from studies.records.results import PROPOSED

if TYPE_CHECKING:
    from studies.plan.plan import Plan
    from studies.propose.trial import Trial


def expected_scores(plan: Plan, trials: Sequence[Trial]) -> list[dict[str, float]]:
    """Predicts the mean score of each trial from all trials together.

    A score that exceeds the scores of similar schedules is partly luck. The standard errors decide how large that
    part is. With fewer than five trials, the expected scores are the measured ones.

    Args:
        plan: The search.
        trials: Trials that succeeded, one per schedule, (n,).

    Returns:
        Mean scores by objective, (n,).
    """
    estimates = [trial.result.estimates for trial in trials]
    if len(trials) < LEAST_KNOWN:
        return [{name: estimate.mean for name, estimate in each.items()} for each in estimates]
    signs = np.array([loss_sign(way) for way in plan.directions.values()])
    losses = signs * [[each[name].mean for name in plan.directions] for each in estimates]
    references = losses[[trial.label != PROPOSED for trial in trials]]
    described = np.array([features(trial.schedule, trial.price) for trial in trials])
    results = Results(
        features=described,
        costs=np.array([trial.cost for trial in trials]),
        complete=np.ones(len(losses), bool),
        losses=losses,
        errors=np.array([[each[name].error for name in plan.directions] for each in estimates]),
        pending=described[:0],
        pending_costs=np.empty(0),
        reference=reference_point(plan.budget.limit, references if len(references) else losses),
    )
    clipped = np.maximum(losses - results.reference[1:], 0)  # the predictions leave this out
    expected = signs * (results.posterior_means + clipped)
    return [
        {name: float(f"{mean:.9g}") for name, mean in zip(plan.directions, row, strict=True)}
        for row in expected.tolist()  # the last digits depend on the number of threads of a matrix product
    ]
