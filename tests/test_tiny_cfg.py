"""`tiny-cfg`: the embedded model in two passes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline

import tuner
from tuner.flops import price
from tuner.models import blueprint, wrap
from tuner.models._packed import unpack_2x2
from tuner.sampling import sample
from tuner.schedule import Stage
from tuner.tiny import TWO_PASS_FOLDER

PROMPT = "red circle left of blue square on plain gray"
KNOWN = blueprint("tiny-cfg")


@pytest.fixture(scope="module")
def pipe() -> FluxPipeline:
    made = FluxPipeline.from_pretrained(TWO_PASS_FOLDER, dtype=torch.float32)
    made.set_progress_bar_config(disable=True)
    return made


def test_plain_sampling_is_the_stock_pipeline_with_true_guidance(pipe: FluxPipeline) -> None:
    theirs = pipe(
        PROMPT,
        negative_prompt="",
        true_cfg_scale=KNOWN.guidance,
        height=64,
        width=64,
        num_inference_steps=4,
        max_sequence_length=KNOWN.text_tokens,
        generator=torch.Generator("cpu").manual_seed(3),
        output_type="latent",
    ).images
    model = wrap(pipe)
    ours = sample(model, KNOWN.plain(4), model.encode([PROMPT]), [3], (64, 64))
    torch.testing.assert_close(ours, unpack_2x2(theirs, *ours.shape[-2:]), atol=1e-4, rtol=1e-4)


def test_a_loaded_pipeline_is_known_by_its_folder(pipe: FluxPipeline) -> None:
    assert wrap(pipe).blueprint == KNOWN
    assert KNOWN.passes == 2
    assert blueprint("tiny").passes == 1


def test_a_step_without_guidance_costs_one_pass() -> None:
    plain = KNOWN.plain(4)
    (stage,) = plain.stages
    unguided = plain.model_copy(update={"stages": (Stage(sigmas=stage.sigmas, guidance=1.0),)})
    assert price(plain, KNOWN).nfe == 8
    assert price(unguided, KNOWN).nfe == 4
    assert price(unguided, KNOWN).tflops == pytest.approx(price(plain, KNOWN).tflops / 2)
    assert price(unguided, KNOWN).tflops == pytest.approx(
        price(blueprint("tiny").plain(4), blueprint("tiny")).tflops
    )


def test_generate_guides(pipe: FluxPipeline) -> None:
    guided, unguided = (
        tuner.generate(pipe, PROMPT, schedule, seed=1, output_type="np").images[0]
        for schedule in (
            KNOWN.plain(2),
            replace_guidance(KNOWN.plain(2), 1.0),
        )
    )
    assert abs(guided - unguided).max() > 0.01


def replace_guidance(schedule: tuner.Schedule, scale: float) -> tuner.Schedule:
    stages = tuple(stage.model_copy(update={"guidance": scale}) for stage in schedule.stages)
    return schedule.model_copy(update={"stages": stages})


def test_the_weights_stay_small() -> None:
    root = Path(tuner.__file__).parents[1]
    kept = [*(root / "tuner").rglob("*.safetensors"), *(root / "objectives").rglob("*.safetensors")]
    assert sum(file.stat().st_size for file in kept) < 25e6
