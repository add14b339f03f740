"""Which points of a plot no other point beats on both of its axes."""

from __future__ import annotations

from collections.abc import Sequence


def staircase(losses: Sequence[tuple[float, float]]) -> list[int]:
    """Finds the non-dominated points of two axes.

    Members of a front of three values may beat each other on two of them. A line through all of them zigzags; the
    line through those that are found here is the front of the two axes.

    Args:
        losses: Points, of which less is better on both axes.

    Returns:
        Their numbers by the first axis; of equal points the first.
    """
    kept: list[int] = []
    for index in sorted(range(len(losses)), key=lambda index: losses[index]):
        if not kept or losses[index][1] < losses[kept[-1]][1]:
            kept.append(index)
    return kept
