"""Exported scripts give our sampler's latents in a process that cannot import `tuner`."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline

from tests.exporters.own_grid import with_euler
from tests.small_flux import small_flux
from tests.small_pipelines import families, shortened, small_pipeline
from tuner import exporters, models, presets, solvers
from tuner.exporters import ExportOptions, RefusedError
from tuner.feature_cache import FirstBlockCache, MagCache, PyramidAttentionBroadcast, TaylorSeerCache
from tuner.lora import applied
from tuner.models import FlowModel, wrap
from tuner.models._packed import unpack_2x2
from tuner.presets import Preset
from tuner.sampling import sample, stage_seeds
from tuner.schedule import Schedule, Stage
from tuner.tiny import PIPELINE_FOLDER

DIFFUSERS = exporters.load("diffusers")
PROMPT, SEED = "a red fox", 7
SIZES = {"SanaPipeline": (64, 128), "WanPipeline": (64, 96)}
"""Sizes whose halves these pipelines take; the others take halves of 48x80."""
FAMILIES = sorted(set(families()) - {"LTX2Pipeline"})
SCHEDULED = [(name, "own") for name in FAMILIES] + [(name, "euler") for name in ("SanaPipeline", "WanPipeline")]
"""Families with their own schedulers and, where those round timesteps, with the one that does not."""

DRIVER = """
import importlib.abc, importlib.util, json, sys

class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tuner":
            raise ImportError("tuner is hidden")

sys.meta_path.insert(0, Hidden())
try:
    import tuner
except ImportError:
    pass
else:
    raise SystemExit("tuner is not hidden")

import diffusers, torch

torch.set_num_threads(1)
for file, attributes in json.loads(sys.argv[1]):
    spec = importlib.util.spec_from_file_location("script", file)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    pipe = diffusers.DiffusionPipeline.from_pretrained(script.MODEL)
    pipe.set_progress_bar_config(disable=True)
    vars(pipe).update(attributes)
    if hasattr(script, "LORA"):
        script.load_lora(pipe)
    torch.save(script.generate(pipe, sys.argv[2], int(sys.argv[3]), output_type="latent")[0], file + ".pt")
