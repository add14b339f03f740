"""What is expected of schedules: on made-up scores of which the truth is known."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest

from objectives.base import loss_sign
from studies.plan.plan import Plan, make_plan
from studies.propose.expected_scores import expected_scores
from studies.propose.random_trial import Draw
from studies.propose.trial import Outcome, Trial
from studies.records.results import PROPOSED
from tests.studies.toy import toy_settings

COUNT = 40


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return make_plan(toy_settings(tmp_path))


@pytest.fixture
def trials(plan: Plan) -> list[Trial]:
    """Schedules of the whole space, the cheapest one first; it is a reference."""
    rng = Random(0)
    schedules = [plan.space.suggest(Draw(rng, None)) for _ in range(COUNT)]
    schedules.sort(key=lambda schedule: plan.price(schedule).tflops)
    labels = ["plain:2"] + [PROPOSED] * (COUNT - 1)
    prices = [plan.price(one) for one in schedules]
    return [Trial(n, labels[n], one, prices[n], prices[n].tflops, None) for n, one in enumerate(schedules)]


@pytest.fixture
def truth(plan: Plan, trials: list[Trial]) -> np.ndarray:
    """The dearer the better."""
    costs = np.array([math.log(trial.price.tflops) for trial in trials])
    truth: np.ndarray = costs - costs[0]  # the reference is the worst that counts
    return truth


def merits(plan: Plan, found: list[dict[str, float]]) -> dict[str, np.ndarray]:
    """What is expected by objective, turned so that more is better."""
    return {
        name: -loss_sign(way) * np.array([each[name] for each in found]) for name, way in plan.directions.items()
    }


def scored(plan: Plan, trials: list[Trial], means: np.ndarray, error: float) -> list[Trial]:
    objectives = len(plan.directions)
    return [
        replace(one, outcome=Outcome({}, (-float(mean),) * objectives, (error,) * objectives, False))
        for one, mean in zip(trials, means, strict=True)
    ]


def test_what_is_expected_is_nearer_to_the_truth_than_what_was_measured(
    plan: Plan, trials: list[Trial], truth: np.ndarray
) -> None:
    luck = 0.5 * np.random.default_rng(0).normal(size=COUNT)
    found = expected_scores(plan, scored(plan, trials, truth + luck, 0.5))
    assert [set(each) for each in found] == [set(plan.directions)] * COUNT
    for merit in merits(plan, found).values():
        assert np.abs(merit - truth).mean() < 0.85 * np.abs(luck).mean()


def test_a_score_without_error_is_expected_again(plan: Plan, trials: list[Trial], truth: np.ndarray) -> None:
    measured = scored(plan, trials, truth, 1e-9)
    for merit in merits(plan, expected_scores(plan, measured)).values():
        assert merit == pytest.approx(truth, abs=0.15 * truth.std())


def test_how_bad_a_useless_schedule_is_stays_known(plan: Plan, trials: list[Trial], truth: np.ndarray) -> None:
    hopeless = truth.copy()
    hopeless[7] = truth[0] - 1000
    found = expected_scores(plan, scored(plan, trials, hopeless, 0.1))
    for merit in merits(plan, found).values():
        assert merit[7] == pytest.approx(hopeless[7], abs=5)
        assert merit[8] == pytest.approx(truth[8], abs=1)


def test_of_a_few_trials_nothing_is_expected_but_what_was_measured(plan: Plan, trials: list[Trial]) -> None:
    measured = scored(plan, trials[:3], np.array([3.0, 1.0, 2.0]), 1.0)
    for merit in merits(plan, expected_scores(plan, measured)).values():
        assert merit.tolist() == [3.0, 1.0, 2.0]


def test_of_many_trials_those_of_about_one_cost_are_looked_at_together(
    plan: Plan, trials: list[Trial], truth: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    luck = 0.5 * np.random.default_rng(0).normal(size=COUNT)
    measured = scored(plan, trials, truth + luck, 0.5)
    monkeypatch.setattr("studies.propose.expected_scores._MOST_TOGETHER", COUNT // 2)
    cheap, dear = measured[: COUNT // 2], measured[COUNT // 2 :]  # in order of cost
    found = merits(plan, expected_scores(plan, measured))
    assert all(np.abs(merit - truth).mean() < np.abs(luck).mean() for merit in found.values())
    shuffled = merits(plan, expected_scores(plan, [*dear, *cheap]))
    for name, merit in found.items():
        assert shuffled[name].tolist() == pytest.approx([*merit[COUNT // 2 :], *merit[: COUNT // 2]])
