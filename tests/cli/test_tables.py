from __future__ import annotations

from collections.abc import Callable

import pytest
from rich.console import Console

import objectives
from tests.cli.conftest import Outcome
from tuner import models, presets

Run = Callable[..., Outcome]


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("models", models.available()),
        ("presets", presets.available()),
        ("objectives", objectives.available()),
        ("prompts", ["general", "tiny"]),
    ],
)
def test_a_narrow_terminal_cuts_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: str, names: list[str]
) -> None:
    monkeypatch.setattr("tuner.cli._common.stdout_console", lambda wide=False: Console(width=80))
    out = run(command).out
    table = [line for line in out.splitlines() if line[:1] in "┏┃┡│└"]
    first = [line.split("│")[1].strip() for line in table if line.startswith("│")]
    assert [name for name in first if name] == names
    assert "…" not in out
    assert max(map(len, table)) <= 80


@pytest.mark.parametrize("command", ["models", "objectives"])
def test_the_columns_of_an_example_exist(run: Run, command: str) -> None:
    lines = run(command, "--help").out.splitlines()
    examples = [line.split()[1:] for line in lines if line.strip().startswith("tuner ") and "--columns" in line]
    assert examples
    assert [run(*example).code for example in examples] == [0] * len(examples)
