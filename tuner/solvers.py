"""ODE step rules for dx/dsigma = velocity(x, sigma), from high sigma to low.

A solver is one function ``(velocity, x, sigmas) -> x`` that walks a stage's whole list of sigmas. It works on
anything with ``+`` and ``*``: tensors in sampling, plain floats where its network calls are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol, TypeVar


class _State(Protocol):
    def __add__(self: T, other: T, /) -> T: ...
    def __rmul__(self: T, other: float, /) -> T: ...


T = TypeVar("T", bound=_State)
Velocity = Callable[[T, float], T]


def euler(velocity: Velocity[T], x: T, sigmas: Sequence[float]) -> T:
    """First order: follows the tangent. One network call per step."""
    for sigma, sigma_next in pairwise(sigmas):
        x = x + (sigma_next - sigma) * velocity(x, sigma)
    return x


def heun(velocity: Velocity[T], x: T, sigmas: Sequence[float]) -> T:
    """Second order: averages the tangents at both ends of a step (Karras et al., arXiv 2206.00364, Alg. 1).

    Two network calls per step; the step to sigma 0 is Euler's, because networks are not trained at 0.
    """
    for sigma, sigma_next in pairwise(sigmas):
        slope = velocity(x, sigma)
        ahead = x + (sigma_next - sigma) * slope
        if sigma_next > 0:
            ahead = x + (0.5 * (sigma_next - sigma)) * (slope + velocity(ahead, sigma_next))
        x = ahead
    return x


SOLVERS: dict[str, Callable[..., Any]] = {solver.__name__: solver for solver in (euler, heun)}


def reusing(velocity: Velocity[T], sigmas: Sequence[float], reuse: Sequence[int]) -> Velocity[T]:
    """Makes a velocity that repeats its last value at the noise levels of some steps.

    Args:
        velocity: Calls the network.
        sigmas: The stage's noise levels.
        reuse: Numbers of the steps whose noise level gets no call of its own; never step 0.
    """
    skipped = {sigmas[step] for step in reuse}
    last: T

    def reused(x: T, sigma: float) -> T:
        nonlocal last
        if sigma not in skipped:
            last = velocity(x, sigma)
        return last

    return reused


def call_sigmas(solver: str, sigmas: Sequence[float], reuse: Sequence[int] = ()) -> list[float]:
    """Lists the noise level of every network call of a stage, by running its solver on a number.

    Args:
        solver: A key of ``SOLVERS``.
        sigmas: The stage's noise levels.
        reuse: Numbers of the steps that reuse the last velocity.
    """
    called: list[float] = []

    def velocity(x: float, sigma: float) -> float:
        called.append(sigma)
        return 0.0

    SOLVERS[solver](reusing(velocity, sigmas, reuse), 0.0, sigmas)
    return called


def network_calls(solver: str, sigmas: Sequence[float], reuse: Sequence[int] = ()) -> int:
    """Counts the network calls of a stage; see `call_sigmas`."""
    return len(call_sigmas(solver, sigmas, reuse))
