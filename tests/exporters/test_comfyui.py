"""Exported workflows give our sampler's latents, run by an interpreter of ComfyUI's nodes, or are refused."""

from __future__ import annotations

import functools
from dataclasses import fields, replace
from typing import Any

import optuna
import pytest
import torch

import search_spaces
from tests.exporters.comfyui_interpreter import Interpreter
from tests.exporters.comfyui_nodes import checked
from tests.exporters.own_grid import with_euler
from tests.search_spaces.anchored import loadable
from tests.small_flux import small_flux
from tests.small_pipelines import shortened, small_pipeline
from tuner import exporters, models, presets, solvers
from tuner.budget import parse_budget
from tuner.errors import UserError
from tuner.exporters import ExportOptions, RefusedError
from tuner.exporters._comfyui_families import FAMILIES
from tuner.flops import price
from tuner.lora import applied
from tuner.models import wrap
from tuner.models._pipeline_model import PipelineModel
from tuner.models.flux import TwoPassFluxBlueprint
from tuner.presets import Preset
from tuner.sampling import sample
from tuner.schedule import Schedule, Stage
from tuner.tiny import PIPELINE_FOLDER

COMFYUI = exporters.load("comfyui")
PROMPT, SEED = "a red fox", 7
UNETS = {1: ("one",), 2: ("high", "low")}


def preset_of(schedule: Schedule, size: tuple[int, int], **more: Any) -> Preset:
    return Preset(name="x", model="x", source="x", height=size[0], width=size[1], schedule=schedule, **more)


def run(model: PipelineModel, preset: Preset) -> torch.Tensor:
    """Exports, checks the graph against the nodes' signatures, and runs it."""
    networks = list(dict.fromkeys((model.network(1.0), model.network(0.0))))
    names = UNETS[len(networks)]
    options = ExportOptions(prompt=PROMPT, seed=SEED, unet=names)
    graph = checked(COMFYUI.export(preset, model.blueprint, options))
    with torch.inference_mode():
        return Interpreter(graph, model, dict(zip(names, networks, strict=True))).latents()


def check(model: PipelineModel, preset: Preset) -> None:
    size = preset.height, preset.width
    with applied(model, preset.model_options):
        made = run(model, preset)
        expected = sample(model, preset.schedule, model.encode([PROMPT]), [SEED], size)
    assert expected.std() > 0.1
    assert_same(made, expected)


def assert_same(made: torch.Tensor, expected: torch.Tensor) -> None:
    """Asserts that latents differ by no more than 1e-5 of the largest of them, which is what rounding leaves."""
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5 * max(1.0, float(expected.abs().max())))


@functools.cache
def tiny() -> PipelineModel:
    from diffusers import FluxPipeline

    made = models.blueprint("tiny").wrap(FluxPipeline.from_pretrained(PIPELINE_FOLDER))
    assert isinstance(made, PipelineModel)
    return made


def small(pipeline: str, **build: Any) -> PipelineModel:
    if pipeline == TWO_PASS:
        pipe = small_flux(guidance_embeds=False)
        known = wrap(pipe).blueprint
        values = {field.name: getattr(known, field.name) for field in fields(known)}
        made = TwoPassFluxBlueprint(**values | {"guidance": 3.0}).wrap(pipe)
        assert isinstance(made, PipelineModel)
        return made
    module = small_pipeline(pipeline)
    pipe = module.build(**build)
    made = shortened(wrap(pipe).blueprint, module).wrap(pipe)
    assert isinstance(made, PipelineModel)
    return made


