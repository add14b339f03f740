from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

import search_spaces
import studies.workers.latency
import studies.workers.nodes
from studies import StudyResult, open_study, search
from studies.plan.plan import make_plan
from studies.report.ending import warnings
from studies.report.figures import front_figure
from studies.report.tables import markdown
from tests.studies.toy import TOY, Counting, ToyModel, toy_settings
from tuner import latency
from tuner.errors import UserError
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
    monkeypatch.setattr(latency, "_median_s", lambda run, device: next(times))
    table = measure(ToyModel(), TOY.size, [(8, 8), (16, 16), (32, 32)])
    assert table.around_s == 0.75
    assert table.pass_s == {(8, 8): 3, (16, 16): 3, (32, 32): 3}


class Counted(ToyModel):
    """Remembers the batches that it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[tuple[str, int]] = []

    def encode(self, prompts: Any) -> Any:
        self.batches.append(("encode", len(prompts)))
        return super().encode(prompts)

    def velocity(self, x_BCHW: torch.Tensor, sigma: float, conditioning: Any) -> torch.Tensor:
        self.batches.append(("velocity", len(x_BCHW)))
        return super().velocity(x_BCHW, sigma, conditioning)

    def decode(self, x_BCHW: torch.Tensor) -> Any:
        self.batches.append(("decode", len(x_BCHW)))
        return super().decode(x_BCHW)


def test_calls_are_timed_in_the_batches_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    model, times = Counted(), iter([0.5, 0.2, 8.0])
    monkeypatch.setattr(latency, "_median_s", lambda run, device: (run(), next(times))[1])
    table = measure(model, TOY.size, [(32, 32)], batch=4)
    assert set(model.batches) == {("encode", 4), ("velocity", 4), ("decode", 1)}
    assert (table.around_s, table.pass_s, table.batch) == (0.5 + 0.2 / 4, {(32, 32): 2.0}, 4)
    assert LatencyTable.from_dict(table.as_dict()) == table


@pytest.mark.parametrize(("device", "each_s", "runs"), [("cuda", 0.3, 4), ("cuda", 2.0, 2), ("cpu", 0.3, 2)])
def test_a_gpu_is_waited_for_and_warmed_up_by_time(
    device: str, each_s: float, runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fake GPU works only when it is waited for."""
    clock, queued, warmed = Clock(), [0], [0]

    def run() -> None:
        queued[0] += 1
        warmed[0] += 1
        if device == "cpu":
            wait()

    def wait(_: Any = None) -> None:
        clock.now += each_s * queued[0]
        queued[0] = 0

    monkeypatch.setattr(time, "perf_counter", clock)
    monkeypatch.setattr(torch.cuda, "synchronize", wait)
    assert latency._median_s(run, torch.device(device)) == pytest.approx(each_s)
    assert warmed[0] == runs + 5


def study_within_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: float) -> StudyResult:
    """Searches with workers that take ``factor`` times what the table says."""
    monkeypatch.setattr(studies.workers.latency, "measure", lambda *_: TABLE)

    class Timed(Counting):
        def next(self) -> Any:
            task, outcome = super().next()
            taken = factor * len(task.prompts) * TABLE.seconds(price(task.schedule, TOY))
            return task, replace(outcome, seconds={"sampling": taken, "decoding": 0.0, "scoring": 9.0})

    return search(toy_settings(tmp_path, budget="6s", workers=0, trials=2), executor=Timed())


@pytest.mark.parametrize(
    ("factor", "said"),
    [(1.0, None), (1.04, None), (1.2, "images took 20 % longer"), (0.9, "images took 10 % less")],
)
def test_drift_is_reported_at_the_end(
    factor: float, said: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = study_within_seconds(tmp_path, monkeypatch, factor)
    assert result.drift == pytest.approx(factor - 1, abs=1e-3)
    lines = " ".join(warnings(result))
    assert (said in lines) if said else ("images took" not in lines)


def test_gpus_of_several_kinds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def node(cpus: float, **cards: float) -> dict[str, Any]:
        kinds = {f"accelerator_type:{kind}": 1.0 for kind in cards}
        return {"Resources": {"CPU": cpus, "GPU": sum(cards.values()), **kinds}}

    def check(*nodes: dict[str, Any], gpus: float = 1.0) -> None:
        monkeypatch.setattr(studies.workers.nodes, "alive", lambda: list(nodes))
        studies.workers.nodes.check_alike(gpus)

    check(node(8, H100=8), node(8, H100=4), node(4))
    check(node(8, H100=8), node(8, A100=8), gpus=0)
    check(node(8, H100=8), node(0, A100=8))  # no worker fits there
    with pytest.raises(UserError, match="this cluster has A100, H100; give a budget in TFLOPs"):
        check(node(8, H100=8), node(8, A100=8))


def test_a_search_within_seconds_measures_once_and_reports_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []

    def fake(model: Any, size: Any, sizes: Any, batch: int) -> LatencyTable:
        assert batch == settings.chunk
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
