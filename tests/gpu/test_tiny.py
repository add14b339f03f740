"""The embedded model and the embedded scorers on the GPU say what they say on the CPU."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

import objectives
import tuner
from tests.gpu.test_parity import apart
from tuner.models import blueprint
from tuner.sampling import sample

PROMPTS = ["red circle on plain black", "blue square above green ring on striped gray"]
MANY = 4 * PROMPTS
SEEDS = list(range(1, 9))


@cache
def on_cpu() -> tuple[torch.Tensor, list[Any]]:
    model = blueprint("tiny").load("cpu")
    latents = sample(model, model.blueprint.baseline(), model.encode(MANY), SEEDS)
    return latents, list(model.decode(latents))


@pytest.mark.parametrize(("dtype", "allowed"), [("float32", 0.01), ("bfloat16", 0.15)])
def test_latents_are_those_of_the_cpu(device: str, dtype: str, allowed: float, record_property: Any) -> None:
    """Rounding may turn a small model to another picture now and then, so in bfloat16 most of them must agree."""
    model = blueprint("tiny").load(device, dtype)
    latents = sample(model, model.blueprint.baseline(), model.encode(MANY), SEEDS)
    assert latents.device.type == device
    each = [apart(here, there) for here, there in zip(latents.cpu(), on_cpu()[0], strict=True)]
    record_property("apart", each)
    assert (max(each) if dtype == "float32" else sorted(each)[len(each) // 2]) < allowed


def test_a_preset_runs_from_prompt_to_image(device: str) -> None:
    images = tuner.generate(blueprint("tiny").load(device), PROMPTS, blueprint("tiny").plain(4), seed=1).images
    assert [image.size for image in images] == [(64, 64)] * len(PROMPTS)


@pytest.mark.parametrize("objective", ["clip:tiny", "image_reward:tiny"])
def test_scores_are_those_of_the_cpu(device: str, objective: str) -> None:
    images = on_cpu()[1]
    here, there = (objectives.load(objective, where).score(images, MANY) for where in (device, "cpu"))
    assert here == pytest.approx(there, abs=1e-2)
