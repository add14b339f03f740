from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.overrides import _get_current_function_mode_stack

import tuner
from tests.small_flux import small_flux
from tuner.invariance import batch_invariant
from tuner.models import ModelOptions, blueprint, wrap
from tuner.sampling import sample
from tuner.schedule import Schedule, Stage


def test_a_compiled_model_samples_what_the_plain_one_does(flux_pipe: Any, tmp_path: Path) -> None:
    flux_pipe.save_pretrained(tmp_path)
    plain = wrap(flux_pipe)
    with torch.compiler.set_stance("force_eager"):  # compiling takes a minute
        compiled = blueprint(str(tmp_path)).load("cpu", options=ModelOptions(compile=True))
        latents = [
            sample(model, plain.blueprint.plain(2, (32, 32)), plain.encode(["a red fox"]), [1], (32, 32))
            for model in (plain, compiled)
        ]
    torch.testing.assert_close(latents[0], latents[1])
    blocks = compiled.pipe.transformer.transformer_blocks, flux_pipe.transformer.transformer_blocks
    assert [block[0]._compiled_call_impl is not None for block in blocks] == [True, False]


def test_a_stage_size_is_compiled_once_for_all_calls() -> None:
    torch._dynamo.reset()
    pipe, counter = small_flux(), CompileCounter()
    pipe.transformer.compile_repeated_blocks(dynamic=False, backend=counter)
    scales = (0.5, 0.75, 1.0)
    schedule = Schedule(
        stages=tuple(Stage(scale=scale, steps=2, strength=1 - 0.2 * i) for i, scale in enumerate(scales))
    )
    counts = []
    for seed in range(3):  # a chunk of prompts each
        tuner.generate(pipe, ["a red fox", "a blue circle"], schedule, seed, 64, 64)
        counts.append(counter.frame_count)
    kinds = len(pipe.transformer._repeated_blocks)
    assert counts == [kinds * len(scales)] * 3


@pytest.mark.parametrize(("device", "modes"), [("cpu", 1), ("cuda", 0)])
def test_rows_are_multiplied_alone_on_a_cpu_only(device: str, modes: int) -> None:
    model = blueprint("flux").wrap(SimpleNamespace(_execution_device=torch.device(device), transformer=None))
    with batch_invariant(model):
        assert len(_get_current_function_mode_stack()) == modes
