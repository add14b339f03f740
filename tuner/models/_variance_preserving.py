"""Models that were trained to predict noise, read as flow models.

A variance-preserving model knows z = (x0 + k e) / sqrt(1 + k^2), with k from 0 to K = k(last timestep). Divided by
1 + k in the place of the root, that is a point of a flow's straight path, whose velocity says where x0 is:

    x = (1 - sigma) x0 + sigma e,   sigma = k / (1 + k),   z = x / hypot(1 - sigma, sigma),
    dx/dsigma = (x - x0) / sigma.

An Euler step along it keeps x0 and e as the network sees them, and so is the step that diffusers'
``EulerDiscreteScheduler`` (DDIM without noise, arXiv 2010.02502, Eq. 12) makes between the same levels. Multistep
rules count in the signal-to-noise ratio, which is that of the flow, so their steps are diffusers', too.

The noisiest level that the network knows is K / (1 + K): 0.994 for PixArt, 0.936 for Stable Diffusion XL. The
stock samplers begin there or, with ``leading`` spacing, below, and yet from noise alone, as if a latent of that
level held no image (arXiv 2305.08891, section 3.3). So do the levels of `VariancePreserving.sigmas`, which are
all below 1. Other schedules begin at 1, where a latent is noise alone: above its noisiest level the network is
asked as if it were there.
"""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tuner.errors import UserError
from tuner.models._diffusers import PipelineBlueprint
from tuner.models._schedulers import EULER, MULTISTEP, stock_solver
from tuner.models.base import Conditioning, Size

if TYPE_CHECKING:
    import numpy as np
    import torch