"""

STAGED = Schedule(
    stages=(
        Stage(scale=0.5, sigmas=(1, 0.9, 0.75, 0.6), reuse=(2,)),
        Stage(sigmas=(0.85, 0.5, 0.3), resample="lanczos"),
        Stage(scale=0.5, sigmas=(0.7, 0.2, 0), resample="area"),
        Stage(sigmas=(0.4, 0), resample="torch-bicubic"),
    )
)


def staged(kernel: str, **more: Any) -> Schedule:
    stages = (Stage(scale=0.5, sigmas=(1, 0.8, 0)), Stage(sigmas=(0.6, 0.2, 0), resample=kernel))
    return Schedule(stages=stages, **more)


LEVELS = (1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0)
CACHES = [
    FirstBlockCache(kind="first_block", threshold=0.5),
    TaylorSeerCache(kind="taylorseer", interval=2, warmup=2),
    TaylorSeerCache(kind="taylorseer", interval=2, warmup=2, lite=True),
    MagCache(kind="mag", ratios=((1.0, 1.0), (0.5, 0.99)), threshold=0.1),
    PyramidAttentionBroadcast(kind="pab"),
]
OF_FLUX = {
    **{kernel: staged(kernel) for kernel in ("nearest", "bilinear", "bicubic", "pixel")},
    "dct": Schedule(stages=(Stage(scale=0.5, sigmas=(1, 0.6)), Stage(sigmas=(0.75, 0.3, 0), resample="dct"))),
    "heun": Schedule(stages=(Stage(scale=0.5, sigmas=(1, 0.8, 0.5)), Stage(sigmas=(0.6, 0.2, 0))), solver="heun"),
}


MIXED = Schedule(
    stages=(
        Stage(scale=0.5, sigmas=(1, 0.9, 0.75, 0.6, 0.5), reuse=(2,), solver="unipc"),
        Stage(sigmas=(0.7, 0.5, 0.3), solver="heun", resample="nearest"),
        Stage(sigmas=(0.4, 0.3, 0.2, 0.1, 0), solver="ab2"),
    )
)


def solved(solver: str) -> Schedule:
    """Few steps in one stage and many in the other: below fifteen, multistep rules end in lower order."""
    many = (*(0.9 - 0.05 * k for k in range(18)), 0)
    return Schedule(stages=(Stage(scale=0.5, sigmas=(1, 0.8, 0.65, 0.5, 0.4)), Stage(sigmas=many)), solver=solver)


def guided(blueprint: Any) -> Schedule:
    """Guidance of its own in one stage and, where there are two passes, in a part of the other alone."""
    interval = {"guide": (0.9, 0.3)} if blueprint.passes > 1 else {}
    stages = (
        Stage(scale=0.5, sigmas=(1, 0.8, 0.6, 0.4, 0.2, 0), solver="dpmpp-2m", **interval),
        Stage(sigmas=(0.7, 0.5, 0.2, 0), guidance=1.5 * blueprint.guidance, solver="heun", **interval),
    )
    return Schedule(stages=stages)


def preset_of(schedule: Schedule, size: tuple[int, int]) -> Preset:
    return Preset(name="x", model="x", source="x", height=size[0], width=size[1], schedule=schedule)


def run(script: str, pipe: Any) -> torch.Tensor:
    """Runs a script's ``generate`` where nothing of `tuner` can be imported."""
    names: dict[str, Any] = {"__name__": "script"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tuner", None)
        exec(script, names)
        latents: torch.Tensor = names["generate"](pipe, PROMPT, SEED, output_type="latent")[0]
    return latents


def spatial(made: torch.Tensor, model: FlowModel, size: tuple[int, int]) -> torch.Tensor:
    """Turns what the pipeline returned into latents as `tuner` has them."""
    expected = model.noise(size, [0])
    if made.ndim == 3:
        return unpack_2x2(made, *expected.shape[-2:])
    return made if made.shape == expected.shape else made.transpose(1, 2)


def check(model: FlowModel, pipe: Any, preset: Preset) -> None:
    size = preset.height, preset.width
    expected = sample(model, preset.schedule, model.encode([PROMPT]), [SEED], size)
    script = DIFFUSERS.export(preset, model.blueprint, ExportOptions())
    stock = pipe.scheduler
    made = spatial(run(script, pipe), model, size)
    assert pipe.scheduler is stock
    assert expected.std() > 0.1
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-4)


def small(pipeline: str, scheduler: str) -> tuple[Any, Any, tuple[int, int]]:
    """Returns a small model, its pipeline, and a size that it takes."""
    module = small_pipeline(pipeline)
    pipe = module.build()
    model = shortened(wrap(pipe).blueprint, module).wrap(pipe)
    return with_euler(model) if scheduler == "euler" else model, pipe, SIZES.get(pipeline, (48, 80))


@pytest.mark.parametrize(("pipeline", "scheduler"), SCHEDULED)
def test_a_script_gives_our_samplers_latents(pipeline: str, scheduler: str) -> None:
    model, pipe, size = small(pipeline, scheduler)
    check(model, pipe, preset_of(Schedule(stages=model.blueprint.plain(3, size).stages), size))
    check(model, pipe, preset_of(STAGED, size))
    check(model, pipe, preset_of(MIXED, size))


@pytest.mark.parametrize("boundary", [0.875, 0.8507])
def test_two_networks_change_where_the_samplers_do(boundary: float) -> None:
    """The second network may be asked from a level on that is no whole timestep; both sides of it are here."""
    pipe = small_pipeline("WanPipeline").build(boundary_ratio=boundary)
    model = shortened(wrap(pipe).blueprint, small_pipeline("WanPipeline")).wrap(pipe)
    levels = (1, 0.8755, 0.875, 0.8745, 0.8509, 0.8501, 0.4, 0)
    check(model, pipe, preset_of(Schedule(stages=(Stage(sigmas=levels),)), SIZES["WanPipeline"]))


