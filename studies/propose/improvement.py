"""The expected hypervolume improvement of a schedule with a known cost and uncertain losses."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from studies.judge.pareto import attained

Array: TypeAlias = npt.NDArray[np.float64]
Below: TypeAlias = Callable[[Array], Array]

_BEYOND = 1.1  # the volume reaches beyond the budget; else a schedule that spends all of it would add nothing
_POINTS = 1024


def reference_point(limit: float, losses: Array) -> Array:
    """Returns the reference point of the hypervolume: a cost beyond the budget, and the worst of (n, losses)."""
    return np.array([_BEYOND * limit, *losses.max(axis=0)])


def expected_gains(
    costs: Array, below: Below, front: Array, best: Array, reference: Array, headroom: float
) -> Array:
    """Computes the expected hypervolume improvement of each of m candidates.

    A candidate covers a point of the volume with the probability that all its losses are below the point's. The
    expected improvement is the integral of this probability over the points that the front does not attain
    (Emmerich, Yang, Deutz, 2016). It is approximated by the mean over fixed low-discrepancy points.

    Args:
        costs: Costs of the candidates, (m,).
        below: Maps losses, (points, losses), to the probability that all losses of each candidate are below them,
            (m, points).
        front: Cost and losses of the front so far, (n, 1 + losses).
        best: The least known cost and losses, (1 + losses,).
        reference: The reference point: cost, then losses, (1 + losses,).
        headroom: How far the volume reaches below the best known losses, as a part of their range. A small value
            favours gaps between members of the front, a large one favours unlikely large gains.

    Returns:
        Expected improvements, (m,), as parts of the volume.
    """
    points = _points(best, reference, headroom)
    open_points = points[~attained(points, front)]
    covered = (costs[:, None] <= open_points[:, 0]) * below(open_points[:, 1:])
    gains: Array = covered.sum(axis=1) / len(points)
    return gains


def normal_below(means: Array, errors: Array, losses: Array) -> Array:
    """Computes the probability that independent normal losses are all below some losses.

    Args:
        means: Means of m candidates, (m, losses).
        errors: Their standard deviations, (m, losses).
        losses: Losses of some points, (points, losses).

    Returns:
        Probabilities, (m, points).
    """
    from scipy.special import ndtr

    below = np.ones((len(means), len(losses)))
    for k in range(means.shape[1]):
        below *= ndtr((losses[:, k] - means[:, k, None]) / errors[:, k, None])
    return below


def _points(best: Array, reference: Array, headroom: float) -> Array:
    """Spreads points evenly between the reference and slightly below the best losses, (points, 1 + losses)."""
    ideal = best - headroom * np.maximum(reference - best, 0)
    ideal[0] = 0
    points: Array = ideal + _low_discrepancy(len(reference)) * (reference - ideal)
    return points


@functools.cache
def _low_discrepancy(dimensions: int) -> Array:
    """Returns points of the additive recurrence with the generalised golden ratio (Roberts, 2018)."""
    ratio = 2.0
    for _ in range(30):
        ratio = (1 + ratio) ** (1 / (dimensions + 1))
    steps = ratio ** -np.arange(1.0, dimensions + 1)
    points: Array = (0.5 + np.arange(1, _POINTS + 1)[:, None] * steps) % 1
    return points
