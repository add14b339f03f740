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
from typing import Literal

import numpy as np

from tuner.distill.candidates import Candidates
from tuner.distill.clean import CleanDistance
from tuner.distill.rule import Network, Rule, Trail
from tuner.distill.teacher import Choice, Teacher, mean_square, ranked

Distance = Literal["x_0", "x_t"]


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
    distance: Distance = "x_0",
    solver: str = "euler",
) -> Table:
    """Fills the table, for all numbers of steps up to the largest.

    The recursion keeps one way per (steps, level), so it is exact as long as the way that is nearest to the
    teacher at a level is also the best one to go on from. In general the cost of the way found is at most that of
    every way whose own beginnings are nearest in this sense, among them every single jump to the end.

    Args:
        teacher: The trajectory to follow.
        network: The model. With a rule of one call per step ``x_t`` calls it once for each (steps, level) from
            which a way goes on, but for the first, whose velocity is the teacher's; ``x_0`` up to three times.
        allowed: For each number of steps k, from 0 to the largest, the levels at which a way may be after k steps.
            Level 0 is allowed for k = 0 alone.
        choice: ``each`` finds a way for every prompt alone, as the paper does. ``joint`` finds one way for all of
            them: it minimises the mean cost over prompts at every level. ``joint-log`` does so with the mean of
            the cost's logarithm, so that a few prompts that are far from their teacher do not decide alone.
        distance: ``x_t`` compares latents. ``x_0`` compares the clean images that the network predicts from them
            at all levels but the last, where the latents are what counts; see `CleanDistance`.
        solver: The rule that the schedule will run with, one that `tuner.distill.rule.check` accepts.
    """
    import torch

    levels, prompts = teacher.x.shape[:2]
    last, most = levels - 1, len(allowed) - 1
    before = np.full((len(allowed), levels, prompts), -1)
    cost = np.full((len(allowed), levels, prompts), np.inf)
    rule = Rule(solver, teacher.sigmas, network, teacher.x[0])
    clean = CleanDistance(teacher, network, choice)
    here = {0: rule.first(teacher.velocity[0])}
    for k in range(1, len(allowed)):
        ahead: dict[int, Trail] = {}
        for j in sorted(allowed[k], reverse=True):  # what is beyond j is not needed any more
            for i in [i for i in here if i >= j]:
                del here[i]
            goes_on = k < most and j < max(allowed[k + 1])
            origins = list(here)
            if not origins or not (goes_on or j == last):
                continue
            candidates = Candidates(rule, [here[i] for i in origins], j)
            if distance == "x_0" and j < last:
                far_IP, velocity = clean.measured(j, candidates)
            else:
                parts = [mean_square(some - teacher.x[j, rows], kept=2) for rows, some in candidates.parts()]
                far_IP, velocity = torch.cat(parts, dim=1), None
            best_P = ranked(far_IP, choice).argmin(dim=0)
            picked = torch.arange(prompts, device=best_P.device)
            trail = rule.land([here[i] for i in origins], best_P.tolist(), j, candidates.picked(best_P))
            if goes_on:
                ahead[j] = rule.asked(trail, velocity)
            cost[k, j] = far_IP[best_P, picked].cpu().numpy()
            before[k, j] = trail.ways[:, -2]
        here = ahead
    return Table(before, cost)


def middle_way(ways: np.ndarray, middle: Callable[..., np.ndarray] = np.median) -> tuple[int, ...]:
    """Joins the prompts' ways by the middle of each step's level (the authors' OSS-ave).

    Levels grow by one or more along every way, so their medians and means do, too, rounded down or not. Equal ways
    stay as they are.

    Args:
        ways: (P, K + 1) level numbers.
        middle: ``np.median``, as the authors' code has it, or ``np.mean``, as the paper says.
    """
    return tuple(int(level) for level in np.floor(middle(ways, axis=0)))
