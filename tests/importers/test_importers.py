"""What other tools have becomes the preset that does the same, or one line."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.exporters.own_grid import euler_blueprint
from tests.exporters.test_comfyui import HEUN, ONE_SIZE, STAGED, preset_of
from tuner import exporters, importers, models, presets
from tuner.cli.main import main
from tuner.errors import UserError
from tuner.exporters import ExportOptions
from tuner.models import Blueprint
from tuner.presets import Preset
from tuner.schedule import Schedule, Stage

CARRIED = ["ralu-flux-4x", "ralu-flux-7x", "swd-flux-4", "swd-sd3.5-large-6", "swd-sd3.5-medium-4"]
OF_FLUX = {"staged": STAGED, "heun": HEUN, "one size": ONE_SIZE}


def workflow_of(preset: Preset, known: Blueprint | None = None, **options: Any) -> dict[str, Any]:
    known = known or models.blueprint("flux")
    if preset.model_options:
        known = known.with_options(preset.model_options)
    text = exporters.load("comfyui").export(preset, known, ExportOptions(**options))
    graph: dict[str, Any] = json.loads(text)
    return graph


def written(folder: Path, data: Any, name: str = "x.json") -> Path:
    path = folder / name
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return path


def assert_same(made: Schedule, expected: Schedule) -> None:
    """Compares levels to nine decimals, and what runs of the rest; a silent start of its own is the same stage."""
    assert made.solver == expected.solver
    assert len(made.stages) == len(expected.stages)
    for index, (ours, theirs) in enumerate(zip(made.stages, expected.stages, strict=True)):
        assert ours.sigmas == pytest.approx(theirs.sigmas, abs=2e-9)
        assert ours.scale == pytest.approx(theirs.scale, abs=1e-6)
        if index and made.stages[index - 1].scale != ours.scale:
            assert ours.resample == theirs.resample


@pytest.mark.parametrize("name", CARRIED)
def test_an_exported_workflow_comes_back(name: str, tmp_path: Path) -> None:
    preset = presets.load(name)
    path = written(tmp_path, workflow_of(preset, models.blueprint(preset.model)))
    made = importers.read(path)
    assert made.model == preset.model
    assert (made.height, made.width) == (preset.height, preset.width)
    assert_same(made.schedule, preset.schedule)
    if preset.model_options and preset.model_options.lora:
        assert made.model_options is not None
        assert made.model_options.lora == preset.model_options.lora.rpartition("/")[2] + ".safetensors:1"


@pytest.mark.parametrize("name", OF_FLUX)
def test_early_ends_and_noise_between_levels_come_back(name: str, tmp_path: Path) -> None:
    """What is exported of an imported workflow is that workflow."""
    graph = workflow_of(preset_of(OF_FLUX[name], (1024, 1024)))
    made = importers.read(written(tmp_path, graph))
    again = workflow_of(made)

    def sampled(nodes: dict[str, Any]) -> list[Any]:
        kinds = ("ManualSigmas", "ModelNoiseScale", "LatentUpscaleBy", "RandomNoise")
        found = [node["inputs"] for node in nodes.values() if node["class_type"] in kinds]
        return [value for inputs in found for value in inputs.values() if isinstance(value, float | str)]

    assert sampled(again) == sampled(graph)
    assert len(made.schedule.stages) == len(OF_FLUX[name].stages)


def test_stages_that_go_on_silently_are_one_where_no_title_tells_them_apart(tmp_path: Path) -> None:
    graph = workflow_of(preset_of(STAGED, (1024, 1024)))
    for node in graph.values():
        node.pop("_meta", None)
    stages = importers.read(written(tmp_path, graph)).schedule.stages
    assert [stage.sigmas[0] for stage in stages] == [1, 0.85, 0.7, 0.4]
    assert stages[1].sigmas == (0.85, 0.5, 0.3, 0.2)


def test_a_wan_stage_of_two_experts_comes_back_as_one(tmp_path: Path) -> None:
    known = euler_blueprint(models.blueprint("wan2.2"))
    preset = preset_of(Schedule(stages=(Stage(sigmas=(1, 0.9, 0.5, 0)),)), known.size)
    graph = workflow_of(preset, known)
    assert sum(node["class_type"] == "SamplerCustomAdvanced" for node in graph.values()) == 2
    made = importers.read(written(tmp_path, graph), known)
    assert (made.schedule, made.model_options) == (preset.schedule, None)
    for node in graph.values():
        if node["class_type"] == "CFGGuider":
            node["inputs"]["cfg"] = 4.0
    alike = importers.read(written(tmp_path, graph), known)
    assert [stage.guidance for stage in alike.schedule.stages] == [4.0]  # as an option it is the first network's
    for node in graph.values():
        if node["class_type"] == "ManualSigmas":
            node["inputs"]["sigmas"] = node["inputs"]["sigmas"].replace("0.5", "0.88")
    with pytest.raises(UserError, match=r"number \d+\) asks another network at sigma 0.88 .*below 0.875"):
        importers.read(written(tmp_path, graph), known)


def test_guidance_and_solvers_of_stages_come_back(tmp_path: Path) -> None:
    known = models.blueprint("sd3.5-medium")
    first = Stage(scale=0.5, sigmas=(1, 0.8, 0.5, 0), guidance=2.0, solver="heun")
    second = Stage(sigmas=(0.7, 0.6, 0.4, 0.2, 0), resample="nearest", guide=(0.65, 0.3))
    graph = workflow_of(preset_of(Schedule(stages=(first, second)), known.size), known)
    made = importers.read(written(tmp_path, graph), known)
    again = second.model_copy(update={"guidance": known.guidance, "guide": (0.6, 0.2)})
    assert made.model_options is None
    assert made.schedule.stages == (first, again)


def test_a_model_of_two_passes_that_makes_one_comes_back_without_guidance(tmp_path: Path) -> None:
    known = models.blueprint("sd3.5-medium")
    schedule = Schedule(stages=(Stage(sigmas=(1, 0.5, 0)),))
    graph = workflow_of(preset_of(schedule, known.size), replace(known, guidance=1.0))
    made = importers.read(written(tmp_path, graph), known)
    assert made.schedule == schedule
    assert made.model_options is not None
    assert made.model_options.guidance == 1


def test_an_image_that_comfyui_saved_holds_its_workflow(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("prompt", json.dumps(workflow_of(presets.load("ralu-flux-4x"))))
    path = tmp_path / "saved.png"
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    assert_same(importers.read(path).schedule, presets.load("ralu-flux-4x").schedule)
    Image.new("RGB", (8, 8)).save(path)
    with pytest.raises(UserError, match="holds no workflow"):
        importers.read(path)


def ksampler(**changes: Any) -> dict[str, Any]:
    sampler = {
        "model": ["1", 0],
        "seed": 3,
        "steps": 4,
        "cfg": 1.0,
        "sampler_name": "euler",
        "scheduler": "simple",
        "positive": ["3", 0],
        "negative": ["3", 0],
        "latent_image": ["4", 0],
        "denoise": 1.0,
    }
    nodes: dict[str, tuple[str, dict[str, Any]]] = {
        "1": ("UNETLoader", {"unet_name": "a", "weight_dtype": "default"}),
        "2": ("DualCLIPLoader", {"clip_name1": "a", "clip_name2": "b", "type": "flux"}),
        "3": ("CLIPTextEncode", {"text": "fox", "clip": ["2", 0]}),
        "4": ("EmptySD3LatentImage", {"width": 768, "height": 512, "batch_size": 1}),
        "5": ("KSampler", sampler | changes),
        "6": ("VAEDecode", {"samples": ["5", 0], "vae": ["9", 0]}),
        "7": ("SaveImage", {"images": ["6", 0], "filename_prefix": "x"}),
        "8": ("ModelSamplingAuraFlow", {"model": ["1", 0], "shift": 2.0}),
    }
    return {number: {"class_type": kind, "inputs": inputs} for number, (kind, inputs) in nodes.items()}


@pytest.mark.parametrize(("model", "shift"), [(["1", 0], math.exp(1.15)), (["8", 0], 2.0)])
def test_ksamplers_simple_scheduler_is_the_models_shifted_levels(model: Any, shift: float, tmp_path: Path) -> None:
    made = importers.read(written(tmp_path, ksampler(model=model)))
    plain = [shift * u / (1 + (shift - 1) * u) for u in (1, 0.75, 0.5, 0.25, 0)]
    assert made.schedule.stages[0].sigmas == pytest.approx(plain)
    assert (made.height, made.width) == (512, 768)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"scheduler": "beta"}, "scheduler 'beta' is not read"),
        ({"sampler_name": "dpmpp_2m_sde"}, "sampler 'dpmpp_2m_sde'"),
        ({"denoise": 0.5}, r"first sigma must be 1"),
        ({"latent_image": ["2", 0]}, r"node 'DualCLIPLoader' \(number 2\) is not known"),
        ({"latent_image": ["77", 0]}, "a node lacks an input, or its links run in a circle"),
        ({"latent_image": ["5", 0]}, "a node lacks an input, or its links run in a circle"),
    ],
)
def test_what_no_preset_does_is_one_line(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    path = written(tmp_path, ksampler(**changes))
    with pytest.raises(UserError, match=reason) as raised:
        importers.read(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("levels", ["", "1", "1, 1", "0.5, 0, 0", "14.6, 3, 0", "1, 0.5, 0.7, 0"])
def test_levels_that_do_not_fall_name_the_node(levels: str, tmp_path: Path) -> None:
    graph = workflow_of(presets.load("ralu-flux-4x"))
    for node in graph.values():
        if node["class_type"] == "ManualSigmas":
            node["inputs"]["sigmas"] = levels
    with pytest.raises(UserError, match=r"\(number \d+\) has levels that do not fall"):
        importers.read(written(tmp_path, graph))


@pytest.mark.parametrize("node", [{"class_type": "KSampler"}, {"class_type": "KSampler", "inputs": []}])
def test_nodes_without_inputs_are_no_workflow(node: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a workflow"):
        importers.read(written(tmp_path, {"1": node}))


def added_to(graph: dict[str, Any], kind: str, **inputs: Any) -> dict[str, Any]:
    """Puts a node between the last sampler and the decoder."""
    decoder = next(node for node in graph.values() if node["class_type"] == "VAEDecode")
    last = decoder["inputs"]["samples"]
    links = {name: last if value == "LAST" else value for name, value in inputs.items()}
    decoder["inputs"]["samples"] = ["900", 0]
    return graph | {"900": {"class_type": kind, "inputs": links}}


@pytest.mark.parametrize(
    ("kind", "inputs", "reason"),
    [
        ("LatentMultiply", {"samples": "LAST", "multiplier": 1.1}, "takes a latent that was multiplied by 1.1"),
        ("LatentAdd", {"samples1": "LAST", "samples2": "LAST"}, "takes a latent that was multiplied by 2"),
        ("LatentBlend", {"samples1": "LAST", "samples2": "LAST"}, r"'LatentBlend' \(number 900\) is not known"),
    ],
)
def test_latents_that_no_stage_ends_with_name_the_node(
    kind: str, inputs: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    graph = added_to(workflow_of(presets.load("ralu-flux-4x")), kind, **inputs)
    with pytest.raises(UserError, match=reason):
        importers.read(written(tmp_path, graph))


def test_sums_that_no_rule_makes_name_the_node(tmp_path: Path) -> None:
    stages = (Stage(sigmas=(1, 0.8, 0.6, 0.4, 0.2, 0), solver="dpmpp-2m"),)
    graph = workflow_of(preset_of(Schedule(stages=stages), (1024, 1024)))
    first = next(node for node in graph.values() if node["class_type"] == "LatentMultiply")
    first["inputs"]["multiplier"] *= 1.01
    with pytest.raises(UserError, match=r"'SamplerCustomAdvanced' \(number \d+\) and the latents that are added"):
        importers.read(written(tmp_path, graph))


def test_noise_that_does_not_keep_the_level_is_refused(tmp_path: Path) -> None:
    graph = workflow_of(presets.load("ralu-flux-4x"))
    for node in graph.values():
        if node["class_type"] == "ModelNoiseScale":
            node["inputs"]["noise_scale"] = 1.0
    with pytest.raises(UserError, match=r"adds 1 of the noise, where 0\.\d+ leads from sigma 0\.\d+ to 0\.\d+"):
        importers.read(written(tmp_path, graph))


@pytest.mark.parametrize("side", ["height", "width"])
def test_a_latent_without_pixels_is_refused(side: str, tmp_path: Path) -> None:
    graph = workflow_of(presets.load("swd-flux-4"))
    for node in graph.values():
        if side in node["inputs"]:
            node["inputs"][side] = 0
    with pytest.raises(UserError, match="gives a latent without pixels"):
        importers.read(written(tmp_path, graph))


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("1.0, 0.8, 0.5, 0.2, 0.0", (1, 0.8, 0.5, 0.2, 0)),
        ("[1.0, 0.6509, 0.4374]", (1, 0.6509, 0.4374, 0)),
        ("1.0\n0.5\n0\n", (1, 0.5, 0)),
    ],
)
def test_a_list_of_sigmas_as_people_paste_it(text: str, levels: tuple[float, ...], tmp_path: Path) -> None:
    made = importers.read(written(tmp_path, text, "list.txt"), models.blueprint("flux"))
    assert made.schedule.stages[0].sigmas == levels
    assert (made.model, made.height) == ("flux", 1024)


def test_lists_of_ratios_are_those_of_noise_predicting_models(tmp_path: Path) -> None:
    shipped = presets.load("ays-sdxl-10")
    text = exporters.load("sigmas").export(shipped, models.blueprint("sdxl"), ExportOptions(text=True))
    path = written(tmp_path, text, "ays.txt")
    made = importers.read(path, models.blueprint("sdxl"))
    assert made.schedule.stages[0].sigmas == pytest.approx(shipped.schedule.stages[0].sigmas, abs=1e-9)
    with pytest.raises(UserError, match="ratios of noise to image"):
        importers.read(path, models.blueprint("flux"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("one, two", "no list of numbers"),
        ('{"a": 1}', "neither a workflow"),
        ('{"nodes": [], "links": []}', r"Export \(API\)"),
        ("0.97, 0.5, 0", "first sigma must be 1"),
        ("1, 0.5, 0.7, 0", "strictly decrease"),
    ],
)
def test_other_files_are_one_line(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=reason):
        importers.read(written(tmp_path, text), models.blueprint("flux"))


def test_neutral_json_comes_back(tmp_path: Path) -> None:
    preset = presets.load("swd-flux-4")
    made = importers.read(written(tmp_path, exporters.load("sigmas").export(preset, None, ExportOptions())))
    assert_same(made.schedule, preset.schedule)
    assert made.model_options == preset.model_options


@pytest.mark.parametrize("model", ["flux", "sd3.5-medium", "sdxl"])
def test_a_schedulers_configuration_is_the_models_own_grid(model: str, tmp_path: Path) -> None:
    known = models.blueprint(model)
    kind = "EulerDiscreteScheduler" if model == "sdxl" else "FlowMatchEulerDiscreteScheduler"
    path = written(tmp_path, {"_class_name": kind, **known.scheduler})
    made = importers.read(path, known, (512, 768), 7)
    assert made.schedule == known.plain(7, (512, 768))
    assert (made.height, made.width) == (512, 768)
    with pytest.raises(UserError, match="name it with --model"):
        importers.read(path)
    other = written(tmp_path, {"_class_name": "LMSDiscreteScheduler"})
    with pytest.raises(UserError, match=f"LMSDiscreteScheduler is not read for {model}"):
        importers.read(other, known)


def test_the_command_writes_a_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, "1, 0.5, 0", "mine.txt")
    main(["import", str(path), "-o", str(tmp_path / "mine.yaml"), "--model", "tiny"])
    assert presets.load(tmp_path / "mine.yaml").schedule.stages[0].sigmas == (1, 0.5, 0)
    assert capsys.readouterr().out.strip().endswith("mine.yaml")
