from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import objectives
from tests.cli.conftest import Outcome

Run = Callable[..., Outcome]


def test_objectives_are_described_without_loading_any(run: Run) -> None:
    rows = {row["name"]: row for row in json.loads(run("objectives", "--json").out)}
    assert list(rows) == objectives.available()
    assert rows["image_reward"]["tokens"] == 35
    assert rows["image_reward"]["license"] == "Apache-2.0"
    assert (rows["lpips"]["direction"], rows["lpips"]["range"]) == ("minimize", [0, None])
    assert (rows["psnr"]["reads"], rows["psnr"]["weights"]) == ("the baseline's images", None)
    assert all(row["summary"] and row["unit"] for row in rows.values())
    table = run("objectives").out
    assert all(name in table for name in rows)


def test_the_documentation_says_the_same() -> None:
    lines = (Path(__file__).parents[2] / "docs" / "objectives.md").read_text(encoding="utf-8").splitlines()
    for name in objectives.available():
        described = objectives.describe(name)
        (line,) = [line for line in lines if line.startswith(f"| [`{name}`](#")]
        better = "more" if described.direction == "maximize" else "less"
        assert f"| {described.unit} | {better} |" in line
        assert line.endswith(f"| {described.about.license or ''} |".replace("|  |", "| |"))


def test_help_states_the_tokens_that_image_reward_reads(run: Run) -> None:
    assert "reads 35" in run("objectives", "--help").out


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere.score:fn", "Nor is there a module 'nowhere'"),
        ("mine:missing", "module 'mine' has nothing named 'missing'"),
        ("mine:value", "is no function"),
        ("psnr:tiny", "no weights to choose"),
    ],
)
def test_an_objective_that_is_none_is_a_usage_error(
    run: Run, spec: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text("value = 1\n")
    monkeypatch.chdir(tmp_path)
    outcome = run("search", "--model", "tiny", "--budget", "3x", "--objectives", spec, "--workers", "0")
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
