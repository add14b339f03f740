"""How numbers are written for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tuner.presets import Score

_MINUTE, _HOUR = 60, 3600


def duration(seconds: float) -> str:
    """Writes a length of time in the unit that suits it: ``4.2 s``, ``3.5 min``, ``1.2 h``."""
    if seconds < 2 * _MINUTE:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / _MINUTE:.0f} min" if seconds < 2 * _HOUR else f"{seconds / _HOUR:.1f} h"


def difference(score: Score, mean_only: bool = False) -> str:
    """Writes a difference to the baseline with its interval, or the mean where a difference means nothing.

    Args:
        score: The score.
        mean_only: Whether the objective compares images with the baseline's, whose own score is that of identical
            images.
    """
    if mean_only:
        return f"{score.mean:.4g}"
    low, high = score.ci95
    return f"{score.delta:+.3g} [{low:+.3g}, {high:+.3g}]"


def score_text(score: Score) -> str:
    """Writes a mean with its difference to the baseline and the interval of that difference."""
    return f"{score.mean:.4g} ({difference(score)})"
