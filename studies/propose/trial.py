"""A trial: a schedule that the study scores on the search prompts of one rung."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuner.schedule import Schedule

if TYPE_CHECKING:
    from tuner.flops import Price


@dataclass(frozen=True)
class Trial:
    """A schedule that the study scores on the search prompts of one rung.

    Attributes:
        number: From 0, in the order of their start.
        label: Where it comes from; see `Candidate`.
        schedule: What is scored.
        price: Its cost per image.
        rung: See `studies.judge.early_stopping`; on the prompts of the rungs below it was scored before.
    """

    number: int
    label: str
    schedule: Schedule
    price: Price
    rung: int


def latest(trials: Iterable[Trial]) -> list[Trial]:
    """Keeps of the trials of each schedule the one on most prompts, in order."""
    kept: dict[str, Trial] = {}
    for trial in trials:
        known = kept.get(trial.schedule.content_hash)
        if known is None or trial.rung > known.rung:
            kept[trial.schedule.content_hash] = trial
    return sorted(kept.values(), key=lambda trial: trial.number)
