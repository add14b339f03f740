"""Samplers of ComfyUI that go on from each other, and the stages that do what they do.

Latents may be added between samplers. Every latent of a chain is a weighted sum of the chain's first latent and of
the clean latents that its network calls predicted. A stage of ours makes such sums, too, which
`tuner.exporters._calls` knows: a chain is a stage where the sums are the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tuner.exporters._calls import states_of
from tuner.solvers import available, calls_once_per_step, draws_noise, remembers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FIRST = -1
"""What weighs the first latent of a chain; clean latents go by the number of their call."""

Weights = dict[int, float]

_SAME = 1e-5
_LONGEST_END = 3
"""Multistep rules end in steps of lower order, this many at most."""


@dataclass
class NetworkCall:
    """A network call of a chain.

    Attributes:
        level: Its noise level.
        guidance: Its guidance scale; None where nothing says.
        network: The node that loads its network.
        node: The node that makes it, for errors.
        title: What that node is called on screen, which tells exported stages apart.
    """

    level: float
    guidance: float | None
    network: str
    node: str
    title: str


@dataclass
class Chain:
    """Samplers of one size, each of which goes on from the one before without noise.

    Attributes:
        sampler: ComfyUI's name of their rule.
        size: Height and width, as nodes count them.
        entry: Fields of the stage that say how the latent before becomes its first one.
        levels: The noise levels that they walk.
        calls: The network calls, one per step but for ``heun``, of which those at the start of steps are here.
        states: The latent at each call and at the end, all in multiples of the first latent and of clean ones.
        ended: Whether another chain goes on from it.
    """

    sampler: str
    size: tuple[int, int]
    entry: dict[str, Any]
    levels: list[float]
    calls: list[NetworkCall] = field(default_factory=list)
    states: list[Weights] = field(default_factory=list)
    ended: bool = False


@dataclass
class Part:
    """Some steps of a chain, all by one rule.

    Attributes:
        solver: Our name of the rule.
        levels: Their noise levels.
        calls: Their network calls.
    """

    solver: str
    levels: list[float]
    calls: list[NetworkCall]

    @property
    def divides(self) -> bool:
        """Whether two stages that share its steps do the same."""
        return not remembers(self.solver)


def added(weights: Weights, others: Weights, factor: float) -> Weights:
    """Adds multiples of weights to weights."""
    return {key: weights.get(key, 0.0) + factor * others.get(key, 0.0) for key in weights.keys() | others.keys()}


def after_euler(state: Weights, call: int, level: float, following: float) -> Weights:
    """Returns the latent after Euler's step from a latent, whose call has a number in its chain."""
    kept = following / level
    return added({call: 1 - kept}, state, kept)


def parts_of(chain: Chain) -> tuple[list[Part], int | None]:
    """Finds rules that make the steps of a chain, the longest parts first.

    Where titles tell stages apart, so do the parts, unless rules go on over their ends.

    Returns:
        The parts, and the number of the step that no rule makes; None where there is none.
    """
    titles = [call.title for call in chain.calls]
    last = len(titles)
    titled = [k for k in range(1, last) if titles[k] != titles[k - 1]] + [last]
    if chain.sampler != "euler":
        ends = itertools.pairwise([0, *titled])
        return [Part(chain.sampler, chain.levels[a : b + 1], chain.calls[a:b]) for a, b in ends], None
    rows = _rows(chain)
    parts, failed = _between(chain, rows, titled)
    return _between(chain, rows, [last]) if failed is not None else (parts, failed)


def _between(chain: Chain, rows: NDArray[np.float64], ends: Sequence[int]) -> tuple[list[Part], int | None]:
    """Finds parts none of which goes over an end; returns what ``parts_of`` does."""
    parts: list[Part] = []
    start = 0
    for stop in ends:
        while start < stop:
            solver, end, failed = _longest(chain.levels[: stop + 1], rows, start)
            if end == start:
                return parts, failed
            parts.append(Part(solver, chain.levels[start : end + 1], chain.calls[start:end]))
            start = end
    return parts, None


def _rows(chain: Chain) -> NDArray[np.float64]:
    """Returns the states as a matrix: a row each, the first latent's weight before those of the calls."""
    import numpy as np

    rows = np.zeros((len(chain.states), len(chain.calls) + 1))
    for row, weights in zip(rows, chain.states, strict=True):
        for number, weight in weights.items():
            row[number + 1] = weight
    return rows


def _longest(levels: Sequence[float], rows: NDArray[np.float64], start: int) -> tuple[str, int, int]:
    """Finds the rule that makes most of the steps from one on.

    Returns:
        Its name, the number of the step after them, and the number of the first step that no rule comes to.
    """
    every = [name for name in available() if not draws_noise(name) and calls_once_per_step(name)]
    best, furthest = ("euler", start), start
    for solver in sorted(every, key=lambda name: name != "euler"):
        alike = _agreeing(solver, levels, rows, start, len(levels) - 1)
        furthest = max(furthest, start + alike)
        for end in range(min(start + alike + _LONGEST_END, len(levels) - 1), best[1], -1):
            if _agreeing(solver, levels, rows, start, end) == end - start:
                best = solver, end
                break
    return *best, min(furthest, len(levels) - 2)


def _agreeing(solver: str, levels: Sequence[float], rows: NDArray[np.float64], start: int, end: int) -> int:
    """Counts the first steps that a rule makes as a chain does, where it walks the levels from start to end."""
    import numpy as np

    for count, made in enumerate(states_of(solver, levels[start : end + 1], (), end - start)):
        expected = made[0] * rows[start]
        expected[start + 1 : end + 1] += made[1:]
        if np.abs(expected - rows[start + count]).max() > _SAME * max(1.0, np.abs(expected).max()):
            return count - 1
    return end - start
