from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FixedTrial

from search_spaces._costs import distinct_scales
from search_spaces.free import Free
from tests.blueprints import small_blueprint
from tests.search_spaces.drawn import DrawnTrial
from tuner import presets
from tuner.budget import Budget
from tuner.flops import price, tflops_per_call
from tuner.schedule import Schedule, Stage

SIZE = (128, 128)
STEP = tflops_per_call(small_blueprint(), SIZE)
HALF = tflops_per_call(small_blueprint(), (64, 64))


def space(steps: float) -> Free:
    """The space with a budget of so many full-size steps."""
    return Free(small_blueprint(), SIZE, Budget(steps * STEP))


OFF: dict[str, Any] = {"reuse": 1, "cache": "none", "solver": "euler", "own_guidance": False} | {
    f"stage{k}.early": False for k in range(1, 6)
}


def suggest(steps: float, **params: Any) -> Schedule:
    """Options that are not named are off."""
    return space(steps).suggest(
        FixedTrial(OFF | {name.replace("_", "."): value for name, value in params.items()})
    )


def shape(schedule: Schedule) -> list[tuple[float, int]]:
    return [(stage.scale, stage.steps) for stage in schedule.stages]


@pytest.mark.parametrize(("spend", "steps"), [(1.0, 16), (0.5, 8), (0.1, 2), (1 / 16, 1)])
def test_one_stage_spends_its_part_of_the_budget_on_steps(spend: float, steps: int) -> None:
    assert shape(suggest(16, stages=1, spend=spend, stage1_shift=3.0)) == [(1.0, steps)]


def test_shares_buy_steps_at_each_sizes_price() -> None:
    share = 6 * STEP / (10 * HALF + 6 * STEP)
    schedule = suggest(
        16,
        stages=2,
        spend=(10 * HALF + 6 * STEP) / (16 * STEP),
        stage1_scale=0.5,
        stage1_shift=2.0,
        stage2_share=share,
        stage2_start=0.75,
        stage2_shift=3.0,
        stage2_resample="lanczos",
    )
    assert shape(schedule) == [(0.5, 10), (1.0, 6)]
    assert schedule.stages[1].sigmas[0] == 0.75
    assert schedule.stages[1].resample == "lanczos"
    # Start 0.75 has odds 3, so under shift 3 the unshifted level is 1/2; the next is 5/12, with odds 5/7 * 3.
    assert schedule.stages[1].sigmas[1] == pytest.approx(15 / 22)


def test_under_a_limit_of_network_calls_every_size_costs_one() -> None:
    budget = Budget(16 * STEP, nfe=16)
    params = {"stages": 2, "spend": 1.0, "stage1.scale": 0.25, "stage1.shift": 1.0, "stage2.share": 0.25}
    params |= {"stage2.start": 0.5, "stage2.shift": 1.0, "stage2.resample": "area"}
    schedule = Free(small_blueprint(), SIZE, budget).suggest(FixedTrial(OFF | params))
    assert shape(schedule) == [(0.25, 12), (1.0, 4)]


def test_every_stage_has_a_step_and_the_dearest_gives_up_what_that_costs() -> None:
    two = {"stages": 2, "spend": 1.0, "stage1_scale": 0.5, "stage1_shift": 1.0, "stage2_start": 0.5}
    last = suggest(4, **two, stage2_share=1.0, stage2_shift=1.0, stage2_resample="area")
    assert shape(last) == [(0.5, 1), (1.0, 3)]
    first = suggest(2, **two, stage2_share=0.0, stage2_resample="area")
    assert shape(first) == [(0.5, int(STEP / HALF)), (1.0, 1)]


def test_a_stage_that_cannot_be_afforded_is_left_out() -> None:
    # Three full-size stages are asked for where two steps are affordable.
    params = {"stages": 3, "spend": 1.0, "stage1_scale": 1.0, "stage2_scale": 1.0}
    schedule = suggest(2.2, **params, stage2_share=0.5, stage2_start=0.5)
    assert shape(schedule) == [(1.0, 1), (1.0, 1)]
    assert schedule.stages[1].sigmas == (0.5, 0.0)


def test_no_stage_runs_more_steps_than_the_baseline() -> None:
    params = {"stages": 2, "spend": 1.0, "stage1_scale": 0.25, "stage1_shift": 1.0, "stage2_share": 0.0}
    schedule = suggest(50, **params, stage2_start=0.5, stage2_resample="area")
    assert shape(schedule) == [(0.25, 50), (1.0, 1)]


@settings(max_examples=150, deadline=None)
@given(data=st.data(), steps=st.floats(1, 50))
def test_a_parameter_without_effect_is_not_asked_for(data: Any, steps: float) -> None:
    trial = DrawnTrial(data)
    schedule = space(steps).suggest(trial)
    last = len(schedule.stages)
    for number, stage in enumerate(schedule.stages, start=1):
        before = schedule.stages[number - 2].scale if number > 1 else stage.scale
        assert (f"stage{number}.shift" in trial.drawn) == (stage.steps > 1)
        assert (f"stage{number}.resample" in trial.drawn) == (stage.scale != before)
        assert (f"stage{number}.start" in trial.drawn) == (number > 1)
        assert (f"stage{number}.share" in trial.drawn) == (number > 1)
        assert (f"stage{number}.early" in trial.drawn) == (number < last)
        assert (f"stage{number}.end" in trial.drawn) == (stage.sigmas[-1] > 0)
    if last == trial.drawn["stages"]:  # otherwise the sizes that were left out had to be known
        assert f"stage{last}.scale" not in trial.drawn