@pytest.mark.parametrize(("pipeline", "scheduler"), SCHEDULED)
def test_a_stages_own_guidance_is_the_samplers(pipeline: str, scheduler: str) -> None:
    model, pipe, size = small(pipeline, scheduler)
    schedule = guided(model.blueprint)
    if pipeline == "HunyuanVideo15Pipeline":
        with pytest.raises(RefusedError, match=r"stage 1 .*takes no guidance scale"):
            DIFFUSERS.export(preset_of(schedule, size), model.blueprint, ExportOptions())
        return
    check(model, pipe, preset_of(schedule, size))


@pytest.mark.parametrize("solver", [name for name in solvers.available() if not solvers.draws_noise(name)])
def test_every_rule_without_noise_is_the_samplers(solver: str, flux_pipe: Any) -> None:
    check(wrap(flux_pipe), flux_pipe, preset_of(solved(solver), (48, 80)))


@pytest.mark.parametrize("name", OF_FLUX)
def test_kernels_and_solvers_are_the_samplers(name: str, flux_pipe: Any) -> None:
    check(wrap(flux_pipe), flux_pipe, preset_of(OF_FLUX[name], (48, 80)))


@pytest.mark.parametrize("cache", CACHES)
def test_caches_are_the_samplers(cache: Any) -> None:
    stages = Stage(scale=0.5, sigmas=LEVELS), Stage(sigmas=LEVELS[2:])
    pipe, size = small_flux(), (48, 80)
    model = wrap(pipe)
    full = sample(model, Schedule(stages=stages), model.encode([PROMPT]), [SEED], size)
    cached = Schedule(stages=stages, cache=cache)
    assert float((sample(model, cached, model.encode([PROMPT]), [SEED], size) - full).abs().max()) > 1e-3
    check(model, pipe, preset_of(cached, size))


def test_files_run_in_a_process_that_cannot_import_tuner(tmp_path: Path) -> None:
    """Those of `tiny`, and one of every family with its own scheduler, each with the pipeline that it names."""
    tiny = models.blueprint("tiny").wrap(FluxPipeline.from_pretrained(PIPELINE_FOLDER))
    runs = {"swd": (tiny, presets.load("swd-tiny-4")), "mixed": (tiny, preset_of(MIXED, (64, 64)))}
    for pipeline in FAMILIES:
        model, pipe, size = small(pipeline, "own")
        pipe.save_pretrained(tmp_path / pipeline)
        saved = replace(model.blueprint, source=str(tmp_path / pipeline)).wrap(pipe)
        runs[pipeline] = saved, preset_of(STAGED, size)
    files = {name: str(tmp_path / f"{name}.py") for name in runs}
    for name, (model, preset) in runs.items():
        text = DIFFUSERS.export(preset, model.blueprint, ExportOptions())
        Path(files[name]).write_text(text, encoding="utf-8")
    unsaved = {"system_message", "prompt_template_encode_start_idx", "tokenizer_max_length"}
    given = [
        (files[name], {key: value for key, value in vars(model.pipe).items() if key in unsaved})
        for name, (model, _) in runs.items()
    ]
    driven = [sys.executable, "-c", DRIVER, json.dumps(given), PROMPT, str(SEED)]
    subprocess.run(driven, cwd=tmp_path, check=True)
    for name, (model, preset) in runs.items():
        size = preset.height, preset.width
        with applied(model, preset.model_options):
            expected = sample(model, preset.schedule, model.encode([PROMPT]), [SEED], size)
        made = spatial(torch.load(files[name] + ".pt"), model, size)
        torch.testing.assert_close(made, expected, rtol=0, atol=1e-4, msg=lambda text, at=name: f"{at}: {text}")


def snippet_of(preset: Preset, blueprint: Any, **options: Any) -> str:
    return DIFFUSERS.export(preset, blueprint, ExportOptions(snippet=True, prompt=PROMPT, seed=SEED, **options))


