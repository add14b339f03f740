from __future__ import annotations

from typing import Any

import pytest
from torch.utils.flop_counter import FlopCounterMode

from tuner import models, presets
from tuner.errors import UserError
from tuner.flops import count, price, tflops_per_call, tflops_per_pass
from tuner.models import blueprint, wrap
from tuner.sampling import sample
from tuner.schedule import Schedule, Stage

FLUX = blueprint("flux")


@pytest.mark.parametrize(("side", "tflops"), [(256, 10.348), (512, 21.503), (768, 41.930), (1024, 74.385)])
def test_flux_per_call(side: int, tflops: float) -> None:
    assert tflops_per_call(FLUX, (side, side)) == pytest.approx(tflops, abs=0.01)


@pytest.mark.parametrize(
    ("name", "text_tokens", "tflops"),
    [
        ("sd3.5-medium", 333, 11.250),
        ("sd3.5-large", 333, 31.121),
        ("qwen-image", 512, 78.30),
        ("z-image", 512, 62.51),
        ("flux2", 512, 282.6),
        ("chroma", 512, 74.57),
        ("pixart-sigma", 300, 6.63),
        ("sana", 300, 2.97),
        ("sdxl", 77, 6.76),
    ],
)
def test_one_pass_of_every_image_family_at_1024(name: str, text_tokens: int, tflops: float) -> None:
    known = blueprint(name)
    assert known.text_tokens == text_tokens
    assert count(known, (1024, 1024)) == pytest.approx(tflops, rel=5e-3)
    assert tflops_per_call(known, (1024, 1024)) == known.passes * tflops_per_pass(known, (1024, 1024))


def test_the_flux_baseline_is_the_papers() -> None:
    # Bottleneck Sampling, Table 1: 3719.50 TFLOPs for 50 steps at 1024 x 1024.
    cost = price(FLUX.baseline(), FLUX)
    assert cost.nfe == 50
    assert cost.tflops == pytest.approx(3719.50, rel=5e-4)


def test_the_published_three_times_schedule() -> None:
    # 6 + 16 + 5 steps; the paper's own row says 1234.39 and follows from no reading of its table.
    cost = price(presets.load("bottleneck-flux-3x").schedule, FLUX)
    assert [stage.steps for stage in cost.stages] == [6, 16, 5]
    assert cost.tflops == pytest.approx(11 * 74.385 + 16 * 21.503, rel=1e-4)


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_the_price_is_what_counting_the_run_gives(flux_pipe: Any, solver: str) -> None:
    model = wrap(flux_pipe)
    schedule = Schedule.model_validate(
        {
            "solver": solver,
            "stages": [
                {"steps": 2},
                {"scale": 0.5, "steps": 4, "strength": 0.7},
                {"steps": 3, "strength": 0.5, "shift": 3},
            ],
        }
    )
    prompts = ["a red fox", "a blue circle"]
    conditioning = model.encode(prompts)
    with FlopCounterMode(display=False) as counter:
        sample(model, schedule, conditioning, [1, 2], (32, 64))
    expected = price(schedule, model.blueprint, (32, 64))
    assert counter.get_total_flops() / 1e12 / len(prompts) == pytest.approx(expected.tflops, rel=1e-3)
    assert expected.nfe == sum(stage.nfe for stage in expected.stages)


def test_counting_is_cached_by_configuration_not_by_name(flux_pipe: Any) -> None:
    small = wrap(flux_pipe).blueprint
    assert tflops_per_call(small, (32, 32)) < 1e-3 < tflops_per_call(FLUX, (256, 256))


def test_sizes_that_the_model_cannot_make_are_refused() -> None:
    with pytest.raises(UserError, match="multiples of 16; try 992x1024"):
        price(FLUX.baseline(), FLUX, (1000, 1024))


def test_a_flow_starts_from_noise_alone_at_sigma_one_only() -> None:
    with pytest.raises(
        UserError, match=r"flux starts from noise alone, so the first sigma must be 1, or 0\.98 at least"
    ):
        price(Schedule(stages=(Stage(sigmas=(0.9, 0)),)), FLUX)


def test_a_stage_is_rounded_to_the_size_multiple() -> None:
    schedule = Schedule(stages=(Stage(scale=0.3, sigmas=(1, 0)), Stage(sigmas=(0.5, 0))))
    first = price(schedule, FLUX).stages[0]
    assert (first.height, first.width) == (304, 304)


@pytest.mark.parametrize(
    "name", [name for name in presets.available() if presets.load(name).model in models.available()]
)
def test_the_costs_written_in_shipped_presets_hold(name: str) -> None:
    preset = presets.load(name)
    known = blueprint(preset.model)
    guided = known if preset.model_options is None else known.with_options(preset.model_options)
    size = (preset.height, preset.width)
    cost, baseline = price(preset.schedule, guided, size), price(known.baseline(size), known, size)
    assert preset.cost is not None
    assert preset.cost.tflops == pytest.approx(cost.tflops, rel=1e-4)
    assert preset.cost.speedup == pytest.approx(baseline.tflops / cost.tflops, rel=1e-4)
    assert preset.cost.nfe == cost.nfe
