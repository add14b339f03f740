"""The progress of a running search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from studies.engine.leaders import Leader
    from studies.propose.trial import Trial

Phase = Literal["starting", "baseline", "trials", "held-out"]


@dataclass(frozen=True)
class Progress:
    """The progress of a search.

    Attributes:
        phase: What runs: the start of the workers, the baseline, references and trials, the pick on held-out
            prompts.
        trials_done: Number of finished trials, references included.
        trials_total: Expected number of trials in the end, references included.
        best: The best mean of each objective among finished trials within the budget; empty before the first.
        tflops_spent: Denoiser TFLOPs so far, earlier sittings included.
        tflops_total: Estimate of the denoiser TFLOPs in the end; None before the first finished trial.
        elapsed_s: Seconds so far, earlier sittings included.
        left_s: Estimate of the remaining seconds; None before the first results.
        running: Number of trials that are being scored.
        stopped_early: Number of trials that were scored on a part of the prompts and then left.
        leaders: The schedules that no other measured one beats so far, cheapest first.
        recorded: The finished trials, in order, without those that complete the outcome.
    """

    phase: Phase
    trials_done: int
    trials_total: int
    best: Mapping[str, float]
    tflops_spent: float
    elapsed_s: float
    left_s: float | None
    tflops_total: float | None = None
    running: int = 0
    stopped_early: int = 0
    leaders: Sequence[Leader] = ()
    recorded: Sequence[Trial] = ()


OnProgress: TypeAlias = Callable[[Progress], None]
