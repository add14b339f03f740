from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Outcome
from tests.studies.example import DIRECTIONS, study
from tests.studies.study_files import write_study

Run = Callable[..., Outcome]


@pytest.fixture
def out(tmp_path: Path) -> str:
    write_study(tmp_path / "runs" / "flux-3x", study(), DIRECTIONS, ["a red fox", "a blue hen"])
    return str(tmp_path / "runs")


def test_without_a_file_the_front_is_printed_and_the_pick_quoted(run: Run, out: str) -> None:
    shown = run("report", "flux-3x", "--out", out)
    assert shown.code == 0
    assert "Pareto front of flux-3x" in shown.out
    assert "pick: trial 11" in shown.out


def test_a_file_is_written_in_the_format_of_its_name(run: Run, out: str, tmp_path: Path) -> None:
    done = run("report", "flux-3x", "--out", out, "-o", str(tmp_path / "all.csv"))
    assert (done.code, done.out) == (0, f"{tmp_path / 'all.csv'}\n")
    assert (tmp_path / "all.csv").read_text().startswith("trial,label,schedule,tflops")


def test_an_unknown_format_is_one_line_that_names_the_known_ones(run: Run, out: str, tmp_path: Path) -> None:
    refused = run("report", "flux-3x", "--out", out, "-o", str(tmp_path / "front.xlsx"))
    assert refused.code == 2
    assert refused.err.count("\n") == 1
    assert ".html, .png, .svg, .pdf, .md, .csv, .json" in refused.err


def test_votes_are_counted_as_a_table_and_as_json(run: Run, out: str, tmp_path: Path) -> None:
    votes = [
        {"trial": 11, "prompt": 0, "winner": winner} for winner in ("schedule", "schedule", "baseline", "tie")
    ]
    file = tmp_path / "votes.json"
    file.write_text(json.dumps({"study": "id-of-flux-3x", "votes": votes}))
    shown = run("report", "flux-3x", "--out", out, "--votes", str(file))
    assert shown.code == 0
    assert "67% [21%, 94%]" in shown.out
    (tally,) = json.loads(run("report", "flux-3x", "--out", out, "--votes", str(file), "--json").out)
    assert (tally["trial"], tally["wins"], tally["losses"], tally["ties"]) == (11, 2, 1, 1)
    refused = run("report", "flux-3x", "--out", out, "--votes", str(file), "-o", str(tmp_path / "x.html"))
    assert refused.code == 2
    assert "leave out -o or --votes" in refused.err
