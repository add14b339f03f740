"""What a running search says about itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

Phase = Literal["starting", "baseline", "trials", "held-out", "tracking"]


@dataclass(frozen=True)
class Progress:
    """Where a search is.

    Attributes:
        phase: What runs: workers starting, the baseline, references and trials, the pick on prompts that the
            search never saw, or logging to MLflow.
        trials_done: Finished trials, references included.
        trials_total: Trials when all are done, references included.
        best: The best mean of each objective among finished trials within the budget; empty before the first.
        tflops_spent: Denoiser TFLOPs so far, those of earlier sittings included.
        elapsed_s: Seconds so far, those of earlier sittings included.
        left_s: Estimate of the seconds left; None until there is something to go by.
    """

    phase: Phase
    trials_done: int
    trials_total: int
    best: Mapping[str, float]
    tflops_spent: float
    elapsed_s: float
    left_s: float | None


OnProgress: TypeAlias = Callable[[Progress], None]
