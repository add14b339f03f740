"""Which points of a plot no other point beats on both of its axes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress

from studies.judge.pareto import nondominated


def staircase(losses: Sequence[tuple[float, float]]) -> list[int]:
    """Finds the non-dominated points of two axes.

    Members of a front of three values may beat each other on two of them. A line through all of them zigzags; the
    line through those that are found here is the front of the two axes.

    Args:
        losses: Points, of which less is better on both axes.

    Returns:
        Their numbers by the first axis; of equal points the first.
    """
    kept = compress(range(len(losses)), nondominated(losses, keep_equal=False))
    return sorted(kept, key=lambda index: losses[index])
