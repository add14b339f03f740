"""ODE and SDE rules from high sigma to low: one file per solver, holding one function of the file's name.

A solver is one function ``(velocity, x, sigmas) -> x`` that walks a stage's whole list of sigmas; `base` says in
which variables. One that draws noise takes a fourth argument, ``noise``. It works on anything with ``+``, ``-``
and ``*``, so its network calls are counted by running it on a number. ``dpmpp_2m.py`` is ``dpmpp-2m`` to users.
Third parties add theirs through the entry-point group ``tuner.solvers``, whose values are such functions.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from tuner.registry import Registry
from tuner.solvers.base import Noise, T, Velocity

__all__ = [
    "available",
    "call_sigmas",
    "calls_once_per_step",
    "draws_noise",
    "load",
    "network_calls",
    "remembers",
    "reusing",
    "solve",
]

_REGISTRY = Registry("solver", __name__, __path__, member=str, spelled=lambda file: file.replace("_", "-"))
_PROBE = (0.9, 0.7, 0.4, 0.1)


@functools.cache  # a search asks for each of its candidates, and to look takes 10 ms
def available() -> tuple[str, ...]:
    """Lists the names, without importing any solver."""
    return tuple(_REGISTRY.available())


@functools.cache
def load(name: str) -> Callable[..., Any]:
    """Finds a solver.

    Raises:
        UserError: If nothing has this name.
    """
    found: Callable[..., Any] = _REGISTRY.load(name)
    return found


def solve(name: str, velocity: Velocity[T], x: T, sigmas: Sequence[float], noise: Noise[T]) -> T:
    """Runs a solver over a stage.

    Args:
        name: One of ``available()``.
        velocity: Calls the network.
        x: State at the first sigma.
        sigmas: The stage's noise levels.
        noise: Unit noise of each step, for solvers that draw it.

    Returns:
        The state at the last sigma.
    """
    rest = (noise,) if draws_noise(name) else ()
    solved: T = load(name)(velocity, x, sigmas, *rest)
    return solved


@functools.cache
def draws_noise(name: str) -> bool:
    """Whether a solver is stochastic: it takes ``noise``."""
    return "noise" in inspect.signature(load(name)).parameters


@functools.cache
def remembers(name: str) -> bool:
    """Whether a solver's step depends on the steps before it: taken one by one, its steps lead elsewhere."""

    def velocity(x: float, sigma: float) -> float:
        return x * sigma**2

    def step(x: float, ends: tuple[float, float]) -> float:
        return solve(name, velocity, x, ends, lambda _: 0.0)

    whole = solve(name, velocity, 1.0, _PROBE, lambda _: 0.0)
    return abs(whole - functools.reduce(step, pairwise(_PROBE), 1.0)) > 1e-9


def calls_once_per_step(name: str) -> bool:
    """Whether a solver calls the network once at the first level of every step, as feature caches expect."""
    return call_sigmas(name, _PROBE) == list(_PROBE[:-1])


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
        solver: One of ``available()``.
        sigmas: The stage's noise levels.
        reuse: Numbers of the steps that reuse the last velocity.
    """
    called: list[float] = []

    def velocity(x: float, sigma: float) -> float:
        called.append(sigma)
        return 0.0

    solve(solver, reusing(velocity, sigmas, reuse), 0.0, sigmas, lambda _: 0.0)
    return called


def network_calls(solver: str, sigmas: Sequence[float], reuse: Sequence[int] = ()) -> int:
    """Counts the network calls of a stage; see `call_sigmas`."""
    return len(call_sigmas(solver, sigmas, reuse))
