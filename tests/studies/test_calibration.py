"""How often intervals and claims are right, by simulation: every number is seeded, and none is of a model."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

import studies.judge.noninferiority
from studies.judge.intervals import interval, paired_score, per_prompt
from studies.judge.noninferiority import non_inferiority
from studies.plan.margins import Margin

REPETITIONS, RESAMPLES = 2000, 999
Draw = Callable[[np.random.Generator, int], npt.NDArray[np.float64]]

SKEWED: dict[str, tuple[Draw, float]] = {
    "normal": (lambda rng, n: rng.normal(size=n), 0.0),
    "heavy tails": (lambda rng, n: rng.standard_t(5, size=n), 0.0),
    "exponential": (lambda rng, n: rng.exponential(size=n), 1.0),
    "a few get much worse": (lambda rng, n: -rng.gamma(2.0, size=n), -2.0),
    "log-normal": (lambda rng, n: rng.lognormal(0, 0.5, size=n), float(np.exp(0.125))),
    "yes or no, mostly equal": (
        lambda rng, n: rng.choice([-1.0, 0.0, 1.0], p=[0.15, 0.8, 0.05], size=n),
        -0.1,
    ),
}


def coverage(draw: Callable[[np.random.Generator], npt.NDArray[np.float64]], truth: float) -> float:
    rng = np.random.default_rng(0)
    hits = 0
    for repetition in range(REPETITIONS):
        low, high = interval(draw(rng), 0.95, seed=repetition, resamples=RESAMPLES)
        hits += low <= truth <= high
    return hits / REPETITIONS


@pytest.mark.parametrize("prompts", [32, 64])
@pytest.mark.parametrize("kind", SKEWED)
def test_95_percent_intervals_cover_the_truth_93_to_97_times_in_100(kind: str, prompts: int) -> None:
    draw, truth = SKEWED[kind]
    assert 0.93 <= coverage(lambda rng: draw(rng, prompts), truth) <= 0.97


@pytest.mark.parametrize(
    ("prompts", "least", "most"), [(16, 0.93, 0.97), (8, 0.93, 0.97), (4, 0.84, 0.90), (2, 0.48, 0.54)]
)
def test_very_few_prompts_cover_the_truth_less_often(prompts: int, least: float, most: float) -> None:
    assert least <= coverage(lambda rng: rng.normal(size=prompts), 0.0) <= most


def clustered(rng: np.random.Generator, prompts: int, seeds: int) -> npt.NDArray[np.float64]:
    """Skewed effects of prompts, and normal ones of each image, (prompts, seeds); their mean is 0."""
    return rng.exponential(size=(prompts, 1)) - 1 + 0.5 * rng.normal(size=(prompts, seeds))


@pytest.mark.parametrize("prompts", [32, 64])
def test_intervals_over_prompts_cover_the_truth_with_several_seeds_for_each(prompts: int) -> None:
    names = [f"prompt {index}" for index in range(prompts) for _ in range(4)]
    share = coverage(lambda rng: per_prompt(clustered(rng, prompts, 4).ravel().tolist(), names), 0.0)
    assert 0.93 <= share <= 0.97


def test_intervals_over_images_would_be_too_narrow_with_several_seeds_for_each_prompt() -> None:
    assert coverage(lambda rng: clustered(rng, 32, 4).ravel(), 0.0) < 0.85


@pytest.mark.parametrize(
    ("margin", "loss"), [(Margin(0.5, relative=False), 0.5), (Margin(0.1, relative=True), 0.1 * 4.0)]
)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_loss_as_large_as_the_margin_is_taken_for_none_at_most_5_times_in_100(
    margin: Margin, loss: float, sign: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the edge of the claim, with 64 prompts; for a baseline of mean 4, and of mean -4."""
    quick = functools.partial(interval, resamples=RESAMPLES)
    monkeypatch.setattr(studies.judge.noninferiority, "interval", quick)
    rng = np.random.default_rng(0)
    claims = 0
    repetitions = 800
    for _ in range(repetitions):
        baseline = sign * 4.0 + rng.normal(size=64)
        scores = baseline - loss + (1 - rng.exponential(size=64))
        claims += non_inferiority(scores, baseline, margin, "maximize").holds is True
    assert 0.02 <= claims / repetitions <= 0.07


def test_the_winner_is_flattered_by_the_scores_that_chose_it_and_not_by_unseen_ones() -> None:
    """Twenty candidates that are all as good as the baseline; the best of them is chosen and reported."""
    rng = np.random.default_rng(0)
    repetitions, seen, unseen = 200, 0, 0
    for _ in range(repetitions):
        search = rng.normal(size=(20, 32))
        winner = search[search.mean(axis=1).argmax()]
        seen += _covers_zero(winner)
        unseen += _covers_zero(rng.normal(size=64))
    assert seen / repetitions < 0.75
    assert 0.92 <= unseen / repetitions <= 0.98


def _covers_zero(scores: npt.NDArray[np.float64]) -> bool:
    low, high = paired_score(scores.tolist(), [0.0] * len(scores)).ci95
    return low <= 0 <= high
