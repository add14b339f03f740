"""The rule of Adams and Bashforth on velocities."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from tuner.solvers.base import T, Velocity


def ab2(velocity: Velocity[T], x: T, sigmas: Sequence[float]) -> T:
    """Extrapolates the velocity on a straight line through the last two. Order 2, one network call per step.

    Also known as ``LMSDiscreteScheduler`` with ``order=2`` (diffusers), ``lms`` and ``ipndm_v`` without their
    third and fourth order (ComfyUI). Source: Hairer, Norsett and Wanner, Solving Ordinary Differential Equations
    I, section III.5, variable step sizes:

        x' = x + d (v + d / (2 d_before) (v - v_before)),   d = sigma' - sigma.

    The first step is Euler's. It is the most exact of the rules here from about eight steps on and the least exact
    below six, where the line leads too far.
    """
    before: tuple[T, float] | None = None
    for sigma, sigma_next in pairwise(sigmas):
        slope, step = velocity(x, sigma), sigma_next - sigma
        ahead = slope
        if before is not None:
            slope_before, step_before = before
            ahead = slope + (step / (2 * step_before)) * (slope - slope_before)
        x = x + step * ahead
        before = slope, step
    return x
