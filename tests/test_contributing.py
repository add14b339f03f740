"""The worked example of a new family, run as it stands on a pipeline that is of its kind."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from tests.small_pipelines import parts, shortened, small_pipeline
from tuner import presets
from tuner.exporters import ExportOptions
from tuner.flops import price
from tuner.models import wrap
from tuner.presets import Preset
from tuner.sampling import sample
from tuner.schedule import Schedule, Stage

PAGE = Path(__file__).parents[1] / "CONTRIBUTING.md"
SCHEDULE = Schedule(stages=(Stage(scale=0.5, steps=2, shift=3), Stage(steps=2, strength=0.5, shift=3)))


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    """The names that the example defines, without its last line, which has an ellipsis for a reader to fill in."""
    code = PAGE.read_text().split("### A new family in one file")[1].split("```python")[1].split("```")[0]
    names: dict[str, Any] = {"__name__": __name__}
    exec(code.partition("BLUEPRINT = ")[0].replace("MyTransformer", "SanaTransformer"), names)
    return names


def test_the_example_draws_what_the_shipped_family_draws(example: dict[str, Any]) -> None:
    small = small_pipeline("SanaPipeline")
    built = small.build()
    pipe = parts.with_scheduler(built, FlowMatchEulerDiscreteScheduler(shift=built.scheduler.config.flow_shift))
    shipped = shortened(wrap(pipe).blueprint, small).wrap(pipe)
    model = example["MyBlueprint"](**vars(shipped.blueprint)).wrap(pipe)
    size = small.SIZES[1]
    pipe.encode_prompt = _with_length(pipe.encode_prompt, small.TEXT_TOKENS)
    text = model.encode(["a red fox", "fox"])
    expected = sample(shipped, SCHEDULE, text, [1, 2], size)
    assert torch.equal(sample(model, SCHEDULE, text, [1, 2], size), expected)
    assert price(SCHEDULE, model.blueprint, size) == price(SCHEDULE, shipped.blueprint, size)


def test_the_example_reads_a_saved_configuration(example: dict[str, Any]) -> None:
    blueprint = example["MyBlueprint"]
    sizes = blueprint.described(None, {"sample_size": 64, "patch_size": 2}, {"block_out_channels": [1] * 4}, None)
    assert sizes == {"height": 512, "width": 512, "multiple": 16, "vae_factor": 8}


@pytest.fixture(scope="module")
def exporter() -> Any:
    code = PAGE.read_text(encoding="utf-8").split("### Add an exporter")[1].split("```python")[1].split("```")[0]
    names: dict[str, Any] = {"__name__": __name__}
    exec(code, names)
    return names["EXPORTER"]


def test_the_example_of_an_exporter_writes_what_it_carries(exporter: Any) -> None:
    schedule = Schedule(stages=(Stage(sigmas=(1, 0.8, 0.5, 0), reuse=(1,)),))
    preset = Preset(name="x", model="any", source="x", height=512, width=768, schedule=schedule)
    line = exporter.export(preset, None, ExportOptions(prompt="a red fox", seed=7))
    assert shlex.split(line)[-1] == "1.000000000, 0.500000000, 0.000000000"
    assert "-H 512 -W 768 -s 7 -p 'a red fox' --sampling-method euler" in line


@pytest.mark.parametrize("name", presets.available())
def test_the_example_of_an_exporter_refuses_what_it_does_not_carry(name: str, exporter: Any) -> None:
    preset = presets.load(name)
    refusal = exporter.refusal(preset, None, ExportOptions())
    stages = len(preset.schedule.stages)
    assert refusal is None if stages == 1 else "stable-diffusion.cpp cannot carry stage 2 exactly" in refusal


def _with_length(encode_prompt: Any, length: int) -> Any:
    return lambda *args, **kwargs: encode_prompt(*args, **kwargs, max_sequence_length=length)
