"""UniPC of third order."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.solvers._unipc import predict_and_correct
from tuner.solvers.base import T, Velocity


def unipc_3(velocity: Velocity[T], x: T, sigmas: Sequence[float]) -> T:
    """Predicts with order 3 and corrects the step with the next call's result. One network call per step.

    Order 4 but for the first and last steps, whose order is lower. Also known as ``UniPCMultistepScheduler`` with
    ``solver_order=3`` (diffusers), ``uni_pc_bh2`` (ComfyUI). Source: Zhao et al., arXiv 2302.04867; see
    `predict_and_correct`.
    """
    return predict_and_correct(velocity, x, sigmas, order=3)
