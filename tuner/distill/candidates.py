"""The latents that ways to one level may lead to, made for as many prompts at a time as fit the memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tuner.distill.rule import Rule, Trail
from tuner.solvers import calls_once_per_step

if TYPE_CHECKING:
    import torch

MOST_BYTES = 1 << 30
"""Candidates that are in memory at once."""


class Candidates:
    """Latents at a level, one for each origin and prompt.

    All of them are kept where they are small, or where a step calls the network; else each is made when it is
    asked for.

    Args:
        rule: How ways step on.
        origins: I trails at earlier levels.
        level: Where they step to.
    """

    def __init__(self, rule: Rule, origins: Sequence[Trail], level: int):
        self._rule, self._origins, self._level = rule, origins, level
        each = len(origins) * rule.start[0].nbytes
        self.prompts = len(rule.start)
        fitting = max(1, MOST_BYTES // each)
        self._rows = fitting if fitting < self.prompts and calls_once_per_step(rule.solver) else self.prompts
        self._kept = self._made(slice(None)) if self._rows == self.prompts else None

    def parts(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yields some prompts after the other, with their latents (I, ...)."""
        for start in range(0, self.prompts, self._rows):
            rows = slice(start, start + self._rows)
            yield rows, self._made(rows) if self._kept is None else self._kept

    def picked(self, picked_P: torch.Tensor) -> torch.Tensor:
        """Returns the latent of one origin for each prompt, (P, ...)."""
        import torch

        if self._kept is not None:
            return self._kept[picked_P, torch.arange(self.prompts, device=picked_P.device)]
        found = torch.empty_like(self._rule.start)
        for index in sorted(set(picked_P.tolist())):
            prompts = (picked_P == index).nonzero()[:, 0]
            found[prompts] = _of(self._rule, prompts).step(_part(self._origins[index], prompts), self._level)
        return found

    def _made(self, rows: slice) -> torch.Tensor:
        import torch

        rule = _of(self._rule, rows)
        return torch.stack([rule.step(_part(origin, rows), self._level) for origin in self._origins])


def _of(rule: Rule, rows: slice | torch.Tensor) -> Rule:
    return replace(rule, start=rule.start[rows])


def _part(trail: Trail, rows: slice | torch.Tensor) -> Trail:
    """Returns the trail of some prompts."""
    ways = trail.ways[rows if isinstance(rows, slice) else rows.cpu().numpy()]
    return Trail(ways, trail.x[rows], tuple(velocity[rows] for velocity in trail.velocities))