def test_reuse_turns_saved_calls_into_steps() -> None:
    schedule = suggest(9, stages=1, spend=1.0, reuse=3, stage1_shift=2.0)
    # Of 13 steps the first and last four call, and of the five between only the third does.
    assert schedule.stages[0].reuse == (4, 5, 7, 8)
    assert shape(schedule) == [(1.0, 13)]
    assert price(schedule, small_blueprint()).nfe == 9


def test_a_stage_may_end_where_the_next_one_goes_on() -> None:
    params = {"stages": 2, "spend": 1.0, "stage1_scale": 0.5, "stage1_shift": 1.0, "stage2_share": 0.5}
    params |= {"stage1_early": True, "stage2_start": 0.6, "stage2_shift": 1.0, "stage2_resample": "area"}
    whole = suggest(16, **params, stage1_end=1.0)
    assert whole.stages[0].sigmas[-1] == whole.stages[1].sigmas[0] == 0.6
    half = suggest(16, **params, stage1_end=0.5)
    assert half.stages[0].sigmas[-1] == 0.3
    gaps = -np.diff(half.stages[0].sigmas)
    np.testing.assert_allclose(gaps, gaps[0])  # an unshifted grid is even down to its end


@settings(max_examples=60, deadline=None)
@given(steps=st.integers(1, 40), data=st.data())
def test_the_spend_is_met_to_half_a_step(steps: int, data: Any) -> None:
    spend = data.draw(st.floats(1 / steps, 1))
    schedule = suggest(steps, stages=1, spend=spend, stage1_shift=1.0)
    assert abs(price(schedule, small_blueprint()).tflops / STEP - spend * steps) <= 0.5 + 1e-9


@pytest.mark.parametrize(
    ("size", "scales"),
    [
        ((128, 128), [0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0]),
        ((64, 64), [0.25, 0.5, 0.75, 1.0]),
        ((32, 32), [0.5, 1.0]),
        ((16, 16), [1.0]),
        ((16, 1024), [0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0]),
    ],
)
def test_scales_are_those_whose_sizes_differ(size: tuple[int, int], scales: list[float]) -> None:
    assert list(distinct_scales(small_blueprint(), size)) == scales


@pytest.mark.parametrize("steps", [1, 2, 7, 16])
def test_plain_step_reduction_is_inside(steps: int) -> None:
    free = space(50 / 3)
    plain = small_blueprint().plain(steps)
    found = free.suggest(FixedTrial(free.params_of(plain)))
    np.testing.assert_allclose(found.stages[0].sigmas, plain.stages[0].sigmas, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in presets.available() if name.startswith("bottleneck-flux")])
def test_the_published_presets_are_inside(name: str) -> None:
    flux = replace(small_blueprint(), height=1024, width=1024)  # FLUX's sizes; its prices take a minute to count
    budget = Budget(price(flux.baseline(), flux).tflops)
    free = Free(flux, flux.size, budget)
    schedule = presets.load(name).schedule
    found = free.suggest(FixedTrial(free.params_of(schedule)))
    assert [(s.scale, s.steps, s.resample) for s in found.stages] == [
        (s.scale, s.steps, s.resample) for s in schedule.stages
    ]
    for ours, theirs in zip(found.stages, schedule.stages, strict=True):
        np.testing.assert_allclose(ours.sigmas, theirs.sigmas, rtol=0, atol=1e-12)
    tight = Free(flux, flux.size, Budget(0.99 * price(schedule, flux).tflops))
    with pytest.raises(ValueError, match=r"costs 1\.01 times the budget"):
        tight.params_of(schedule)


FULL = Stage(sigmas=(1, 0.5, 0))


@pytest.mark.parametrize(
    ("schedule", "why"),
    [
        (Schedule(stages=(FULL,) * 6), "number of stages must lie in"),
        (
            Schedule(stages=(Stage(scale=0.3, sigmas=(1, 0)), FULL)),
            "scale 0.3 of stage 1 is not one of 0.25, 0.375",
        ),
        (Schedule(stages=(Stage(sigmas=(1, 0.9, 0.3, 0)),)), "sigmas of stage 1 are not a shifted uniform grid"),
        (Schedule(stages=(Stage(sigmas=(1, 0.99, 0)),)), "shift of stage 1 must lie in"),
        (Schedule(stages=(FULL, Stage(sigmas=(0.05, 0)))), "first sigma of stage 2 must lie in"),
        (Schedule(stages=(Stage(steps=8, reuse=(1,)),)), "reused steps are not in this space"),
        (Schedule(stages=(FULL, Stage(sigmas=(0.5, 0), resample="area"))), "keeps the size names a resample mode"),
        (Schedule(stages=(Stage(steps=51, scale=0.25), Stage(sigmas=(0.5, 0)))), "more than 50 steps"),
    ],
)
def test_what_lies_outside_is_refused_with_the_reason(schedule: Schedule, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        space(50).params_of(schedule)
