"""Noise-level grids: pure functions from a few numbers to a decreasing list of sigmas."""

from __future__ import annotations

import math
from collections.abc import Sequence

_ZERO = 0.001  # what stands for the last level, 0, in the published lists
_SAME_SIGMA = 1e-6  # far below what a network can tell apart, far above rounding


def shift_sigma(sigma: float, shift: float) -> float:
    """Moves one noise level towards 1 (``shift > 1``) or towards 0 (``shift < 1``).

    ``sigma' = s * sigma / (1 + (s - 1) * sigma)``: Stable Diffusion 3 (arXiv 2403.03206, Eq. 23) and
    Bottleneck Sampling (arXiv 2503.18940, Eq. 9). It fixes 0 and 1, and ``shift_sigma(., 1 / s)`` undoes it.

    Args:
        sigma: Noise level in [0, 1].
        shift: Positive factor ``s``; 1 changes nothing.
    """
    return shift * sigma / (1 + (shift - 1) * sigma)


def aligned_sigma(sigma: float, ratio: float) -> float:
    """Returns the level of a latent after its spectrum was enlarged: SPEED (arXiv 2605.18736, Eq. 6).

    In an orthonormal basis the same image has coefficients that grow with the side length, so a latent whose grid
    grows by ``r`` has a signal that is weaker by ``r`` beside noise of the same level: a higher level.

    Args:
        sigma: Level before, in (0, 1].
        ratio: Growth ``r`` of the side length.
    """
    return sigma * ratio / (1 + (ratio - 1) * sigma)


def renoising(level: float, target: float) -> tuple[float, float]:
    """Returns the parts of a latent and of fresh unit noise that make a latent of a higher noise level.

    A latent at level e is (1 - e) clean + e noise, so scaling it by a = (1 - s) / (1 - e) and adding noise of
    variance s^2 - (a e)^2 gives one at level s. From a clean latent this is (1 - s) x + s noise (Bottleneck
    Sampling, arXiv 2503.18940, Eq. 8); at its own level the latent stays as it is.

    Args:
        level: Noise level ``e`` of the latent, below 1.
        target: Noise level ``s`` wanted, at least ``level``.
    """
    scale = (1 - target) / (1 - level)
    return scale, math.sqrt(target * target - (scale * level) ** 2)


