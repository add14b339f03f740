"""The sigma grids of diffusers' ``FlowMatchEulerDiscreteScheduler``, computed from its configuration alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tuner.errors import UserError
from tuner.sigmas import shift_sigma

_TRAIN_STEPS = 1000
OTHER_GRIDS = ("use_karras_sigmas", "use_exponential_sigmas", "invert_sigmas")
_BETA = 0.6


def linear_mu(config: Mapping[str, Any], tokens: float, max_shift: float = 1.15) -> float:
    """Returns mu for an image of this many tokens: linear from ``base_shift`` to ``max_shift``.

    It is ``calculate_shift`` of diffusers' pipelines, with their default values.

    Args:
        config: ``scheduler_config.json``.
        tokens: Image tokens that the network attends to.
        max_shift: Used where the configuration has none.
    """
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    base, top = config.get("base_shift", 0.5), config.get("max_shift", max_shift)
    return float(base + (top - base) * (tokens - low) / (high - low))


def flow_match_sigmas(
    config: Mapping[str, Any], steps: int, mu: float, lowest: float | None = None
) -> tuple[float, ...]:
    """Builds the ``steps + 1`` noise levels that the scheduler walks, the first one 1 and the last one 0.

    Uniform levels from 1 are shifted, by exp(mu) where ``use_dynamic_shifting`` is on and by ``shift`` where it
    is off, and stretched to end at ``shift_terminal`` if that is set. With ``use_beta_sigmas``, the ends stay and
    the levels between them follow the quantiles of a Beta(0.6, 0.6) distribution (arXiv 2407.12173).

    Args:
        config: ``scheduler_config.json``.
        steps: Number of steps.
        mu: Log of the shift; unused where ``use_dynamic_shifting`` is off.
        lowest: Last uniform level above 0; by default 1 / steps, which is what most pipelines pass.

    Raises:
        UserError: If the configuration asks for a grid of another kind.
    """
    refuse_other_grids(config)
    if config.get("use_dynamic_shifting", False):
        shift = mu if config.get("time_shift_type") == "linear" else math.exp(mu)
    else:
        shift = constant_shift(config)
    lowest = 1 / steps if lowest is None else lowest
    levels = [1.0, *(shift_sigma(1 - (1 - lowest) * k / (steps - 1), shift) for k in range(1, steps))]
    terminal = config.get("shift_terminal")
    if terminal and steps > 1:
        stretch = (1 - levels[-1]) / (1 - terminal)
        levels = [1 - (1 - level) / stretch for level in levels]
    if config.get("use_beta_sigmas") and steps > 1:
        from scipy.stats import beta

        quantiles = (float(beta.ppf(1 - k / (steps - 1), _BETA, _BETA)) for k in range(steps))
        levels = [levels[-1] + quantile * (levels[0] - levels[-1]) for quantile in quantiles]
    return (*levels, 0.0)


def refuse_other_grids(config: Mapping[str, Any]) -> None:
    """Refuses a configuration that asks for a grid of another kind.

    Raises:
        UserError: If it does.
    """
    for option in OTHER_GRIDS:
        if config.get(option):
            raise UserError(f"Scheduler option {option!r} is not supported; set it to false in the configuration.")


def constant_shift(config: Mapping[str, Any]) -> float:
    """Returns the shift that no size changes; multistep solvers on flow sigmas call it ``flow_shift``."""
    return float(config.get("shift", config.get("flow_shift", 1.0)))


def own_lowest(config: Mapping[str, Any]) -> float:
    """Returns the last uniform level of a pipeline that leaves the grid to its scheduler.

    The scheduler starts from its own smallest sigma, 1 / 1000 after the constant shift, and shifts it again.
    """
    shift = 1.0 if config.get("use_dynamic_shifting", False) else constant_shift(config)
    return shift_sigma(1 / config.get("num_train_timesteps", _TRAIN_STEPS), shift)
