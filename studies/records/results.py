"""The outcome of a study, as the command line prints it and the study folder keeps it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from tuner.presets import Score
from tuner.schedule import Schedule

EndedBy = Literal["trials", "time limit", "max tflops", "patience"]
"""The rule that ended the search."""


class _Priced(BaseModel):
    """Cost of an image: TFLOPs, and seconds if the budget is in seconds."""

    model_config = ConfigDict(frozen=True)

    tflops: float
    nfe: int
    seconds: float | None = None

    @property
    def cost(self) -> float:
        """The cost that the search minimises: seconds if the budget is in seconds, else TFLOPs."""
        return self.tflops if self.seconds is None else self.seconds


PROPOSED = "search"
"""Label of a candidate that the search proposed; references have other labels."""


class Candidate(_Priced):
    """One evaluated schedule.

    Attributes:
        trial: Number of its last trial in the study, from 0.
        label: A preset's name, ``"plain:N"`` for N plain steps, or `PROPOSED`.
        tflops: TFLOPs per image.
        speedup: The baseline's TFLOPs over ``tflops``.
        nfe: Network forward passes per image.
        seconds: Seconds per image, from latencies measured on the workers' device; None if the budget is not in
            seconds.
        scores: Search-prompt scores by objective name.
        schedule: The schedule.
        stopped_at: Number of search prompts after which it was stopped early; its scores are of those prompts.
            None if it was scored on all.
        expected: Posterior mean scores by objective name (`studies.propose.expected_scores`); empty if there are
            none.
    """

    trial: int
    label: str
    speedup: float
    scores: dict[str, Score]
    schedule: Schedule
    stopped_at: int | None = None
    expected: dict[str, float] = {}

    def outlook(self, name: str) -> float:
        """Returns the posterior mean score of an objective, or the measured mean if there is none."""
        return self.expected.get(name, self.scores[name].mean)


class Mean(BaseModel):
    """The baseline's mean score over prompts."""

    model_config = ConfigDict(frozen=True)

    mean: float


class Baseline(_Priced):
    """The full-cost sampler on the same prompts."""

    scores: dict[str, Mean]


class Pick(Candidate):
    """The chosen member of the front; ``held_out`` has its scores on prompts that the search never saw."""

    held_out: dict[str, Score]


class Reused(BaseModel):
    """Denoiser TFLOPs that reuse saved.

    Attributes:
        prefixes: By stages and first calls of stages that a worker had cached.
        scores: By scores of other studies in the same folder.
    """

    model_config = ConfigDict(frozen=True)

    prefixes: float = 0.0
    scores: float = 0.0


class StudyResult(BaseModel):
    """The whole outcome of a study.

    Attributes:
        study: Name.
        model: The model that was searched.
        trials: Finished trials, including references and failures.
        elapsed_s: Wall-clock seconds of all sittings together.
        tflops_spent: Denoiser TFLOPs of everything that ran: baseline, references, trials, held-out scoring.
        reused: Denoiser TFLOPs that reuse saved.
        ended_by: The rule that ended the search.
        baseline: The full-cost sampler.
        front: Pareto front within the budget, of cost and expected scores, cheapest first.
        references: Presets and step reductions that are not on the front; shown beside it.
        evaluated: Every schedule that has scores, in the order of their last trials.
        pick: The chosen member.
        preset: Path of the exported preset of ``pick``.
        exported: Path of ``pick`` in the format that the search was for; None where it was for none.
    """

    model_config = ConfigDict(frozen=True)

    study: str
    model: str
    trials: int
    elapsed_s: float
    tflops_spent: float
    baseline: Baseline
    front: list[Candidate]
    references: list[Candidate]
    evaluated: list[Candidate]
    pick: Pick
    preset: str
    exported: str | None = None
    reused: Reused = Reused()
    ended_by: EndedBy = "trials"
