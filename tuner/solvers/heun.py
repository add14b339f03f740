"""Heun's rule."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from tuner.solvers.base import T, Velocity


def heun(velocity: Velocity[T], x: T, sigmas: Sequence[float]) -> T:
    """Averages the tangents at both ends of a step. Order 2, two network calls per step.

    Also known as ``FlowMatchHeunDiscreteScheduler`` (diffusers), ``heun`` (ComfyUI). Source: Karras et al.,
    arXiv 2206.00364, Algorithm 1. The step to sigma 0 is Euler's, because networks are not trained at 0.
    """
    for sigma, sigma_next in pairwise(sigmas):
        slope = velocity(x, sigma)
        ahead = x + (sigma_next - sigma) * slope
        if sigma_next > 0:
            ahead = x + (0.5 * (sigma_next - sigma)) * (slope + velocity(ahead, sigma_next))
        x = ahead
    return x
