"""Euler's rule."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from tuner.solvers.base import T, Velocity


def euler(velocity: Velocity[T], x: T, sigmas: Sequence[float]) -> T:
    """Follows the tangent. Order 1, one network call per step.

    Also known as ``FlowMatchEulerDiscreteScheduler`` (diffusers), ``euler`` and, on a flow, ``ddim`` (ComfyUI).
    """
    for sigma, sigma_next in pairwise(sigmas):
        x = x + (sigma_next - sigma) * velocity(x, sigma)
    return x
