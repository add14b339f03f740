"""UniPC of second order."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.solvers._unipc import predict_and_correct
from tuner.solvers.base import T, Velocity


def unipc(velocity: Velocity[T], x: T, sigmas: Sequence[float]) -> T:
    """Predicts with order 2 and corrects the step with the next call's result. One network call per step.

    Order 3 but for the last step, which is predicted with order 1 and not corrected. Also known as
    ``UniPCMultistepScheduler`` with its defaults (diffusers), ``uni_pc_bh2`` without its third order (ComfyUI).
    Source: Zhao et al., arXiv 2302.04867; see `predict_and_correct`.
    """
    return predict_and_correct(velocity, x, sigmas, order=2)
