"""Moves the levels of a way that a table found to where the end itself comes nearest to the teacher's.

The table judges every beginning of a way by its own distance to the teacher, which is not what the end will be.
This judges whole ways: one inner level after another is moved, by 4, 2 and at last 1, for as long as the end comes
nearer.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

from tuner.distill.table import Network, Teacher
from tuner.solvers import SOLVERS

if TYPE_CHECKING:
    import torch

_STRIDES = (4, 2, 1)


def polish(
    network: Network,
    teacher: Teacher,
    way: tuple[int, ...],
    solver: str,
    cost: Callable[[torch.Tensor], float],
) -> tuple[int, ...]:
    """Sweeps once over the inner levels with every stride; the result is never worse on the teacher's prompts.

    Args:
        network: The model; a trial walks on from the last step that it shares with the way.
        teacher: The trajectory to follow.
        way: K + 1 increasing level numbers, the first 0 and the last N.
        solver: A one-step solver, the rule that the schedule will run with.
        cost: What is least for the best end, of latents (P, ...).
    """
    best = list(way)
    latents = _walk_on(network, teacher, best, [teacher.x[0]], solver)
    least = cost(latents[-1])
    for stride in _STRIDES:
        for k in range(1, len(way) - 1):
            for move in (-stride, stride):
                while best[k - 1] < best[k] + move < best[k + 1]:
                    trial = [*best[:k], best[k] + move, *best[k + 1 :]]
                    walked = _walk_on(network, teacher, trial, latents[:k], solver)
                    found = cost(walked[-1])
                    if found >= least:
                        break
                    best, latents, least = trial, walked, found
    return tuple(best)


def _walk_on(
    network: Network, teacher: Teacher, way: list[int], latents: list[torch.Tensor], solver: str
) -> list[torch.Tensor]:
    """Walks a way to its end from where its first latents lead; returns the latent at each of its levels."""
    latents = list(latents)
    for i, j in pairwise(way[len(latents) - 1 :]):
        latents.append(SOLVERS[solver](network, latents[-1], (teacher.sigmas[i], teacher.sigmas[j])))
    return latents
