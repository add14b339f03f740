"""DPM-Solver++(3M)."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.solvers.base import T, Velocity, ends_in_first_order, first_order, half_log_snr, has_few_steps


def dpmpp_3m(velocity: Velocity[T], x: T, sigmas: Sequence[float]) -> T:
    """Integrates a parabola in lambda through the last three clean latents. One network call per step.

    Also known as ``DPMSolverMultistepScheduler`` with ``solver_order=3`` (diffusers). Source: Lu et al.,
    DPM-Solver++, arXiv 2211.01095, Eq. 10 for n = 3 with first and second differences D1 and D2:

        x' = r x + (1 - r) x0 + (1 - sigma') (a D1 - b D2),
        a = (e^-h - 1) / h + 1,   b = (e^-h - 1 + h) / h^2 - 1/2.

    Order 2 in practice: b is half of what the parabola's second difference asks for, in the authors' code and in
    diffusers, and stays so here. The first step is of first order and the second of second; where
    `has_few_steps`, the last is of first order and the one before of second.
    """
    steps, lambdas = len(sigmas) - 1, [half_log_snr(sigma) for sigma in sigmas]
    cleans: list[T] = []
    for k in range(steps):
        sigma, sigma_next = sigmas[k], sigmas[k + 1]
        cleans.append(x - sigma * velocity(x, sigma))
        moved = first_order(x, cleans[k], sigma, sigma_next)
        if k > 0 and not (k == steps - 1 and ends_in_first_order(sigmas)):
            h, h_0 = lambdas[k + 1] - lambdas[k], lambdas[k] - lambdas[k - 1]
            slope = (h / h_0) * (cleans[k] - cleans[k - 1])
            # (1 - sigma') (1 - e^-h) = 1 - sigma' / sigma
            shrunk = 1 - sigma_next / sigma
            if k == 1 or (k == steps - 2 and has_few_steps(sigmas)):
                moved = moved + (0.5 * shrunk) * slope
            else:
                h_1 = lambdas[k - 1] - lambdas[k - 2]
                bend = slope - (h / h_1) * (cleans[k - 1] - cleans[k - 2])
                slope = slope + (h_0 / (h_0 + h_1)) * bend
                kept = 1 - sigma_next
                moved = moved + (kept - shrunk / h) * slope
                moved = moved - ((kept * h - shrunk) / h**2 - 0.5 * kept) * ((h / (h_0 + h_1)) * bend)
        x = moved
    return x
