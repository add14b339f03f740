"""DPM-Solver++(2M)."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.solvers.base import T, Velocity, ends_in_first_order, first_order, half_log_snr


def dpmpp_2m(velocity: Velocity[T], x: T, sigmas: Sequence[float]) -> T:
    """Extrapolates the clean latent to the middle of a step in lambda. Order 2, one network call per step.

    Also known as ``DPMSolverMultistepScheduler`` with its defaults (diffusers), ``dpmpp_2m`` (ComfyUI, which
    counts h in log sigma on flows). Source: Lu et al., DPM-Solver++, arXiv 2211.01095, Algorithm 2:

        x' = r x + (1 - r) (x0 + h / (2 h_before) (x0 - x0_before)),   r = sigma' / sigma.

    The first step is of first order, and so is the one after a start from sigma 1, where h_before is infinite; for
    the last see `ends_in_first_order`.
    """
    steps, lambdas = len(sigmas) - 1, [half_log_snr(sigma) for sigma in sigmas]
    before: T | None = None
    for k in range(steps):
        x0 = x - sigmas[k] * velocity(x, sigmas[k])
        ahead = x0
        if before is not None and not (k == steps - 1 and ends_in_first_order(sigmas)):
            ratio = (lambdas[k + 1] - lambdas[k]) / (lambdas[k] - lambdas[k - 1])
            ahead = x0 + (0.5 * ratio) * (x0 - before)
        x = first_order(x, ahead, sigmas[k], sigmas[k + 1])
        before = x0
    return x
