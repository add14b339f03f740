"""What a score says beyond its mean: the paired difference to the baseline and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from tuner.presets import Score

_Array: TypeAlias = npt.NDArray[np.float64]

_RESAMPLES = 9999
_FEWEST_STUDENTIZED = 16  # with fewer prompts many resamples have next to no spread to divide by
_ROUNDING = 1e-12  # differences that vary less than this, relative to the scores, are equal


def paired_score(
    scores: Sequence[float], baseline: Sequence[float], seed: int = 0, prompts: Sequence[str] | None = None
) -> Score:
    """Summarises scores against the baseline's on the same prompts and the same noise.

    Args:
        scores: One score per image.
        baseline: The baseline's score for the same prompt and noise, in the same order.
        seed: Seed of the resampling; equal input gives an equal interval.
        prompts: The prompt of each score, where a prompt has several noise seeds: prompts are then resampled
            whole, as two images of one prompt say less than images of two. None if every prompt comes once.

    Returns:
        The mean score, the mean difference, and the 95 % interval of that difference; see `interval`.

    Raises:
        ValueError: If the lists differ in length, or if there are fewer than two prompts to resample.
    """
    mine, other = per_prompt(scores, prompts), per_prompt(baseline, prompts)
    differences = paired(mine, other)
    return Score(
        mean=float(mine.mean()), delta=float(differences.mean()), ci95=interval(differences, 0.95, seed=seed)
    )


def per_prompt(scores: Sequence[float], prompts: Sequence[str] | None) -> _Array:
    """Averages the scores of equal prompts, in the order in which prompts first come.

    Resampling these averages is the bootstrap over clusters: a prompt comes with all of its seeds or not at all.

    Raises:
        ValueError: If there is not one prompt per score.
    """
    values = np.asarray(scores, dtype=float)
    if prompts is None:
        return values
    if len(prompts) != len(values):
        raise ValueError(f"need one prompt per score, but got {len(prompts)} and {len(values)}.")
    number = {prompt: index for index, prompt in enumerate(dict.fromkeys(prompts))}
    clusters = [number[prompt] for prompt in prompts]
    return np.bincount(clusters, weights=values) / np.bincount(clusters)


def paired(scores: _Array, baseline: _Array) -> _Array:
    """Subtracts, prompt by prompt; differences that vary by rounding alone become equal.

    Raises:
        ValueError: If the two differ in length, or if there are fewer than two prompts.
    """
    if len(scores) != len(baseline) or len(scores) < 2:
        raise ValueError(f"need two equally long lists of two or more, but got {len(scores)} and {len(baseline)}.")
    differences = scores - baseline
    if np.ptp(differences) <= _ROUNDING * max(np.abs(scores).max(), np.abs(baseline).max()):
        return np.full_like(differences, differences.mean())
    return differences


def interval(
    values: _Array, confidence: float, *, seed: int = 0, resamples: int = _RESAMPLES
) -> tuple[float, float]:
    """Finds a two-sided confidence interval of a mean by resampling; its ends are one-sided bounds, too.

    The interval is the bootstrap-t (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 12.5):
    every resample's mean is divided by its own spread, so skewed values get an interval that is longer on the
    side where the truth may hide. With fewer than 16 values, or where more than half are equal, as those of a
    yes-or-no objective are, resamples without spread would decide it; the expanded percentile interval is used
    instead (Hesterberg, arXiv 1411.5279), whose level makes up for a percentile interval being too narrow,
    as a normal interval is that divides by n and ignores Student's t. ``tests/studies/test_calibration.py``
    simulates how often both cover the truth. With four values it is 87 times in 100 and with two 51 times:
    resampling cannot see what was never drawn.

    Args:
        values: At least two, independent of each other: one per prompt.
        confidence: Of the interval, e.g. 0.95; each end alone errs half as often as both.
        seed: Seed of the resampling.
        resamples: How many.

    Returns:
        Low and high end; without width if all values are equal.
    """
    n, mean = len(values), float(values.mean())
    if np.ptp(values) == 0:
        return mean, mean
    tail = (1 - confidence) / 2
    drawn = values[np.random.default_rng(seed).integers(0, n, (resamples, n))]
    means = drawn.mean(axis=1)
    most_equal = int(np.unique(values, return_counts=True)[1].max())
    if n < _FEWEST_STUDENTIZED or 2 * most_equal > n:
        low, high = np.quantile(means, _expanded(tail, n))
        return float(low), float(high)
    spread = float(values.std())
    studentized = (means - mean) / np.maximum(drawn.std(axis=1), _ROUNDING * spread)
    low, high = np.quantile(studentized, (tail, 1 - tail))
    return mean - float(high) * spread, mean - float(low) * spread


def _expanded(tail: float, n: int) -> tuple[float, float]:
    """Levels of the percentile interval that stand for ``tail`` and ``1 - tail`` with n values."""
    from scipy.stats import norm, t

    level = float(norm.cdf(np.sqrt(n / (n - 1)) * t.ppf(tail, n - 1)))
    return level, 1 - level
