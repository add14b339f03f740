"""Sequential checks keep their error rates, and decide what is far from the margin."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studies.judge.sequential import ERROR_RATE, bounds, levels, look, looks
from studies.plan.margins import Margin
from studies.records.results import Checked

STUDIES, MOST = 3000, 512
Draw = Callable[[np.random.Generator, tuple[int, int]], npt.NDArray[np.float64]]

DIFFERENCES: dict[str, Draw] = {  # all with mean 0
    "normal": lambda rng, shape: rng.normal(size=shape),
    "long tail of losses": lambda rng, shape: rng.exponential(size=shape) - 1,
    "long tail of gains": lambda rng, shape: 1 - rng.exponential(size=shape),
    "a loss on one prompt in fifty": lambda rng, shape: (rng.random(shape) < 0.02) - 0.02,
    "yes or no": lambda rng, shape: rng.choice([-1.0, 0.0, 1.0], size=shape, p=[0.1, 0.75, 0.15]) - 0.05,
}


@pytest.mark.parametrize("kind", DIFFERENCES)
def test_a_schedule_at_the_margin_is_rarely_decided_over_all_looks(kind: str) -> None:
    excess = DIFFERENCES[kind](np.random.default_rng(0), (STUDIES, MOST))
    counts = looks(MOST)
    as_good, worse = np.zeros(STUDIES, bool), np.zeros(STUDIES, bool)
    for count, level in zip(counts, levels(counts, ERROR_RATE), strict=True):
        seen = excess[:, :count]
        varied = np.ptp(seen, axis=1) > 0
        low, high = bounds(seen[varied], level)
        worse[varied] |= low > 0
        as_good[varied] |= high < 0
    most = ERROR_RATE + 3 * np.sqrt(ERROR_RATE * (1 - ERROR_RATE) / STUDIES)
    assert as_good.mean() < most
    assert worse.mean() < most


def test_looking_at_every_prompt_with_the_whole_rate_would_err_far_more_often() -> None:
    excess = np.random.default_rng(0).normal(size=(STUDIES, MOST))
    found = np.zeros(STUDIES, bool)
    for count in looks(MOST, 8):
        found |= bounds(excess[:, :count], ERROR_RATE)[0] > 0
    assert found.mean() > 2 * ERROR_RATE


@given(most=st.integers(1, 10_000), first=st.integers(1, 500))
def test_looks_double_up_to_the_last_and_spend_the_rate(most: int, first: int) -> None:
    counts = looks(most, first)
    assert counts[-1] == most
    assert counts == sorted(set(counts))
    spent = levels(counts, ERROR_RATE)
    assert sum(spent) == pytest.approx(ERROR_RATE)
    assert min(spent) >= 0


def verdict(loss: float, margin: Margin, count: int = 256, noise: float = 0.1) -> str:
    rng = np.random.default_rng(0)
    baseline = 30 + rng.normal(size=count)
    scores = {"clip": list(baseline - loss + noise * rng.normal(size=count))}
    losses = look(scores, {"clip": list(baseline)}, {"clip": margin}, {"clip": "maximize"}, (0.05, 0.05))
    return Checked(label="pick", prompts=count, losses=losses).verdict


@pytest.mark.parametrize("margin", [Margin(0.01, relative=True), Margin(0.3, relative=False)])
def test_three_verdicts(margin: Margin) -> None:
    assert verdict(0.1, margin) == "as good"
    assert verdict(0.5, margin) == "worse"
    assert verdict(0.3, margin) == "undecided"
    assert verdict(0.1, margin, count=8) == "undecided"  # too few to say anything
    assert verdict(0.0, margin, noise=0.0) == "undecided"  # nothing differs, so no spread is known


def test_one_lost_objective_is_worse_and_one_open_objective_is_undecided() -> None:
    rng = np.random.default_rng(0)
    baseline = {name: list(rng.normal(size=64)) for name in "ab"}
    margins = dict.fromkeys("ab", Margin(0.1, relative=False))
    directions = {"a": "maximize", "b": "minimize"}

    def found(a: float, b: float) -> str:
        moved = {"a": -a, "b": b}
        scores = {
            name: [value + moved[name] + 0.1 * rng.normal() for value in values]
            for name, values in baseline.items()
        }
        return Checked(
            label="pick", prompts=64, losses=look(scores, baseline, margins, directions, (0.05, 0.05))
        ).verdict

    assert found(0.0, 0.0) == "as good"
    assert found(0.0, 0.5) == found(0.5, 0.1) == "worse"
    assert found(0.0, 0.1) == "undecided"
