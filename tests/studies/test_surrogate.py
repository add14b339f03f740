from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest

import search_spaces
from studies.plan.plan import Plan, make_plan
from studies.propose.features import CACHES, features
from studies.propose.gaussian_data import BANDS
from studies.propose.random_trial import Draw
from studies.propose.surrogate import Results, Surrogate, Unscored
from tests.search_spaces.anchored import loadable
from tests.studies.toy import toy_settings
from tuner.schedule import Schedule

RNG = np.random.default_rng(0)
POINTS = RNG.uniform(0, 3, size=(40, 2))
VALUES = np.sin(POINTS[:, 0]) + 0.5 * POINTS[:, 1]


def described(points: np.ndarray, distances: float | np.ndarray = 0.0) -> np.ndarray:
    """Features of schedules that differ in two ways, have no cache, and are so far from Gaussian data."""
    no_cache = np.zeros((len(points), CACHES.stop - CACHES.start))
    return np.column_stack([2 * points, no_cache, np.broadcast_to(distances, (len(BANDS), len(points))).T])


KNOWN = described(POINTS)
WHOLE = np.ones(len(KNOWN), bool)


def test_what_is_known_is_predicted_and_what_is_far_is_not() -> None:
    surrogate = Surrogate(KNOWN, VALUES, np.zeros(40))
    means, errors = surrogate.predict(np.vstack([KNOWN, described(np.array([[100.0, 100.0]]))]))
    assert means[:-1] == pytest.approx(VALUES, abs=0.1)
    assert errors[:-1].max() < 0.1 * VALUES.std()
    assert means[-1] == pytest.approx(VALUES.mean())
    assert errors[-1] == pytest.approx(VALUES.std())


def test_between_what_is_known_a_smooth_function_is_found() -> None:
    wanted = RNG.uniform(0.5, 2.5, size=(20, 2))
    means, _ = Surrogate(KNOWN, VALUES, np.zeros(40)).predict(described(wanted))
    assert means == pytest.approx(np.sin(wanted[:, 0]) + 0.5 * wanted[:, 1], abs=0.2)


def test_what_grows_with_the_distances_to_gaussian_data_is_told_from_few_results() -> None:
    distances = np.array([0.5, 1.0, 2.0, 3.0])
    surrogate = Surrogate(described(POINTS[:4], distances), 3 * distances, np.zeros(4))
    means, errors = surrogate.predict(described(POINTS[4:7], np.array([0.2, 2.5, 6.0])))
    assert means[0] < 1.5
    assert means[1] == pytest.approx(7.5, rel=0.25)
    assert means[2] > 9.0  # farther than all that is known
    assert errors[2] > errors[1]


def test_when_results_say_nothing_a_small_distance_stays_the_better_guess() -> None:
    known = described(POINTS[:4], np.array([1.0, 2.0, 3.0, 4.0]))
    means, _ = Surrogate(known, np.array([1.0, -1.0, -1.0, 1.0]), np.full(4, 5.0)).predict(known)
    assert means.tolist() == sorted(means)


def test_an_unsure_value_moves_a_prediction_less() -> None:
    values, errors = VALUES.copy(), np.zeros(40)
    values[0] += 2.0
    sure = Surrogate(KNOWN, values, errors).predict(KNOWN[:1])[0][0]
    errors[0] = 5.0
    unsure = Surrogate(KNOWN, values, errors).predict(KNOWN[:1])[0][0]
    assert abs(unsure - VALUES[0]) < abs(sure - VALUES[0])


def test_what_is_pending_already_promises_less() -> None:
    losses = np.column_stack([VALUES, -VALUES])
    costs = POINTS.sum(axis=1) + 1
    wanted = described(np.array([[4.0, 4.0]]))

    def promised(pending: np.ndarray) -> float:
        reference = np.array([9.0, *losses.max(axis=0)])
        pending_costs = np.full(len(pending), 2.0)
        results = Results(KNOWN, costs, WHOLE, losses, np.zeros_like(losses), pending, pending_costs, reference)
        return float(results.expected_gains(wanted, np.array([2.0]), headroom=0.1)[0])

    assert promised(wanted) < promised(wanted[:0])


def results_of(losses: np.ndarray, errors: np.ndarray, whole: np.ndarray = WHOLE) -> Results:
    reference = np.array([9.0, *losses.max(axis=0)])
    return Results(KNOWN, np.ones(len(KNOWN)), whole, losses, errors, KNOWN[:0], np.empty(0), reference)


def test_what_was_scored_on_a_part_of_the_prompts_is_still_to_be_won() -> None:
    losses, errors = np.column_stack([VALUES, VALUES]), np.full((40, 2), 0.01)
    best = int(np.argmin(VALUES))
    gains = [
        results_of(losses, errors, whole).expected_gains(KNOWN[[best]], np.ones(1), headroom=0.1)[0]
        for whole in (WHOLE, np.arange(40) != best)
    ]
    assert gains[0] < 0.2 * gains[1]


def test_posterior_means_are_nearer_to_the_truth_than_unsure_scores() -> None:
    truth, errors = np.column_stack([VALUES, -VALUES]), np.full((40, 2), 0.5)
    measured = truth + np.random.default_rng(1).normal(size=(40, 2)) * errors
    predicted = results_of(measured, errors).posterior_means
    assert np.abs(predicted - truth).mean() < 0.7 * np.abs(measured - truth).mean()


