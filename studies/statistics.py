"""What a score says beyond its mean: the paired difference to the baseline and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tuner.presets import Score


def paired_score(scores: Sequence[float], baseline: Sequence[float], seed: int = 0) -> Score:
    """Summarises per-prompt scores against the baseline's on the same prompts and the same noise.

    The interval is the expanded percentile bootstrap over prompts of the mean difference: the plain percentile
    interval is too narrow for few prompts, as a normal interval is that divides by n and ignores Student's t,
    so its level is raised by what makes up for both (Hesterberg, arXiv 1411.5279, "expanded
    percentile"). Under normal differences it covers the truth 95 times in 100 from eight prompts on, 87 times
    with four and 51 times with two: resampling cannot see what was never drawn.

    Args:
        scores: One score per prompt.
        baseline: The baseline's score of each prompt, in the same order.
        seed: Seed of the resampling; equal input gives an equal interval.

    Returns:
        The mean score, the mean difference, and the 95 % interval of that difference. Differences that are
        all equal give an interval without width.

    Raises:
        ValueError: If the two differ in length, or if there are fewer than two prompts to resample.
    """
    if len(scores) != len(baseline) or len(scores) < 2:
        raise ValueError(f"need two equally long lists of two or more, but got {len(scores)} and {len(baseline)}.")
    differences = np.asarray(scores, dtype=float) - np.asarray(baseline, dtype=float)
    delta = float(differences.mean())
    return Score(mean=float(np.mean(scores)), delta=delta, ci95=_interval(differences, seed))


def _interval(differences: np.ndarray, seed: int) -> tuple[float, float]:
    from scipy.stats import bootstrap, norm, t

    n = len(differences)
    tail = norm.cdf(np.sqrt(n / (n - 1)) * t.ppf(0.025, n - 1))
    interval = bootstrap(
        (differences,),
        np.mean,
        method="percentile",
        confidence_level=1 - 2 * tail,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)
