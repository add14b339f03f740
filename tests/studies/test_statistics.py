from __future__ import annotations

import numpy as np
import pytest

from studies.judge.intervals import interval, paired_score


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


def test_seeds_of_one_prompt_are_averaged_before_prompts_are_resampled() -> None:
    scores, baseline = [1.0, 3.0, 10.0, 12.0, 5.0], [0.0, 0.0, 1.0, 3.0, 5.0]
    prompts = ["a fox", "a fox", "a hen", "a hen", "a cat"]
    clustered = paired_score(scores, baseline, prompts=prompts)
    assert clustered == paired_score([2.0, 11.0, 5.0], [0.0, 2.0, 5.0])
    shuffled = [0, 2, 4, 1, 3]
    assert clustered == paired_score(
        [scores[i] for i in shuffled], [baseline[i] for i in shuffled], prompts=[prompts[i] for i in shuffled]
    )


def test_one_prompt_with_many_seeds_is_too_little_and_every_score_has_a_prompt() -> None:
    with pytest.raises(ValueError, match="two or more, but got 1"):
        paired_score([1.0, 2.0, 3.0], [0.0, 0.0, 0.0], prompts=["a fox"] * 3)
    with pytest.raises(ValueError, match="one prompt per score, but got 2 and 3"):
        paired_score([1.0, 2.0, 3.0], [0.0, 0.0, 0.0], prompts=["a fox"] * 2)


@pytest.mark.parametrize("n", [2, 15, 16, 40])
@pytest.mark.parametrize("unlike", [1, 2, 40])
def test_the_ends_are_finite_and_in_order_however_many_differences_are_equal(n: int, unlike: int) -> None:
    values = np.zeros(n)
    values[:unlike] = np.linspace(-3, 1, n)[:unlike]
    low, high = interval(values, 0.95)
    assert np.isfinite([low, high]).all()
    assert low <= values.mean() <= high


def test_the_interval_moves_and_scales_with_its_values() -> None:
    values = np.random.default_rng(0).exponential(size=32)
    low, high = interval(values, 0.95)
    assert interval(-2 * values + 7, 0.95) == pytest.approx((7 - 2 * high, 7 - 2 * low), rel=0.02)
    assert high - values.mean() > 1.2 * (values.mean() - low)  # the long tail is where more may hide


@pytest.mark.parametrize("n", [8, 33])
def test_an_interval_does_not_depend_on_how_many_resamples_are_drawn_at_once(
    n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(n).normal(size=n)
    whole = interval(values, 0.95)
    monkeypatch.setattr("studies.judge.intervals._DRAWN_AT_ONCE", 1000)
    assert interval(values, 0.95) == whole
