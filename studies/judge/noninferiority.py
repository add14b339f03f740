"""Non-inferiority: whether a cheaper schedule is worse than the baseline by less than a margin.

A difference that is not significant proves nothing, because too few prompts never find one. A non-inferiority
test rejects the opposite hypothesis: that the loss is at least the margin. It is a one-sided test of the paired
differences at the 5 % level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict

from studies.judge.intervals import interval, paired, per_prompt

if TYPE_CHECKING:
    from objectives.base import Direction
    from studies.plan.margins import Margin

CONFIDENCE = 0.95


class NonInferiority(BaseModel):
    """The result of a non-inferiority test.

    Attributes:
        margin: As the user stated it.
        points: The margin in points of the objective; for a relative one, of the baseline's measured mean.
        holds: Whether the loss is smaller than the margin, with 95 % confidence; None where the test is undefined,
            because the margin is a fraction of a baseline mean that may be zero.
        most_lost: Upper 95 % confidence bound of the loss, in points; negative for a gain.
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

    With the loss L and an absolute margin m, the claim is ``E[L] < m``. It holds if the one-sided upper bound of
    L is below m. With a relative margin r and the baseline's scores b, the claim is ``E[L] < r |E[b]|``. Both
    sides are measured, so the test bounds ``L - r sign(E[b]) b``, prompt by prompt; the bound must be below 0.
    The test is undefined where the 95 % interval of the baseline's mean contains 0, which leaves the sign open.
    A relative margin suits objectives whose zero means "nothing", such as a share of right images. The zero of a
    reward is arbitrary, so state an absolute margin for it.

    Args:
        scores: One score per image.
        baseline: The baseline's, same prompts and noise.
        margin: The largest acceptable loss.
        direction: Which way the objective improves.
        prompts: The prompt of each score; see `studies.judge.intervals.paired_score`.

    Raises:
        ValueError: If the lists differ in length, or if there are fewer than two prompts.
    """
    mine, other = per_prompt(scores, prompts), per_prompt(baseline, prompts)
    losses = paired(other, mine) if direction == "maximize" else paired(mine, other)
    two_sided = 2 * CONFIDENCE - 1  # its upper end errs as often as the one-sided bound
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
