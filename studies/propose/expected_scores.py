"""What schedules are expected to score on prompts like a study's: what was measured, without the luck in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from objectives.base import loss_sign
from studies.propose.features import features
from studies.propose.improvement import reference_point
from studies.propose.surrogate import LEAST_KNOWN, Results
from studies.records.results import PROPOSED

if TYPE_CHECKING:
    from studies.judge.early_stopping import Estimate
    from studies.plan.plan import Plan
    from studies.propose.trial import Trial


def expected_scores(
    plan: Plan, trials: Sequence[Trial], estimates: Sequence[Mapping[str, Estimate]]
) -> list[dict[str, float]]:
    """Says of each trial what all trials together say of it.

    What is measured better than its likes had more luck than they, in part; how large a part follows from the
    standard errors. Of a few trials nothing can be said but what was measured.

    Args:
        plan: The search.
        trials: Those that have scores, (n,).
        estimates: Their means by objective, (n,).

    Returns:
        Mean scores by objective, (n,).
    """
    if len(trials) < LEAST_KNOWN:
        return [{name: estimate.mean for name, estimate in each.items()} for each in estimates]
    signs = np.array([loss_sign(way) for way in plan.directions.values()])
    losses = signs * [[each[name].mean for name in plan.directions] for each in estimates]
    given = losses[[trial.label != PROPOSED for trial in trials]]
    described = np.array([features(trial.schedule, trial.price) for trial in trials])
    results = Results(
        features=described,
        costs=np.array([plan.budget.cost(trial.price) for trial in trials]),
        whole=np.ones(len(losses), bool),
        losses=losses,
        errors=np.array([[each[name].error for name in plan.directions] for each in estimates]),
        running=described[:0],
        running_costs=np.empty(0),
        reference=reference_point(plan.budget.limit, given if len(given) else losses),
    )
    beyond = np.maximum(losses - results.reference[1:], 0)  # what was left out of the prediction
    expected = signs * (results.believed + beyond)
    return [
        {name: float(f"{mean:.9g}") for name, mean in zip(plan.directions, row, strict=True)}
        for row in expected.tolist()  # the last digits depend on how many threads a matrix product had
    ]
