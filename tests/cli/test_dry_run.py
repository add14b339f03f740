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
