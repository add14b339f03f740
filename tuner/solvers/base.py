"""Shared arithmetic of the solvers: their variables, and when a step is of first order.

===================== ======================================================================================
``x``                 a latent at noise level sigma: ``(1 - sigma) x0 + sigma e``
``v``                 its velocity dx/dsigma, as the network predicts it
``x0 = x - sigma v``  the clean latent that the velocity points to
``lambda``            half the log of the signal-to-noise ratio, ``log((1 - sigma) / sigma)``
``h``                 growth of lambda in a step; ``h_before`` that of the step before
===================== ======================================================================================

In these variables a step of first order from sigma to sigma' is Euler's, which follows ``v``, DDIM's, and
DPM-Solver++'s: ``x' = r x + (1 - r) x0`` with ``r = sigma' / sigma``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar


class _State(Protocol):
    def __add__(self: T, other: T, /) -> T: ...
    def __sub__(self: T, other: T, /) -> T: ...
    def __rmul__(self: T, other: float, /) -> T: ...


T = TypeVar("T", bound=_State)
"""What a solver moves: a tensor in sampling, an array in theory, a number where its network calls are counted."""

Velocity = Callable[[T, float], T]
"""Takes a latent and its noise level."""

Noise = Callable[[int], T]
"""Takes the number of a step and returns its unit noise, the same at every call."""

_FEW_STEPS = 15


def half_log_snr(sigma: float) -> float:
    """Returns lambda: minus infinity at sigma 1, infinity at 0."""
    if sigma in (0, 1):
        return math.inf if sigma == 0 else -math.inf
    return math.log((1 - sigma) / sigma)


def first_order(x: T, x0: T, sigma: float, sigma_next: float) -> T:
    """Steps towards a clean latent, to 0 onto it."""
    kept = sigma_next / sigma
    return kept * x + (1 - kept) * x0


def ends_in_first_order(sigmas: Sequence[float]) -> bool:
    """Whether the last step is of first order: to sigma 0, where lambda is infinite, and if there are few steps.

    The second is ``lower_order_final`` of diffusers' multistep schedulers, which is on by default.
    """
    return sigmas[-1] == 0 or has_few_steps(sigmas)


def has_few_steps(sigmas: Sequence[float]) -> bool:
    """Whether diffusers' multistep schedulers lower the order of the last steps: below fifteen steps."""
    return len(sigmas) - 1 < _FEW_STEPS
