from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler

from tuner.errors import UserError
from tuner.models._variance_preserving import VariancePreserving

PIXART = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
STABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.mark.parametrize("spacing", ["linspace", "trailing"])
@pytest.mark.parametrize("betas", [PIXART, STABLE])
def test_levels_and_timesteps_are_those_of_eulers_scheduler(betas: dict[str, object], spacing: str) -> None:
    config = betas | {"timestep_spacing": spacing}
    scheduler = EulerDiscreteScheduler(**config)
    scheduler.set_timesteps(7)
    levels = VariancePreserving(config)
    ours = levels.sigmas(7)
    assert (ours[0], ours[-1]) == (1, 0)
    np.testing.assert_allclose([levels.level(s)[1] for s in ours], scheduler.sigmas.numpy(), rtol=1e-3)
    np.testing.assert_allclose([levels.level(s)[2] for s in ours[:-1]], scheduler.timesteps.numpy(), atol=1e-2)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("sigma", [1.0, 0.6, 0.1])
def test_a_right_prediction_gives_the_straight_paths_velocity(kind: str, sigma: float) -> None:
    levels = VariancePreserving(PIXART | {"prediction_type": kind})
    image, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    clean, level, _ = levels.level(sigma)
    x = clean * image + sigma * noise
    kept = 1 / (level**2 + 1) ** 0.5  # the network's own mixture is kept x0 + level kept e
    predicted = {"epsilon": noise, "sample": image, "v_prediction": kept * noise - level * kept * image}[kind]
    at_zero = x - sigma * levels.velocity(predicted, x, sigma)
    torch.testing.assert_close(at_zero, image, rtol=0, atol=2e-4)
    torch.testing.assert_close(
        levels.velocity(predicted, x, sigma), noise - (1 - 1 / 157.4) * image, rtol=0, atol=2e-3
    )


def test_grids_that_start_elsewhere_are_refused() -> None:
    with pytest.raises(UserError, match="timestep_spacing='leading' is not supported; set it to one of linspace"):
        VariancePreserving(PIXART | {"timestep_spacing": "leading"})
