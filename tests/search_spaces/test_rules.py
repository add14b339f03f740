"""Solvers and guidance of stages as parameters: what is drawn, what it buys, and how it is read back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FixedTrial

import search_spaces
from search_spaces._guidance import Guidance
from search_spaces._solvers import SOLVERS, called, params_of_solvers, suggest_solvers
from search_spaces._staged import alike
from tests.blueprints import small_blueprint
from tests.search_spaces.drawn import DrawnTrial
from tests.search_spaces.test_guided_models import guided
from tuner.budget import Budget
from tuner.flops import price, tflops_per_call
from tuner.models import Blueprint, blueprint
from tuner.schedule import Schedule, Stage
from tuner.solvers import call_sigmas

SPACES = ("bottleneck", "free", "plain", "progressive")


def space(name: str, known: Blueprint, steps: float) -> Any:
    """A space with a budget of so many full-size steps."""
    return search_spaces.load(name, known, known.size, Budget(steps * tflops_per_call(known, known.size)))


def proposed(name: str, known: Blueprint, count: int = 40) -> list[Schedule]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found = space(name, known, 20)
    return [found.suggest(study.ask()) for _ in range(count)]


@given(sigmas=st.sets(st.integers(1, 99), min_size=1, max_size=12), data=st.data())
def test_every_solver_of_the_spaces_calls_once_per_step(sigmas: set[int], data: Any) -> None:
    grid = (1.0, *(level / 100 for level in sorted(sigmas, reverse=True)), 0.0)
    reuse = tuple(step for step in range(1, len(grid) - 1) if data.draw(st.booleans()))
    for name in SOLVERS:
        assert call_sigmas(name, grid, reuse) == called(grid, reuse)


@pytest.mark.parametrize("name", SPACES)
def test_stages_draw_their_own_solver(name: str) -> None:
    found = proposed(name, small_blueprint())
    assert {schedule.solver_of(0) for schedule in found} == set(SOLVERS)
    if name != "plain":
        assert any(len({stage.solver for stage in schedule.resolved}) > 1 for schedule in found)


@pytest.mark.parametrize("name", SPACES)
def test_guidance_is_drawn_as_the_model_takes_it(name: str) -> None:
    scales = {
        model: {stage.guidance for schedule in proposed(name, model_of(model)) for stage in schedule.stages}
        for model in ("distilled", "true", "none")
    }
    assert scales["distilled"] == {1.75, 2.625, None, 4.375, 5.25}
    assert scales["true"] == {2.25, 3.375, None, 5.625, 6.75}
    assert scales["none"] == {None}
    for model, intervals in (("distilled", False), ("true", True), ("none", False)):
        drawn = [stage.guide for schedule in proposed(name, model_of(model)) for stage in schedule.stages]
        assert any(guide is not None for guide in drawn) == intervals


def model_of(kind: str) -> Blueprint:
    if kind == "true":
        return guided()
    transformer = dict(small_blueprint().transformer) | {"guidance_embeds": False}
    none = replace(small_blueprint(), guidance=None, transformer=transformer)
    return small_blueprint() if kind == "distilled" else none


@pytest.mark.parametrize("name", SPACES)
@settings(max_examples=40, deadline=None)
@given(data=st.data(), steps=st.floats(1, 45))
def test_with_guidance_params_of_is_the_inverse_and_the_budget_holds(name: str, data: Any, steps: float) -> None:
    found = space(name, guided(), steps)
    schedule = found.suggest(DrawnTrial(data))
    assert alike(found.suggest(FixedTrial(found.params_of(schedule))), schedule)
    cost = price(schedule, guided())
    assert cost.tflops <= steps * tflops_per_call(guided(), guided().size) * (1 + 1e-9)
    assert cost.nfe > sum(stage.calls for stage in cost.stages)  # some call of it has guidance


def test_passes_that_are_left_out_buy_steps() -> None:
    params = {"stages": 1, "spend": 1.0, "stage1.shift": 2.0, "solver": "unipc", "stage1.guidance": 1.0}
    params |= {"own_guidance": True, "reuse": 1, "stage1.unguided_low": 0.0}
    found = space("free", guided(), 9)
    assert found.suggest(FixedTrial(params | {"stage1.unguided_high": 0.0})).steps == 9
    half = found.suggest(FixedTrial(params | {"stage1.unguided_high": 0.5}))
    assert half.steps == 12  # six calls of one pass and six of two
    assert price(half, guided()).nfe == 18


@given(calls=st.integers(1, 50), high=st.floats(0, 0.5), low=st.floats(0, 0.5))
def test_one_call_at_least_has_guidance(calls: int, high: float, low: float) -> None:
    first, end = Guidance(1.0, high, low).guided(calls)
    assert 0 <= first < end <= calls


@pytest.mark.parametrize(
    ("stage", "why"),
    [
        ({"guidance": 0.0}, "guidance scale must be 0.5 to 1.5 times the model's 4.5"),
        ({"guide": (0.5, 0.0)}, "at most a part of 0.5 of a stage's first calls"),
        ({"guidance": 5.0}, "its guidance"),
    ],
)
def test_guidance_outside_the_space_is_refused_with_the_reason(stage: dict[str, Any], why: str) -> None:
    schedule = Schedule(stages=(Stage.model_validate({"steps": 4, "shift": 2} | stage),))
    for name in SPACES:
        with pytest.raises(ValueError, match=why):
            space(name, guided(), 20).params_of(schedule)


def test_a_guided_model_without_a_second_pass_has_no_interval() -> None:
    turbo = blueprint("z-image-turbo")
    params: set[str] = set()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(5):
        trial = study.ask()
        search_spaces.load("plain", turbo, turbo.size, Budget(1e9, nfe=8)).suggest(trial)
        params |= set(trial.params)
    assert not {"guidance", "unguided_high", "unguided_low"} & params


@given(chosen=st.lists(st.sampled_from(SOLVERS), min_size=1, max_size=5))
def test_the_parameters_of_solvers_lead_back_to_them(chosen: list[str]) -> None:
    params = params_of_solvers(chosen, SOLVERS)
    assert suggest_solvers(FixedTrial(params), len(chosen), SOLVERS) == chosen
    assert len(params) == (1 if len(set(chosen)) == 1 else 1 + len(chosen))


def test_a_runtime_with_one_solver_leaves_no_choice() -> None:
    assert suggest_solvers(FixedTrial({"solver": "euler"}), 3, ("euler",)) == ["euler"] * 3
    with pytest.raises(ValueError, match="by-stage"):
        suggest_solvers(FixedTrial({"solver": "by-stage"}), 3, ("euler",))
