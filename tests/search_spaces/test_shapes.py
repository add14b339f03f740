"""What the schedules of the narrower spaces look like."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FixedTrial

import search_spaces
from search_spaces import SearchSpace
from search_spaces._staged import alike
from tests.blueprints import small_blueprint
from tests.search_spaces.drawn import DrawnTrial
from tuner import presets
from tuner.budget import Budget
from tuner.flops import price, tflops_per_call
from tuner.schedule import Schedule, Stage
from tuner.sigmas import beta_sigmas, exponential_sigmas, karras_sigmas, partial_sigmas

STEP = tflops_per_call(small_blueprint(), (128, 128))


def space(name: str, steps: float) -> SearchSpace:
    """A space with a budget of so many full-size steps."""
    return search_spaces.load(name, small_blueprint(), (128, 128), Budget(steps * STEP))


def scales(schedule: Schedule) -> list[float]:
    return [stage.scale for stage in schedule.stages]


@settings(max_examples=100)
@given(data=st.data(), steps=st.floats(1, 50))
def test_a_bottleneck_goes_down_and_comes_back_the_same_way(data: Any, steps: float) -> None:
    schedule = space("bottleneck", steps).suggest(DrawnTrial(data))
    found = scales(schedule)
    assert found == found[::-1]
    assert found[: len(found) // 2 + 1] == sorted(found[: len(found) // 2 + 1], reverse=True)
    assert set(found[1:-1]) <= {0.25, 0.375, 0.5, 0.625, 0.75, 0.875}
    assert all(stage.sigmas[-1] == 0 and not stage.reuse for stage in schedule.stages)


def test_a_bottleneck_that_cannot_be_afforded_loses_its_inner_level() -> None:
    params = {"levels": 2, "stage2.scale": 0.5, "stage3.scale": 0.25, "spend": 1.0}
    params |= {f"stage{k}.share": 0.5 for k in (2, 3)} | {f"stage{k}.start": 0.5 for k in (2, 3)}
    params |= {f"stage{k}.resample": "area" for k in (2, 3)} | {f"stage{k}.shift": 1.0 for k in (1, 2, 3)}
    params |= {"solver": "euler", "own_guidance": False}
    assert scales(space("bottleneck", 2.4).suggest(FixedTrial(params))) == [1, 0.5, 1]
    assert scales(space("bottleneck", 2.2).suggest(FixedTrial(params))) == [1]


@settings(max_examples=100)
@given(data=st.data(), steps=st.floats(1, 50))
def test_progressive_sizes_never_shrink(data: Any, steps: float) -> None:
    schedule = space("progressive", steps).suggest(DrawnTrial(data))
    assert scales(schedule) == sorted(scales(schedule))
    for before, after in itertools.pairwise(schedule.stages):
        assert before.sigmas[-1] <= after.sigmas[0]


@pytest.mark.parametrize("preset", ["bottleneck-flux-3x", "bottleneck-flux-5stage"])
def test_the_published_bottlenecks_are_inside(preset: str) -> None:
    flux = replace(small_blueprint(), height=1024, width=1024)  # FLUX's sizes; its prices take a minute to count
    inside = search_spaces.load("bottleneck", flux, flux.size, Budget(price(flux.baseline(), flux).tflops))
    schedule = presets.load(preset).schedule
    assert alike(inside.suggest(FixedTrial(inside.params_of(schedule))), schedule)


@pytest.mark.parametrize(
    "sigmas",
    [
        (1.0, 0.0),
        (1.0, 0.6, 0.0),
        partial_sigmas(9, 1.0, 3.0),
        karras_sigmas(9, 0.03, 7.0),
        karras_sigmas(3, 0.2, 2.0),
        exponential_sigmas(5, 0.1),
        beta_sigmas(8, 0.6, 1.0),
        beta_sigmas(3, 0.6, 4.0),
    ],
)
def test_plain_knows_every_family(sigmas: tuple[float, ...]) -> None:
    plain = space("plain", 20)
    schedule = Schedule(stages=(Stage(sigmas=sigmas),))
    assert alike(plain.suggest(FixedTrial(plain.params_of(schedule))), schedule)


FULL = Stage(sigmas=(1, 0.5, 0))
HALF = Stage(scale=0.5, sigmas=(1, 0.5, 0))


@pytest.mark.parametrize(
    ("name", "schedule", "why"),
    [
        ("bottleneck", Schedule(stages=(HALF, FULL)), "scales must be 1, or 1, a, 1"),
        ("bottleneck", Schedule(stages=(FULL, FULL, FULL)), "scales must be 1, or 1, a, 1"),
        ("bottleneck", Schedule(stages=(FULL,), solver="heun"), "solver must be one of euler, dpmpp-2m"),
        ("progressive", Schedule(stages=(FULL, HALF, FULL)), "no stage may be smaller"),
        ("progressive", Schedule(stages=(HALF,) * 5 + (FULL,)), "number of stages must lie in"),
        ("plain", Schedule(stages=(HALF, FULL)), "has one stage, but it has 2"),
        ("plain", Schedule(stages=(Stage(sigmas=(1, 0.9, 0.3, 0.2, 0)),)), "none of the families"),
        ("plain", Schedule(stages=(FULL,), solver="heun"), "solver must be one of euler, dpmpp-2m"),
        (
            "bottleneck",
            Schedule(stages=(Stage(sigmas=(1, 0.5)), HALF.model_copy(update={"sigmas": (0.5, 0)}), FULL)),
            "in this space stages end at 0",
        ),
    ],
)
def test_what_lies_outside_is_refused_with_the_reason(name: str, schedule: Schedule, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        space(name, 50).params_of(schedule)
