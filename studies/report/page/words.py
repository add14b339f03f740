"""What a study found, in sentences that need no statistics to be read."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING

from objectives.base import loss_sign
from studies.plan.settings import SearchSettings

if TYPE_CHECKING:
    from objectives.base import Direction
    from studies.records.results import StudyResult
    from tuner.presets import Score

_NO_OPTION = {"chunk", "options", "storage", "tracking_uri", "ray_address"}
"""Settings that the command line does not have, or that belong to one machine."""


def headline(result: StudyResult) -> str:
    """Says what the pick saves."""
    pick, baseline = result.pick, result.baseline
    timed = "" if pick.seconds is None else f": {pick.seconds:.3g} s per image instead of {baseline.seconds:.3g} s"
    return f"{pick.speedup:.1f} times cheaper{timed}"


def found_unseen(result: StudyResult, directions: Mapping[str, Direction]) -> dict[str, str]:
    """Says for each objective what the check on unseen prompts found; nothing if there was none yet."""
    return {name: _verdict(score, directions[name]) for name, score in result.pick.held_out.items()}


def _verdict(score: Score, direction: Direction) -> str:
    sign = -loss_sign(direction)
    gain, (low, high) = sign * score.delta, sorted(sign * end for end in score.ci95)
    if low == high == 0:
        return "the same as the baseline on each prompt"
    if low > 0:
        return f"better by {gain:.3g} on average, by at least {low:.3g}"
    if high < 0:
        return f"worse by {-gain:.3g} on average, by at most {-low:.3g}"
    return (
        f"no difference could be measured; it may be worse by up to {max(0.0, -low):.3g} or better by up to "
        f"{max(0.0, high):.3g}"
    )


def amount(value: float) -> str:
    """Writes four digits of a number, and no exponent where a person would not."""
    return f"{float(f'{value:.4g}'):,.9g}"


def command(settings: SearchSettings) -> str:
    """Writes the command that runs the same search again, without the options that are at their defaults."""
    words = ["tuner", "search"]
    for name, field in SearchSettings.model_fields.items():
        value = getattr(settings, name)
        if name not in _NO_OPTION and value != field.default:
            words += _option(name, value)
    for name, value in settings.options.model_dump(exclude_none=True).items():
        words += _option(name, value)
    return shlex.join(words)


def _option(name: str, value: object) -> list[str]:
    flag = "--" + name.replace("_", "-")
    if value is True:
        return [flag]
    if value is False:
        return [f"--no-{name}"]
    if name == "size" and isinstance(value, tuple):
        return [flag, "x".join(map(str, value))]
    if name == "objectives" and isinstance(value, tuple):
        return [flag, ",".join(value)]
    if isinstance(value, tuple):
        return [word for one in value for word in (flag, str(one))]
    return [flag, str(value)]
