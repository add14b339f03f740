"""Cheap before dear: a candidate is scored on a part of the prompts first, and on more only if it is worth it.

After every rung but the last a candidate rests, until going on promises more than anything else does
(`studies.propose.proposer`). What never goes on is decided here, as Optuna cannot prune where there are several
objectives: the candidate is compared, prompt by prompt, with the finished ones that are at least as cheap, and
stops when one of them is better on every objective with confidence.

The question that is asked of a rung's prompts is what the candidate would have on all of them. The prompts of a
rung are a random part of a finite set, so the variance of a mean of n of N differences is that of n independent
ones times 1 - n / N (Cochran, Sampling Techniques, 1977, section 2.6). "Better on every objective" needs every one
of the one-sided t tests to reject, which keeps the level of a single one (Berger, Technometrics 24, 1982, the
intersection-union test); that level is the error rate divided by the number of rungs and of rivals (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from objectives.base import loss_sign

if TYPE_CHECKING:
    from objectives.base import Direction

ERROR_RATE = 0.05
"""Chance that a candidate is stopped that no rival beats on all prompts, over all its rungs and rivals together.

It is per candidate, and exact for normal differences. What a rung cannot see it cannot weigh: where a candidate is
better on a few prompts alone, and much better there, it is stopped more often.
"""

Scores: TypeAlias = Mapping[str, Sequence[float]]
"""One score per prompt for each objective; a rung's prompts are the first of all."""


class Estimate(NamedTuple):
    """A mean score and its standard error."""

    mean: float
    error: float


_ROUNDING = 1e-9


def is_beaten(
    candidate: Scores, rivals: Sequence[Scores], directions: Mapping[str, Direction], looks: int
) -> bool:
    """Whether a finished rival is better on every objective, with confidence.

    Args:
        candidate: Scores on the first prompts.
        rivals: Scores on all prompts of finished candidates that are at least as cheap.
        directions: Which way each objective improves.
        looks: How many rungs a candidate may be stopped at.
    """
    best = _best(rivals, directions)
    level = ERROR_RATE / (looks * max(1, len(best)))
    return any(
        all(_is_better(rival[name], candidate[name], direction, level) for name, direction in directions.items())
        for rival in best
    )


def estimated(scores: Sequence[float], baseline: Sequence[float]) -> Estimate:
    """Estimates a mean on prompts like these: the baseline's on all, plus the mean difference on the first ones.

    Prompts are easy and hard, so a plain mean over the first ones could not be compared with one over all.

    Args:
        scores: On the first prompts, or on all.
        baseline: On all prompts.
    """
    differences = np.asarray(scores) - np.asarray(baseline[: len(scores)])
    error = math.sqrt(differences.var(ddof=1) / len(scores))
    return Estimate(float(np.mean(baseline)) + float(differences.mean()), error)


def _best(rivals: Sequence[Scores], directions: Mapping[str, Direction]) -> list[Scores]:
    """Leaves out the rivals that another one equals or beats on all prompts: fewer comparisons, smaller rungs.

    What is left does not depend on the candidate, nor on which prompts came first.
    """
    means = [
        [-loss_sign(way) * float(np.mean(rival[name])) for name, way in directions.items()] for rival in rivals
    ]
    kept: list[int] = []
    for index in sorted(range(len(rivals)), key=lambda i: means[i], reverse=True):
        if not any(all(a >= b for a, b in zip(means[i], means[index], strict=True)) for i in kept):
            kept.append(index)
    return [rivals[index] for index in kept]


def _is_better(rival: Sequence[float], candidate: Sequence[float], direction: Direction, level: float) -> bool:
    """A one-sided paired t test on the candidate's prompts; differences that are all equal prove nothing."""
    from scipy.stats import t

    n, everything = len(candidate), len(rival)
    differences = loss_sign(direction) * (np.asarray(candidate) - np.asarray(rival[:n]))
    if np.ptp(differences) <= _ROUNDING * np.abs(differences).max():
        return False
    error = math.sqrt(differences.var(ddof=1) / n * (1 - n / everything))
    return bool(t.sf(differences.mean() / error, n - 1) < level)
