"""What every registered search space must do, whatever its parameters mean."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FixedTrial

import search_spaces
from search_spaces import SearchSpace
from search_spaces._staged import alike
from tests.blueprints import small_blueprint
from tests.search_spaces.anchored import loadable
from tests.search_spaces.drawn import DrawnTrial
from tuner.budget import Budget, parse_budget
from tuner.flops import price
from tuner.latency import LatencyTable

BUDGETS = ["1x", "1.7x", "3x", "40%", "49x", "50x", "1nfe", "16nfe", "3s", "9.5s", "60s"]
LATENCY = LatencyTable("abacus", 1.0, {(32, 32): 0.1, (64, 64): 0.9, (96, 96): 0.9, (128, 128): 2.0})

pytestmark = pytest.mark.parametrize("name", loadable())
any_trial = given(data=st.data(), text=st.sampled_from(BUDGETS))


def budget_of(text: str) -> Budget:
    model = small_blueprint()
    return parse_budget(text, price(model.baseline(), model), model, model.size, lambda: LATENCY)


def load(name: str, budget: Budget) -> SearchSpace:
    return search_spaces.load(name, small_blueprint(), small_blueprint().size, budget)


@settings(max_examples=150, deadline=None)
@any_trial
def test_every_schedule_fits_the_budget(name: str, data: Any, text: str) -> None:
    budget = budget_of(text)
    schedule = load(name, budget).suggest(DrawnTrial(data))
    cost = price(schedule, small_blueprint())
    assert budget.allows(cost)
    assert cost.tflops <= budget.tflops * (1 + 1e-9)


@settings(max_examples=250, deadline=None)
@any_trial
def test_params_of_is_the_inverse_of_suggest(name: str, data: Any, text: str) -> None:
    budget = budget_of(text)
    space = load(name, budget)
    schedule = space.suggest(DrawnTrial(data))
    assert alike(space.suggest(FixedTrial(space.params_of(schedule))), schedule)


def test_a_study_takes_what_params_of_returns(name: str, recwarn: pytest.WarningsRecorder) -> None:
    budget = budget_of("3x")
    space = load(name, budget)
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=optuna.samplers.RandomSampler(seed=3))
    for _ in range(40):
        schedule = space.suggest(study.ask())
        params = space.params_of(schedule)
        study.enqueue_trial(params)
        trial = study.ask()
        assert alike(space.suggest(trial), schedule)
        assert trial.params == params
    assert not [warning for warning in recwarn if "out of" in str(warning.message)]


def test_a_sampler_of_optuna_can_model_the_space(name: str) -> None:
    budget = budget_of("3x")
    space = load(name, budget)
    sampler = optuna.samplers.TPESampler(seed=0, multivariate=True, group=True, n_startup_trials=5)
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=sampler)
    for _ in range(15):
        trial = study.ask()
        cost = price(space.suggest(trial), small_blueprint())
        study.tell(trial, [cost.tflops, float(cost.nfe)])
    assert len(study.trials) == 15


def test_what_does_not_fit_the_budget_is_refused(name: str) -> None:
    space = load(name, budget_of("3x"))
    with pytest.raises(ValueError, match="budget"):
        space.params_of(small_blueprint().baseline())
