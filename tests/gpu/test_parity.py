"""One stage is the stock pipeline, and a row of a batch is the image alone, on the GPU, too."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.gpu.mid_size import BLOCKS, mid_size
from tests.half_precision import run_both
from tests.small_pipelines import families, shortened, small_pipeline
from tuner.models import wrap
from tuner.sampling import sample

STEPS = 5  # divides 1000: where it does not, CogVideoX's stock scheduler rounds the levels it steps between
SEEDS = [7, 8, 9, 10]
CLOSE = 0.03  # of the standard deviation: what bfloat16 rounds differently in other kernels
Record = Callable[[str, object], None]


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """How far latents are apart: as a part of their standard deviation."""
    return float((ours - theirs).std() / theirs.std())


@pytest.mark.parametrize("pipeline_class", sorted(families()))
def test_one_stage_equals_the_stock_pipeline_in_float32(
    pipeline_class: str, device: str, record_property: Record
) -> None:
    small = small_pipeline(pipeline_class)
    pipe, size, prompts = small.build().to(device), small.SIZES[1], ["a red fox", "fox"]
    model = shortened(wrap(pipe).blueprint, small).wrap(pipe)
    ours = sample(model, model.blueprint.plain(STEPS, size), model.encode(prompts), SEEDS[:2], size)
    theirs = small.stock_latents(pipe, model.blueprint, prompts, SEEDS[:2], STEPS, size)
    assert ours.device.type == device
    record_property("apart", apart(ours, theirs))
    assert apart(ours, theirs) < 1e-3


@pytest.mark.parametrize("pipeline_class", sorted(families()))
def test_bfloat16_is_as_close_to_float32_as_the_stock_pipelines(pipeline_class: str, device: str) -> None:
    runs = run_both(pipeline_class, device)
    runs.check_timesteps()
    runs.check_latents()


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_of_full_width_equal_the_stock_pipeline(name: str, device: str, record_property: Record) -> None:
    """In bfloat16: the stock pipeline rounds its latents after every step, ours stay in float32."""
    made = mid_size(name, device)
    text = made.text(2)
    ours = sample(made.model, made.known.plain(STEPS), text, SEEDS[:2])
    theirs = made.stock(text, SEEDS[:2], STEPS)
    record_property("apart", apart(ours, theirs))
    assert apart(ours, theirs) < CLOSE


@pytest.mark.parametrize("name", BLOCKS)
def test_a_row_does_not_depend_on_its_batch(name: str, device: str, record_property: Record) -> None:
    """In bfloat16, up to the rounding of other kernels: far less than to another seed, and at most ``CLOSE``."""
    made = mid_size(name, device)
    text, schedule = made.text(4), made.known.plain(STEPS)
    together = sample(made.model, schedule, text, SEEDS)
    for row, seed in enumerate(SEEDS):
        alone = sample(made.model, schedule, {key: rows[row : row + 1] for key, rows in text.items()}, [seed])
        record_property(f"apart_{row}", apart(together[row : row + 1], alone))
        assert apart(together[row : row + 1], alone) < CLOSE
    assert apart(together[:1], together[1:2]) > 0.5
