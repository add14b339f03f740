"""UniPC of any order: a predictor and a corrector that share their network calls."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tuner.solvers.base import T, Velocity, first_order, half_log_snr

_HIGHEST = 1 - 1e-6  # diffusers' own bound, where lambda is finite


def predict_and_correct(velocity: Velocity[T], x: T, sigmas: Sequence[float], order: int) -> T:
    """Walks a stage with UniPC: Zhao et al., arXiv 2302.04867, Algorithms 5-8 (data prediction), B(h) = e^-h - 1.

    Every clean latent serves twice: it corrects the step that led to it, and predicts the next one. It is the
    prediction for the latent before the correction; nothing is called again. Orders grow from 1 at the start and
    fall to 1 at the end, as diffusers has them.

    Args:
        velocity: Calls the network.
        x: State at the first sigma.
        sigmas: Noise levels.
        order: The most that a predictor looks back, itself included.
    """
    lambdas = [half_log_snr(min(sigma, _HIGHEST)) for sigma in sigmas]
    steps = len(sigmas) - 1
    cleans: list[T] = []
    start, used = x, 0
    for k in range(steps):
        cleans.append(x - sigmas[k] * velocity(x, sigmas[k]))
        if k > 0:
            x = _step(start, sigmas, lambdas, cleans[:k], used, cleans[k])
        start, used = x, min(order, k + 1, steps - k)
        x = _step(start, sigmas, lambdas, cleans, used, None)
    return x


def _step(
    x: T, sigmas: Sequence[float], lambdas: Sequence[float], cleans: Sequence[T], order: int, reached: T | None
) -> T:
    """Steps from the level of the last clean latent to the next one.

    Args:
        x: State at the level of the last clean latent.
        sigmas: Noise levels of the stage.
        lambdas: Their lambdas.
        cleans: Clean latents so far.
        order: How many of them are looked at.
        reached: The clean latent at the next level, to correct with; None to predict.
    """
    k = len(cleans) - 1
    moved = first_order(x, cleans[k], sigmas[k], sigmas[k + 1])
    h = lambdas[k + 1] - lambdas[k]
    ratios = [(lambdas[k - i] - lambdas[k]) / h for i in range(1, order)]
    differences = [(1 / r) * (cleans[k - i] - cleans[k]) for i, r in enumerate(ratios, start=1)]
    if reached is not None:
        ratios, differences = [*ratios, 1.0], [*differences, reached - cleans[k]]
    # (1 - sigma') (1 - e^-h) = 1 - sigma' / sigma
    shrunk = 1 - sigmas[k + 1] / sigmas[k]
    for weight, difference in zip(_weights(ratios, h), differences, strict=True):
        moved = moved + (shrunk * weight) * difference
    return moved


def _weights(ratios: Sequence[float], h: float) -> Sequence[float]:
    """Solves the order conditions (Eq. 5) for the weights of differences at these parts of a step of h.

    A single weight is 1/2 instead, as the paper chooses for B(h) = e^-h - 1 (section 3.4).
    """
    if len(ratios) < 2:
        return [0.5] * len(ratios)
    import numpy as np

    phi, factorial, conditions = math.expm1(-h) / -h - 1, 1, []
    for i in range(1, len(ratios) + 1):
        conditions.append(phi * factorial / math.expm1(-h))
        factorial *= i + 1
        phi = phi / -h - 1 / factorial
    solved: list[float] = np.linalg.solve(
        [[r**i for r in ratios] for i in range(len(ratios))], conditions
    ).tolist()
    return solved
