"""SDE-DPM-Solver++(2M)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tuner.solvers.base import Noise, T, Velocity, ends_in_first_order, half_log_snr


def dpmpp_2m_sde(velocity: Velocity[T], x: T, sigmas: Sequence[float], noise: Noise[T]) -> T:
    """Solves the reverse SDE with the clean latent extrapolated as in `dpmpp_2m`. One network call per step.

    Order 2 where the noise does not count, strong order 1. Also known as ``DPMSolverMultistepScheduler`` with
    ``algorithm_type="sde-dpmsolver++"`` (diffusers), ``dpmpp_2m_sde`` with its solver type midpoint (ComfyUI).
    Source: Lu et al., DPM-Solver++, arXiv 2211.01095, section 6.2 (SDE-DPM-Solver++(2M)):

        x' = r e^-h x + (1 - sigma') (1 - e^-2h) (x0 + h / (2 h_before) (x0 - x0_before))
             + sigma' sqrt(1 - e^-2h) noise,   r = sigma' / sigma.

    Steps of first order are those of `dpmpp_2m`.
    """
    steps, lambdas = len(sigmas) - 1, [half_log_snr(sigma) for sigma in sigmas]
    before: T | None = None
    for k in range(steps):
        sigma, sigma_next = sigmas[k], sigmas[k + 1]
        x0 = x - sigma * velocity(x, sigma)
        ahead, h = x0, lambdas[k + 1] - lambdas[k]
        if before is not None and not (k == steps - 1 and ends_in_first_order(sigmas)):
            ahead = x0 + (0.5 * h / (lambdas[k] - lambdas[k - 1])) * (x0 - before)
        fresh = -math.expm1(-2 * h)
        x = (sigma_next / sigma * math.exp(-h)) * x + ((1 - sigma_next) * fresh) * ahead
        if sigma_next > 0:
            x = x + (sigma_next * math.sqrt(fresh)) * noise(k)
        before = x0
    return x
