"""How much hypervolume a schedule is expected to add, from what is known of its scores and how surely."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]
Below: TypeAlias = Callable[[Array], Array]

_BEYOND = 1.1  # the volume reaches to so many budgets, or a schedule that spends all of one would add nothing
_POINTS = 1024


def reference_point(limit: float, losses: Array) -> Array:
    """The worst cost and losses that count: somewhat beyond the budget, and the worst of some (n, losses)."""
    return np.array([_BEYOND * limit, *losses.max(axis=0)])


def expected_gains(
    costs: Array, below: Below, front: Array, best: Array, reference: Array, headroom: float
) -> Array:
    """Expected growth of a front's hypervolume by each of m candidates, of known cost and uncertain losses.

    Every point of the volume that no member of the front dominates yet is won by a candidate with the probability
    that its losses are all below the point's. The integral of that is the expected gain (Emmerich, Yang, Deutz,
    2016), here over fixed low-discrepancy points.

    Args:
        costs: What candidates cost, (m,).
        below: The probability that a candidate's losses are all below some, (points, losses) to (m, points).
        front: Cost and losses of the front so far, (n, 1 + losses).
        best: The least cost and losses known, (1 + losses,).
        reference: Worst cost and losses that count, (1 + losses,).
        headroom: How far below the best losses known what can be won reaches, as a part of their range. The
            smaller it is, the more the gaps between members of the front count, and the less what is unlikely.

    Returns:
        Gains, (m,), as parts of the volume between the reference and somewhat below the best losses known.
    """
    points = _points(best, reference, headroom)
    open_points = _open(points, front)
    won = (costs[:, None] <= open_points[:, 0]) * below(open_points[:, 1:])
    gains: Array = won.sum(axis=1) / len(points)
    return gains


def normal_below(means: Array, errors: Array, losses: Array) -> Array:
    """The probability that independent normal losses are all below some.

    Args:
        means: Of m candidates, (m, losses).
        errors: Standard errors of those, (m, losses).
        losses: Of some points, (points, losses).

    Returns:
        Probabilities, (m, points).
    """
    from scipy.special import ndtr

    won = np.ones((len(means), len(losses)))
    for k in range(means.shape[1]):
        won *= ndtr((losses[:, k] - means[:, k, None]) / errors[:, k, None])
    return won


def _points(best: Array, reference: Array, headroom: float) -> Array:
    """Points spread evenly between the reference and somewhat below the best known, (points, 1 + losses)."""
    ideal = best - headroom * np.maximum(reference - best, 0)
    ideal[0] = 0
    points: Array = ideal + _low_discrepancy(len(reference)) * (reference - ideal)
    return points


def _open(points: Array, front: Array) -> Array:
    """Those of the points that no member of the front dominates."""
    beaten = np.any(np.all(front[:, None] <= points, axis=2), axis=0)
    left: Array = points[~beaten]
    return left


@functools.cache
def _low_discrepancy(dimensions: int) -> Array:
    """The additive recurrence of the generalised golden ratio (Roberts, 2018): the same points every time."""
    ratio = 2.0
    for _ in range(30):
        ratio = (1 + ratio) ** (1 / (dimensions + 1))
    steps = ratio ** -np.arange(1.0, dimensions + 1)
    points: Array = (0.5 + np.arange(1, _POINTS + 1)[:, None] * steps) % 1
    return points
