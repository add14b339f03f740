"""What to run on a model without a search: the best schedule within a budget that is known so far."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from objectives.base import loss_sign
from studies.plan.identity import fingerprint
from studies.plan.references import RESCALED, references
from studies.records.study_folder import list_studies
from tuner import presets
from tuner.budget import Budget, parse_budget, read_budget
from tuner.errors import UserError
from tuner.flops import price
from tuner.models import blueprint
from tuner.presets import PLAIN, Score
from tuner.schedule import Schedule

if TYPE_CHECKING:
    from studies.records.results import Candidate, StudyResult
    from studies.records.study_folder import StudyFolder
    from tuner.flops import Price
    from tuner.models import Blueprint, Size

Origin = Literal["measured", "learnt", "published", "plain"]
"""Measured on this model; measured on another one; of a paper; the model's own sampler with fewer steps."""

_ORIGINS: tuple[Origin, ...] = ("measured", "learnt", "published", "plain")  # the best first


class Recommendation(BaseModel):
    """A schedule, and what is known of it.

    Attributes:
        label: The study's trial, the preset, or the plain steps that it is.
        origin: Where it comes from.
        measured_on_this_model: Whether its scores are of this model at this size.
        evidence: Where its scores come from, as a sentence.
        tflops: TFLOPs per image on this model.
        speedup: The baseline's TFLOPs over them.
        scores: Scores by objective, each with its difference to the baseline; empty where none are known.
        schedule: The schedule.
        command: What to run next.
    """

    model_config = ConfigDict(frozen=True)

    label: str
    origin: Origin
    measured_on_this_model: bool
    evidence: str
    tflops: float
    speedup: float
    scores: dict[str, Score]
    schedule: Schedule
    command: str


def recommend(model: str, budget: str, out: str) -> list[Recommendation]:
    """Finds the best known schedule of each origin within a budget, the best origin first.

    A study whose pick fits recommends that; its scores are those on unseen prompts. Another study recommends the
    member of its front whose loss has the smallest upper end, relative to the baseline's mean, on its worst
    objective. Of several studies, those whose pick fits come first. Of published schedules, the dearest that fits
    unchanged is the best, or else the dearest that was rescaled to the budget.

    Args:
        model: Short name, folder or hub id.
        budget: What one image may cost; not in seconds, which would have to be measured.
        out: Folder that holds the studies.

    Raises:
        UserError: If the model or the budget is wrong.
    """
    if read_budget(budget)[1] == "s":
        raise UserError(f"Budget {budget!r} is in seconds, which only a search measures; write 3x, 40% or 1200T.")
    asked = _Asked(model, budget, blueprint(model))
    found = [*_of_studies(asked, out), *_references(asked)]
    best = {origin: [one for one in found if one[1].origin == origin] for origin in _ORIGINS}
    return [min(options, key=lambda one: one[0])[1] for options in best.values() if options]


_Ranked = tuple[tuple[float, ...], Recommendation]


@dataclass(frozen=True)
class _Asked:
    """The model and the budget that a schedule is wanted for."""

    model: str
    budget: str
    blueprint: Blueprint

    @property
    def size(self) -> Size:
        return self.blueprint.size

    @cached_property
    def baseline(self) -> Price:
        return price(self.blueprint.baseline(self.size), self.blueprint, self.size)

    @cached_property
    def limits(self) -> Budget:
        return parse_budget(self.budget, self.baseline, self.blueprint, self.size)

    @cached_property
    def weights(self) -> str:
        return fingerprint(self.blueprint)

    def cost(self, schedule: Schedule) -> float | None:
        """Returns the TFLOPs of a schedule on this model; None if it does not run there or exceeds the budget."""
        try:
            cost = price(schedule, self.blueprint, self.size)
        except UserError:
            return None
        return cost.tflops if self.limits.allows(cost) else None


def _of_studies(asked: _Asked, out: str) -> Iterator[_Ranked]:
    for study in list_studies(out):
        if study.state != "finished":
            continue
        result, identity = study.result(), study.identity
        same = (
            identity["weights"] == asked.weights
            and tuple(identity["size"]) == asked.size
            and "options" not in identity
        )
        picked = result.pick.held_out and asked.cost(result.pick.schedule) is not None
        for candidate in [result.pick] if picked else result.front:
            if (cost := asked.cost(candidate.schedule)) is None:
                continue
            scores = result.pick.held_out if picked else candidate.scores
            scores = {name: score for name, score in scores.items() if name not in result.fidelity}
            worst = max((_most_lost(name, score, study, result) for name, score in scores.items()), default=0.0)
            yield (float(not picked), worst, cost), _of_study(asked, study, result, candidate, same, scores, cost)


def _most_lost(name: str, score: Score, study: StudyFolder, result: StudyResult) -> float:
    """Returns the upper end of a loss as a part of the baseline's mean."""
    baseline = abs(result.baseline.scores[name].mean) or 1.0
    return max(loss_sign(study.directions[name]) * end for end in score.ci95) / baseline


def _of_study(
    asked: _Asked,
    study: StudyFolder,
    result: StudyResult,
    candidate: Candidate,
    same: bool,
    scores: Mapping[str, Score],
    cost: float,
) -> Recommendation:
    height, width = study.identity["size"]
    unseen = candidate.trial == result.pick.trial and bool(result.pick.held_out)
    count = result.held_out_prompts if unseen else result.search_prompts
    kind = "unseen prompts" if unseen else "prompts that the search chose by"
    where = f"study {study.name} of {result.model} at {height}x{width}, {count} {kind}"
    file = f"{study.name}-trial-{candidate.trial}.yaml"
    export = f"tuner export {shlex.quote(study.name)} --pick trial:{candidate.trial} -o {shlex.quote(file)}"
    export += f" --out {shlex.quote(str(study.path.parent))}"
    measure = f" && tuner eval {shlex.quote(file)} --model {shlex.quote(asked.model)}"
    return Recommendation(
        label=f"{study.name} trial {candidate.trial} ({candidate.label})",
        origin="measured" if same else "learnt",
        measured_on_this_model=same,
        evidence=where if same else f"{where}; not measured on this model",
        tflops=cost,
        speedup=asked.baseline.tflops / cost,
        scores=dict(scores),
        schedule=candidate.schedule,
        command=export if same else export + measure,
    )


def _references(asked: _Asked) -> Iterator[_Ranked]:
    for reference in references(asked.blueprint, asked.size, asked.limits):
        plain, name = reference.label.startswith(PLAIN), reference.label.removesuffix(RESCALED)
        rescaled = name != reference.label
        cost = price(reference.schedule, asked.blueprint, asked.size).tflops
        source = "the model's own sampler" if plain else presets.load(name).source
        change = ", rescaled to the budget" if rescaled else ""
        quoted = shlex.quote(asked.model)
        command = (
            f"tuner search --model {quoted} --budget {shlex.quote(asked.budget)}"
            if rescaled
            else f"tuner eval {reference.label} --model {quoted}"
        )
        yield (
            (float(rescaled), -cost),
            Recommendation(
                label=reference.label,
                origin="plain" if plain else "published",
                measured_on_this_model=False,
                evidence=f"{source}{change}; not measured on this model",
                tflops=cost,
                speedup=asked.baseline.tflops / cost,
                scores={},
                schedule=reference.schedule,
                command=command,
            ),
        )
