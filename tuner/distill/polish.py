"""Moves the levels of a way that a table found to where the end itself comes nearest to the teacher's.

The table judges every beginning of a way by its own distance to the teacher, which is not what the end will be.
This judges whole ways: one inner level after another is moved, by 2 and then by 1, for as long as the end comes
nearer. The last levels are moved first, because a way that changes late is walked anew for few steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuner.distill.rule import Rule, Trail
from tuner.distill.teacher import Teacher

if TYPE_CHECKING:
    import torch

STRIDES = (2, 1)
"""How far levels are moved at a time."""


@dataclass(frozen=True)
class Walked:
    """A way, and where it leads.

    Attributes:
        way: K + 1 increasing level numbers, the first 0 and the last N.
        trails: What it leaves behind at each of them.
    """

    way: tuple[int, ...]
    trails: tuple[Trail, ...]

    @property
    def steps(self) -> int:
        """K."""
        return len(self.way) - 1

    @property
    def end(self) -> torch.Tensor:
        """The latent at the last level."""
        return self.trails[-1].x


def walk_way(rule: Rule, teacher: Teacher, way: tuple[int, ...], known: Sequence[Trail] = ()) -> Walked:
    """Walks a way from the teacher's noise to its end.

    Args:
        rule: How to step, on the teacher's levels.
        teacher: Knows the first velocity.
        way: K + 1 increasing level numbers.
        known: The trails at the way's first levels, where it shares them with one that was walked before.
    """
    trails = list(known) or [rule.first(teacher.velocity[0])]
    everyone = [0] * len(teacher.x[0])
    for level in way[len(trails) :]:
        landed = rule.land(trails[-1:], everyone, level, rule.step(trails[-1], level))
        trails.append(rule.asked(landed) if level < way[-1] else landed)
    return Walked(way, tuple(trails))


def polish(
    rule: Rule,
    teacher: Teacher,
    walked: Walked,
    cost: Callable[[torch.Tensor], float],
    most_steps: float = math.inf,
    strides: Sequence[int] = STRIDES,
) -> tuple[Walked, int]:
    """Sweeps once over the inner levels with every stride; the result is never worse on the teacher's prompts.

    Args:
        rule: How to step; a trial walks on from the last step that it shares with the way.
        teacher: The trajectory to follow.
        walked: Where to start.
        cost: What is least for the best end, of latents (P, ...).
        most_steps: Trials ask for the velocities of no more than this many steps together.
        strides: How far to move levels at a time, one sweep for each.

    Returns:
        The best way found, and how many velocities were asked for.
    """
    best, least, taken = walked, cost(walked.end), 0
    for stride in strides:
        for k in range(best.steps - 1, 0, -1):
            for move in (-stride, stride):
                while best.way[k - 1] < best.way[k] + move < best.way[k + 1]:
                    if taken + best.steps - k > most_steps:
                        return best, taken
                    moved = (*best.way[:k], best.way[k] + move, *best.way[k + 1 :])
                    trial = walk_way(rule, teacher, moved, best.trails[:k])
                    taken += best.steps - k
                    found = cost(trial.end)
                    if found >= least:
                        break
                    best, least = trial, found
    return best, taken
