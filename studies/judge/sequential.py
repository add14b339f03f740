"""Group-sequential checks: unseen prompts are added until a schedule is as good as the baseline, or worse.

Looking again and again at one test finds something in the end. Here the error rate is spent over looks that are
fixed beforehand. The share of it that is spent when a fraction t of all prompts was seen is
``2 - 2 Phi(z / sqrt(t))`` with the upper ``rate / 2`` quantile z of the normal distribution, the O'Brien-Fleming
type of Lan and DeMets (Biometrika 70, 1983). So early looks decide only what is obvious, and the last one tests at
almost the whole rate. Each look tests at what it adds. By Bonferroni's inequality the sum holds whatever the
dependence between looks; integrating the exact boundaries would gain a little power. The interval of a loss at a
look is a repeated confidence interval (Jennison and Turnbull, JRSS B 51, 1989): all of them hold together.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from objectives.base import loss_sign
from studies.records.results import Checked, Loss

if TYPE_CHECKING:
    from objectives.base import Direction
    from studies.judge.early_stopping import Scores
    from studies.plan.margins import Margin

ERROR_RATE = 0.05
"""Probability of saying "as good" of a schedule that loses the margin, and "worse" of one that does not."""

FEWEST = 16
"""Fewer prompts decide nothing."""

_FIRST = 64

Draw: TypeAlias = "Callable[[int, Sequence[str]], tuple[Scores | None, Mapping[str, Scores]]]"
"""Given a number of prompts and labels, returns the baseline's scores, None if it failed, and those of the
schedules that did not fail."""

_Array: TypeAlias = npt.NDArray[np.float64]


def looks(most: int, first: int = _FIRST) -> list[int]:
    """Lists the numbers of prompts at which a check of at most ``most`` prompts looks: doubled each time."""
    doubled = (first << k for k in itertools.count())
    return [*itertools.takewhile(lambda count: count < most, doubled), most]


def levels(counts: Sequence[int], rate: float) -> list[float]:
    """Returns the level of the one-sided tests at each look; together they are the error rate."""
    from scipy.stats import norm

    z = float(norm.isf(rate / 2))
    spent = [2 * float(norm.sf(z / math.sqrt(count / counts[-1]))) for count in counts]
    return [after - before for before, after in itertools.pairwise((0.0, *spent))]


def bounds(values: _Array, level: float) -> tuple[_Array, _Array]:
    """Finds one-sided confidence bounds of means, each of which errs with probability ``level``.

    They invert Hall's skewness-corrected t statistic (JRSS B 54, 1992, section 2), whose cubic transformation is
    monotone. A loss is skewed: most prompts hardly change, and a few get much worse.

    Args:
        values: (..., n) with two or more values of which not all are equal.
        level: Error rate of each bound.

    Returns:
        The lower and the upper bound, each (...).
    """
    from scipy.stats import t

    n = values.shape[-1]
    mean, spread = values.mean(-1), values.std(-1, ddof=1)
    skew = ((values - mean[..., None]) ** 3).mean(-1) / spread**3
    skew = np.where(np.abs(skew) < 1e-6, 1e-6, skew)
    quantile = float(t.isf(level, n - 1)) / math.sqrt(n)

    def end(x: float) -> _Array:
        root: _Array = 3 / skew * (np.cbrt(1 + skew * (x - skew / (6 * n))) - 1)
        return root

    return mean - spread * end(quantile), mean - spread * end(-quantile)


def until_decided(
    labels: Sequence[str],
    counts: Sequence[int],
    draw: Draw,
    margins: Mapping[str, Margin],
    directions: Mapping[str, Direction],
) -> dict[str, Checked]:
    """Looks at more and more prompts until every schedule is as good as the baseline, or worse.

    The numbers of prompts and their levels are given before anything is drawn, so the same is decided on any
    number of workers and after any interruption. A schedule that fails stays as it was at the look before.

    Args:
        labels: The schedules.
        counts: What `looks` returned.
        draw: Draws the baseline and some schedules on so many prompts.
        margins: The largest loss that counts as none.
        directions: Which way each objective improves that has a say.
    """
    found: dict[str, Checked] = {}
    left = list(labels)
    for count, rate in zip(counts, levels(counts, ERROR_RATE), strict=True):
        baseline, scores = draw(count, left)
        if baseline is None:
            break
        seen = {}
        for label, one in scores.items():
            losses = look(one, baseline, margins, directions, (rate, rate))
            seen[label] = Checked(label=label, prompts=count, losses=losses)
        found |= seen
        left = [label for label, checked in seen.items() if checked.verdict == "undecided"]
        if not left:
            break
    return found


def look(
    scores: Scores,
    baseline: Scores,
    margins: Mapping[str, Margin],
    directions: Mapping[str, Direction],
    levels: tuple[float, float],
) -> dict[str, Loss]:
    """Judges what a schedule loses on each objective, at one look.

    A schedule is as good if it is within the margin on every objective, which needs no correction (Berger,
    Technometrics 24, 1982). It is worse if it is beyond the margin on any, so that test divides its level by the
    number of objectives. Percentages are of the baseline's mean, which is measured, too; as in
    `studies.judge.noninferiority`, nothing is claimed where that mean may be 0.

    Args:
        scores: One score per prompt for each objective.
        baseline: The baseline's, same prompts and noise.
        margins: The largest loss that counts as none.
        directions: Which way each objective improves.
        levels: Of the claims "as good" and "worse".
    """
    return {
        name: _loss(
            loss_sign(direction) * (np.asarray(scores[name]) - np.asarray(baseline[name])),
            np.asarray(baseline[name]),
            margins[name],
            (levels[0], levels[1] / len(directions)),
        )
        for name, direction in directions.items()
    }


def _loss(losses: _Array, baseline: _Array, margin: Margin, levels: tuple[float, float]) -> Loss:
    low, high = _ends(losses, levels)
    points = margin.value * abs(float(baseline.mean())) if margin.relative else margin.value
    within: bool | None = None
    if len(losses) >= FEWEST and np.ptp(losses) > 0:
        if margin.relative:
            lowest, highest = _ends(losses - margin.value * np.sign(baseline.mean()) * baseline, levels)
            below, above = _ends(baseline, levels)
            within = _decision(lowest, highest, 0.0) if below > 0 or above < 0 else None
        else:
            within = _decision(low, high, points)
    return Loss(mean=float(losses.mean()), low=low, high=high, margin=str(margin), points=points, within=within)


def _decision(low: float, high: float, limit: float) -> bool | None:
    if high < limit:
        return True
    return False if low > limit else None


def _ends(values: _Array, levels: tuple[float, float]) -> tuple[float, float]:
    if len(values) < 2 or np.ptp(values) == 0:
        return float(values.mean()), float(values.mean())
    low, high = bounds(values, levels[1])[0], bounds(values, levels[0])[1]
    return float(low), float(high)
