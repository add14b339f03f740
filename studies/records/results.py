"""The outcome of a study, as the command line prints it and the study folder keeps it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from objectives.base import Direction
from tuner.presets import PLAIN, Score
from tuner.schedule import Schedule

Family = Literal["search", "plain", "preset"]

EndedBy = Literal["trials", "time limit", "max tflops", "patience", "unfinished"]
"""The rule that ended the search; ``unfinished`` if none has yet."""


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


PICK = "pick"
"""Label of the pick among the checked schedules."""

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

    @property
    def family(self) -> Family:
        """Where the candidate comes from: plain steps, a preset, or the search itself."""
        if self.label == PROPOSED:
            return "search"
        return "plain" if self.label.startswith(PLAIN) else "preset"

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


class Rival(_Priced):
    """What the pick is measured against on the unseen prompts.

    Attributes:
        label: ``"plain:N"`` for plain steps that cost as much as the pick or a little more, or a preset's name.
        tflops: TFLOPs per image.
        speedup: The baseline's TFLOPs over ``tflops``.
        schedule: The schedule.
        held_out: Its scores against the baseline's, by objective.
        pick: The pick's scores against this schedule's, by objective.
    """

    label: str
    speedup: float
    schedule: Schedule
    held_out: dict[str, Score]
    pick: dict[str, Score]


class Loss(BaseModel):
    """What a schedule loses against the baseline on one objective, as a sequential check found it.

    Attributes:
        mean: Mean paired loss in points; negative for a gain.
        low: Lower end of its repeated confidence interval.
        high: Upper end.
        margin: The margin as the user stated it.
        points: The margin in points.
        within: Whether the loss is within the margin; None while that is open.
    """

    model_config = ConfigDict(frozen=True)

    mean: float
    low: float
    high: float
    margin: str
    points: float
    within: bool | None


class Checked(BaseModel):
    """Whether a schedule is as good as the baseline, as `studies.judge.sequential` decided it.

    Attributes:
        label: ``"pick"``, ``"plain:N"``, or a preset's name.
        prompts: How many unseen prompts were looked at.
        losses: The loss on each objective at the last look.
    """

    model_config = ConfigDict(frozen=True)

    label: str
    prompts: int
    losses: dict[str, Loss]

    @property
    def verdict(self) -> Literal["as good", "worse", "undecided"]:
        """As good: within the margin on every objective. Worse: beyond it on at least one."""
        found = [loss.within for loss in self.losses.values()]
        if False in found:
            return "worse"
        return "undecided" if None in found else "as good"


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
        rivals: What the pick is measured against on the unseen prompts: plain steps at its cost, and the best
            preset.
        checks: Whether the pick, and plain steps at its cost, are as good as the baseline.
        pick_note: Why the pick is not what its rule asks for; None if it is.
        directions: Which way each objective improves; empty in studies of earlier versions.
        fidelity: Objectives that compare images with the baseline's.
        search_prompts: How many prompts scored each member of the front.
        held_out_prompts: How many unseen prompts scored the pick.
        drift: How much longer images took than the latency table says, relative; None if the budget is not in
            seconds.
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
    rivals: list[Rival] = []
    checks: list[Checked] = []
    pick_note: str | None = None
    directions: dict[str, Direction] = {}
    fidelity: tuple[str, ...] = ()
    search_prompts: int | None = None
    held_out_prompts: int | None = None
    drift: float | None = None
