"""A search for a runtime: what it evaluates, and what it ends with, is what that runtime carries exactly."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

import search_spaces
from studies import SearchSettings, open_study, search
from studies.plan.plan import make_plan
from studies.propose.random_trial import Draw
from studies.records.results import StudyResult
from tests.exporters.comfyui_interpreter import Interpreter
from tests.exporters.comfyui_nodes import checked
from tests.exporters.test_comfyui import assert_same, tiny
from tests.search_spaces.anchored import loadable
from tuner import exporters, models, presets
from tuner.budget import parse_budget
from tuner.errors import UserError
from tuner.exporters import ExportOptions
from tuner.flops import price
from tuner.sampling import sample
from tuner.schedule import Schedule, Stage

PROMPTS = "a red circle\na blue ring\na green square\na gray circle\n"


def settings_of(folder: Path, **changes: Any) -> SearchSettings:
    prompts = folder / "prompts.txt"
    prompts.write_text(PROMPTS)
    values = {
        "model": "tiny",
        "budget": "3x",
        "size": (32, 32),
        "objectives": ("sharpness",),
        "for_target": "comfyui",
    }
    counts = {"trials": 2, "search_prompts": 2, "held_out_prompts": 2, "rungs": 1, "workers": 0}
    paths = {"prompts": str(prompts), "out": str(folder / "runs")}
    return SearchSettings(**(values | counts | paths | {"for_target": "comfyui"} | changes))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    return search(settings_of(tmp_path_factory.mktemp("target")))


def test_it_ends_with_a_workflow_that_gives_the_latents_of_its_pick(found: StudyResult) -> None:
    assert found.exported is not None
    path = Path(found.exported)
    assert path == Path(found.preset).with_suffix(".json")
    graph = checked(path.read_text())
    prompt = next(node["inputs"]["text"] for node in graph.values() if node["class_type"] == "CLIPTextEncode")
    expected = sample(tiny(), found.pick.schedule, tiny().encode([prompt]), [0], (32, 32))
    assert_same(Interpreter(graph, tiny()).latents(), expected)


def test_all_that_it_evaluated_is_carried(found: StudyResult) -> None:
    known = models.blueprint("tiny")
    preset = presets.load(found.preset)
    for candidate in found.evaluated:
        other = preset.model_copy(update={"schedule": candidate.schedule})
        assert exporters.load("comfyui").refusal(other, known, ExportOptions()) is None
    labels = {candidate.label for candidate in found.evaluated}
    assert any(label.startswith("ralu") for label in labels)
    assert not any(label.startswith("bottleneck") for label in labels)  # resized by Lanczos' kernel


def test_the_target_is_part_of_the_study_and_of_its_presets(found: StudyResult, tmp_path: Path) -> None:
    study = open_study(str(Path(found.preset).parents[1]), found.study)
    assert study.settings.for_target == study.identity["for"] == "comfyui"
    provenance = presets.load(found.preset).provenance
    assert provenance is not None
    assert provenance.target == "comfyui"
    changed = settings_of(tmp_path, for_target="diffusers", out=str(study.path.parent))
    with pytest.raises(UserError, match="started with another `for`"):
        search(changed, resume=True)


def test_a_search_for_nothing_in_particular_says_nothing_of_it(tmp_path: Path) -> None:
    plan = make_plan(settings_of(tmp_path, for_target=None))
    assert "for_target" not in json.loads(plan.settings.model_dump_json())
    assert "for" not in plan.identity


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"for_target": "comfy"}, "Unknown format 'comfy'. Did you mean 'comfyui'"),
        ({"model": "sana"}, "A search for comfyui cannot be run with sana: ComfyUI cannot carry this preset"),
        ({"model": "ltx2", "for_target": "diffusers"}, "A search for diffusers cannot be run with ltx2: "),
        (
            {"start": ("bottleneck-flux-3x",)},
            "cannot start from 'bottleneck-flux-3x': ComfyUI cannot carry stage 2",
        ),
    ],
)
def test_what_cannot_be_searched_is_one_line(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        make_plan(settings_of(tmp_path, prompts=None, objectives=("psnr",), **changes))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_space_of_which_nothing_is_carried_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Cached:
        def __init__(self, *args: Any):
            pass

        def suggest(self, trial: Any) -> Schedule:
            return Schedule(stages=(Stage(sigmas=(1, 0.5, 0)),), cache={"kind": "taylorseer"})

        def params_of(self, schedule: Schedule) -> dict[str, Any]:
            raise ValueError("it is not in the space")

    monkeypatch.setattr(search_spaces._REGISTRY, "load", lambda name: Cached)
    with pytest.raises(UserError, match="that the space 'free' drew, comfyui carries none"):
        search(settings_of(tmp_path))


@pytest.mark.parametrize("name", loadable())
@pytest.mark.parametrize("target", exporters.available())
def test_most_of_what_a_space_draws_for_a_target_is_carried(name: str, target: str) -> None:
    known = models.blueprint("tiny")
    budget = parse_budget("3x", price(known.baseline(), known), known, known.size, lambda: None)
    preset = presets.load("swd-tiny-4")

    def carries(schedule: Schedule) -> bool:
        changed = preset.model_copy(update={"schedule": schedule})
        return exporters.load(target).refusal(changed, known, ExportOptions()) is None

    space, rng = search_spaces.load(name, known, known.size, budget, carries), Random(0)
    drawn = [space.suggest(Draw(rng)) for _ in range(20)]
    assert sum(map(carries, drawn)) > 5
