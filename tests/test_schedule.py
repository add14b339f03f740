from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tuner.schedule import RESAMPLE_MODES, Schedule, Stage
from tuner.sigmas import truncated_sigmas


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    stages = []
    count = draw(st.integers(1, 5))
    for index in range(count):
        floor = stages[-1].sigmas[-1] if stages else 0.01
        levels = draw(st.sets(st.floats(max(floor, 0.01), 0.99), min_size=0 if index == 0 else 1, max_size=6))
        first = {1.0} if index == 0 else set()
        sigmas = sorted(levels | first, reverse=True)
        last = index == count - 1
        if last or len(sigmas) < 2 or draw(st.booleans()):
            sigmas.append(0.0)
        stages.append(
            Stage(
                scale=1 if last else draw(st.sampled_from([0.25, 0.5, 0.75, 1])),
                sigmas=tuple(sigmas),
                resample=draw(st.sampled_from(RESAMPLE_MODES)),
                reuse=tuple(sorted(draw(st.sets(st.integers(1, len(sigmas) - 2))))) if len(sigmas) > 2 else (),
            )
        )
    return Schedule(stages=tuple(stages), solver=draw(st.sampled_from(["euler", "heun"])))


@given(schedules())
def test_json_and_yaml_round_trips_change_nothing(schedule: Schedule) -> None:
    from_json = Schedule.model_validate_json(schedule.model_dump_json())
    from_yaml = Schedule.model_validate(yaml.safe_load(yaml.safe_dump(schedule.model_dump(mode="json"))))
    assert from_json == from_yaml == schedule
    assert from_json.content_hash == from_yaml.content_hash == schedule.content_hash


def test_an_option_that_is_off_is_not_written() -> None:
    assert "reuse" not in Stage(sigmas=(1, 0.5, 0)).model_dump()
    assert Stage(sigmas=(1, 0.5, 0), reuse=(1,)).model_dump(mode="json")["reuse"] == [1]


@given(schedules(), schedules())
def test_hashes_agree_exactly_when_the_schedules_do(first: Schedule, second: Schedule) -> None:
    assert (first.content_hash == second.content_hash) == (first == second)


def test_the_two_ways_to_write_a_stage_are_one_stage() -> None:
    friendly = Stage.model_validate({"scale": 0.5, "steps": 20, "strength": 0.8, "shift": 6})
    assert friendly == Stage(scale=0.5, sigmas=truncated_sigmas(20, 0.8, 6.0))
    assert friendly.steps == 16
    assert Stage.model_validate({"steps": 2}).sigmas == (1.0, 0.5, 0.0)


def test_the_hash_is_stable_across_releases() -> None:
    # Scores on disk are keyed by it: a change here makes every stored score unreachable.
    assert Schedule(stages=(Stage(sigmas=(1, 0.5, 0)),)).content_hash == "a9de8580304e6868"


@pytest.mark.parametrize(
    ("stage", "rule"),
    [
        ({"sigmas": [1, 0.5, 0.6, 0]}, "strictly decrease, but 0.6 follows 0.5"),
        ({"sigmas": [1, 0.5, 0.5, 0]}, "strictly decrease"),
        ({"sigmas": [1, 0.5, 0], "reuse": [0]}, "from 1 to 1, but got .0."),
        ({"sigmas": [1, 0.5, 0], "reuse": [2]}, "from 1 to 1, but got .2."),
        ({"sigmas": [1, 0.5, 0.2, 0], "reuse": [2, 1]}, "increasing"),
        ({"sigmas": [1, 0.5, 0.2, 0], "reuse": [1, 1]}, "increasing"),
        ({"sigmas": [0]}, "at least two sigmas"),
        ({"sigmas": [1.5, 0]}, "0 <= sigma <= 1"),
        ({"sigmas": [float("nan"), 0]}, "0 <= sigma <= 1"),
        ({"sigmas": [1, 0], "scale": 0}, "0 < scale <= 1"),
        ({"sigmas": [1, 0], "scale": 1.1}, "0 < scale <= 1"),
        ({"sigmas": [1, 0], "steps": 4}, "not both"),
        ({"shift": 3.0}, "need `steps`"),
        ({"steps": 2.5}, "whole number"),
        ({"steps": True}, "whole number"),
        ({"steps": 2, "shift": "three"}, "must be a number"),
        ({"steps": 4, "strength": 0.1}, "leave no step"),
        ({"sigmas": [1, 0], "resample": "cubic"}, "lanczos"),
        ({"sigmas": [1, 0], "colour": 1}, "Extra inputs"),
    ],
)
def test_broken_stages_name_the_rule(stage: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        Stage.model_validate(stage)


@pytest.mark.parametrize(
    ("schedule", "rule"),
    [
        ({"stages": []}, "at least one stage"),
        ({"stages": [{"sigmas": [1, 0], "scale": 0.5}]}, "last stage must have scale 1"),
        ({"stages": [{"sigmas": [1, 0.5]}]}, "must end at 0"),
        (
            {"stages": [{"sigmas": [1, 0.5]}, {"sigmas": [0.4, 0]}]},
            "cannot start at 0.4; start it at 0.5 or above",
        ),
        ({"stages": [{"sigmas": [1, 0]}], "solver": "rk45"}, "euler"),
    ],
)
def test_broken_schedules_name_the_rule(schedule: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        Schedule.model_validate(schedule)


def test_schedules_are_frozen_and_hashable() -> None:
    schedule = Schedule(stages=(Stage(sigmas=(1, 0)),))
    with pytest.raises(ValidationError):
        schedule.solver = "heun"  # type: ignore[misc]
    assert {schedule: 1}[Schedule(stages=(Stage(sigmas=(1.0, 0.0)),))] == 1