TWO_PASS = "FluxPipeline in two passes"
STAGED = Schedule(
    stages=(
        Stage(scale=0.5, sigmas=(1, 0.9, 0.75, 0.6), reuse=(2,)),
        Stage(sigmas=(0.85, 0.5, 0.3), resample="torch-bicubic"),
        Stage(sigmas=(0.3, 0.2)),
        Stage(scale=0.5, sigmas=(0.7, 0.2, 0), resample="area"),
        Stage(sigmas=(0.4, 0), resample="nearest"),
    )
)
HEUN = Schedule(stages=(Stage(sigmas=(1, 0.8, 0.5)), Stage(sigmas=(0.6, 0.2, 0))), solver="heun")
MIXED = Schedule(
    stages=(
        Stage(sigmas=(1, 0.9, 0.75, 0.6, 0.5), reuse=(2,), solver="unipc"),
        Stage(sigmas=(0.7, 0.5, 0.3), solver="heun"),
        Stage(sigmas=(0.3, 0.25, 0.2, 0.1, 0.02, 0), solver="ab2"),
    )
)
ONE_SIZE = Schedule(stages=(Stage(sigmas=(1, 0.8, 0.5)), Stage(sigmas=(0.6, 0.2, 0))))


def solved(solver: str) -> Schedule:
    """Few steps in one stage and many in the other: below fifteen, multistep rules end in lower order."""
    many = (*(0.9 - 0.05 * k for k in range(18)), 0)
    first = Stage(scale=0.5, sigmas=(1, 0.8, 0.65, 0.5, 0.4))
    return Schedule(stages=(first, Stage(sigmas=many, resample="nearest")), solver=solver)


def guided(known: Any) -> Schedule:
    """Guidance of its own in one stage and, where there are two passes, in a part of the other alone."""
    interval = {"guide": (0.9, 0.3)} if known.passes > 1 else {}
    stages = (
        Stage(sigmas=(1, 0.95, 0.92, 0.6, 0.4, 0.2, 0), **interval),
        Stage(sigmas=(0.9, 0.5, 0.2, 0), guidance=1.5 * known.guidance, solver="heun"),
        Stage(sigmas=(0.95, 0.7, 0.4, 0.25, 0.1, 0), solver="dpmpp-2m", **interval),
    )
    return Schedule(stages=stages)


@pytest.mark.parametrize("pipeline", FAMILIES)
def test_every_family_gives_our_samplers_latents(pipeline: str) -> None:
    model = with_euler(small(pipeline))
    if FAMILIES[pipeline].guidance == "rescaled":
        with pytest.raises(RefusedError, match=r"stage 1 .*norm of guided velocities"):
            run(model, preset_of(ONE_SIZE, (64, 96)))
        model = replace(model.blueprint, guidance=1.0).wrap(model.pipe)
    check(model, preset_of(HEUN, (64, 96)))
    check(model, preset_of(MIXED, (64, 96)))
    if FAMILIES[pipeline].patches:
        check(model, preset_of(ONE_SIZE, (64, 96)))
        with pytest.raises(RefusedError, match=r"stage 2 .*patches"):
            run(model, preset_of(STAGED, (64, 96)))
    else:
        check(model, preset_of(STAGED, (64, 96)))


@pytest.mark.parametrize("pipeline", FAMILIES)
def test_a_stages_own_guidance_is_the_samplers(pipeline: str) -> None:
    model = with_euler(small(pipeline))
    preset = preset_of(guided(model.blueprint), (64, 96))
    if FAMILIES[pipeline].guidance == "rescaled":
        with pytest.raises(RefusedError, match=r"stage 1 .*norm of guided velocities"):
            run(model, preset)
        return
    check(model, preset)


@pytest.mark.parametrize("solver", [name for name in solvers.available() if not solvers.draws_noise(name)])
def test_every_rule_without_noise_is_the_samplers(solver: str) -> None:
    check(tiny(), preset_of(solved(solver), (64, 64)))


def test_a_rule_without_corrections_is_one_sampler() -> None:
    """Two steps to 0 are Euler's by every rule that looks back: the first has nothing there, the last is to 0."""
    schedule = Schedule(stages=(Stage(sigmas=(1, 0.5, 0)),), solver="dpmpp-2m")
    graph = checked(COMFYUI.export(preset_of(schedule, (64, 64)), tiny().blueprint, ExportOptions()))
    assert sum(node["class_type"] == "SamplerCustomAdvanced" for node in graph.values()) == 1


