"""DEIS of second order."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tuner.solvers.base import T, Velocity, ends_in_first_order


def deis_2(velocity: Velocity[T], x: T, sigmas: Sequence[float]) -> T:
    """Integrates a line in log rho through the last two noises exactly. Order 2, one network call per step.

    Also known as ``DEISMultistepScheduler`` with its defaults (diffusers), ``deis`` without its third order
    (ComfyUI). Source: Zhang and Chen, arXiv 2204.13902, section 3.4 (log-rho Adams-Bashforth). With
    ``rho = sigma / (1 - sigma)`` and the noise ``e = x + (1 - sigma) v``:

        x' / (1 - sigma') = x / (1 - sigma) + c e + c_before e_before,

    where c and c_before are the integrals over rho of the line's two Lagrange weights. The first step is Euler's,
    and so is the one after a start from sigma 1, where rho is infinite; for the last see `ends_in_first_order`.
    """
    steps = len(sigmas) - 1
    before: T | None = None
    for k in range(steps):
        sigma, sigma_next = sigmas[k], sigmas[k + 1]
        slope = velocity(x, sigma)
        noise = x + (1 - sigma) * slope
        last = k == steps - 1 and ends_in_first_order(sigmas)
        if before is None or sigmas[k - 1] == 1 or last:
            x = x + (sigma_next - sigma) * slope
        else:
            old, here, there = (_rho(level) for level in (sigmas[k - 1], sigma, sigma_next))
            weight = _integral(there, here, old) - _integral(here, here, old)
            weight_before = _integral(there, old, here) - _integral(here, old, here)
            x = (1 - sigma_next) * ((1 / (1 - sigma)) * x + weight * noise + weight_before * before)
        before = noise
    return x


def _rho(sigma: float) -> float:
    return sigma / (1 - sigma)


def _integral(rho: float, one: float, zero: float) -> float:
    """An antiderivative of the line in log rho that is 1 at one level and 0 at another."""
    return rho * (math.log(rho / zero) - 1) / math.log(one / zero)
