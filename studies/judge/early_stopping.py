"""Early stopping: a candidate is scored on a few prompts first, and on more only if it is promoted.

After every rung but the last a candidate pauses until its promotion is the best proposal
(`studies.propose.proposer`). This module decides which candidates are never promoted, because Optuna cannot
prune trials of several objectives. It compares a candidate, prompt by prompt, with the finished candidates that
cost no more. The candidate is stopped early when one of these rivals is better on every objective with
confidence.

The test asks for the scores that the candidate would have on all prompts. The prompts of a rung are a random
sample of a finite set, so the variance of a mean of n of N differences is (1 - n/N) times that of n independent
ones (Cochran, Sampling Techniques, 1977, section 2.6). A rival is better on every objective if all one-sided t
tests reject, which keeps the level of a single test (the intersection-union test; Berger, Technometrics 24,
1982). That level is the error rate divided by the number of rungs and of rivals (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from objectives.base import loss_sign
from studies.judge.pareto import nondominated

if TYPE_CHECKING:
    from objectives.base import Direction

ERROR_RATE = 0.05
"""Probability of stopping a candidate that no rival beats on all prompts, over all its rungs and rivals.

It is exact for normal differences. A candidate that is much better on only a few prompts is stopped more often,
because a rung may miss those prompts.
"""

Scores: TypeAlias = Mapping[str, Sequence[float]]
"""One score per prompt for each objective; the prompts of a rung are the first ones."""


_ROUNDING = 1e-9


@dataclass(frozen=True)
class Rival:
    """A finished candidate, which later ones are compared with.

    Attributes:
        scores: Its scores on all prompts.
        losses: Their means, signed so that less is better.
    """

    scores: Scores
    losses: tuple[float, ...]

    @classmethod
    def of(cls, scores: Scores, directions: Mapping[str, Direction]) -> Rival:
        """Computes the losses, which every later candidate asks for."""
        return cls(
            scores, tuple(loss_sign(way) * float(np.mean(scores[name])) for name, way in directions.items())
        )


def is_beaten(candidate: Scores, rivals: Sequence[Rival], directions: Mapping[str, Direction], looks: int) -> bool:
    """Tests whether a finished rival is better on every objective, with confidence.

    Args:
        candidate: Scores on the first prompts.
        rivals: Finished candidates that cost no more.
        directions: Which way each objective improves.
        looks: Number of rungs that can stop a candidate.
    """
    best = _best(rivals)
    level = ERROR_RATE / (looks * max(1, len(best)))
    return any(
        all(_is_better(rival.scores[name], candidate[name], way, level) for name, way in directions.items())
        for rival in best
    )


def estimated(scores: Sequence[float], baseline: Sequence[float]) -> tuple[float, float]:
    """Estimates the mean on all prompts: the baseline's mean plus the mean difference on the first prompts.

    Some prompts are harder than others, so a plain mean over the first ones does not compare with one over all.

    Args:
        scores: Scores on the first prompts, or on all.
        baseline: The baseline's scores on all prompts.

    Returns:
        The mean and its standard error.
    """
    differences = np.asarray(scores) - np.asarray(baseline[: len(scores)])
    error = math.sqrt(differences.var(ddof=1) / len(scores))
    return float(np.mean(baseline)) + float(differences.mean()), error


def _best(rivals: Sequence[Rival]) -> list[Rival]:
    """Keeps the rivals whose means no other one equals or dominates, because fewer comparisons have more power.

    The choice depends neither on the candidate nor on its rung.
    """
    return list(compress(rivals, nondominated([rival.losses for rival in rivals], keep_equal=False)))


def _is_better(rival: Sequence[float], candidate: Sequence[float], direction: Direction, level: float) -> bool:
    """Runs a one-sided paired t test on the candidate's prompts; equal differences prove nothing."""
    from scipy.stats import t

    n, everything = len(candidate), len(rival)
    differences = loss_sign(direction) * (np.asarray(candidate) - np.asarray(rival[:n]))
    if np.ptp(differences) <= _ROUNDING * np.abs(differences).max():
        return False
    error = math.sqrt(differences.var(ddof=1) / n * (1 - n / everything))
    return bool(t.sf(differences.mean() / error, n - 1) < level)