def run_snippet(text: str, pipe: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a snippet on a pipeline that is here in the place of the one that it would load; returns latents."""
    loaded: list[Any] = []

    class Loads:
        @staticmethod
        def from_pretrained(source: str, torch_dtype: Any) -> Any:
            return stand_in

    class StandIn:
        def __setattr__(self, name: str, value: Any) -> None:
            setattr(pipe, name, value)

        def to(self, device: str) -> None:
            pass

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            loaded.append(pipe(*args, **kwargs, output_type="latent")[0])
            raise StopIteration

    stand_in = StandIn()
    monkeypatch.setattr(f"diffusers.{type(pipe).__name__}", Loads)
    with pytest.raises(StopIteration):
        exec(text, {})
    return loaded[0]


@pytest.mark.parametrize("pipeline", ["FluxPipeline", "StableDiffusion3Pipeline", "SanaPipeline"])
def test_a_snippet_gives_our_samplers_latents(pipeline: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, pipe, _ = small(pipeline, "euler")
    size = small_pipeline(pipeline).SIZES[1]
    schedule = Schedule(stages=(Stage(sigmas=(1, 0.9, 0.4, 0.3, 0), reuse=(2,)),))
    made = run_snippet(snippet_of(preset_of(schedule, size), model.blueprint), pipe, monkeypatch)
    expected = sample(model, schedule, model.encode([PROMPT]), [SEED], size)
    torch.testing.assert_close(spatial(made, model, size), expected, rtol=0, atol=1e-4)


def test_a_scale_wise_snippet_runs_the_stages_on_noise_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    model, pipe, size = small("StableDiffusion3Pipeline", "own")
    stages = [
        Stage(scale=scale, sigmas=(first, 0), resample="torch-bicubic")
        for scale, first in ((0.5, 1), (0.75, 0.8), (1, 0.6))
    ]
    schedule = Schedule(stages=tuple(stages))
    noises = iter(
        model.noise(model.blueprint.stage_size(size, stage.scale), stage_seeds([SEED], i))
        for i, stage in enumerate(stages)
    )
    last = model.noise(size, [0])
    for module in (
        "schedulers.scheduling_flow_match_lcm",
        "pipelines.stable_diffusion_3.pipeline_stable_diffusion_3",
    ):
        monkeypatch.setattr(f"diffusers.{module}.randn_tensor", lambda *args, **kwargs: next(noises, last))
    made = run_snippet(snippet_of(preset_of(schedule, size), model.blueprint), pipe, monkeypatch)
    expected = sample(model, schedule, model.encode([PROMPT]), [SEED], size)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("schedule", "reason"),
    [
        (staged("torch-bicubic"), "stage 1 .*one size"),
        (Schedule(stages=(Stage(sigmas=(1, 0.5, 0)),), solver="heun"), "stage 1 .*'heun'"),
        (Schedule(stages=(Stage(scale=0.5, sigmas=(1, 0)), Stage(sigmas=(0.5, 0)))), "stage 2 .*'bilinear'"),
        (presets.load("swd-flux-4").schedule, "stage 2 .*packed"),
    ],
)
def test_a_snippet_refuses_what_a_stock_scheduler_does_not_run(schedule: Schedule, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        snippet_of(preset_of(schedule, (1024, 1024)), models.blueprint("flux"))


def test_a_snippet_does_not_round_timesteps() -> None:
    sana = models.blueprint("sana")
    with pytest.raises(RefusedError, match=r"stage 1 .*sana asks its network at whole timesteps.*leave --snippet"):
        snippet_of(preset_of(Schedule(stages=(Stage(sigmas=(1, 0.5, 0)),)), sana.size), sana)


@pytest.mark.parametrize(
    ("model", "schedule", "reason"),
    [
        ("ltx2", staged("nearest"), "this preset .*draws sound beside the picture"),
        ("sana", staged("pixel"), "stage 2 .*cannot encode images"),
        ("z-image", staged("nearest", cache=CACHES[1]), "stage 1 .*which guidance pass"),
        ("flux", staged("nearest", solver="euler-ancestral"), "stage 1 .*draws noise"),
    ],
)
def test_refusals(model: str, schedule: Schedule, reason: str) -> None:
    known = models.blueprint(model)
    with pytest.raises(RefusedError, match=reason):
        DIFFUSERS.export(preset_of(schedule, known.size), known, ExportOptions())
