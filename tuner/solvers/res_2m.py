"""The multistep rule of the refined exponential solver."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.solvers.base import T, Velocity, ends_in_first_order, first_order, half_log_snr


def res_2m(velocity: Velocity[T], x: T, sigmas: Sequence[float]) -> T:
    """Integrates a line in lambda through the last two clean latents exactly. Order 2, one network call per step.

    Also known as ``DPMSolverMultistepScheduler`` with ``solver_type="heun"`` (diffusers), ``res_multistep``
    (ComfyUI, which counts h in log sigma on flows). Source: Zhang et al., arXiv 2308.02157, whose coefficients are
    those of exponential Adams-Bashforth rules, phi_2(-h) for the line's slope:

        x' = r x + (1 - r) x0 + (1 - sigma') ((e^-h - 1) / h + 1) h / h_before (x0 - x0_before).

    `dpmpp_2m` takes the value in the middle of the step for the integral. The first and last steps are as there.
    """
    steps, lambdas = len(sigmas) - 1, [half_log_snr(sigma) for sigma in sigmas]
    before: T | None = None
    for k in range(steps):
        sigma, sigma_next = sigmas[k], sigmas[k + 1]
        x0 = x - sigma * velocity(x, sigma)
        x = first_order(x, x0, sigma, sigma_next)
        if before is not None and not (k == steps - 1 and ends_in_first_order(sigmas)):
            h, h_before = lambdas[k + 1] - lambdas[k], lambdas[k] - lambdas[k - 1]
            # (1 - sigma') (1 - e^-h) = 1 - sigma' / sigma
            weight = ((1 - sigma_next) * h - (1 - sigma_next / sigma)) / h_before
            x = x + weight * (x0 - before)
        before = x0
    return x
