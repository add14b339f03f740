"""Which schedules are worth having: the Pareto front, its knee, and the user's pick.

All go by what candidates are expected to score. Of many that are measured on the same few dozen prompts the best
are lucky ones (the optimizer's curse; Smith and Winkler, Management Science 52, 2006). A front of measured scores
is made of them, and hides what is as good elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from objectives.base import Direction, loss_sign
from studies.records.results import Candidate
from tuner.errors import UserError, unknown_name

Directions: TypeAlias = Mapping[str, Direction]
"""Which way each objective improves, by its name."""

_Array: TypeAlias = npt.NDArray[np.float64]

_KNEE_SPAN = 4.0


def front(candidates: Sequence[Candidate], directions: Directions) -> list[Candidate]:
    """Keeps the candidates that no other one dominates: none is as good everywhere and better somewhere.

    Args:
        candidates: Any candidates, each with a score for every objective.
        directions: Which way each objective improves; a lower cost is always better.

    Returns:
        The front, cheapest first. Of candidates with equal values, measured or expected, the earliest trial stands
        for all: schedules that draw the same images may be described unlike, and so be expected to differ.
    """
    different: dict[tuple[float, ...], Candidate] = {}
    for candidate in sorted(candidates, key=lambda candidate: candidate.trial):
        different.setdefault((candidate.cost, *(candidate.scores[name].mean for name in directions)), candidate)
    ordered = sorted(different.values(), key=lambda candidate: (*_losses(candidate, directions), candidate.trial))
    kept: list[Candidate] = []
    for candidate in ordered:  # nothing that comes later can dominate, so one pass is enough
        losses = _losses(candidate, directions)
        if not any(np.all(np.less_equal(_losses(better, directions), losses)) for better in kept):
            kept.append(candidate)
    return kept


def dominators(losses: _Array) -> npt.NDArray[np.int_]:
    """Counts for each of n points, (n, losses), the others that dominate it: (n,)."""
    others = losses[:, None]
    no_worse, better = np.all(others <= losses, axis=2), np.any(others < losses, axis=2)
    counts: npt.NDArray[np.int_] = (no_worse & better).sum(axis=0)
    return counts


def knee(candidates: Sequence[Candidate], directions: Directions) -> Candidate:
    """Finds the member of the front after which more compute buys little more quality.

    The cost and every objective are scaled to [0, 1], and the scaled objectives are averaged into one quality. The
    knee is the member that lies highest above the chord from the cheapest member to the one of best quality; the
    cheapest of equals, and of two. Members that cost less than a quarter of the best one are left out: schedules
    of a step or two are so bad that beside them everything dearer looks equally good.

    Args:
        candidates: At least one candidate.
        directions: Which way each objective improves.
    """
    members = front(candidates, directions)
    best = members[int(_cost_and_quality(members, directions)[1].argmax())]
    members = [member for member in members if member.cost * _KNEE_SPAN >= best.cost]
    cost, quality = _cost_and_quality(members, directions)
    end = int(quality.argmax())
    slope = (quality[end] - quality[0]) / cost[end] if cost[end] else 0.0
    height = quality[: end + 1] - quality[0] - slope * cost[: end + 1]
    return members[int(np.argmax(np.round(height, 12)))]


def pick(candidates: Sequence[Candidate], spec: str, directions: Directions) -> Candidate:
    """Chooses a candidate as the user asks.

    Args:
        candidates: What may be chosen, at least one.
        spec: ``knee``, ``cheapest``, ``best:OBJECTIVE`` (the cheapest of equals) or ``trial:N``.
        directions: Which way each objective improves.

    Raises:
        UserError: If the spec is none of these, or names an objective or a trial that is not there.
    """
    kind, _, argument = spec.partition(":")
    if spec == "knee":
        return knee(candidates, directions)
    members = front(candidates, directions)
    if spec == "cheapest":
        return members[0]
    if kind == "best" and argument:
        if argument not in directions:
            raise unknown_name("objective", argument, directions)
        index = 1 + list(directions).index(argument)
        return min(members, key=lambda member: _losses(member, directions)[index])
    if kind == "trial" and argument:
        chosen = [candidate for candidate in candidates if str(candidate.trial) == argument]
        if not chosen:
            numbers = ", ".join(str(candidate.trial) for candidate in members)
            raise UserError(
                f"Trial {argument!r} cannot be picked: it is not a finished trial within the budget; "
                f"the front's are {numbers}."
            )
        return chosen[0]
    raise unknown_name("pick", spec, ["knee", "cheapest", *(f"best:{name}" for name in directions), "trial:N"])


def _losses(candidate: Candidate, directions: Directions) -> tuple[float, ...]:
    """The cost and then every objective as expected, or else as measured, turned so that less is better."""
    losses = (loss_sign(direction) * candidate.outlook(name) for name, direction in directions.items())
    return candidate.cost, *losses


def _cost_and_quality(members: Sequence[Candidate], directions: Directions) -> tuple[_Array, _Array]:
    """The cost and the mean of the objectives (more is better), each scaled to [0, 1] over the members."""
    losses = np.array([_losses(member, directions) for member in members])
    spread = np.ptp(losses, axis=0)
    scaled = (losses - losses.min(axis=0)) / np.where(spread > 0, spread, 1)
    return scaled[:, 0], 1 - scaled[:, 1:].mean(axis=1)
