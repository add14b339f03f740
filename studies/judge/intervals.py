"""Paired differences to the baseline, and their confidence intervals."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from tuner.presets import Score

_Array: TypeAlias = npt.NDArray[np.float64]

_RESAMPLES = 9999
_FEWEST_STUDENTIZED = 16  # with fewer prompts many resamples have almost no spread to divide by
_DRAWN_AT_ONCE = 2**20  # values, of all resamples together
_ROUNDING = 1e-12  # differences that vary less than this, relative to the scores, are equal


def paired_score(
    scores: Sequence[float], baseline: Sequence[float], seed: int = 0, prompts: Sequence[str] | None = None
) -> Score:
    """Summarises scores against the baseline's on the same prompts and the same noise.

    Args:
        scores: One score per image.
        baseline: The baseline's score for the same prompt and noise, in the same order.
        seed: Seed of the resampling; equal input gives an equal interval.
        prompts: The prompt of each score, where a prompt has several noise seeds; the bootstrap then resamples
            prompts, because images of one prompt are not independent. None if every prompt occurs once.

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
    """Averages the scores of equal prompts, in the order in which prompts first occur.

    Resampling these averages is the cluster bootstrap: a resample has all seeds of a prompt or none.

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
    """Subtracts prompt by prompt, and makes differences equal that vary only by rounding.

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
    """Finds a two-sided bootstrap confidence interval of a mean; each end is also a one-sided bound.

    The interval is the bootstrap-t (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 12.5).
    It divides the mean of every resample by the resample's own spread, so the interval of skewed values is longer
    on the side of the long tail. With fewer than 16 values, or with more than half of them equal (as those of a
    yes-or-no objective are), resamples without spread would decide it. The expanded percentile interval is used
    instead (Hesterberg, arXiv 1411.5279). Its level corrects for the narrowness of the percentile interval, which
    is that of a normal interval that divides by n and ignores Student's t. ``tests/studies/test_calibration.py``
    simulates the coverage of both. It is 87 % with four values and 51 % with two, at a level of 95 %.

    Args:
        values: At least two, independent of each other: one per prompt.
        confidence: Level of the interval, e.g. 0.95; each end alone errs half as often as both.
        seed: Seed of the resampling.
        resamples: Number of resamples.

    Returns:
        The low and the high end; they are equal if all values are.
    """
    n, mean = len(values), float(values.mean())
    if np.ptp(values) == 0:
        return mean, mean
    tail = (1 - confidence) / 2
    most_equal = int(np.unique(values, return_counts=True)[1].max())
    if n < _FEWEST_STUDENTIZED or 2 * most_equal > n:
        means = [values[drawn].mean(axis=1) for drawn in _resampled(n, resamples, seed)]
        low, high = np.quantile(np.concatenate(means), _expanded(tail, n))
        return float(low), float(high)
    spread = float(values.std())
    studentized = [_studentized(values[drawn], mean, spread) for drawn in _resampled(n, resamples, seed)]
    low, high = np.quantile(np.concatenate(studentized), (tail, 1 - tail))
    return mean - float(high) * spread, mean - float(low) * spread


def _studentized(drawn: _Array, mean: float, spread: float) -> _Array:
    """Returns by how many of its own standard deviations the mean of each resample, (m, n), is off, (m,)."""
    means = drawn.mean(axis=1)
    drawn -= means[:, None]
    np.multiply(drawn, drawn, out=drawn)
    found: _Array = (means - mean) / np.maximum(np.sqrt(drawn.mean(axis=1)), _ROUNDING * spread)
    return found


def _resampled(n: int, resamples: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yields the indices of resamples of n values, (m, n) of all resamples at a time, which bounds memory."""
    if n * resamples <= _DRAWN_AT_ONCE:
        yield _drawn(n, resamples, seed)
        return
    rng, at_once = np.random.default_rng(seed), max(1, _DRAWN_AT_ONCE // n)
    for start in range(0, resamples, at_once):
        yield rng.integers(0, n, (min(at_once, resamples - start), n))


@functools.lru_cache(maxsize=4)  # a study compares thousands of schedules on equally many prompts
def _drawn(n: int, resamples: int, seed: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, n, (resamples, n))


def _expanded(tail: float, n: int) -> tuple[float, float]:
    """Returns the percentile levels that replace ``tail`` and ``1 - tail`` with n values."""
    from scipy.stats import norm, t

    level = float(norm.cdf(np.sqrt(n / (n - 1)) * t.ppf(tail, n - 1)))
    return level, 1 - level
