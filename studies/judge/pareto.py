"""The Pareto front of schedules, its knee, and the user's pick.

All compare expected scores. Of many candidates measured on the same few dozen prompts, the best ones are lucky
(the optimizer's curse; Smith and Winkler, Management Science 52, 2006). A front of measured scores consists of
lucky candidates and hides equally good ones.
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
_Mask: TypeAlias = npt.NDArray[np.bool_]

_KNEE_SPAN = 4.0


def front(candidates: Sequence[Candidate], directions: Directions) -> list[Candidate]:
    """Keeps the candidates that no other one dominates: no other is as good everywhere and better somewhere.

    Args:
        candidates: Candidates with a score for every objective.
        directions: Which way each objective improves; a lower cost is always better.

    Returns:
        The front, cheapest first. Of candidates with equal values, measured or expected, only the earliest trial
        is kept: schedules that draw the same images can have different features, and so different expected
        scores.
    """
    different: dict[tuple[float, ...], Candidate] = {}
    for candidate in sorted(candidates, key=lambda candidate: candidate.trial):
        different.setdefault((candidate.cost, *(candidate.scores[name].mean for name in directions)), candidate)
    ordered = sorted(different.values(), key=lambda candidate: (*_losses(candidate, directions), candidate.trial))
    kept = nondominated([_losses(candidate, directions) for candidate in ordered], keep_equal=False)
    return [candidate for candidate, is_kept in zip(ordered, kept, strict=True) if is_kept]


def nondominated(losses: npt.ArrayLike, keep_equal: bool) -> _Mask:
    """Finds the points that no other one dominates.

    Args:
        losses: Points of which less is better, (n, losses).
        keep_equal: Whether all points that are equal are kept; otherwise only the first one is.

    Returns:
        Whether each point is kept, (n,).
    """
    import moocore

    points = np.asarray(losses, dtype=float)
    kept: _Mask = moocore.is_nondominated(points, keep_weakly=keep_equal) if len(points) else np.zeros(0, bool)
    return kept


def attained(points: _Array, losses: _Array) -> _Mask:
    """Finds the points that any of some losses equals or dominates.

    Args:
        points: (m, losses).
        losses: (n, losses).

    Returns:
        Whether each point is attained, (m,).
    """
    found: _Mask = np.any(np.all(losses[:, None] <= points, axis=2), axis=0)
    return found


def hypervolume(losses: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Computes the volume that points, of which less is better, dominate up to a reference point."""
    import moocore

    return float(moocore.hypervolume(np.asarray(losses, dtype=float), ref=np.asarray(reference, dtype=float)))


def knee(candidates: Sequence[Candidate], directions: Directions) -> Candidate:
    """Finds the member of the front after which more compute buys little more quality.

    The cost and every objective are scaled to [0, 1], and the scaled objectives are averaged to one quality. The
    knee is the member highest above the chord from the cheapest member to the member of best quality; of equals,
    and of two members, it is the cheapest. Members that cost less than a quarter of the best one are excluded:
    schedules of one or two steps are so bad that all dearer ones look equally good beside them.

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
        candidates: The candidates to choose from, at least one.
        spec: ``knee``, ``cheapest``, ``best:OBJECTIVE`` (the cheapest of equals) or ``trial:N``.
        directions: Which way each objective improves.

    Raises:
        UserError: If the spec is none of these, or names an unknown objective or trial.
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
    """Returns the cost and every expected (else measured) score, signed so that less is better."""
    losses = (loss_sign(direction) * candidate.outlook(name) for name, direction in directions.items())
    return candidate.cost, *losses


def _cost_and_quality(members: Sequence[Candidate], directions: Directions) -> tuple[_Array, _Array]:
    """Returns the cost and the mean objective (more is better), each scaled to [0, 1] over the members."""
    losses = np.array([_losses(member, directions) for member in members])
    spread = np.ptp(losses, axis=0)
    scaled = (losses - losses.min(axis=0)) / np.where(spread > 0, spread, 1)
    return scaled[:, 0], 1 - scaled[:, 1:].mean(axis=1)
