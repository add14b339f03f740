"""How far a study's units of work were from the latency table that its budget in seconds is priced with."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from studies.records.score_log import parse_line, whole_lines

if TYPE_CHECKING:
    from studies.plan.plan import Plan
    from tuner.schedule import Schedule


def drift(plan: Plan, log: Path, schedules: Iterable[Schedule]) -> float | None:
    """Compares what images took with what the table says: 0.1 if the median unit took 10 % longer.

    Units that took anything from a cache, or that hold fewer prompts than others, are left out.

    Args:
        plan: The search.
        log: Its score log.
        schedules: What ran.

    Returns:
        The relative difference; None if the budget is not in seconds, or if no unit is left.
    """
    if plan.budget.time is None:
        return None
    expected = {one.content_hash: plan.budget.time.latency.seconds(plan.price(one)) for one in schedules}
    ratios = []
    for line in filter(None, map(parse_line, whole_lines(log))):
        seconds, images = line.get("seconds", {}), len(line["prompts"])
        if line["schedule"] in expected and images == plan.chunk and seconds and not line.get("reused"):
            taken = (seconds["sampling"] + seconds["decoding"]) / images
            ratios.append(taken / expected[line["schedule"]])
    return median(ratios) - 1 if ratios else None
