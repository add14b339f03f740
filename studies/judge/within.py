"""The pick ``within:MARGIN``: the cheapest schedule that is shown to lose less than a margin.

The test is that of `studies.judge.noninferiority`, on the prompts that the search used. The cheapest of several
schedules that pass was also lucky, so whether it holds is for unseen prompts to say (`studies.judge.sequential`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from studies.judge.noninferiority import NonInferiority, non_inferiority
from studies.judge.pareto import Directions, front, pick
from studies.plan.margins import WITHIN, parse_margins

if TYPE_CHECKING:
    from studies.judge.early_stopping import Scores
    from studies.records.results import Candidate

ScoresOf: TypeAlias = "Callable[[Candidate], Scores]"
"""Finds the scores of a candidate, one per search prompt for each objective."""


def choose(
    candidates: Sequence[Candidate], spec: str, directions: Directions, scores_of: ScoresOf, baseline: Scores
) -> tuple[Candidate, str | None]:
    """Chooses a candidate by any rule; see `pick` for those without a margin.

    Args:
        candidates: Candidates that were scored on all search prompts, at least one.
        spec: ``within:MARGIN``, or what `pick` takes.
        directions: Which way each objective improves.
        scores_of: Finds their scores.
        baseline: The baseline's scores.

    Returns:
        With a margin, the cheapest member of the front that is non-inferior on every objective. If there is none,
        the nearest: the one whose largest possible loss, in margins, is the smallest. The text says so.

    Raises:
        UserError: If the spec is none of these.
    """
    if not spec.startswith(WITHIN):
        return pick(candidates, spec, directions), None
    margins = parse_margins(spec.removeprefix(WITHIN), list(directions))
    members = front(candidates, directions)
    claims = [
        {
            name: non_inferiority(scores_of(member)[name], baseline[name], margins[name], direction)
            for name, direction in directions.items()
        }
        for member in members
    ]
    for member, claim in zip(members, claims, strict=True):
        if all(found.holds for found in claim.values()):
            return member, None
    excess = [_worst(claim) for claim in claims]
    nearest = excess.index(min(excess))
    name, worst = max(claims[nearest].items(), key=lambda item: _excess(item[1]))
    return members[nearest], (
        f"no schedule on the front is shown to be {spec.replace(':', ' ')} of the baseline on "
        f"{len(baseline[name])} prompts; trial {members[nearest].trial} comes nearest: {name} may lose up to "
        f"{worst.most_lost:.3g}, and the margin is {worst.points:.3g} there. More --search-prompts narrow that "
        "bound."
    )


def _worst(claims: Mapping[str, NonInferiority]) -> float:
    return max(map(_excess, claims.values()))


def _excess(claim: NonInferiority) -> float:
    """Returns the largest possible loss in margins; more of nothing is infinite."""
    return claim.most_lost / claim.points if claim.points else float("inf")
