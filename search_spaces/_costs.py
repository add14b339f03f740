"""Prices network calls, and buys steps with shares of a budget."""

from __future__ import annotations

import bisect
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from search_spaces._guidance import Guidance, unguided
from tuner.budget import ROUNDING, Budget
from tuner.flops import tflops_of_calls, tflops_per_call

if TYPE_CHECKING:
    from tuner.feature_cache import FeatureCache
    from tuner.models import Blueprint, Size

_SMALLEST_SCALE = 0.25
_ANY_LEVEL = 0.5
_EVERYWHERE = Guidance()


class _ShortenedCalls:
    """TFLOPs of so many calls of a model at a scale with a feature cache; counted once.

    An object and no closure, so that a space can be sent to another process.
    """

    def __init__(self, blueprint: Blueprint, size: Size):
        self._blueprint, self._size = blueprint, size
        self._known: dict[tuple[float, int, FeatureCache], float] = {}

    def __call__(self, scale: float, calls: int, cache: FeatureCache) -> float:
        key = scale, calls, cache
        if key not in self._known:
            stage_size = self._blueprint.stage_size(self._size, scale)
            self._known[key] = tflops_of_calls(self._blueprint, stage_size, [_ANY_LEVEL] * calls, cache)
        return self._known[key]


@dataclass(frozen=True)
class Costs:
    """Prices in the unit that a budget limits.

    Attributes:
        per_call: What one network call costs, by scale; scales increase and end at 1.
        per_unguided: What one costs without guidance.
        limit: What all calls of a schedule may cost together.
        most_steps: Steps of the model's baseline; no stage runs more.
        shortened: What so many calls at a scale cost with a feature cache; None where a shortened call costs as
            much as a full one, as it does in network calls and in measured seconds.
    """

    per_call: dict[float, float]
    per_unguided: dict[float, float]
    limit: float
    most_steps: int
    shortened: Callable[[float, int, FeatureCache], float] | None = None

    @classmethod
    def of(cls, blueprint: Blueprint, size: Size, budget: Budget) -> Costs:
        """Prices the scales of a model in the unit of the budget: seconds, network calls or TFLOPs."""
        scales, without = distinct_scales(blueprint, size), unguided(blueprint)
        if budget.time is not None:
            latency = budget.time.latency
            full, single = (
                {scale: known.passes * latency.pass_seconds(blueprint.stage_size(size, scale)) for scale in scales}
                for known in (blueprint, without)
            )
            return cls(full, single, budget.time.seconds - latency.around_s, blueprint.steps)
        if budget.nfe is not None:
            full, single = (dict.fromkeys(scales, float(known.passes)) for known in (blueprint, without))
            return cls(full, single, float(budget.nfe), blueprint.steps)
        full, single = (
            {scale: tflops_per_call(known, blueprint.stage_size(size, scale)) for scale in scales}
            for known in (blueprint, without)
        )
        return cls(full, single, budget.tflops, blueprint.steps, _ShortenedCalls(blueprint, size))

    def at_full_size(self) -> Costs:
        """Returns the prices for schedules that never change size."""
        return replace(self, per_call={1.0: self.per_call[1.0]}, per_unguided={1.0: self.per_unguided[1.0]})

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

    def of_calls(
        self, scale: float, calls: int, cache: FeatureCache | None = None, guidance: Guidance = _EVERYWHERE
    ) -> float:
        """Prices a number of network calls of a stage; a cache must have a price that needs no levels."""
        if cache is None or self.shortened is None:
            first, end = guidance.guided(calls)
            return (end - first) * self.per_call[scale] + (calls - end + first) * self.per_unguided[scale]
        return self.shortened(scale, calls, cache)

    def allow(self, cost: float) -> bool:
        """Whether a cost is within the limit."""
        return cost <= self.limit * (1 + ROUNDING)


@dataclass(frozen=True)
class Length:
    """Solver steps, their network calls, and the cost of the calls."""

    steps: int
    calls: int
    cost: float


class Ladder:
    """Affordable lengths of a stage by increasing cost; of equal calls, the most steps. Prices are lazy.

    Args:
        costs: What network calls cost, and the largest number of steps.
        scale: The stage's scale.
        every: See `reused_steps`.
        cache: What shortens some of the calls.
        guidance: Which calls go without guidance.
    """

    def __init__(
        self, costs: Costs, scale: float, every: int, cache: FeatureCache | None, guidance: Guidance = _EVERYWHERE
    ):
        self._price = functools.partial(costs.of_calls, scale, cache=cache, guidance=guidance)
        rungs = _rungs(every, costs.most_steps)
        self._rungs = rungs if guidance.everywhere else self._undominated(rungs)

    def __getitem__(self, index: int) -> Length:
        steps, calls = self._rungs[index]
        return Length(steps, calls, self._price(calls))

    def __len__(self) -> int:
        return len(self._rungs)

    def _undominated(self, rungs: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
        """Drops lengths that cost as much as longer ones with less guidance."""
        kept: list[tuple[int, int]] = []
        least = math.inf
        for steps, calls in reversed(rungs):
            if (cost := self._price(calls)) < least * (1 - ROUNDING):
                kept.append((steps, calls))
                least = cost
        return tuple(reversed(kept))

    def nearest(self, cost: float) -> int:
        """The rung whose cost is nearest to this one, the cheaper one of two."""
        above = bisect.bisect_left(self, cost, key=lambda rung: rung.cost)
        around = range(max(0, above - 1), min(above + 1, len(self)))
        return min(around, key=lambda index: abs(self[index].cost - cost))


@functools.lru_cache(maxsize=256)
def _rungs(every: int, most_steps: int) -> tuple[tuple[int, int], ...]:
    """Lists steps and calls by increasing calls; of equal calls, the most steps. A step is one call or none."""
    most: dict[int, int] = {}
    for steps in range(1, most_steps + 1):
        most[steps - len(reused_steps(steps, every))] = steps
    return tuple((steps, calls) for calls, steps in sorted(most.items()))


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


def buy(ladders: Sequence[Ladder], shares: Sequence[float], spend: float, costs: Costs) -> list[Length]:
    """Turns shares of the budget into steps.

    Args:
        ladders: What each stage may run.
        shares: For each stage but the first, the part that it spends of what it and all before it spend.
        spend: The part of the limit to spend.
        costs: The limit; one call of every stage is within it.

    Returns:
        What each stage runs: that whose cost is nearest to what the stage has to spend; then, while the limit
        is exceeded, the stage that spends most gives up a call.
    """
    left = spend * costs.limit
    chosen = []
    for rungs, share in zip(reversed(ladders), [*reversed(shares), 1.0], strict=True):
        chosen.append(rungs.nearest(share * left))
        left -= share * left
    chosen.reverse()
    while True:
        bought = [rungs[i] for rungs, i in zip(ladders, chosen, strict=True)]
        if costs.allow(sum(rung.cost for rung in bought)):
            return bought
        reducible = [rung.cost if i > 0 else 0.0 for rung, i in zip(bought, chosen, strict=True)]
        chosen[reducible.index(max(reducible))] -= 1


def distinct_scales(blueprint: Blueprint, size: Size) -> tuple[float, ...]:
    """Returns the finest even grid from a quarter to 1 whose stage sizes differ on this model."""
    grids = (np.arange(np.ceil(_SMALLEST_SCALE * parts), parts + 1) / parts for parts in (8, 4, 2, 1))
    return next(
        tuple(grid.tolist())
        for grid in grids
        if len({blueprint.stage_size(size, scale) for scale in grid}) == len(grid)
    )
