"""A real Ray Tune run of our evaluation."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
import pytest
from ray import tune
from ray.tune.search.optuna import OptunaSearch

from studies.plan.plan import Plan, make_plan
from studies.workers.cargo import Cargo
from studies.workers.ray_connection import connect
from studies.workers.tune_trainable import ScheduleTrainable, define_schedule
from tests.studies.toy import load_toy, toy_settings
from tuner.schedule import Schedule

STEPS = 3  # six prompts in units of two


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return make_plan(toy_settings(tmp_path))


@pytest.fixture
def ray() -> Iterator[Any]:
    connect(None, 1, Cargo())
    import ray

    yield ray
    ray.shutdown()


def means(plan: Plan, schedule: Schedule) -> dict[str, float]:
    outcomes = [load_toy().evaluate(task) for task in plan.search_tasks(schedule)]
    return {
        name: fmean(score for outcome in outcomes for score in outcome.scores[name]) for name in plan.directions
    }


@pytest.mark.servers
@pytest.mark.usefixtures("ray")
def test_ray_tune_searches_our_schedules(plan: Plan, tmp_path: Path) -> None:
    trainable = tune.with_parameters(ScheduleTrainable, plan=plan, load=load_toy)
    results = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            metric="clip",
            mode="max",
            num_samples=3,
            max_concurrent_trials=1,
            search_alg=OptunaSearch(define_schedule(plan), metric="clip", mode="max", seed=1),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(storage_path=str(tmp_path / "tune"), verbose=0),
    ).fit()
    assert len(results) == 3
    assert not results.errors
    for result in results:
        schedule = plan.space.suggest(optuna.trial.FixedTrial(result.config))
        assert plan.budget.allows(plan.price(schedule))
        assert result.metrics["training_iteration"] == STEPS
        assert result.metrics["prompts"] == 6
        assert result.metrics["tflops"] == plan.price(schedule).tflops
        found = {name: result.metrics[name] for name in plan.directions}
        assert found == pytest.approx(means(plan, schedule))


def make(plan: Plan, config: dict[str, Any]) -> ScheduleTrainable:
    trainable = ScheduleTrainable.__new__(ScheduleTrainable)  # what Tune adds around it needs a running Tune
    trainable.setup(config, plan=plan, load=functools.cache(load_toy))
    return trainable


def test_a_trial_goes_on_from_its_checkpoint(plan: Plan, tmp_path: Path) -> None:
    config = plan.space.params_of(plan.references[0].schedule)
    whole, first, second = (make(plan, config) for _ in range(3))
    reports = [whole.step() for _ in range(STEPS)]
    assert [report["done"] for report in reports] == [False, False, True]
    assert first.step() == reports[0]
    first.save_checkpoint(str(tmp_path))
    second.load_checkpoint(str(tmp_path))
    assert [second.step(), second.step()] == reports[1:]
    assert second.reset_config(config)
    assert second.step() == reports[0]