_DEFAULTS: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "timestep_spacing": "linspace",
    "steps_offset": 0,
    "prediction_type": "epsilon",
}
_OTHER_LEVELS = (
    "trained_betas",
    "rescale_betas_zero_snr",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "sigma_data",
)


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
            ("timestep_spacing", ("linspace", "leading", "trailing")),
            ("prediction_type", ("epsilon", "v_prediction", "sample")),
        ):
            if self._config[option] not in known:
                raise UserError(
                    f"Scheduler option {option}={self._config[option]!r} is not supported; set it to one of "
                    f"{', '.join(known)} in the configuration."
                )
        for option in _OTHER_LEVELS:
            if config.get(option):
                raise UserError(f"Scheduler option {option!r} is not supported; unset it in the configuration.")
        self._multistep = config.get("_class_name") in MULTISTEP
        self._ladder = _ladder(*(self._config[name] for name in list(_DEFAULTS)[:4]))

    def sigmas(self, steps: int) -> tuple[float, ...]:
        """Returns the ``steps + 1`` levels of the scheduler in terms of sigma."""
        import numpy as np

        count = len(self._ladder)
        timesteps = self._multistep_timesteps(steps) if self._multistep else self._timesteps(steps)
        levels = np.interp(timesteps, np.arange(count), self._ladder)
        return (*(float(k / (1 + k)) for k in levels), 0.0)

    def _timesteps(self, steps: int) -> np.ndarray:
        """Returns those of ``EulerDiscreteScheduler``."""
        import numpy as np

        count, spacing = len(self._ladder), self._config["timestep_spacing"]
        if steps == 1:  # the scheduler would put it at the first timestep, unless the spacing is trailing
            return np.array([count - 1.0])
        if spacing == "linspace":
            return np.linspace(count - 1, 0, steps)
        if spacing == "leading":
            leading: np.ndarray = np.arange(steps)[::-1] * (count // steps) + self._config["steps_offset"]
            return leading
        return np.arange(count, 0, -count / steps).round() - 1

    def _multistep_timesteps(self, steps: int) -> np.ndarray:
        """Returns those of the multistep schedulers, whose spacings have one step more, which goes to 0."""
        import numpy as np

        count, spacing = len(self._ladder), self._config["timestep_spacing"]
        if spacing == "linspace":
            return np.linspace(0, count - 1, steps + 1).round()[:0:-1]
        if spacing == "leading":
            leading: np.ndarray = np.arange(steps, 0, -1) * (count // (steps + 1)) + self._config["steps_offset"]
            return leading
        return np.arange(count, 0, -count / steps).round() - 1

    def start(self, sigma: float) -> float:
        """Returns the standard deviation of the noise that a schedule starts from; see `Blueprint.start`."""
        of_unit_variance = self._multistep or self._config["timestep_spacing"] == "leading"
        return math.hypot(1 - sigma, sigma) if of_unit_variance else sigma

    def level(self, sigma: float) -> tuple[float, float]:
        """Returns k and the timestep at which the network is asked at a sigma."""
        import numpy as np

        k = float(self._ladder[-1]) if sigma >= self._top() else sigma / (1 - sigma)
        return k, float(np.interp(k, self._ladder, np.arange(len(self._ladder))))

    def velocity(self, predicted: torch.Tensor, x: torch.Tensor, sigma: float) -> torch.Tensor:
        """Turns the network's prediction for the latent ``x`` into dx/dsigma."""
        kind = self._config["prediction_type"]
        k, z = self.level(sigma)[0], scaled(x, sigma)
        if kind == "epsilon":
            image = math.hypot(1, k) * z - k * predicted
        elif kind == "v_prediction":
            image = (z - k * predicted) / math.hypot(1, k)
        else:
            image = predicted
        return (x - image) / sigma

    def _top(self) -> float:
        """The noisiest level that the network knows."""
        return float(self._ladder[-1] / (1 + self._ladder[-1]))


def scaled(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """Returns z, the latent as the network takes it: of unit variance where images are."""
    return x / math.hypot(1 - sigma, sigma)


@dataclass(frozen=True, kw_only=True)
class VariancePreservingBlueprint(PipelineBlueprint):
    """A model that was trained to predict noise, without its weights."""

    schedulers: ClassVar[tuple[str, ...]] = (EULER, *MULTISTEP)

    @property
    def solver(self) -> str:
        """The rule of the pipeline's own scheduler; see `Blueprint.solver`."""
        return stock_solver(self.scheduler, self.schedulers, flow=False)

    @abstractmethod
    def predict(self, network: Any, z_BCHW: torch.Tensor, timestep: float, text: Conditioning) -> torch.Tensor:
        """Calls the network once and returns what it predicts, (B, C, h, w).

        Args:
            network: The loaded network, or one on the meta device.
            z_BCHW: Latents of unit variance, in the network's precision.
            timestep: Training timestep, a fraction between two where the level lies between theirs.
            text: What ``PipelineModel.encode_text`` returned, or ``meta_text``.
        """

    def timestep_and_signal(self, sigma: float) -> tuple[float, float]:
        """Returns the timestep at which the network is asked at a sigma, and the image's part in its input."""
        k, timestep = VariancePreserving(self.scheduler).level(sigma)
        return timestep, 1 / math.hypot(1, k)

    def sigmas(self, steps: int, size: Size) -> tuple[float, ...]:
        """Returns the levels of the model's scheduler; see `VariancePreserving.sigmas`."""
        return VariancePreserving(self.scheduler).sigmas(steps)

    def start(self, sigma: float) -> float:
        """Returns the standard deviation of the noise that a schedule starts from; see `Blueprint.start`."""
        return VariancePreserving(self.scheduler).start(sigma)

    def forward(self, network: Any, x_BCHW: torch.Tensor, sigma: float, text: Conditioning) -> torch.Tensor:
        """Scales the latents to unit variance and calls the network; see `PipelineBlueprint.forward`."""
        levels = VariancePreserving(self.scheduler)
        z_BCHW = scaled(x_BCHW, sigma).to(network.dtype)
        predicted_BCHW = self.predict(network, z_BCHW, levels.level(sigma)[1], text)
        return levels.velocity(predicted_BCHW.float(), x_BCHW, sigma)


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
