"""The live comparison's space and its memory, on made-up scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from benchmarks import live_search
from search_spaces._costs import distinct_scales
from tuner.schedule import Schedule


class Counting:
    """Scores every prompt with its number, and counts how many were asked for."""

    asked = 0

    def __init__(self, plan: Any, prompts: Sequence[str]):
        pass

    def score(self, schedule: Schedule, numbers: Sequence[int]) -> Any:
        Counting.asked += len(numbers)
        return np.array([[float(number), -float(number)] for number in numbers])


def test_a_score_is_found_out_once_and_survives_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_search, "Scorer", Counting)
    plan = live_search._plan(0)
    prompts, path = plan.prompts.search, tmp_path / "scores.jsonl"
    scores = live_search.LiveScores(path)
    assert scores.scores(plan.baseline, prompts[1:3]) == {"clip": [1.0, 2.0], "image_reward": [-1.0, -2.0]}
    assert scores.scores(plan.baseline, prompts[:3])["clip"] == [0.0, 1.0, 2.0]
    assert Counting.asked == 3
    assert live_search.LiveScores(path).scores(plan.baseline, prompts[:3])["clip"] == [0.0, 1.0, 2.0]
    assert Counting.asked == 3


def test_the_raw_space_holds_schedules_within_the_budget_and_beyond() -> None:
    plan = live_search._plan(0)
    scales = distinct_scales(plan.blueprint, plan.size)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [live_search.raw(study.ask(), scales) for _ in range(40)]
    assert {len(schedule.stages) for schedule in drawn} == {1, 2, 3, 4}
    assert {schedule.solver for schedule in drawn} == {"euler", "heun"}
    assert len({plan.budget.allows(plan.price(schedule)) for schedule in drawn}) == 2