def edm_sigmas(
    steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> tuple[float, ...]:
    """Builds the grid of Karras et al. (arXiv 2206.00364, Eq. 5) with the paper's own range, for a flow.

    The paper's levels are noise-to-signal ratios, which fall evenly in r^(1/rho); a flow at level sigma has the
    ratio sigma / (1 - sigma), so the level is r / (1 + r). The first level, which would be 0.988, is set to 1.

    Args:
        steps: Number of steps, at least 1.
        sigma_min: Ratio of the last level above 0.
        sigma_max: Ratio of the first level.
        rho: How much the steps shrink towards 0.

    Returns:
        ``steps + 1`` noise levels from 1 to 0.
    """
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    ratios = [(high + k / max(steps - 1, 1) * (low - high)) ** rho for k in range(1, steps)]
    return (1.0, *(ratio / (1 + ratio) for ratio in ratios), 0.0)


def log_linear(sigmas: Sequence[float], steps: int) -> tuple[float, ...]:
    """Takes a list of noise levels to another number of steps by interpolating their logarithms linearly.

    So does ComfyUI's OptimalStepsScheduler resize the published lists of Optimal Stepsize (arXiv 2503.21774). A
    last level of 0 counts as 0.001, which that node has in its place until the end.

    Args:
        sigmas: Two or more strictly decreasing levels, the last alone may be 0.
        steps: Wanted number of steps, at least 1.

    Returns:
        ``steps + 1`` levels that begin and end as the list does.
    """
    old, inner = len(sigmas) - 1, []
    for k in range(1, steps):
        index, part = divmod(k * old, steps)
        high, low = sigmas[index], sigmas[index + 1] or _ZERO
        inner.append(high * (low / high) ** (part / steps))
    return (sigmas[0], *inner, sigmas[-1])


def skipped_steps(steps: int, strength: float) -> int:
    """Counts the leading steps that a stage of renoise strength ``w`` leaves out: round(N(1 - w)).

    Halves round up, so that the stage keeps the fewer steps. Products are rounded to nine decimals first:
    20 * (1 - 0.8) is 3.9999999999999996 in binary floating point and must count as 4.

    Args:
        steps: ``N``, the steps of the full grid from 1 to 0.
        strength: Renoise strength ``w`` in (0, 1], a fraction of the grid (arXiv 2503.18940, Eq. 7-8).
    """
    return math.floor(round(steps * (1 - strength), 9) + 0.5)


def truncated_sigmas(steps: int, strength: float = 1.0, shift: float = 1.0) -> tuple[float, ...]:
    """Builds the sigmas of a stage from its (steps, strength, shift): Bottleneck Sampling, Eq. 7-9.

    ``steps + 1`` uniform noise levels from 1 to 0 are shifted, and the part that starts at index
    ``skipped_steps(steps, strength)`` is kept.

    Args:
        steps: ``N >= 1``, the steps of the full grid.
        strength: Renoise strength ``w`` in (0, 1]; 1 keeps every step.
        shift: Timestep shift ``s > 0``.

    Returns:
        Between 2 and ``steps + 1`` strictly decreasing noise levels that end at 0.

    Raises:
        ValueError: If an argument is out of range, or if the strength leaves no step.
    """
    if steps < 1:
        raise ValueError(f"`steps >= 1` must hold, but got {steps=}.")
    if not 0 < strength <= 1:
        raise ValueError(f"`0 < strength <= 1` must hold, but got {strength=}.")
    if not 0 < shift < math.inf:
        raise ValueError(f"`shift > 0` must hold, but got {shift=}.")
    first = skipped_steps(steps, strength)
    if first >= steps:
        raise ValueError(
            f"`round(steps * (1 - strength)) < steps` must hold, but {steps=} and {strength=} leave no step; "
            "raise the strength or the steps."
        )
    return tuple(shift_sigma(1 - k / steps, shift) for k in range(first, steps + 1))


def partial_sigmas(steps: int, start: float, shift: float, end: float = 0.0) -> tuple[float, ...]:
    """Builds ``steps`` steps between two unshifted levels: Eq. 7-9 for a real-valued cut.

    Where ``start = 1 - skipped_steps(N, w) / N`` this equals ``truncated_sigmas(N, w, shift)``; a search uses
    this form because its step count is exact for every ``start``.

    Args:
        steps: Number of steps, at least 1.
        start: Unshifted first noise level in (0, 1].
        shift: Timestep shift ``s > 0``.
        end: Unshifted last noise level in [0, start).
    """
    return tuple(shift_sigma((start * (steps - k) + end * k) / steps, shift) for k in range(steps + 1))


def start_and_shift(sigmas: Sequence[float]) -> tuple[float, float] | None:
    """Inverts ``partial_sigmas``: finds (start, shift), or None if no pair gives these sigmas.

    With odds ``o = sigma / (1 - sigma)``, a level's unshifted value is ``o / (o + s)``. That the second one
    lies a step below the first on the way to the last is an equation in ``s`` with one root other than 0. A
    single step leaves the shift free; 1 is returned for it. The unshifted last level is
    ``shift_sigma(sigmas[-1], 1 / shift)``.

    Args:
        sigmas: Noise levels of one stage, strictly decreasing, the second below 1.
    """
    steps = len(sigmas) - 1
    if steps == 1:
        return sigmas[0], 1.0
    second, last = _odds(sigmas[1]), _odds(sigmas[-1])
    if sigmas[0] == 1:
        shift = (second - steps * last) / (steps - 1)
    else:
        first = _odds(sigmas[0])
        below = (steps - 1) * first + last - steps * second
        if below == 0:
            return None
        shift = (first * second + (steps - 1) * second * last - steps * first * last) / below
    if not 0 < shift < math.inf:
        return None
    start, end = shift_sigma(sigmas[0], 1 / shift), shift_sigma(sigmas[-1], 1 / shift)
    rebuilt = partial_sigmas(steps, start, shift, end)
    fits = all(abs(ours - given) <= _SAME_SIGMA for ours, given in zip(rebuilt, sigmas, strict=True))
    return (start, shift) if fits else None


def karras_sigmas(steps: int, lowest: float, rho: float) -> tuple[float, ...]:
    """Builds the grid of Karras et al. (arXiv 2206.00364, Eq. 5) between noise levels 1 and ``lowest``, and 0.

    ``sigma_k = (1 + k / (N - 1) * (lowest^(1 / rho) - 1))^rho`` for k < N, and ``sigma_N = 0``, on the noise
    levels of a flow themselves. ``rho = 1`` is uniform above ``lowest``; a larger one has more of the steps at
    low noise (the paper uses 7).

    Args:
        steps: Number of steps ``N >= 1``; a single step goes from 1 to 0.
        lowest: Last level above 0, in (0, 1).
        rho: Exponent, at least 1.
    """
    if steps == 1:
        return 1.0, 0.0
    top = (1 + k / (steps - 1) * (lowest ** (1 / rho) - 1) for k in range(1, steps - 1))
    return (1.0, *(base**rho for base in top), lowest, 0.0)


def exponential_sigmas(steps: int, lowest: float) -> tuple[float, ...]:
    """Builds a geometric grid from 1 to ``lowest``, and 0: ``karras_sigmas`` for ``rho`` without bound.

    Args:
        steps: Number of steps ``N >= 1``; a single step goes from 1 to 0.
        lowest: Last level above 0, in (0, 1).
    """
    if steps == 1:
        return 1.0, 0.0
    return (1.0, *(lowest ** (k / (steps - 1)) for k in range(1, steps - 1)), lowest, 0.0)


def beta_sigmas(steps: int, concentration: float, shift: float) -> tuple[float, ...]:
    """Builds the grid of beta sampling (arXiv 2407.12173, alpha = beta), shifted.

    The unshifted levels are quantiles of the symmetric beta distribution at 1, 1 - 1/N, ..., 0. A
    concentration below 1 has more of the steps at both ends (the paper finds 0.6 best); 1 is uniform.

    Args:
        steps: Number of steps ``N >= 1``.
        concentration: ``alpha = beta > 0``.
        shift: Timestep shift ``s > 0``.
    """
    from scipy.special import betaincinv

    low = [float(betaincinv(concentration, concentration, k / steps)) for k in range(1, (steps + 1) // 2)]
    middle = [0.5] * (steps % 2 == 0)  # exactly, which a numerical inverse misses by 1e-8
    levels = (*(1 - level for level in low), *middle, *reversed(low))
    return (1.0, *(shift_sigma(level, shift) for level in levels), 0.0)


def _odds(sigma: float) -> float:
    return sigma / (1 - sigma)
