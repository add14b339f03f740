from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import studies.plan.plan
from studies import open_study, search
from studies.report.files import write_report
from studies.report.page.contents import Contents
from tests.cli.conftest import Outcome
from tests.studies.example import DIRECTIONS, study
from tests.studies.study_files import write_study
from tests.studies.toy import Counting, find_blueprint, toy_settings
from tuner import models, presets

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


def test_every_report_of_an_interrupted_study_shows_what_it_has(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies.plan.plan, "blueprint", find_blueprint)
    monkeypatch.setattr(models, "blueprint", find_blueprint)
    settings = toy_settings(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        search(settings, executor=Counting(interrupt_after=20))
    folder = open_study(settings.out, settings.name)
    so_far = Contents(folder).result
    shown = run("report", settings.name, "--out", settings.out)
    assert shown.code == 0
    assert f"partial: the search is not over; {so_far.trials} trials so far" in shown.out
    data = json.loads(run("report", settings.name, "--out", settings.out, "--json").out)
    assert (data["ended_by"], data["pick"]["held_out"]) == ("unfinished", {})
    for ending in ("csv", "md", "png", "json"):
        assert write_report(folder, tmp_path / f"report.{ending}").stat().st_size > 100
    exported = run("export", settings.name, "--out", settings.out, "-o", str(tmp_path / "best.yaml"))
    assert exported.code == 0
    assert "the search is not over" in exported.err
    assert presets.load(tmp_path / "best.yaml").schedule == so_far.pick.schedule
