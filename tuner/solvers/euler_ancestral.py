"""The ancestral form of Euler's rule, on a flow."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from tuner.sigmas import renoising
from tuner.solvers.base import Noise, T, Velocity


def euler_ancestral(velocity: Velocity[T], x: T, sigmas: Sequence[float], noise: Noise[T]) -> T:
    """Steps below the next level and adds fresh noise to return to it. Order 1, one network call per step.

    Also known as ``EulerAncestralDiscreteScheduler`` for models that predict noise (diffusers),
    ``euler_ancestral`` on a flow (ComfyUI). Source: the stochastic step of Song et al., arXiv 2010.02502, Eq. 16
    with eta = 1, in the form that samplers of flows have: Euler's step goes to ``sigma'^2 / sigma``, below the
    next level, and from there the latent is renoised as between stages (`tuner.sigmas.renoising`). The step to
    sigma 0 adds none.
    """
    for k, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        below = sigma_next**2 / sigma
        x = x + (below - sigma) * velocity(x, sigma)
        if sigma_next > 0:
            kept, added = renoising(below, sigma_next)
            x = kept * x + added * noise(k)
    return x
