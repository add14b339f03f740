"""What a finished study says: the records that the command line prints and the study folder keeps."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from tuner.presets import Score
from tuner.schedule import Schedule

EndedBy = Literal["trials", "time limit", "max tflops", "patience"]
"""Why nothing more was proposed."""


class _Priced(BaseModel):
    """What an image costs: TFLOPs, and seconds where the budget is in seconds."""

    model_config = ConfigDict(frozen=True)

    tflops: float
    nfe: int
    seconds: float | None = None

    @property
    def cost(self) -> float:
        """What the search makes as small as it can: seconds where the budget is in seconds, TFLOPs elsewhere."""
        return self.tflops if self.seconds is None else self.seconds


PROPOSED = "search"
"""Label of a candidate that the search proposed itself: it is no reference."""


class Candidate(_Priced):
    """One evaluated schedule.

    Attributes:
        trial: Number of its last trial in the study, from 0.
        label: Where it comes from: a preset's name, ``"plain-N"`` for step reduction, or `PROPOSED`.
        tflops: TFLOPs per image.
        speedup: The baseline's TFLOPs over ``tflops``.
        nfe: Network forward passes per image.
        seconds: Seconds per image, made of latencies measured on the workers' device; None where the budget is
            not in seconds, as nothing is measured then.
        scores: Search-prompt scores by objective name.
        schedule: What ran.
        stopped_at: Number of search prompts after which it was left; its scores are those of these prompts alone.
            None if it was scored on all.
        expected: Mean scores on prompts like these, by objective name, as all results of the study together tell:
            what was measured without the luck in it (`studies.propose.expected_scores`). Empty where nothing is
            expected.
    """

    trial: int
    label: str
    speedup: float
    scores: dict[str, Score]
    schedule: Schedule
    stopped_at: int | None = None
    expected: dict[str, float] = {}

    def outlook(self, name: str) -> float:
        """The mean score of an objective that is expected, or else the measured one."""
        return self.expected.get(name, self.scores[name].mean)


class Mean(BaseModel):
    """A mean score over prompts without a difference: the baseline's."""

    model_config = ConfigDict(frozen=True)

    mean: float


class Baseline(_Priced):
    """The full-cost sampler on the same prompts."""

    scores: dict[str, Mean]


class Pick(Candidate):
    """The chosen member of the front; ``held_out`` has its scores on prompts that the search never saw."""

    held_out: dict[str, Score]


class Reused(BaseModel):
    """Denoiser TFLOPs that a study did not spend, because the result was there.

    Attributes:
        prefixes: Stages, and first calls of stages, that a worker had kept from schedules with the same ones.
        scores: Scores that another study in the same folder had on disk.
    """

    model_config = ConfigDict(frozen=True)

    prefixes: float = 0.0
    scores: float = 0.0


class StudyResult(BaseModel):
    """All of a study's outcome.

    Attributes:
        study: Name.
        model: The model that was searched.
        trials: Finished trials, those of references and those that failed included.
        elapsed_s: Wall-clock seconds of all sittings together.
        tflops_spent: Denoiser TFLOPs of everything that ran: baseline, references, trials, held-out scoring.
        reused: Denoiser TFLOPs of what did not have to run.
        ended_by: What ended the search.
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
