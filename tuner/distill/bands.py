"""Bands of teacher levels that a path may visit after k steps: all, a coarse grid, or those near a path."""

from __future__ import annotations

_SAVING = 7  # the whole table makes this many times the calls of the coarse one


def everywhere(levels: int, steps: int) -> list[frozenset[int]]:
    """Allows all levels after every step: the table of the paper.

    Args:
        levels: Number of the last level, N.
        steps: Most steps of a way, K.
    """
    return [frozenset({0}), *(frozenset(range(k, levels + 1)) for k in range(1, steps + 1))]


def thinned(levels: int, steps: int) -> list[frozenset[int]]:
    """Allows a coarse choice where steps are long and a fine one where they are short, for all K at once.

    A way that is at level j after k steps has taken steps of j / k levels in the mean. A choice that is finer
    than a fixed share of that is worth little, so the allowed levels lie that share apart; and no useful way of at
    most K steps is far behind the longest one. The share is the smallest for which a table makes at most a
    seventh of the whole one's network calls, or a whole step, where even that makes more.

    Args:
        levels: Number of the last level, N.
        steps: Most steps of a way, K.

    Returns:
        K + 1 sets, through which there are ways of 1 to K steps.
    """
    most = calls(everywhere(levels, steps)) // _SAVING
    best = _spaced(levels, steps, 1)
    for quarters in range(5, 4 * levels + 1):
        finer = _spaced(levels, steps, quarters / 4)
        if calls(finer) > most:
            break
        best = finer
    return best


def around(way: tuple[int, ...], radius: int) -> list[frozenset[int]]:
    """Allows the levels near a path: the fine table after a coarse one.

    Args:
        way: K + 1 increasing level numbers, the first 0 and the last N.
        radius: How far from the way's own levels.
    """
    steps, last = len(way) - 1, way[-1]
    inner = [
        frozenset(range(max(k, way[k] - radius), min(last - steps + k, way[k] + radius) + 1))
        for k in range(1, steps)
    ]
    return [frozenset({0}), *inner, frozenset({last})]


def calls(allowed: list[frozenset[int]]) -> int:
    """Counts a table's entries from which a way may go on, level 0 left out: the teacher was asked there.

    Latents are compared at as many network calls, with a rule of one call per step.

    Args:
        allowed: For each number of steps k the levels at which a way may be, as ``fill`` takes.
    """
    last = max(allowed[-1])
    return sum(len(levels - {last}) for levels in allowed[1:-1])


def _spaced(levels: int, steps: int, parts: float) -> list[frozenset[int]]:
    """Spaces levels 1 / parts of the mean step apart, from the slowest way on.

    The slowest way is the evenly numbered one of all steps, shifted by 2: it starts at half the even pace.
    """
    bands = [frozenset({0})]
    first = 0
    for k in range(1, steps + 1):
        share = k / steps
        first = max(first + 1, int(levels * share / (2 - share)))
        band, level = {levels}, float(first)
        while level < levels:
            band.add(int(level))
            level += max(1.0, level / (k * parts))
        bands.append(frozenset(band))
    return bands