@pytest.mark.parametrize(
    ("schedule", "reason"),
    [
        (solved("euler-ancestral"), "stage 1 .*draws noise"),
        (
            Schedule(stages=(Stage(sigmas=(1, 0.6, 0), guide=(0.8, 0)),), solver="heun"),
            "stage 1 .*'heun' to sigma 0.6 asks at both sides of a change of guidance",
        ),
        (Schedule(stages=(Stage(sigmas=(1, 0.6, 0), guidance=120),)), "stage 1 .*guidance 120 is above"),
    ],
)
def test_rules_and_guidance_that_are_refused(schedule: Schedule, reason: str) -> None:
    known = models.blueprint("sd3.5-medium")
    with pytest.raises(RefusedError, match=reason):
        COMFYUI.export(preset_of(schedule, (64, 64)), known, ExportOptions())


def test_two_experts_share_a_stage() -> None:
    model = with_euler(small("WanPipeline", boundary_ratio=0.7))
    model = replace(model.blueprint, low_guidance=3.0).wrap(model.pipe)
    own = Stage(sigmas=(1, 0.95, 0.8, 0.6, 0.4, 0.2, 0), guide=(0.9, 0.3), guidance=4.0, solver="ab2")
    for schedule in (STAGED, solved("unipc"), Schedule(stages=(own,))):
        check(model, preset_of(schedule, (64, 96)))
    with pytest.raises(RefusedError, match=r"stage 1 .*to sigma 0\.5 asks .*its two networks"):
        run(model, preset_of(HEUN, (64, 96)))


@pytest.mark.parametrize("name", presets.available())
def test_shipped_presets_on_small_networks(name: str) -> None:
    """Runs a preset's stages at an eighth of its size on a small network of its model's family, or is refused."""
    preset = presets.load(name)
    family = models.blueprint(preset.model).pipeline_class
    model = tiny() if family == "FluxPipeline" else small(family)
    guidance = preset.model_options.guidance if preset.model_options else None
    if guidance is not None and model.blueprint.guidance is not None:
        model = replace(model.blueprint, guidance=guidance).wrap(model.pipe)
    smaller = preset if preset.model == "tiny" else preset_of(preset.schedule, (128, 128))
    refusal = COMFYUI.refusal(smaller, model.blueprint, ExportOptions())
    if refusal is None:
        check(model, smaller)
    else:
        assert refusal.startswith("ComfyUI cannot carry")
    assert (refusal is None) == (name.startswith(("swd-flux", "swd-sd3", "swd-tiny", "ralu", "oss-flux")))


class Network:
    dtype = torch.float32


NETWORK = Network()


class Stub(PipelineModel):
    """`tiny` with a network that is a few shifts and a tanh: mixes pixels, costs nothing."""

    def encode_text(self, prompts: list[str], negative: bool) -> dict[str, torch.Tensor]:
        return {"tokens": torch.zeros(len(prompts), 1, 1)}

    def network(self, sigma: float) -> Any:
        return NETWORK


def stub() -> PipelineModel:
    class StubBlueprint(type(tiny().blueprint)):  # type: ignore[misc]
        model_class = Stub

        def forward(self, transformer: Any, x: torch.Tensor, sigma: float, text: Any) -> torch.Tensor:
            return torch.tanh(x.roll(1, -1) - x.roll(1, -2).roll(1, -3) + 2 * sigma) + 0.3 * x

    model: PipelineModel = StubBlueprint(
        **{field.name: getattr(tiny().blueprint, field.name) for field in fields(tiny().blueprint)}
    ).wrap(tiny().pipe)
    return model


@pytest.mark.parametrize("name", loadable())
def test_200_random_schedules_of_every_space(name: str) -> None:
    model = stub()
    known, size = models.blueprint("tiny"), (64, 64)
    budget = parse_budget("3x", price(known.baseline(), known), known, size, lambda: None)
    space = search_spaces.load(name, known, size, budget)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    carried = 0
    for _ in range(200):
        preset = preset_of(space.suggest(study.ask()), size)
        if COMFYUI.refusal(preset, model.blueprint, ExportOptions(unet=UNETS[1])):
            continue
        made = run(model, preset)
        expected = sample(model, preset.schedule, model.encode([PROMPT]), [SEED], size)
        assert_same(made, expected)
        carried += 1
    assert carried > 40


