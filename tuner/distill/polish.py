"""Moves the levels of a way that a table found to where the end itself comes nearest to the teacher's.

The table judges every beginning of a way by its own distance to the teacher, which is not what the end will be.
This judges whole ways: one inner level after another is moved, by 2 and then by 1, for as long as the end comes
nearer. The last levels are moved first, because a way that changes late is walked anew for few steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from tuner.distill.table import Network, Teacher
from tuner.solvers import load

if TYPE_CHECKING:
    import torch

STRIDES = (2, 1)
"""How far levels are moved at a time."""


@dataclass(frozen=True)
class Walked:
    """A way, and where it leads.

    Attributes:
        way: K + 1 increasing level numbers, the first 0 and the last N.
        latents: The latent at each of them, (P, ...).
    """

    way: tuple[int, ...]
    latents: tuple[torch.Tensor, ...]

    @property
    def steps(self) -> int:
        """K."""
        return len(self.way) - 1

    @property
    def end(self) -> torch.Tensor:
        """The latent at the last level."""
        return self.latents[-1]


def walk_way(
    network: Network, teacher: Teacher, way: tuple[int, ...], solver: str, known: Sequence[torch.Tensor] = ()
) -> Walked:
    """Walks a way from the teacher's noise to its end.

    Args:
        network: The model.
        teacher: Whose levels they are.
        way: K + 1 increasing level numbers.
        solver: A one-step solver, the rule that the schedule will run with.
        known: The latents at the way's first levels, where it shares them with one that was walked before.
    """
    latents = list(known) or [teacher.x[0]]
    for i, j in pairwise(way[len(latents) - 1 :]):
        latents.append(load(solver)(network, latents[-1], (teacher.sigmas[i], teacher.sigmas[j])))
    return Walked(way, tuple(latents))


def polish(
    network: Network,
    teacher: Teacher,
    walked: Walked,
    solver: str,
    cost: Callable[[torch.Tensor], float],
    most_steps: float = math.inf,
    strides: Sequence[int] = STRIDES,
) -> tuple[Walked, int]:
    """Sweeps once over the inner levels with every stride; the result is never worse on the teacher's prompts.

    Args:
        network: The model; a trial walks on from the last step that it shares with the way.
        teacher: The trajectory to follow.
        walked: Where to start.
        solver: A one-step solver, the rule that the schedule will run with.
        cost: What is least for the best end, of latents (P, ...).
        most_steps: Trials walk no more than this many steps together.
        strides: How far to move levels at a time, one sweep for each.

    Returns:
        The best way found, and how many steps were walked.
    """
    best, least, taken = walked, cost(walked.end), 0
    for stride in strides:
        for k in range(best.steps - 1, 0, -1):
            for move in (-stride, stride):
                while best.way[k - 1] < best.way[k] + move < best.way[k + 1]:
                    if taken + best.steps - k + 1 > most_steps:
                        return best, taken
                    moved = (*best.way[:k], best.way[k] + move, *best.way[k + 1 :])
                    trial = walk_way(network, teacher, moved, solver, best.latents[:k])
                    taken += best.steps - k + 1
                    found = cost(trial.end)
                    if found >= least:
                        break
                    best, least = trial, found
    return best, taken
