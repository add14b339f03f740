from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import studies.plan.plan
from studies.work.evaluator import Evaluator
from tests.cli.conftest import Outcome
from tests.studies.toy import find_blueprint, load_toy


@pytest.fixture(autouse=True)
def toy_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies.plan.plan, "blueprint", find_blueprint)
    monkeypatch.setattr(Evaluator, "load", staticmethod(lambda *_: load_toy()))


def test_a_dry_run_says_what_will_be_spent_and_writes_nothing(run: Callable[..., Outcome], tmp_path: Path) -> None:
    arguments = ("search", "--model", "toy", "--budget", "3x", "--trials", "7", "--workers", "2", "--dry-run")
    arguments += ("--device", "here")
    arguments += ("--search-prompts", "4", "--held-out-prompts", "2", "--out", str(tmp_path / "runs"))
    found = json.loads(run(*arguments, "--json").out)
    assert found["total"] == pytest.approx(
        sum(found[k] for k in ("baseline", "references", "proposals", "held_out"))
    )
    assert (found["study"], found["trials"], found["workers"]) == ("toy-3x", 7, 2)
    assert found["hours"] > 0
    table = run(*arguments)
    assert table.code == 0
    assert "7 proposals" in table.out
    assert " on 2 workers" in table.out
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_without_weights_has_hours_and_money_of_a_named_device(run: Callable[..., Outcome]) -> None:
    arguments = ("search", "--model", "toy", "--budget", "3x", "--dry-run", "--json", "--price-per-hour", "2")
    named = json.loads(run(*arguments, "--device", "h100").out)
    assert "measured" in named["basis"]
    assert named["money"] == pytest.approx(2 * named["gpu_hours"])
    given = json.loads(run(*arguments, "--device-tflops", "201").out)
    assert given["gpu_hours"] == pytest.approx(2 * named["gpu_hours"])
    assert named["workers"] == 1


def test_a_file_of_weights_that_is_not_there_is_told_without_loading(run: Callable[..., Outcome]) -> None:
    arguments = ("search", "--model", "toy", "--budget", "3x", "--dry-run", "--device", "h100")
    told = run(*arguments, "--transformer", "gone.gguf")
    assert (told.code, told.out) == (2, "")
    assert "Transformer 'gone.gguf' is not here" in told.err


def test_without_a_device_there_are_tflops_and_no_times(run: Callable[..., Outcome]) -> None:
    table = run("search", "--model", "toy", "--budget", "3x", "--dry-run")
    assert "--device-tflops" in table.out
    assert "hours" not in table.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--dry-run", "--device", "h10"), "h100"),
        (("--dry-run", "--device", "h100", "--device-tflops", "4"), "give one of them"),
        (("--dry-run", "--device-tflops", "0"), "positive"),
        (("--dry-run", "--device-tflops", "4", "--price-per-hour", "-1"), "0 or more"),
        (("--dry-run", "--price-per-hour", "1"), "no device is known"),
        (("--device", "h100"), "is for --dry-run"),
    ],
)
def test_a_wrong_option_is_one_line(run: Callable[..., Outcome], options: tuple[str, ...], said: str) -> None:
    outcome = run("search", "--model", "toy", "--budget", "3x", *options)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert said in outcome.err
