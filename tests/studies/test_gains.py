from __future__ import annotations

import numpy as np
import pytest

from studies.gains import dominated, expected_gains, is_worth_it, reference_point
from studies.rungs import Estimate
from studies.stopping import hypervolume

FRONT = np.array([[1.0, 4.0, 5.0], [2.0, 2.0, 4.5], [5.0, 1.0, 1.0]])
REFERENCE = np.array([8.0, 6.0, 6.0])


def gain(cost: float, losses: list[float], error: float = 1e-9) -> float:
    found = expected_gains(np.array([cost]), np.array([losses]), np.full((1, 2), error), FRONT, REFERENCE)
    return float(found[0])


def box() -> float:
    """Volume that gains are parts of: a quarter beyond the best losses, from no cost at all."""
    best = FRONT.min(axis=0)[1:]
    return float(REFERENCE[0] * np.prod(REFERENCE[1:] - best + 0.25 * (REFERENCE[1:] - best)))


@pytest.mark.parametrize("point", [(1.5, 3.0, 3.0), (4.0, 1.5, 0.9), (0.5, 5.5, 5.5), (7.9, 0.5, 0.5)])
def test_a_certain_gain_is_that_of_the_hypervolume(point: tuple[float, float, float]) -> None:
    exact = hypervolume([*FRONT.tolist(), list(point)], REFERENCE) - hypervolume(FRONT.tolist(), REFERENCE)
    assert gain(point[0], list(point[1:])) == pytest.approx(exact / box(), abs=0.01)


def test_the_dominated_part_is_that_of_the_hypervolume() -> None:
    assert dominated(FRONT, REFERENCE) == pytest.approx(hypervolume(FRONT.tolist(), REFERENCE) / box(), abs=0.01)


def test_an_uncertain_gain_is_the_mean_of_the_certain_ones() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.normal([3.0, 3.0], 1.0, size=(400, 2))
    mean = np.mean([gain(3.0, losses.tolist()) for losses in drawn])
    assert gain(3.0, [3.0, 3.0], error=1.0) == pytest.approx(mean, rel=0.1)


def test_a_dominated_candidate_promises_something_only_while_it_is_unsure() -> None:
    def worth(error: float, prompts: int = 12) -> bool:
        return is_worth_it(3.0, [Estimate(4.0, error), Estimate(5.0, error)], prompts, FRONT, REFERENCE)

    assert not worth(0.01)
    assert worth(3.0)
    assert worth(0.6, prompts=4)  # whose spread is itself unsure
    assert not worth(0.6, prompts=400)


def test_a_dearer_candidate_must_promise_more() -> None:
    def worth(cost: float) -> bool:
        return is_worth_it(cost, [Estimate(1.0, 1e-9), Estimate(0.5, 1e-9)], 12, FRONT, REFERENCE)

    assert worth(5.0)
    assert not worth(7.9)


def test_nothing_is_stopped_where_the_finished_ones_span_no_volume() -> None:
    one = FRONT[:1]
    assert is_worth_it(7.0, [Estimate(9.0, 0.1)] * 2, 4, one, reference_point(8.0, one[:, 1:]))
    assert is_worth_it(7.0, [Estimate(9.0, 0.1)] * 2, 4, np.empty((0, 3)), REFERENCE)
