"""The pick ``within:MARGIN``."""

from __future__ import annotations

import numpy as np
import pytest

from studies.judge.within import choose
from studies.records.results import Candidate
from tests.studies.example import DIRECTIONS, candidate
from tuner.errors import UserError

RNG = np.random.default_rng(0)
BASELINE = {"clip": list(31.25 + RNG.normal(size=64)), "image_reward": list(2 + RNG.normal(size=64))}
CANDIDATES = [
    candidate(0, "search", [(1.0, 4)], -2.0, -2.0),
    candidate(1, "search", [(1.0, 8)], -0.1, -0.5),
    candidate(2, "search", [(1.0, 12)], -0.05, -0.03),
    candidate(3, "search", [(1.0, 16)], -0.01, -0.01),
]
NOISE = {name: 0.01 * RNG.normal(size=64) for name in BASELINE}


def scores_of(one: Candidate) -> dict[str, list[float]]:
    return {
        name: list(np.asarray(values) + one.scores[name].delta + NOISE[name]) for name, values in BASELINE.items()
    }


@pytest.mark.parametrize(
    ("spec", "trial"),
    [
        ("within:2%", 2),
        ("within:1%", 3),
        ("within:0.1", 2),
        ("within:image_reward=0.6", 1),
        ("within:clip=5,image_reward=5", 0),
        ("cheapest", 0),
        ("best:clip", 3),
    ],
)
def test_the_cheapest_that_is_within_the_margin_on_every_objective(spec: str, trial: int) -> None:
    chosen, note = choose(CANDIDATES, spec, DIRECTIONS, scores_of, BASELINE)
    assert (chosen.trial, note) == (trial, None)


def test_where_none_is_within_the_nearest_is_taken_and_said() -> None:
    chosen, note = choose(CANDIDATES[:3], "within:0.01", DIRECTIONS, scores_of, BASELINE)
    assert chosen.trial == 2
    assert note is not None
    assert "no schedule on the front is shown to be within 0.01 of the baseline on 64 prompts" in note
    assert "clip may lose up to 0.05" in note


def test_a_margin_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="Margin 'much' is not a number"):
        choose(CANDIDATES, "within:much", DIRECTIONS, scores_of, BASELINE)
