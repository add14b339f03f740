"""What spaces share about cost: the prices of network calls, and steps bought with shares of a budget."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from search_spaces.base import ROUNDING, Budget
from tuner.flops import tflops_per_call
from tuner.solvers import network_calls

if TYPE_CHECKING:
    from tuner.models import Blueprint, Size

_SMALLEST_SCALE = 0.25


@dataclass(frozen=True)
class Costs:
    """Prices in the unit that a budget limits.

    Attributes:
        per_call: What one network call costs, by scale; scales increase and end at 1.
        limit: What all calls of a schedule may cost together.
        most_steps: Steps of the model's baseline; no stage runs more.
    """

    per_call: dict[float, float]
    limit: float
    most_steps: int

    @classmethod
    def of(cls, blueprint: Blueprint, size: Size, budget: Budget) -> Costs:
        """Prices the scales of a model in what is limited: seconds, network calls or TFLOPs."""
        scales, passes = distinct_scales(blueprint, size), blueprint.passes
        if budget.time is not None:
            latency = budget.time.latency
            seconds = {scale: passes * latency.pass_seconds(blueprint.stage_size(size, scale)) for scale in scales}
            return cls(seconds, budget.time.seconds - latency.around_s, blueprint.steps)
        if budget.nfe is not None:
            return cls(dict.fromkeys(scales, float(passes)), float(budget.nfe), blueprint.steps)
        tflops = {scale: tflops_per_call(blueprint, blueprint.stage_size(size, scale)) for scale in scales}
        return cls(tflops, budget.tflops, blueprint.steps)

    @property
    def scales(self) -> tuple[float, ...]:
        """The scales that have a price, in increasing order."""
        return tuple(self.per_call)

    @property
    def most_stages(self) -> int:
        """How many stages are affordable if each makes a single call and all but the last are the cheapest."""
        return 1 + int((self.limit * (1 + ROUNDING) - self.per_call[1.0]) / min(self.per_call.values()))

    @property
    def most_full_steps(self) -> int:
        """How many steps of Euler's rule at full size are affordable, at most the baseline's."""
        return min(self.most_steps, int(self.limit * (1 + ROUNDING) / self.per_call[1.0]))

    def allow(self, cost: float) -> bool:
        """Whether a cost is within the limit."""
        return cost <= self.limit * (1 + ROUNDING)


@dataclass(frozen=True)
class Rung:
    """Solver steps, and the network calls that they make."""

    steps: int
    calls: int


@functools.lru_cache(maxsize=256)
def ladder(solver: str, early: bool, every: int, most_steps: int) -> tuple[Rung, ...]:
    """Lists what a stage may run, by increasing calls; of equal calls, the most steps.

    Args:
        solver: The ODE step rule.
        early: Whether the stage ends above sigma 0.
        every: See `reused_steps`.
        most_steps: The largest number of steps.
    """
    most: dict[int, int] = {}
    for steps in range(1, most_steps + 1):
        levels = [1 - k / (steps + early) for k in range(steps + 1)]
        most[network_calls(solver, levels, reused_steps(steps, every))] = steps
    return tuple(Rung(steps, calls) for calls, steps in sorted(most.items()))


def reused_steps(steps: int, every: int) -> tuple[int, ...]:
    """Numbers the steps that reuse the last velocity when, amid a stage, one in ``every`` calls the network.

    The first and the last quarter of the steps, each rounded up, call the network, and of those between every
    ``every``-th does. Under Euler's rule a reused step prolongs the one before it, so this is a grid of its own:
    fine at both ends and coarse amid, which no shift of a uniform one is.

    Args:
        steps: Steps of the stage.
        every: 1 to reuse none.
    """
    quarter = math.ceil(steps / 4)
    return tuple(k for k in range(quarter, steps - quarter) if (k - quarter) % every != every - 1)


def buy(
    ladders: Sequence[Sequence[Rung]], prices: Sequence[float], shares: Sequence[float], spend: float, costs: Costs
) -> list[int]:
    """Turns shares of the budget into steps.

    Args:
        ladders: What each stage may run.
        prices: What a network call of each stage costs.
        shares: For each stage but the first, the part that it spends of what it and all before it spend.
        spend: The part of the limit to spend.
        costs: The limit; one call of every stage is within it.

    Returns:
        The steps of each stage: those whose cost is nearest to what the stage has to spend; then, while the
        limit is exceeded, the stage that spends most gives up a call.
    """
    left = spend * costs.limit
    chosen = []
    for rungs, price, share in zip(reversed(ladders), reversed(prices), [*reversed(shares), 1.0], strict=True):
        misses = [abs(rung.calls * price - share * left) for rung in rungs]
        chosen.append(misses.index(min(misses)))
        left -= share * left
    chosen.reverse()
    while True:
        spent = [rungs[i].calls * price for rungs, i, price in zip(ladders, chosen, prices, strict=True)]
        if costs.allow(sum(spent)):
            return [rungs[i].steps for rungs, i in zip(ladders, chosen, strict=True)]
        reducible = [cost if i > 0 else 0.0 for cost, i in zip(spent, chosen, strict=True)]
        chosen[reducible.index(max(reducible))] -= 1


def distinct_scales(blueprint: Blueprint, size: Size) -> tuple[float, ...]:
    """Returns the finest even grid from a quarter to 1 whose stage sizes differ on this model."""
    grids = (np.arange(np.ceil(_SMALLEST_SCALE * parts), parts + 1) / parts for parts in (8, 4, 2, 1))
    return next(
        tuple(grid.tolist())
        for grid in grids
        if len({blueprint.stage_size(size, scale) for scale in grid}) == len(grid)
    )
