"""Placing, compiling and quantising weights on the GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

import tuner
from tests.gpu.test_parity import CLOSE, apart
from tests.small_flux import small_flux
from tuner.models import FlowModel, ModelOptions, blueprint
from tuner.sampling import sample
from tuner.schedule import Schedule, Stage

PROMPTS, SIZE = ["a red fox", "a blue circle"], (64, 64)
SCHEDULE = Schedule(stages=(Stage(scale=0.5, steps=3), Stage(scale=1, steps=3, strength=0.6)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flux")
    small_flux().save_pretrained(folder)
    return folder


def load(folder: Path, device: str, **options: Any) -> FlowModel:
    return blueprint(str(folder)).load(device, "bfloat16", ModelOptions(**options))


def latents(model: FlowModel) -> torch.Tensor:
    return sample(model, SCHEDULE, model.encode(PROMPTS), [1, 2], SIZE)


@pytest.mark.parametrize("offload", ["model", "group", "sequential"])
def test_offloaded_weights_give_the_same_images(folder: Path, gpu: str, offload: str) -> None:
    plain, offloaded = load(folder, gpu), load(folder, gpu, offload=offload)
    assert offloaded.device == "cuda"
    ours = latents(offloaded)
    assert ours.device.type == "cuda"
    torch.testing.assert_close(ours, latents(plain))
    images = tuner.generate(offloaded, PROMPTS, SCHEDULE, 1, *SIZE).images
    assert [image.size for image in images] == [SIZE, SIZE]
    assert any(value.device.type != "cuda" for value in offloaded.pipe.transformer.parameters())  # type: ignore[attr-defined]


def test_text_that_is_encoded_first_gives_the_same_images(folder: Path, device: str) -> None:
    plain, freed = load(folder, device), load(folder, device, free_text_encoders=True)
    text = freed.encode(PROMPTS)
    freed.free_text_encoders()
    ours = sample(freed, SCHEDULE, text, [1, 2], SIZE)
    assert ours.device.type == device
    torch.testing.assert_close(ours, latents(plain))


def test_what_may_be_offloaded_later_is(folder: Path, gpu: str) -> None:
    plain, spare = load(folder, gpu), load(folder, gpu, offload="auto")
    before = latents(spare)
    assert spare.make_room()
    assert {value.device.type for value in spare.pipe.transformer.parameters()} == {"cpu"}  # type: ignore[attr-defined]
    torch.testing.assert_close(latents(spare), before)
    torch.testing.assert_close(before, latents(plain))


def test_a_compiled_network_is_compiled_once_for_a_stage_size(folder: Path, device: str) -> None:
    torch._dynamo.reset()
    compiled = load(folder, device, compile=True)
    graphs = []
    for seed in range(3):
        counters.clear()
        tuner.generate(compiled, PROMPTS, SCHEDULE, seed, *SIZE)
        graphs.append(counters["stats"]["unique_graphs"])
    kinds = len(compiled.pipe.transformer._repeated_blocks)  # type: ignore[attr-defined]
    assert graphs == [kinds * len(SCHEDULE.stages), 0, 0]
    assert apart(latents(compiled), latents(load(folder, device))) < CLOSE


@pytest.mark.parametrize(("quantize", "stored"), [("int8", torch.int8), ("nf4", torch.uint8)])
def test_quantised_weights_draw_nearly_the_same(
    folder: Path, gpu: str, quantize: str, stored: torch.dtype
) -> None:
    pytest.importorskip("bitsandbytes")
    quantized = load(folder, gpu, quantize=quantize)
    assert stored in {value.dtype for value in quantized.pipe.transformer.parameters()}  # type: ignore[attr-defined]
    assert apart(latents(quantized), latents(load(folder, gpu))) < 0.3
