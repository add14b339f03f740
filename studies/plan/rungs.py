"""The prompts that each rung of a study adds."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

_FEWEST = 16  # prompts of a rung: of fewer there is too much luck to go by


def rung_sizes(prompts: int, rungs: int) -> tuple[int, ...]:
    """Returns how many prompts there are up to each rung: each has a quarter of the next, the last has all.

    None but the last has less than sixteen prompts, or more than half of all.

    Args:
        prompts: Prompts of a full evaluation.
        rungs: At most so many rungs.
    """
    parts = {max(_FEWEST, math.ceil(prompts / 4**k)) for k in range(1, rungs)}
    return (*sorted(part for part in parts if 2 * part <= prompts), prompts)


def in_random_order(prompts: Sequence[str]) -> tuple[str, ...]:
    """Orders prompts by a hash of each, so that the first of them are a fair sample, the same in every study."""
    return tuple(sorted(prompts, key=lambda prompt: hashlib.sha256(prompt.encode()).digest()))
