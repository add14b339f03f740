from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studies import SearchSettings, StudyResult, open_study, search
from studies.work.task import ChunkResult, Task
from tests.cli.conftest import Outcome
from tuner import models, presets

Run = Callable[..., Outcome]


class Worse:
    """Scores grow with the steps and fall with the stages, and differ between prompts."""

    def __init__(self) -> None:
        self._tasks: list[Task] = []

    def submit(self, task: Task) -> None:
        self._tasks.append(task)

    def next(self) -> tuple[Task, ChunkResult]:
        task = self._tasks.pop(0)
        found = [task.schedule.steps - len(task.schedule.stages) + 0.1 * (seed % 7) for seed in task.seeds]
        return task, ChunkResult({"clip": found})

    def close(self) -> None:
        self._tasks.clear()


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StudyResult]:
    out = tmp_path_factory.mktemp("runs")
    settings = SearchSettings(
        model="tiny",
        budget="3x",
        objectives=("clip",),
        space="plain",
        trials=3,
        search_prompts=4,
        held_out_prompts=2,
        out=str(out),
        study="earlier",
    )
    return out, search(settings, executor=Worse())


def rows(run: Run, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("recommend", *arguments, "--json").out)
    return found


@pytest.mark.parametrize("model", ["flux", "hunyuan-video", "sdxl", "sana"])
def test_without_studies_there_is_a_published_schedule_or_plain_steps(
    run: Run, model: str, tmp_path: Path
) -> None:
    found = rows(run, "--model", model, "--budget", "3x", "--out", str(tmp_path))
    known = models.blueprint(model)
    for one in found:
        assert one["speedup"] >= 3 - 1e-6
        assert one["scores"] == {}
        assert "not measured on this model" in one["evidence"]
        assert not one["measured_on_this_model"]
    assert found[-1]["origin"] == "plain"
    published = [one for one in found if one["origin"] == "published"]
    assert bool(published) == any(
        presets.load(name).model == known.name and presets.load(name).model_options is None
        for name in presets.available()
    )


def test_what_was_measured_on_this_model_comes_first_with_its_scores(
    run: Run, studied: tuple[Path, StudyResult]
) -> None:
    out, result = studied
    found = rows(run, "--model", "tiny", "--out", str(out))[0]
    assert (found["origin"], found["measured_on_this_model"]) == ("measured", True)
    assert f"trial {result.pick.trial} " in found["label"]
    assert "2 unseen prompts" in found["evidence"]
    assert found["scores"]["clip"] == result.pick.held_out["clip"].model_dump(mode="json")


def test_where_the_pick_is_too_dear_a_member_of_the_front_is_recommended(
    run: Run, studied: tuple[Path, StudyResult]
) -> None:
    out, result = studied
    budget = f"{result.pick.speedup * 1.2:.3f}x"
    found = rows(run, "--model", "tiny", "--out", str(out), "--budget", budget)[0]
    cheaper = {one.trial: one for one in result.front if one.tflops < result.pick.tflops}
    assert found["origin"] == ("measured" if cheaper else "published")
    if cheaper:
        trial = next(one for number, one in cheaper.items() if f"trial {number} " in found["label"])
        assert found["scores"]["clip"] == trial.scores["clip"].model_dump(mode="json")


def test_what_was_measured_on_another_model_says_so_and_names_the_next_command(
    run: Run, studied: tuple[Path, StudyResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, _ = studied
    found = rows(run, "--model", "tiny-cfg", "--out", str(out))[0]
    assert (found["origin"], found["measured_on_this_model"]) == ("learnt", False)
    assert "tiny at 64x64" in found["evidence"]
    assert "not measured on this model" in found["evidence"]
    table = run("recommend", "--model", "tiny-cfg", "--out", str(out)).out
    assert "not measured" in table
    assert table.splitlines()[-1] == f"next: {found['command']}"
    monkeypatch.chdir(tmp_path)
    export = found["command"].split(" && ")[0].split()
    assert run(*export[1:]).code == 0
    assert presets.load(export[export.index("-o") + 1]).schedule.model_dump(mode="json") == found["schedule"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--model", "tiny", "--budget", "4s"), "only a search measures"),
        (("--model", "tiny", "--budget", "0.5x"), "dearer than the baseline"),
        (("--model", "tinny"), "tiny"),
    ],
)
def test_a_wrong_option_is_one_line(run: Run, arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    outcome = run("recommend", *arguments, "--out", str(tmp_path))
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert said in outcome.err


def test_a_study_hands_on_what_it_found_out(run: Run, studied: tuple[Path, StudyResult], tmp_path: Path) -> None:
    out, result = studied
    file = tmp_path / "knowledge.json"
    outcome = run("export", "earlier", "--out", str(out), "--format", "knowledge", "-o", str(file))
    assert (outcome.code, outcome.out) == (0, f"{file}\n")
    data = json.loads(file.read_text())
    assert len(data["results"]) == len(result.evaluated)
    assert not any(prompt in file.read_text() for prompt, _ in open_study(str(out), "earlier").prompts)
    refused = run("export", "earlier", "--out", str(out), "--format", "knowledge", "--text")
    assert (refused.code, "takes no --text" in refused.err) == (2, True)
