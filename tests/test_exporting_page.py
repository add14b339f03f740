"""The commands of docs/exporting.md do what the page says they do."""

from __future__ import annotations

import json
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from tests.importers.test_importers import ksampler
from tuner import models, presets
from tuner.cli.main import main

PAGE = Path(__file__).parents[1] / "docs" / "exporting.md"

STOCHASTIC = """
name: stochastic
model: flux
source: docs/exporting.md
height: 1024
width: 1024
schedule: {solver: euler-ancestral, stages: [{steps: 8}]}
"""

MULTISTEP = STOCHASTIC.replace("euler-ancestral", "dpmpp-2m").replace("stochastic", "multistep")


def examples() -> list[tuple[str, str]]:
    """Returns every command with the output that stands below it, if any."""
    blocks = [part.split("```")[0] for part in PAGE.read_text(encoding="utf-8").split("```console\n")[1:]]
    found = []
    for block in blocks:
        for example in block.split("$ ")[1:]:
            command, _, output = example.partition("\n")
            found.append((command, output.strip()))
    return found


def test_every_example_runs_and_prints_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_text("1, 0.9, 0.5, 0.25, 0", encoding="utf-8")
    Path("stochastic.yaml").write_text(STOCHASTIC, encoding="utf-8")
    Path("multistep.yaml").write_text(MULTISTEP, encoding="utf-8")
    Path("foreign.json").write_text(json.dumps(ksampler(sampler_name="dpmpp_2m")), encoding="utf-8")
    flux = {"_class_name": "FlowMatchEulerDiscreteScheduler", **models.blueprint("flux").scheduler}
    Path("scheduler_config.json").write_text(json.dumps(flux), encoding="utf-8")
    commands = examples()
    assert len(commands) > 10
    for command, shown in commands:
        program, *arguments = shlex.split(command)
        code = 0
        if program == "python":
            monkeypatch.setattr(sys, "argv", arguments)
            runpy.run_path(arguments[0], run_name="__main__")
        else:
            try:
                main(arguments)
            except SystemExit as stop:
                code = int(stop.code or 0)
        captured = capsys.readouterr()
        assert code == (2 if shown.startswith("error: ") else 0), captured.err
        if shown:
            assert (captured.out + captured.err).strip() == shown
    assert Path("circle.png").stat().st_size > 0
    assert presets.load("multistep-again.yaml").schedule.solver == "dpmpp-2m"
    assert presets.load("twelve.yaml").schedule.steps == 12
