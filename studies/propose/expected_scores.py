"""Expected scores: the posterior means of measured scores, which remove evaluation noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from objectives.base import loss_sign
from studies.propose.improvement import Array
from studies.propose.surrogate import LEAST_KNOWN, Results
from studies.records.results import PROPOSED

if TYPE_CHECKING:
    from studies.plan.plan import Plan
    from studies.propose.trial import Trial

_MOST_TOGETHER = 500  # the time of a prediction grows with the cube of the trials behind it


def expected_scores(plan: Plan, trials: Sequence[Trial]) -> list[dict[str, float]]:
    """Predicts the mean score of each trial from all trials together, or from those of about its cost.

    A score that exceeds the scores of similar schedules is partly luck. The standard errors decide how large that
    part is. With fewer than five trials, the expected scores are the measured ones. More than 500 trials are
    parted by cost into groups of at most 500: schedules of another cost say little about the score of one.

    Args:
        plan: The search.
        trials: Trials that succeeded, one per schedule, (n,).

    Returns:
        Mean scores by objective, (n,).
    """
    losses: list[Sequence[float]] = [trial.result.losses for trial in trials]
    if len(trials) >= LEAST_KNOWN:
        references = [trial for trial in trials if trial.label != PROPOSED] or trials
        expected: Array = np.empty((len(trials), len(plan.directions)))
        for group in _groups(trials):
            expected[group] = _expected_losses(plan, [trials[index] for index in group], references)
        # The last digits depend on the number of threads of a matrix product.
        losses = [[float(f"{loss:.9g}") for loss in row] for row in expected]
    signs = [loss_sign(way) for way in plan.directions.values()]
    return [
        {name: sign * loss for name, sign, loss in zip(plan.directions, signs, row, strict=True)} for row in losses
    ]


def _groups(trials: Sequence[Trial]) -> list[list[int]]:
    """Parts trials by cost into as few groups of at most 500 as possible; each is a list of indices, in order."""
    by_cost = sorted(range(len(trials)), key=lambda index: trials[index].cost)
    return [sorted(group.tolist()) for group in np.array_split(by_cost, -(-len(trials) // _MOST_TOGETHER))]


def _expected_losses(plan: Plan, trials: Sequence[Trial], references: Sequence[Trial]) -> Array:
    """Predicts the losses of some trials from these trials, (n, losses)."""
    results = Results.of(plan, trials, references, ())
    beyond = np.maximum(results.losses - results.reference[1:], 0)  # which the predictions leave out
    expected: Array = results.posterior_means + beyond
    return expected
