from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FixedTrial

import search_spaces
from search_spaces._staged import alike
from studies.plan.references import references
from tests.blueprints import small_blueprint
from tests.search_spaces.anchored import ANCHOR
from tuner import presets
from tuner.budget import parse_budget
from tuner.errors import UserError
from tuner.flops import price
from tuner.schedule import Schedule, Stage

MODEL = small_blueprint()
BUDGET = parse_budget("3x", price(MODEL.baseline(), MODEL), MODEL, MODEL.size)
PRESET = presets.load(ANCHOR)
LEVELS = PRESET.schedule.stages[0].sigmas


def oss(preset: Path = ANCHOR) -> search_spaces.SearchSpace:
    return search_spaces.load(f"oss:{preset}", MODEL, MODEL.size, BUDGET)


def suggest(**params: Any) -> Schedule:
    return oss().suggest(FixedTrial(params))


def saved(folder: Path, **changes: Any) -> Path:
    return presets.save(PRESET.model_copy(update=changes), folder / "changed.yaml")


def test_the_anchor_itself_is_the_space_unwarped() -> None:
    params = {"steps": 5, "skew": 1.0, "stretch": 1.0}
    assert alike(suggest(**params), PRESET.schedule)
    assert oss().params_of(PRESET.schedule) == pytest.approx(params)


@given(skew=st.floats(0.25, 2), more=st.floats(1.01, 2))
def test_more_skew_lies_nearer_to_the_end_everywhere(skew: float, more: float) -> None:
    inner, later = (suggest(steps=7, skew=s, stretch=1.0).stages[0].sigmas[1:-1] for s in (skew, skew * more))
    assert all(low < high for low, high in zip(later, inner, strict=True))


def test_more_stretch_lies_nearer_to_both_ends() -> None:
    inner, wide = (np.array(suggest(steps=6, skew=1.0, stretch=s).stages[0].sigmas[1:-1]) for s in (1.0, 1.7))
    assert (wide[:2] > inner[:2]).all()
    assert (wide[-2:] < inner[-2:]).all()
    assert wide[2] == pytest.approx(inner[2])


def test_the_steps_of_an_anchor_with_two_calls_per_step_are_half_as_many(tmp_path: Path) -> None:
    heun = saved(tmp_path, schedule=PRESET.schedule.model_copy(update={"solver": "heun"}))
    steps = FixedTrial({"steps": 8, "skew": 1.0, "stretch": 1.0})
    assert oss(heun).suggest(steps).solver == "heun"
    with pytest.raises(ValueError, match="budget buys 8 steps"):  # 15 calls; 9 steps would be 17 of 16
        oss(heun).params_of(Schedule(stages=(Stage(steps=9),), solver="heun"))
    with pytest.raises(ValueError, match="budget buys 16 steps"):
        oss().params_of(Schedule(stages=(Stage(steps=17),)))


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule(stages=(Stage(steps=5, shift=3),)),
        Schedule(stages=(Stage(sigmas=LEVELS, amplitudes=((-1, 1),) * 5),)),
        PRESET.schedule.model_copy(update={"solver": "heun"}),
        Schedule(stages=(Stage(scale=0.5, steps=2), Stage(steps=3, strength=0.5))),
    ],
)
def test_what_is_no_warp_of_the_anchor_is_refused(schedule: Schedule) -> None:
    with pytest.raises(ValueError, match=r"anchor|skew|stretch"):
        oss().params_of(schedule)


def test_without_a_preset_the_error_names_the_command_that_makes_one() -> None:
    with pytest.raises(UserError, match=r"tuner schedule oss --model small --steps 10 -o oss-small-10\.yaml"):
        search_spaces.load("oss", MODEL, MODEL.size, BUDGET)


def test_a_preset_of_other_stages_is_no_anchor(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one stage without reuse"):
        oss(saved(tmp_path, schedule=presets.load("bottleneck-flux-3x").schedule))


def test_other_spaces_take_no_preset() -> None:
    with pytest.raises(UserError, match="'free' takes no preset"):
        search_spaces.load(f"free:{ANCHOR}", MODEL, MODEL.size, BUDGET)


def test_presets_to_start_from_are_references_and_cut_to_the_budget() -> None:
    found = {one.label: one.schedule for one in references(MODEL, MODEL.size, BUDGET, [str(ANCHOR)])}
    assert found["oss-small-5"] == PRESET.schedule
    small = parse_budget("3nfe", price(MODEL.baseline(), MODEL), MODEL, MODEL.size)
    cut = {one.label: one.schedule for one in references(MODEL, MODEL.size, small, [str(ANCHOR)])}
    assert cut["oss-small-5-rescaled"].steps == 3


def test_a_preset_with_options_of_its_own_is_no_start() -> None:
    with pytest.raises(UserError, match="'swd-tiny-4' has model options"):
        references(MODEL, MODEL.size, BUDGET, ["swd-tiny-4"])
