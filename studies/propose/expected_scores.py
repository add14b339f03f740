"""Expected scores: the posterior means of measured scores, which remove evaluation noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from objectives.base import loss_sign
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
    losses: list[Sequence[float]] = [trial.result.losses for trial in trials]
    if len(trials) >= LEAST_KNOWN:
        results = Results.of(plan, trials, [trial for trial in trials if trial.label != PROPOSED], ())
        clipped = np.maximum(np.array(losses) - results.reference[1:], 0)  # the predictions leave this out
        # The last digits depend on the number of threads of a matrix product.
        losses = [[float(f"{loss:.9g}") for loss in row] for row in (results.posterior_means + clipped).tolist()]
    signs = [loss_sign(way) for way in plan.directions.values()]
    return [
        {name: sign * loss for name, sign, loss in zip(plan.directions, signs, row, strict=True)} for row in losses
    ]
