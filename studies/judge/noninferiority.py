"""Whether a cheaper schedule is as good as the baseline but for a margin: a claim with an error rate.

That a difference is not significant shows nothing, as too few prompts never find one. The claim here is the other
way round: a loss as large as the margin would have shown. It is a one-sided test of the paired differences, wrong
at most 5 times in 100.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict

from studies.judge.intervals import interval, paired, per_prompt
from tuner.errors import UserError, unknown_name

if TYPE_CHECKING:
    from objectives.base import Direction

CONFIDENCE = 0.95
_FORMS = (
    "write 1% (of the baseline's mean) or 0.05 (in the objective's unit), or one for each: clip=1%,reward=0.05"
)


@dataclass(frozen=True)
class Margin:
    """The largest loss that is put up with.

    Attributes:
        value: A fraction of the size of the baseline's mean, or points of the objective.
        relative: Which of the two.
    """

    value: float
    relative: bool

    def __str__(self) -> str:
        return f"{100 * self.value:g} %" if self.relative else f"{self.value:g}"


class NonInferiority(BaseModel):
    """What can be said about a loss.

    Attributes:
        margin: As the user stated it.
        points: The margin in points of the objective; for a relative one, of the baseline's measured mean.
        holds: Whether the loss is smaller than the margin, with 95 % confidence; None where nothing can be said,
            because the margin is a part of a baseline mean that may be zero.
        most_lost: With 95 % confidence no more than this is lost, in points; negative for a sure gain.
    """

    model_config = ConfigDict(frozen=True)

    margin: str
    points: float
    holds: bool | None
    most_lost: float


def non_inferiority(
    scores: Sequence[float],
    baseline: Sequence[float],
    margin: Margin,
    direction: Direction,
    prompts: Sequence[str] | None = None,
) -> NonInferiority:
    """Tests whether scores are worse than the baseline's by less than a margin.

    With the loss L and an absolute margin m the claim is ``E[L] < m``, and it is made where the one-sided upper
    bound of L is below m. With a relative margin r it is ``E[L] < r |E[b]|`` for the baseline's scores b. The
    right side is measured, too, so the bound is that of ``L - r sign(E[b]) b``, prompt by prompt, which accounts
    for both; it must be below 0. That needs a sign: where the 95 % interval of the baseline's mean contains 0,
    nothing is claimed. A part of a mean has a meaning for objectives whose zero means "nothing", such as a
    share of right images; a reward's zero is arbitrary, so for it state an absolute margin.

    Args:
        scores: One score per image.
        baseline: The baseline's, same prompts and noise.
        margin: The largest loss that is put up with.
        direction: Which way the objective improves.
        prompts: The prompt of each score; see `studies.judge.intervals.paired_score`.

    Raises:
        ValueError: If the lists differ in length, or if there are fewer than two prompts.
    """
    mine, other = per_prompt(scores, prompts), per_prompt(baseline, prompts)
    losses = paired(other, mine) if direction == "maximize" else paired(mine, other)
    two_sided = 2 * CONFIDENCE - 1  # whose upper end errs as often as the one-sided bound
    most_lost = interval(losses, two_sided)[1]
    if not margin.relative:
        return NonInferiority(
            margin=str(margin), points=margin.value, holds=most_lost < margin.value, most_lost=most_lost
        )
    points = margin.value * abs(float(other.mean()))
    low, high = interval(other, CONFIDENCE)
    holds = None
    if low > 0 or high < 0:
        excess = losses - margin.value * np.sign(other.mean()) * other
        holds = bool(interval(excess, two_sided)[1] < 0)
    return NonInferiority(margin=str(margin), points=points, holds=holds, most_lost=most_lost)


def parse_margins(text: str, objectives: Sequence[str]) -> Mapping[str, Margin]:
    """Reads ``1%``, ``0.05`` or ``clip=1%,image_reward=0.05``; objectives that are not named get 1 %.

    Args:
        text: What the user wrote.
        objectives: The plain names of all objectives.

    Raises:
        UserError: If the text is no margin, names an unknown objective, or is not positive.
    """
    margins = dict.fromkeys(objectives, Margin(0.01, relative=True))
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.rpartition("="))
        if equals and name not in margins:
            raise unknown_name("objective in the margin", name, objectives)
        margin = _parse_margin(value)
        margins.update({name: margin} if equals else dict.fromkeys(objectives, margin))
    return margins


def _parse_margin(text: str) -> Margin:
    relative = text.endswith("%")
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        raise UserError(f"Margin {text!r} is not a number; {_FORMS}.") from None
    if not 0 < value < float("inf"):
        raise UserError(f"Margin {text!r} must be positive and finite; {_FORMS}.")
    return Margin(value / 100, relative=True) if relative else Margin(value, relative=False)
