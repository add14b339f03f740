from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

import search_spaces
import studies.workers.latency
from studies import open_study, search
from studies.plan.plan import make_plan
from studies.report.figures import front_figure
from studies.report.tables import markdown
from tests.studies.toy import TOY, Counting, ToyModel, toy_settings
from tuner import latency
from tuner.flops import price
from tuner.latency import LatencyTable, measure
from tuner.schedule import Schedule

TABLE = LatencyTable("abacus", 1.0, {(8, 8): 0.1, (16, 16): 0.2, (24, 24): 0.5, (32, 32): 1.0})


class Clock:
    """A clock that only a slow model moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class SlowModel(ToyModel):
    """Takes a second per pixel row of the latent, and much longer the first two times."""

    def __init__(self, clock: Clock):
        super().__init__()
        self._clock = clock
        self._calls: dict[Any, int] = {}

    def velocity(self, x_BCHW: torch.Tensor, sigma: float, conditioning: Any) -> torch.Tensor:
        height = x_BCHW.shape[-2]
        self._calls[height] = self._calls.get(height, 0) + 1
        self._clock.now += height if self._calls[height] > 3 else 100
        return super().velocity(x_BCHW, sigma, conditioning)

    def decode(self, x_BCHW: torch.Tensor) -> Any:
        self._clock.now += 0.5
        return super().decode(x_BCHW)


def test_calls_are_timed_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    table = measure(SlowModel(clock), TOY.size, [(8, 8), (16, 16), (32, 32)])
    assert table.pass_s == {(8, 8): 2, (16, 16): 4, (32, 32): 8}  # latents have a quarter of the rows
    assert table.around_s == 0.5
    assert table.device


def test_a_larger_call_is_never_taken_to_be_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.5, 0.25, 3.0, 1.0, 2.0])
    monkeypatch.setattr(latency, "_median_s", lambda run: next(times))
    table = measure(ToyModel(), TOY.size, [(8, 8), (16, 16), (32, 32)])
    assert table.around_s == 0.75
    assert table.pass_s == {(8, 8): 3, (16, 16): 3, (32, 32): 3}


def test_a_search_within_seconds_measures_once_and_reports_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []

    def fake(model: Any, size: Any, sizes: Any) -> LatencyTable:
        measured.append(list(sizes))
        return TABLE

    monkeypatch.setattr(studies.workers.latency, "measure", fake)
    settings = toy_settings(tmp_path, budget="6s", workers=0, trials=5)
    with pytest.raises(KeyboardInterrupt):
        search(settings, executor=Counting(interrupt_after=9))
    result = search(settings, executor=Counting(), resume=True)
    assert measured == [search_spaces.stage_sizes(TOY, TOY.size)]
    assert result.baseline.seconds == 21
    blueprint = make_plan(settings, studies.workers.latency.latencies).blueprint
    for candidate in result.evaluated:
        assert candidate.seconds == TABLE.seconds(price(candidate.schedule, blueprint)) <= 6 + 1e-6
    assert {"plain:5", "plain:2"} <= {candidate.label for candidate in result.evaluated}
    assert open_study(settings.out, settings.name).identity["latency"] == TABLE.as_dict()
    assert "s/image" in markdown(result)
    assert "takes 21 s" in markdown(result)
    url = f"sqlite:///{tmp_path}/optuna.db"
    search(settings.model_copy(update={"storage": url, "study": "sql"}), executor=Counting())
    for trial in optuna.load_study(study_name="sql", storage=url).trials:
        assert trial.values[-1] == TABLE.seconds(price(Schedule(**trial.user_attrs["schedule"]), blueprint))
    directions = open_study(settings.out, settings.name).directions
    assert all("seconds per image" in panel.get_xlabel() for panel in front_figure(result, directions).axes)


def test_other_budgets_measure_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies.workers.latency, "measure", lambda *_: pytest.fail("measured"))
    result = search(toy_settings(tmp_path, workers=0, trials=0), executor=Counting())
    assert result.baseline.seconds is None
    assert "s/image" not in markdown(result)
