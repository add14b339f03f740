"""The progress of a running search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from studies.propose.trial import Trial

Phase = Literal["starting", "baseline", "trials", "held-out", "tracking"]


@dataclass(frozen=True)
class Progress:
    """The progress of a search.

    Attributes:
        phase: What runs: the start of the workers, the baseline, references and trials, the pick on held-out
            prompts, or logging to MLflow.
        trials_done: Number of finished trials, references included.
        trials_total: Expected number of trials in the end, references included.
        best: The best mean of each objective among finished trials within the budget; empty before the first.
        tflops_spent: Denoiser TFLOPs so far, earlier sittings included.
        elapsed_s: Seconds so far, earlier sittings included.
        left_s: Estimate of the remaining seconds; None before the first results.
        recorded: The finished trials, in order, without those that complete the outcome.
    """

    phase: Phase
    trials_done: int
    trials_total: int
    best: Mapping[str, float]
    tflops_spent: float
    elapsed_s: float
    left_s: float | None
    recorded: Sequence[Trial] = ()


OnProgress: TypeAlias = Callable[[Progress], None]