def test_a_lucky_schedule_is_not_on_the_front_of_posterior_means() -> None:
    losses, errors = np.column_stack([VALUES, VALUES]), np.full((40, 2), 0.01)
    lucky, best = int(np.argsort(VALUES)[20]), int(np.argmin(VALUES))
    losses[lucky], errors[lucky] = VALUES.min() - 0.5, 3.0
    assert results_of(losses, errors).on_front()[[lucky, best]].tolist() == [False, True]
    assert results_of(losses, np.full((40, 2), 0.01)).on_front()[lucky]


def test_good_schedules_are_told_apart_beside_much_worse_ones() -> None:
    wanted = np.column_stack([np.linspace(0.1, 1.0, 10), np.full(10, 1.5)])
    losses = np.column_stack([np.exp(2 * POINTS[:, 0])] * 2)  # from 1 to 400, and from 1 to 7 of what is wanted
    gains = results_of(losses, np.full((40, 2), 0.01)).expected_gains(described(wanted), np.full(10, 0.5), 0.02)
    assert gains.tolist() == sorted(gains, reverse=True)
    plain = Surrogate(KNOWN, losses[:, 0], np.full(40, 0.01)).predict(described(wanted))[0]
    assert plain.tolist() != sorted(plain)


def test_losses_beyond_the_reference_count_as_the_reference() -> None:
    losses, errors = np.column_stack([VALUES, VALUES]), np.full((40, 2), 0.01)
    reference = np.array([9.0, 2.0, 2.0])
    nowhere = KNOWN[:0], np.empty(0)
    found = [
        Results(KNOWN, np.ones(40), WHOLE, beyond, errors, *nowhere, reference).posterior_means
        for beyond in (losses, np.where(losses > 2, 1e3, losses))
    ]
    assert found[0] == pytest.approx(found[1])


def test_before_there_are_scores_small_distances_for_the_cost_promise_most() -> None:
    given = described(POINTS[:2], np.array([4.0, 2.0]))
    wanted = described(POINTS[2:6], np.array([1.0, 1.0, 3.0, 5.0]))
    wanted[1, CACHES.start] = 1.0  # which may spoil everything
    gains = Unscored(given, np.array([1.0, 2.0]), 3.0).expected_gains(wanted, np.full(4, 1.5), headroom=0.1)
    assert gains[0] > gains[2] > gains[3]
    assert gains[1] == 0


@pytest.fixture
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return make_plan(toy_settings(tmp_path_factory.mktemp("plan"), model="tiny", size=None))


@pytest.mark.parametrize("space", loadable())
def test_drawn_parameters_give_schedules_with_features_in_every_space(plan: Plan, space: str) -> None:
    found = search_spaces.load(space, plan.blueprint, plan.size, plan.budget)
    rng = Random(0)
    lengths = set()
    for _ in range(50):
        first = Draw(rng)
        schedule = found.suggest(first)
        assert plan.budget.allows(plan.price(schedule))
        near = found.suggest(Draw(rng, first.drawn))
        moved = plan.price(near)
        assert plan.budget.allows(moved)
        lengths.add(len(features(schedule, plan.price(schedule))))
        assert np.isfinite(features(near, moved)).all()
    assert len(lengths) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"solver": "heun"},
        {"cache": {"kind": "taylorseer", "interval": 2}},
        {"stages": [{"scale": 0.5, "sigmas": [1, 0.6, 0]}, {"sigmas": [0.6, 0.3, 0], "resample": "nearest"}]},
        {"stages": [{"scale": 0.5, "sigmas": [1, 0.6, 0.2]}, {"sigmas": [0.6, 0.3, 0]}]},
        {"stages": [{"scale": 0.5, "sigmas": [1, 0.6, 0]}, {"sigmas": [0.6, 0.3, 0], "reuse": [1]}]},
        {"stages": [{"scale": 0.75, "sigmas": [1, 0.6, 0]}, {"sigmas": [0.6, 0.3, 0]}]},
        {"stages": [{"scale": 0.5, "sigmas": [1, 0.6, 0]}, {"sigmas": [0.6, 0.2, 0]}]},
    ],
)
def test_whatever_tells_schedules_of_equal_cost_apart_is_a_feature(plan: Plan, other: dict[str, Any]) -> None:
    one = {"stages": [{"scale": 0.5, "sigmas": [1, 0.6, 0]}, {"sigmas": [0.6, 0.3, 0]}]}
    price = plan.price(Schedule.model_validate(one))
    assert features(Schedule.model_validate(one), price) != features(Schedule.model_validate(one | other), price)


def test_near_a_schedule_one_to_three_parameters_change(plan: Plan) -> None:
    rng = Random(0)
    changes = []
    for _ in range(100):
        first = Draw(rng)
        plan.space.suggest(first)
        near = Draw(rng, first.drawn)
        plan.space.suggest(near)
        both = first.drawn.keys() & near.drawn.keys()
        changes.append(sum(first.drawn[name] != near.drawn[name] for name in both))
    assert set(changes) <= {0, 1, 2, 3}  # a number on its bound may stay there
    assert changes.count(0) < 10
