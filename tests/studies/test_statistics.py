from __future__ import annotations

import numpy as np
import pytest

from studies.statistics import paired_score


def test_means_and_paired_differences() -> None:
    score = paired_score([1.0, 2.0, 6.0], [0.5, 1.0, 3.0])
    assert score.mean == pytest.approx(3.0)
    assert score.delta == pytest.approx(1.5)
    low, high = score.ci95
    assert 0.5 <= low < 1.5 < high <= 3.0


def test_equal_input_gives_an_equal_interval_and_the_seed_matters() -> None:
    rng = np.random.default_rng(0)
    scores, baseline = rng.normal(size=20).tolist(), rng.normal(size=20).tolist()
    assert paired_score(scores, baseline, seed=1) == paired_score(scores, baseline, seed=1)
    assert paired_score(scores, baseline, seed=1).ci95 != paired_score(scores, baseline, seed=2).ci95


@pytest.mark.parametrize("shift", [0.0, 0.1, -3.7])
def test_equal_differences_give_an_interval_without_width(shift: float) -> None:
    baseline = [0.3, 0.7, 1.1, 2.9]
    score = paired_score([value + shift for value in baseline], baseline)
    assert score.delta == pytest.approx(shift)
    assert score.ci95 == pytest.approx((shift, shift))


def test_pairing_removes_what_prompts_have_in_common() -> None:
    rng = np.random.default_rng(0)
    difficulty = 10 * rng.normal(size=64)
    score = paired_score((difficulty + 0.1 + 0.1 * rng.normal(size=64)).tolist(), difficulty.tolist())
    low, high = score.ci95
    assert 0 < low < high < 0.2


@pytest.mark.parametrize(("scores", "baseline"), [([1.0], [1.0]), ([], []), ([1.0, 2.0], [1.0, 2.0, 3.0])])
def test_too_few_prompts_or_unequal_lengths_are_refused(scores: list[float], baseline: list[float]) -> None:
    with pytest.raises(ValueError, match="two or more, but got"):
        paired_score(scores, baseline)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    truth, covered, repetitions = 0.25, 0, 1000
    for _ in range(repetitions):
        baseline = rng.normal(size=16)
        scores = baseline + truth + rng.normal(size=16)
        low, high = paired_score(scores.tolist(), baseline.tolist()).ci95
        covered += low <= truth <= high
    assert 0.93 <= covered / repetitions <= 0.97
