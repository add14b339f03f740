from __future__ import annotations

import json
import math
import random
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import search_spaces
import studies.engine.dry_run
from studies import SearchSettings, estimate, search
from studies.plan.plan import make_plan
from studies.work.task import ChunkResult, Task
from tests.studies.toy import FACTOR, TOY, Counting, load_toy, toy_settings
from tuner.activations import activation_bytes
from tuner.devices import known_devices, speed_at, speed_of
from tuner.errors import UserError
from tuner.flops import price
from tuner.memory import weights
from tuner.models import available, blueprint
from tuner.schedule import Schedule, Stage
from tuner.sigmas import truncated_sigmas

if TYPE_CHECKING:
    from optuna.trial import BaseTrial


def test_a_search_spends_no_more_than_was_estimated(tmp_path: Path) -> None:
    settings = toy_settings(tmp_path, workers=2, trials=5)
    found = estimate(settings, "here", load=load_toy)
    assert list(tmp_path.iterdir()) == []
    parts = (found.baseline, found.references, found.proposals, found.held_out)
    assert found.total == pytest.approx(sum(parts))
    executor = Counting()
    result = search(settings, executor=executor)
    assert result.tflops_spent <= found.total
    assert sum(len(task.prompts) for task in executor.ran) <= found.images
    seconds = found.total * (found.seconds_per_tflop or 0) + found.images * (found.seconds_per_image or 0)
    assert found.hours == pytest.approx(seconds / 2 / 3600)
    assert found.gpu_hours == pytest.approx(seconds / 3600)


def test_a_limit_lowers_the_estimate(tmp_path: Path) -> None:
    plan = make_plan(toy_settings(tmp_path))
    limit = plan.least_tflops + plan.budget.tflops
    assert estimate(toy_settings(tmp_path, max_tflops=limit)).total == pytest.approx(limit)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets nothing load weights or open a connection."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a dry run needs neither weights nor a network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in available():
        monkeypatch.setattr(type(blueprint(name)), "load", refuse)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("model", available())
def test_every_family_is_priced_without_weights(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies.engine.dry_run, "_memory", lambda *_: None)  # tested on its own
    settings = SearchSettings(model=model, budget="3x", out=str(tmp_path))
    found = estimate(settings, speed_at(400.0), price_per_hour=2.0)
    known = blueprint(model)
    assert found.baseline == pytest.approx(32 * price(known.baseline(), known).tflops)
    assert found.proposals == pytest.approx(60 * found.baseline / 3)
    assert found.gpu_hours == pytest.approx(found.total / 400 / 3600)
    assert found.money == pytest.approx(2 * (found.gpu_hours or 0))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("model", ["tiny", "tiny-cfg", "sana"])
def test_a_worker_needs_its_weights_and_a_batch(model: str, tmp_path: Path) -> None:
    known = blueprint(model)
    one = SearchSettings(model=model, budget="3x", chunk=1, out=str(tmp_path))
    memory = [estimate(one.model_copy(update=more), speed_at(1.0)).memory for more in ({}, {"chunk": 3})]
    assert memory[0] is not None
    assert memory[1] is not None
    sizes = weights(known)
    assert memory[0].weights_bytes == sizes.denoising("bfloat16")
    assert memory[0].total_bytes == sizes.at_once("bfloat16") + max(
        memory[0].activations_bytes, memory[0].decoding_bytes
    )
    assert memory[1].activations_bytes == 3 * memory[0].activations_bytes
    latent = 2 * known.passes * math.prod(known.latent_shape(known.size))
    assert memory[0].activations_bytes > latent


def test_activations_are_bounded_by_what_a_call_makes() -> None:
    """A chain of layers holds its input and its output, and never more than both and one other."""
    pixels = (32 // FACTOR) ** 2
    first, hidden = 4 * 3 * pixels, 4 * 8 * pixels
    found = activation_bytes(TOY, (32, 32), 4 * 8 * 3, "float32")
    assert hidden + first <= found <= 2 * (hidden + first)


class Unsung:
    """Draws nothing and scores by chance, and keeps nothing between tasks: what is spent is the price."""

    def __init__(self) -> None:
        self._rng = random.Random(0)
        self._tasks: list[Task] = []

    def submit(self, task: Task) -> None:
        self._tasks.append(task)

    def next(self) -> tuple[Task, ChunkResult]:
        task = self._tasks.pop(0)
        return task, ChunkResult(
            {name: [self._rng.random() for _ in task.prompts] for name in ("clip", "image_reward")}
        )

    def close(self) -> None:
        self._tasks.clear()


def spent(study: Path) -> dict[bool, float]:
    """TFLOPs on unseen prompts and on others; what is drawn again, for images that were not made, counts once."""
    lines = map(json.loads, (study / "scores.jsonl").read_text().splitlines())
    first = {(line["schedule"], line["seeds"][0]): line["tflops"] for line in reversed(list(lines))}
    return {
        unseen: sum(tflops for (_, seed), tflops in first.items() if (seed >= 4) is unseen)
        for unseen in (False, True)
    }


class FourSteps:
    """Schedules that all cost the same: four steps of any shift."""

    def suggest(self, trial: BaseTrial) -> Schedule:
        sigmas = truncated_sigmas(4, shift=trial.suggest_float("shift", 0.5, 12.0))
        return Schedule(stages=(Stage(sigmas=sigmas),))

    def params_of(self, schedule: Schedule) -> dict[str, Any]:
        raise ValueError("no reference is of this space.")


def test_a_run_that_stops_nothing_spends_what_was_estimated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_spaces, "load", lambda *_: FourSteps())
    values = {"search_prompts": 4, "held_out_prompts": 2, "out": str(tmp_path), "rungs": 1}
    settings = SearchSettings(model="tiny", budget="8%", trials=4, **values)
    found = estimate(settings, speed_at(1.0))
    search(settings, executor=Unsung())
    ran = spent(tmp_path / settings.name)
    assert ran[False] == pytest.approx(found.baseline + found.references + found.proposals, rel=0.02)
    assert 0 < ran[True] <= found.held_out


def test_a_budget_in_seconds_is_priced_by_a_stated_speed(tmp_path: Path) -> None:
    settings = SearchSettings(model="flux", budget="4s", out=str(tmp_path))
    assert estimate(settings, speed_at(400.0)).proposals == pytest.approx(60 * 32 * 1600)
    with pytest.raises(UserError, match="no device is known; add --device"):
        estimate(settings)


def test_a_price_needs_a_speed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no device is known"):
        estimate(toy_settings(tmp_path), price_per_hour=2.0)


def test_known_devices_say_where_their_speed_comes_from() -> None:
    assert 1 / speed_of("h100").seconds_per_tflop == pytest.approx(402)  # `docs/benchmarks.md`
    for name in known_devices():
        assert "measured" in speed_of(name).basis or "stated" in speed_of(name).basis
    with pytest.raises(UserError, match="h100"):
        speed_of("h10")
