from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler

from tuner.errors import UserError
from tuner.models._variance_preserving import VariancePreserving, scaled

PIXART = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
STABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize("betas", [PIXART, STABLE])
def test_levels_timesteps_and_start_are_those_of_eulers_scheduler(betas: dict[str, Any], spacing: str) -> None:
    config = betas | {"timestep_spacing": spacing, "steps_offset": 1}
    scheduler = EulerDiscreteScheduler(**config)
    scheduler.set_timesteps(7)
    levels = VariancePreserving(config)
    ours = levels.sigmas(7)
    ratios = [sigma / (1 - sigma) for sigma in ours]
    np.testing.assert_allclose(ratios, scheduler.sigmas.numpy(), rtol=1e-4)  # its are float32
    asked = [levels.level(sigma) for sigma in ours[:-1]]
    np.testing.assert_allclose([k for k, _ in asked], ratios[:-1], rtol=1e-9)
    np.testing.assert_allclose([timestep for _, timestep in asked], scheduler.timesteps.numpy(), atol=1e-6)
    # A latent here is 1 - sigma times the scheduler's.
    start = (1 - ours[0]) * float(scheduler.init_noise_sigma)
    assert levels.start(ours[0]) == pytest.approx(start, rel=1e-4)


@pytest.mark.parametrize("betas", [PIXART, STABLE])
def test_a_single_step_starts_at_the_last_timestep(betas: dict[str, Any]) -> None:
    levels = VariancePreserving(betas | {"timestep_spacing": "leading"})
    assert levels.level(levels.sigmas(1)[0])[1] == 999
    assert levels.level(1.0) == levels.level(levels.sigmas(1)[0])
    assert levels.start(1.0) == 1


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("sigma", [0.93, 0.6, 0.1])
def test_a_right_prediction_gives_the_velocity_of_the_flow(kind: str, sigma: float) -> None:
    levels = VariancePreserving(STABLE | {"prediction_type": kind})
    image, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    x = (1 - sigma) * image + sigma * noise
    k, _ = levels.level(sigma)
    kept = 1 / math.hypot(1, k)
    torch.testing.assert_close(scaled(x, sigma), kept * image + k * kept * noise)
    predicted = {"epsilon": noise, "sample": image, "v_prediction": kept * noise - k * kept * image}[kind]
    torch.testing.assert_close(levels.velocity(predicted, x, sigma), noise - image, rtol=0, atol=1e-4)


def test_noise_alone_moves_straight_to_the_image_that_the_network_sees_at_its_last_timestep() -> None:
    levels = VariancePreserving(STABLE | {"prediction_type": "sample"})
    image, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert levels.level(0.97)[1] == levels.level(1.0)[1] == 999
    for high, low in ((1.0, 0.97), (0.97, 0.5), (1.0, 0.0)):
        x = (1 - high) * image + high * noise
        moved = x + (low - high) * levels.velocity(image, x, high)
        torch.testing.assert_close(moved, (1 - low) * image + low * noise)


@pytest.mark.parametrize(
    ("option", "rule"),
    [
        (
            {"beta_schedule": "squaredcos_cap_v2"},
            "beta_schedule='squaredcos_cap_v2' is not supported; set it to one",
        ),
        ({"use_karras_sigmas": True}, "'use_karras_sigmas' is not supported; unset it"),
        ({"rescale_betas_zero_snr": True}, "'rescale_betas_zero_snr' is not supported; unset it"),
    ],
)
def test_levels_of_other_kinds_are_refused(option: dict[str, Any], rule: str) -> None:
    with pytest.raises(UserError, match=rule):
        VariancePreserving(PIXART | option)