@pytest.mark.parametrize(
    ("stage", "reason"),
    [
        ({"resample": "lanczos"}, "stage 2 .*no kernel 'lanczos'.*--substitute bicubic"),
        ({"resample": "pixel"}, "stage 2 .*8 bits.*--substitute pixel"),
        ({"scale": 0.25, "resample": "bilinear"}, "stage 2 .*does not average"),
        ({"amplitudes": ((-1, 1), (-1, 1))}, "stage 2 .*no 'amplitudes'"),
    ],
)
def test_refusals_name_stage_reason_and_remedy(stage: dict[str, Any], reason: str) -> None:
    middle = Stage(**({"sigmas": (0.6, 0.3, 0)} | stage))
    schedule = Schedule(stages=(Stage(scale=0.5, sigmas=(1, 0)), middle, Stage(sigmas=(0.5, 0), resample="area")))
    with pytest.raises(RefusedError, match=reason):
        run(tiny(), preset_of(schedule, (64, 64)))


def test_a_cache_is_refused() -> None:
    schedule = Schedule(stages=(Stage(sigmas=(1, 0.5, 0)),), cache={"kind": "taylorseer"})
    with pytest.raises(RefusedError, match=r"this preset .*no 'cache'"):
        run(tiny(), preset_of(schedule, (64, 64)))


@pytest.mark.parametrize(("substitute", "node"), [("bislerp", "LatentUpscaleBy"), ("pixel", "ImageScale")])
def test_a_substitute_is_marked_as_not_scored(substitute: str, node: str) -> None:
    preset = presets.load("bottleneck-flux-3x")
    options = ExportOptions(substitute=substitute)
    graph = checked(COMFYUI.export(preset, models.blueprint("flux"), options))
    titles = [one["_meta"]["title"] for one in graph.values() if one["class_type"] == node]
    assert titles == [f"not scored: {substitute} in the place of lanczos"] * 2
    saved = next(one for one in graph.values() if one["class_type"] == "SaveImage")
    assert "not scored" in saved["_meta"]["title"]


def test_a_super_resolution_network_enlarges_before_the_resizing() -> None:
    stages = Stage(scale=0.5, sigmas=(1, 0)), Stage(sigmas=(0.1, 0), resample="pixel", upscaler="nets/x2.pth")
    options = ExportOptions(substitute="pixel")
    graph = checked(COMFYUI.export(preset_of(Schedule(stages=stages), (64, 64)), tiny().blueprint, options))
    loader = next(one for one in graph.values() if one["class_type"] == "UpscaleModelLoader")
    assert loader["inputs"]["model_name"] == "x2.pth"


def test_file_names_are_the_users() -> None:
    options = ExportOptions(unet=("a",), clip=("b", "c"), vae="d", lora="e", prompt='"quoted" 狐')
    graph = checked(COMFYUI.export(presets.load("swd-flux-4"), models.blueprint("flux"), options))
    given = {name: value for node in graph.values() for name, value in node["inputs"].items()}
    names = "unet_name", "clip_name1", "clip_name2", "vae_name", "lora_name", "text"
    assert [given[name] for name in names] == ["a", "b", "c", "d", "e", '"quoted" 狐']
    with pytest.raises(UserError, match="one file for --unet, but got 2; give --unet once"):
        COMFYUI.export(presets.load("swd-flux-4"), models.blueprint("flux"), ExportOptions(unet=("a", "b")))
    with pytest.raises(UserError, match="needs no LoRA"):
        COMFYUI.export(presets.load("ralu-flux-4x"), models.blueprint("flux"), options)
    with pytest.raises(UserError, match="--substitute takes one of"):
        COMFYUI.export(presets.load("swd-flux-4"), models.blueprint("flux"), ExportOptions(substitute="dct"))
