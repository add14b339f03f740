"""What every registered model family must do, proven on a small random pipeline of the family's own classes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.small_pipelines import families, shortened, small_pipeline
from tuner.flops import price
from tuner.models import FlowModel, wrap
from tuner.sampling import sample
from tuner.schedule import Schedule, Stage

PROMPTS = ["a red fox", "a blue circle above a red square", "fox"]
SEEDS = [7, 8, 9]
STEPS = 4
STAGED = Schedule(
    stages=(
        Stage(scale=1, steps=2, shift=3),
        Stage(scale=0.5, steps=3, strength=0.7, shift=3),
        Stage(scale=1, steps=3, strength=0.4, shift=3),
    )
)


@dataclass(frozen=True)
class Family:
    small: ModuleType
    pipe: Any
    model: FlowModel


@pytest.fixture(scope="module", params=sorted(families()))
def family(request: pytest.FixtureRequest) -> Family:
    small = small_pipeline(request.param)
    pipe = small.build()
    return Family(small, pipe, shortened(wrap(pipe).blueprint, small).wrap(pipe))


@pytest.mark.parametrize("size_index", [0, 1])
@pytest.mark.parametrize("batch", [1, 3])
def test_one_stage_equals_the_stock_pipeline(family: Family, size_index: int, batch: int) -> None:
    model, size = family.model, family.small.SIZES[size_index]
    prompts, seeds = PROMPTS[:batch], SEEDS[:batch]
    ours = sample(model, model.blueprint.plain(STEPS, size), model.encode(prompts), seeds, size)
    theirs = family.small.stock_latents(family.pipe, model.blueprint, prompts, seeds, STEPS, size)
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_three_stages_end_at_the_output_size(family: Family) -> None:
    model, size = family.model, family.small.SIZES[1]
    latents = sample(model, STAGED, model.encode(PROMPTS), SEEDS, size)
    assert latents.shape == model.noise(size, SEEDS).shape
    assert latents.dtype == torch.float32
    assert latents.isfinite().all()
    for row, prompt in enumerate(PROMPTS):
        alone = sample(model, STAGED, model.encode([prompt]), SEEDS[row : row + 1], size)
        torch.testing.assert_close(latents[row : row + 1], alone, rtol=0, atol=1e-4)


def test_it_decodes_to_images_of_the_output_size(family: Family) -> None:
    model, size = family.model, family.small.SIZES[1]
    items = model.decode(model.noise(size, SEEDS[:2]))
    frames = [item if isinstance(item, list) else [item] for item in items]
    assert len(frames) == 2
    assert {len(item) for item in frames} == {model.blueprint.frames}
    assert {(image.height, image.width) for item in frames for image in item} == {size}


def test_wrapping_does_not_change_the_pipe(family: Family) -> None:
    pipe, size = family.small.build(), family.small.SIZES[0]
    network = getattr(pipe, family.model.blueprint.denoiser)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    attributes, scheduler, config = dict(vars(pipe)), dict(vars(pipe.scheduler)), dict(pipe.scheduler.config)
    model = shortened(wrap(pipe).blueprint, family.small).wrap(pipe)
    model.decode(sample(model, STAGED, model.encode(PROMPTS[:1]), SEEDS[:1], size))
    assert dict(vars(pipe)) == attributes
    assert dict(vars(pipe.scheduler)) == scheduler
    assert dict(pipe.scheduler.config) == config
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_noise_rows_depend_on_their_seed_alone(family: Family) -> None:
    size = family.small.SIZES[0]
    together = family.model.noise(size, [3, 1, 3])
    assert torch.equal(together[0], together[2])
    assert torch.equal(together[1:2], family.model.noise(size, [1]))


def test_the_price_is_what_counting_the_run_gives(family: Family) -> None:
    longest, size = max(PROMPTS, key=len), family.small.SIZES[1]
    known = family.model.blueprint
    if known.passes == 2:  # prompts that keep their own length cost by it, so that all have to have one
        known = replace(known, negative_prompt=longest)
    model = known.wrap(family.pipe)
    passes: list[int] = []

    def count(module: Any, args: Any, kwargs: Any) -> None:
        latents = kwargs.get("hidden_states", args[0] if args else None)
        passes.append(len(latents))

    hook = getattr(family.pipe, known.denoiser).register_forward_pre_hook(count, with_kwargs=True)
    conditioning = model.encode([longest] * len(SEEDS))
    try:
        with FlopCounterMode(display=False) as counter:
            sample(model, STAGED, conditioning, SEEDS, size)
    finally:
        hook.remove()
    text_tokens = conditioning["tokens"].shape[1]
    assert text_tokens <= known.text_tokens
    cost = price(STAGED, replace(known, text_tokens=text_tokens), size)
    assert sum(passes) / len(SEEDS) == cost.nfe
    assert counter.get_total_flops() / 1e12 / len(SEEDS) == pytest.approx(cost.tflops, rel=1e-3)
