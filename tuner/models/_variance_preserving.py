"""Models that were trained to predict noise, read as flow models.

A variance-preserving model knows x0 + k e, with k from 0 to K = k(last timestep), as its input times
1 / sqrt(1 + k^2). Its samplers start from K e: pure noise, although x0 + K e is what the model was trained on. The
path from there to x0 that is straight in sigma is

    x(sigma) = A(sigma) x0 + sigma e,   A(sigma) = 1 - sigma (1 - 1 / K),   k = sigma / A(sigma),

which is x0 at sigma 0 and, being A times x0 + k e, the drawn noise itself at sigma 1. Its velocity is
``dx/dsigma = e - (1 - 1 / K) x0``, and since A and sigma are linear in sigma, an Euler step along it is the step
that diffusers' ``EulerDiscreteScheduler`` (DDIM without noise, arXiv 2010.02502) makes between the same levels.
For PixArt K is 157: A differs from the flow path's 1 - sigma by at most 0.0064.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tuner.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import torch

_DEFAULTS = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "timestep_spacing": "linspace",
    "prediction_type": "epsilon",
}


class VariancePreserving:
    """The levels of a variance-preserving model and the conversion of what it predicts.

    Args:
        config: ``scheduler_config.json``.

    Raises:
        UserError: If the configuration asks for levels or predictions of another kind.
    """

    def __init__(self, config: Mapping[str, Any]):
        self._config = _DEFAULTS | {key: config[key] for key in _DEFAULTS if key in config}
        for option, known in (
            ("beta_schedule", ("linear", "scaled_linear")),
            ("timestep_spacing", ("linspace", "trailing")),
            ("prediction_type", ("epsilon", "v_prediction", "sample")),
        ):
            if self._config[option] not in known:
                raise UserError(
                    f"Scheduler option {option}={self._config[option]!r} is not supported; set it to one of "
                    f"{', '.join(known)} in the configuration."
                )
        self._ladder = _ladder(*(self._config[name] for name in list(_DEFAULTS)[:4]))
        self._loss = 1 - 1 / float(self._ladder[-1])

    def sigmas(self, steps: int) -> tuple[float, ...]:
        """Returns the ``steps + 1`` levels of ``EulerDiscreteScheduler`` in terms of sigma."""
        import numpy as np

        last = len(self._ladder) - 1
        if self._config["timestep_spacing"] == "linspace":
            timesteps = np.linspace(last, 0, steps)
        else:
            timesteps = np.arange(last + 1, 0, -(last + 1) / steps).round() - 1
        levels = np.interp(timesteps, np.arange(last + 1), self._ladder)
        return (1.0, *(float(k / (1 + k * self._loss)) for k in levels[1:]), 0.0)

    def level(self, sigma: float) -> tuple[float, float, float]:
        """Returns A, k and the timestep of a sigma."""
        import numpy as np

        clean = 1 - sigma * self._loss
        level = sigma / clean
        return clean, level, float(np.interp(level, self._ladder, np.arange(len(self._ladder))))

    def velocity(self, predicted: torch.Tensor, x: torch.Tensor, sigma: float) -> torch.Tensor:
        """Turns the network's prediction for the latent ``x`` into dx/dsigma."""
        clean, level, _ = self.level(sigma)
        exploding = x / clean
        if self._config["prediction_type"] == "epsilon":
            noise = predicted
            image = exploding - level * noise
        else:
            if self._config["prediction_type"] == "sample":
                image = predicted
            else:
                image = exploding / (level**2 + 1) - predicted * level / (level**2 + 1) ** 0.5
            noise = (exploding - image) / level
        return noise - self._loss * image


@functools.lru_cache(maxsize=16)
def _ladder(steps: int, start: float, end: float, kind: str) -> np.ndarray:
    """Returns k of every training timestep: sqrt((1 - a) / a) with a the cumulative product of 1 - beta."""
    import numpy as np

    if kind == "linear":
        betas = np.linspace(start, end, steps)
    else:
        betas = np.linspace(start**0.5, end**0.5, steps) ** 2
    kept = np.cumprod(1 - betas)
    ladder: np.ndarray = np.sqrt((1 - kept) / kept)
    return ladder
