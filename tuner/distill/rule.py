"""How ways step on: by the solver that the schedule will run with, and by what it remembers.

A one-step rule needs the latent and its velocity. A multistep rule looks back, so its step depends on the way.
Such rules are linear: where a way leads is a weighted sum of its first latent and of the velocities at its levels,
with weights that follow from the noise levels alone. `weights` reads them off the solver by running it on unit
vectors, so the table carries the velocities of every way and needs no second form of any rule.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tuner.errors import UserError
from tuner.solvers import available, calls_once_per_step, draws_noise, load, remembers

if TYPE_CHECKING:
    import torch

Network = Callable[["torch.Tensor", float], "torch.Tensor"]
"""Predicts dx/dsigma of P latents, one per prompt, at a noise level."""

_PROBE = (0.9, 0.7, 0.4, 0.3)


def check(solver: str) -> None:
    """Refuses a solver whose next step cannot be foretold from the way so far.

    Raises:
        UserError: If it draws noise, or depends on more than the way and on whether the step is the last.
    """
    if (reason := _reason(solver)) is not None:
        known = [name for name in available() if _reason(name) is None]
        raise UserError(f"Optimal Stepsize cannot step by {solver!r}: {reason}; use one of {', '.join(known)}.")


def _reason(solver: str) -> str | None:
    if draws_noise(solver):
        return "it draws noise, so its images are not the teacher's"
    if not remembers(solver):
        return None
    if not calls_once_per_step(solver):
        return "it remembers earlier steps and calls the network more than once per step"
    nearly_last, early = (_reached(solver, _PROBE, after) for after in ((0.0,), (0.2, 0.1, 0.0)))
    if not np.allclose(nearly_last, early):
        return "its last step but one is of another order, and no table knows which step that will be"
    return None


@functools.lru_cache(maxsize=1 << 10)  # prompts mostly share their way
def weights(solver: str, sigmas: tuple[float, ...], last: bool) -> tuple[float, ...]:
    """Writes where a way leads as a sum of its first latent and its velocities.

    Args:
        solver: A deterministic rule of one network call per step.
        sigmas: The way's k + 1 noise levels, the one that it steps to included.
        last: Whether the stage ends there. A way that goes on leads to the latent that the network is asked about;
            a rule may correct it afterwards.

    Returns:
        k + 1 weights: of the first latent, and of the velocities at all levels but the last.
    """
    after = () if last else tuple(sigmas[-1] * part for part in (0.5, 0.25, 0.0))
    return tuple(_reached(solver, sigmas, after).tolist())


def _reached(solver: str, sigmas: Sequence[float], after: Sequence[float]) -> np.ndarray:
    """Runs the solver on unit vectors over levels and those after them; returns the state at ``sigmas[-1]``."""
    steps = len(sigmas) - 1
    units = np.eye(steps + 1)
    asked: list[np.ndarray] = []

    def velocity(x: np.ndarray, sigma: float) -> np.ndarray:
        asked.append(x)
        return units[len(asked)] if len(asked) <= steps else np.zeros(steps + 1)

    end: np.ndarray = load(solver)(velocity, units[0], (*sigmas, *after))
    return asked[steps] if after else end


@dataclass(frozen=True)
class Trail:
    """What the ways of P prompts to one level leave behind.

    Attributes:
        ways: The levels of each prompt's way, (P, k + 1).
        x: The latents that they lead to, (P, ...).
        velocities: Of every level of the ways, oldest first, as far as the network was asked; of the last one
            alone for a one-step rule.
    """

    ways: np.ndarray
    x: torch.Tensor
    velocities: tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Rule:
    """Steps ways on.

    Attributes:
        solver: A rule that ``check`` accepts.
        sigmas: The teacher's N + 1 noise levels, which ways are numbers of.
        network: The model.
        start: Latents at the first level, (P, ...).
    """

    solver: str
    sigmas: tuple[float, ...]
    network: Network
    start: torch.Tensor

    def first(self, velocity: torch.Tensor) -> Trail:
        """Returns the ways of no step, of which the teacher knows the velocity."""
        return Trail(np.zeros((len(self.start), 1), dtype=int), self.start, (velocity,))

    def step(self, trail: Trail, level: int) -> torch.Tensor:
        """Returns the latents to which ways lead that step on to a level.

        Args:
            trail: The ways, with the velocities at their last level.
            level: A later one.
        """
        import torch

        sigma = self.sigmas[trail.ways[0, -1]]
        if not remembers(self.solver):

            def known(x: torch.Tensor, at: float) -> torch.Tensor:
                return trail.velocities[-1] if at == sigma else self.network(x, at)

            stepped: torch.Tensor = load(self.solver)(known, trail.x, (sigma, self.sigmas[level]))
            return stepped
        each = [self._weights((*way, level)) for way in trail.ways.tolist()]
        sums_PK = torch.tensor(each, dtype=trail.x.dtype, device=trail.x.device)
        terms = (self.start, *trail.velocities)
        shape = (-1, *[1] * (trail.x.ndim - 1))
        return torch.stack([sums_PK[:, k].view(shape) * term for k, term in enumerate(terms)]).sum(dim=0)

    def land(self, origins: Sequence[Trail], picked_P: Sequence[int], level: int, x: torch.Tensor) -> Trail:
        """Returns the trail at a level that each prompt reaches from one of several origins.

        Args:
            origins: Trails to step on from.
            picked_P: Which of them each prompt takes.
            level: Where they step to.
            x: The latents there, (P, ...).
        """
        import torch

        ways = np.stack([[*origins[i].ways[p], level] for p, i in enumerate(picked_P)])
        if not remembers(self.solver):
            return Trail(ways, x, ())
        if len(set(picked_P)) == 1:  # no copy
            return Trail(ways, x, origins[picked_P[0]].velocities)
        past = zip(*(origins[i].velocities for i in picked_P), strict=True)
        return Trail(ways, x, tuple(torch.stack([each[p] for p, each in enumerate(level_)]) for level_ in past))

    def asked(self, trail: Trail, velocity: torch.Tensor | None = None) -> Trail:
        """Adds the velocity at a trail's last level, which the network is asked for unless it is known."""
        if velocity is None:
            velocity = self.network(trail.x, self.sigmas[trail.ways[0, -1]])
        return replace(trail, velocities=(*trail.velocities, velocity))

    def _weights(self, way: tuple[int, ...]) -> tuple[float, ...]:
        return weights(self.solver, tuple(self.sigmas[level] for level in way), way[-1] == len(self.sigmas) - 1)
