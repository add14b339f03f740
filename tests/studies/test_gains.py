from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from studies.judge.pareto import hypervolume
from studies.propose.improvement import expected_gains, normal_below, reference_point

FRONT = np.array([[1.0, 4.0, 5.0], [2.0, 2.0, 4.5], [5.0, 1.0, 1.0]])
REFERENCE = np.array([8.0, 6.0, 6.0])


def gain(cost: float, losses: list[float], error: float = 1e-9, headroom: float = 0.1) -> float:
    below = partial(normal_below, np.array([losses]), np.full((1, 2), error))
    found = expected_gains(np.array([cost]), below, FRONT, FRONT.min(axis=0), REFERENCE, headroom)
    return float(found[0])


def box() -> float:
    """Volume that gains are parts of: somewhat beyond the best losses, from no cost at all."""
    best = FRONT.min(axis=0)[1:]
    return float(REFERENCE[0] * np.prod(1.1 * (REFERENCE[1:] - best)))


@pytest.mark.parametrize("point", [(1.5, 3.0, 3.0), (4.0, 1.5, 0.9), (0.5, 5.5, 5.5), (7.9, 0.5, 0.5)])
def test_a_certain_gain_is_that_of_the_hypervolume(point: tuple[float, float, float]) -> None:
    exact = hypervolume([*FRONT.tolist(), list(point)], REFERENCE) - hypervolume(FRONT.tolist(), REFERENCE)
    assert gain(point[0], list(point[1:])) == pytest.approx(exact / box(), abs=0.01)


def test_what_is_far_below_the_best_losses_counts_as_just_below_them() -> None:
    assert gain(3.0, [0.0, 0.0]) == gain(3.0, [0.5, 0.5]) > gain(3.0, [1.0, 1.0])


def test_a_long_shot_promises_more_of_what_can_be_won_the_further_one_looks() -> None:
    sure, long_shot = (1.5, [3.0, 3.0], 0.01), (7.0, [3.0, 3.0], 3.0)
    near, far = (gain(*long_shot, headroom=h) / gain(*sure, headroom=h) for h in (0.02, 0.25))
    assert far > 1.1 * near


def test_an_uncertain_gain_is_the_mean_of_the_certain_ones() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.normal([3.0, 3.0], 1.0, size=(400, 2))
    mean = np.mean([gain(3.0, losses.tolist()) for losses in drawn])
    assert gain(3.0, [3.0, 3.0], error=1.0) == pytest.approx(mean, rel=0.1)


def test_a_dominated_candidate_promises_something_only_while_it_is_unsure() -> None:
    assert gain(3.0, [4.0, 5.0], error=0.01) == pytest.approx(0.0, abs=1e-9)
    assert gain(3.0, [4.0, 5.0], error=3.0) > 0.01


def test_the_reference_is_somewhat_beyond_the_budget_and_the_worst_of_the_losses() -> None:
    assert reference_point(8.0, FRONT[:, 1:]) == pytest.approx([8.8, 4.0, 5.0])
