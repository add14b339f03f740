"""The table of Optimal Stepsize: which few of a teacher's noise levels follow its trajectory best.

Pei et al., "Optimal Stepsize for Diffusion Sampling", arXiv 2503.21774. The teacher walks N steps; its levels are
numbered from 0 (noise) to N (clean). ``z[k][j]`` is the latent of the best way to level j in exactly k steps. It
extends the best way to some earlier level i in k - 1 steps, and its cost is the mean squared distance to the
teacher's latent at j. Nothing here knows a model: the network is a function of (latents, level).

Shapes: N + 1 levels, P prompts, then whatever a latent has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np

from tuner.solvers import load

if TYPE_CHECKING:
    import torch

Network = Callable[["torch.Tensor", float], "torch.Tensor"]
"""Predicts dx/dsigma of P latents, one per prompt, at a noise level."""

Choice = Literal["each", "joint", "joint-log"]
Distance = Literal["x_t", "x_0"]

_SHORTLIST = 4


@dataclass(frozen=True)
class Teacher:
    """A many-step trajectory.

    Attributes:
        sigmas: N + 1 strictly decreasing noise levels.
        x: Latents at every level, (N + 1, P, ...).
        clean: What the network takes for the clean image at every level, x - sigma * velocity, (N + 1, P, ...);
            at sigma 0 the latent itself. A teacher that ends above 0 repeats its last prediction there.
    """

    sigmas: tuple[float, ...]
    x: torch.Tensor
    clean: torch.Tensor

    @property
    def steps(self) -> int:
        """N."""
        return len(self.sigmas) - 1


def walk(network: Network, x: torch.Tensor, sigmas: Sequence[float]) -> Teacher:
    """Runs the teacher: one Euler step and one network call per level.

    Args:
        network: The model.
        x: Latents at the first level, (P, ...).
        sigmas: The teacher's noise levels.
    """
    import torch

    latents, clean = [x], []
    for sigma, sigma_next in pairwise(sigmas):
        velocity = network(latents[-1], sigma)
        clean.append(latents[-1] - sigma * velocity)
        latents.append(latents[-1] + (sigma_next - sigma) * velocity)
    clean.append(clean[-1] if sigmas[-1] > 0 else latents[-1])
    return Teacher(tuple(sigmas), torch.stack(latents), torch.stack(clean))


@dataclass(frozen=True)
class Table:
    """Every best way, for every number of steps at once.

    Attributes:
        before: ``before[k, j, p]`` is the level from which prompt p's best way of k steps reaches level j; -1
            where there is none.
        cost: Its mean squared distance to the teacher's latent at j; infinite where there is none.
    """

    before: np.ndarray
    cost: np.ndarray

    def ways(self, steps: int) -> np.ndarray:
        """Traces the ways of exactly ``steps`` steps back from the last level: (P, steps + 1) level numbers.

        Raises:
            ValueError: If the table has no way of that many steps.
        """
        if steps >= len(self.before) or (self.before[steps, -1] < 0).any():
            raise ValueError(f"the table holds no way of {steps} steps.")
        prompts = np.arange(self.before.shape[2])
        levels = [np.full(len(prompts), self.before.shape[1] - 1)]
        for k in range(steps, 0, -1):
            levels.append(self.before[k, levels[-1], prompts])
        return np.stack(levels[::-1], axis=1)


def fill(
    teacher: Teacher,
    network: Network,
    allowed: Sequence[frozenset[int]],
    choice: Choice = "joint",
    distance: Distance = "x_t",
    solver: str = "euler",
) -> Table:
    """Fills the table, for all numbers of steps up to the largest.

    The recursion keeps one latent per (steps, level), so it is exact as long as the way that is nearest to the
    teacher at a level is also the best one to go on from. In general the cost of the way found is at most that of
    every way whose own beginnings are nearest in this sense, among them every single jump to the end.

    Args:
        teacher: The trajectory to follow.
        network: The model; called once per reachable (steps, level) for Euler's rule.
        allowed: For each number of steps k, from 0 to the largest, the levels at which a way may be after k steps.
            Level 0 is allowed for k = 0 alone.
        choice: ``each`` finds a way for every prompt alone, as the paper does. ``joint`` finds one way for all of
            them: it minimises the mean cost over prompts at every level. ``joint-log`` does so with the mean of
            the cost's logarithm, so that a few prompts that are far from their teacher do not decide alone.
        distance: ``x_t`` compares latents. ``x_0`` compares the clean images that the network predicts from them,
            at one more call for each of the four candidates nearest by ``x_t``.
        solver: The rule that the schedule will run with, one that remembers nothing from step to step: only then
            is a latent all that a way leaves behind.
    """
    import torch

    levels, prompts = teacher.x.shape[:2]
    before = np.full((len(allowed), levels, prompts), -1)
    cost = np.full((len(allowed), levels, prompts), np.inf)
    here = {0: teacher.x[0]}
    velocities = {0: network(here[0], teacher.sigmas[0])}
    for k in range(1, len(allowed)):
        landed: dict[int, torch.Tensor] = {}
        ahead: dict[int, torch.Tensor] = {}
        for j in sorted(allowed[k]):
            origins = [i for i in velocities if i < j]
            if not origins:
                continue
            candidates = torch.stack(
                [
                    _step(network, solver, here[i], velocities[i], teacher.sigmas[i], teacher.sigmas[j])
                    for i in origins
                ]
            )
            far_IP = mean_square(candidates - teacher.x[j], kept=2)
            if distance == "x_0" and teacher.sigmas[j] > 0:
                far_IP = _clean_distance(teacher, network, j, candidates, far_IP, choice)
            best_P = ranked(far_IP, choice).argmin(dim=0)
            picked = torch.arange(prompts, device=best_P.device)
            landed[j] = candidates[best_P, picked]
            cost[k, j] = far_IP[best_P, picked].cpu().numpy()
            before[k, j] = np.asarray(origins)[best_P.cpu().numpy()]
        here = landed
        if k < len(allowed) - 1:
            ahead = {i: network(here[i], teacher.sigmas[i]) for i in here if _goes_on(i, k, allowed)}
        velocities = ahead
    return Table(before, cost)


def _goes_on(level: int, k: int, allowed: Sequence[frozenset[int]]) -> bool:
    """Whether a way may step on from this level after k steps."""
    return level < max(allowed[k + 1], default=0)


def _step(
    network: Network, solver: str, x: torch.Tensor, velocity: torch.Tensor, sigma: float, sigma_next: float
) -> torch.Tensor:
    """Takes one solver step whose first velocity is known."""

    def known(at: torch.Tensor, level: float) -> torch.Tensor:
        return velocity if level == sigma else network(at, level)

    stepped: torch.Tensor = load(solver)(known, x, (sigma, sigma_next))
    return stepped


def _clean_distance(
    teacher: Teacher, network: Network, j: int, candidates: torch.Tensor, far_IP: torch.Tensor, choice: Choice
) -> torch.Tensor:
    """Measures the nearest candidates anew, by their clean predictions; the others are infinitely far."""
    import torch

    rank_IP = ranked(far_IP, choice)
    found = torch.full_like(far_IP, torch.inf)
    prompts = torch.arange(far_IP.shape[1], device=far_IP.device)
    for near_P in rank_IP.argsort(dim=0, stable=True)[:_SHORTLIST]:
        x = candidates[near_P, prompts]
        clean = x - teacher.sigmas[j] * network(x, teacher.sigmas[j])
        found[near_P, prompts] = mean_square(clean - teacher.clean[j], kept=1)
    return found


def ranked(far_IP: torch.Tensor, choice: Choice) -> torch.Tensor:
    """Returns for each prompt the quantity that the chosen candidate minimises."""
    import torch

    if choice == "each":
        return far_IP
    if choice == "joint-log":
        far_IP = far_IP.clamp(min=torch.finfo(far_IP.dtype).tiny).log()
    return far_IP.mean(dim=1, keepdim=True).expand_as(far_IP)


def mean_square(difference: torch.Tensor, kept: int) -> torch.Tensor:
    """Averages squares over all but the first ``kept`` dimensions."""
    return difference.flatten(start_dim=kept).square().mean(dim=-1)


def median_way(ways: np.ndarray) -> tuple[int, ...]:
    """Joins the prompts' ways by the median of each step's level (the authors' OSS-ave).

    Levels grow along every way, so their medians do, too. With an even number of prompts the two middle levels are
    averaged and rounded down.

    Args:
        ways: (P, K + 1) level numbers.
    """
    return tuple(int(level) for level in np.floor(np.median(ways, axis=0)))
