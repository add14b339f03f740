"""Decides how many prompts each rung has, and in which order."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

_FEWEST = 16  # prompts of a rung: fewer leave too much to luck


def rung_sizes(prompts: int, rungs: int) -> tuple[int, ...]:
    """Returns the number of prompts up to each rung: a quarter of the next, and all on the last.

    Every rung but the last has at least sixteen prompts and at most half of all.

    Args:
        prompts: Prompts of a full evaluation.
        rungs: Largest number of rungs.
    """
    parts = {max(_FEWEST, math.ceil(prompts / 4**k)) for k in range(1, rungs)}
    return (*sorted(part for part in parts if 2 * part <= prompts), prompts)


def in_random_order(prompts: Sequence[str]) -> tuple[str, ...]:
    """Orders prompts by their hashes, so that the first of them are a fair sample and equal in every study."""
    return tuple(sorted(prompts, key=lambda prompt: hashlib.sha256(prompt.encode()).digest()))
