"""Everything that the page of a study shows, as plain data."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from studies.records.results import Candidate, StudyResult
from studies.report.page.exports import exports
from studies.report.page.history import growth, importances, spending
from studies.report.page.prices import Prices, prices
from studies.report.page.record import ScoreLines, optuna_study, score_lines
from studies.report.page.so_far import result_so_far
from studies.report.tables import shorthand
from tuner.errors import UserError

if TYPE_CHECKING:
    import optuna

    from studies.records.study_folder import StudyFolder
    from tuner.budget import Budget
    from tuner.models import Blueprint
    from tuner.schedule import Schedule

_DIGITS = 6


@dataclass(frozen=True)
class Contents:
    """A study and what a page says of it.

    Attributes:
        study: The study.
    """

    study: StudyFolder

    @property
    def partial(self) -> bool:
        """Whether the search is not over."""
        return self.study.state == "unfinished"

    @cached_property
    def scores(self) -> ScoreLines:
        """The study's score log."""
        return score_lines(self.study)

    @cached_property
    def _prices(self) -> Prices | None:
        try:
            return prices(self.study)
        except UserError:
            return None

    @property
    def blueprint(self) -> Blueprint | None:
        """The study's model; None where it is not to be had here."""
        return self._prices.blueprint if self._prices else None

    @property
    def budget(self) -> Budget | None:
        """The study's limits per image; None where its model is not to be had here."""
        try:
            return self._prices.budget if self._prices else None
        except UserError:  # the model is another one by now
            return None

    @cached_property
    def recorded(self) -> optuna.Study | None:
        """The study's trials."""
        return optuna_study(self.study)

    @cached_property
    def result(self) -> StudyResult:
        """The outcome, or what there is of it.

        Raises:
            UserError: If there is nothing to show yet.
        """
        if self.partial:
            return result_so_far(self.study, self.scores, self.recorded)
        return self.study.result()

    @cached_property
    def _front(self) -> set[int]:
        return {member.trial for member in self.result.front}

    @cached_property
    def shown(self) -> list[Candidate]:
        """The candidates that have exports and images: the pick, the front and the references."""
        result = self.result
        return list({one.trial: one for one in (result.pick, *result.front, *result.references)}.values())

    def data(self) -> dict[str, Any]:
        """Gathers what the page's script reads, but for the images."""
        result = self.result
        prompts = self.study.prompts
        limit = self.budget.limit if self.budget else None
        return {
            "study": {"name": self.study.name, "id": self.study.id},
            "objectives": [{"name": name, "direction": way} for name, way in self.study.directions.items()],
            "budget": self._budget(),
            "pick": result.pick.trial,
            "prompts": [text for text, _ in prompts[: self.scores.prompts]],
            "first_seed": self.scores.first_seed,
            "baseline": self._drawn(self.study.baseline)
            | {"tflops": result.baseline.tflops, "nfe": result.baseline.nfe, "seconds": result.baseline.seconds}
            | {"means": {name: mean.mean for name, mean in result.baseline.scores.items()}},
            "candidates": [self._candidate(candidate) for candidate in result.evaluated],
            "exports": {} if self.partial else exports(self.shown, self.study, result, self.blueprint),
            "history": growth(self.scores, result, self.study, limit),
            "spending": spending(self.scores, self.study),
            "importances": importances(self.recorded, self.study.directions),
        }

    def _budget(self) -> dict[str, Any]:
        budget = self.budget
        return {
            "text": self.study.settings.budget,
            "tflops": budget and budget.tflops,
            "nfe": budget and budget.nfe,
            "seconds": budget.time.seconds if budget and budget.time else None,
        }

    def _candidate(self, candidate: Candidate) -> dict[str, Any]:
        scores = {
            name: [_short(score.mean), _short(score.delta), *map(_short, score.ci95)]
            for name, score in candidate.scores.items()
        }
        held_out = self.result.pick.held_out if candidate.trial == self.result.pick.trial else {}
        return self._drawn(candidate.schedule) | {
            "trial": candidate.trial,
            "label": candidate.label,
            "family": candidate.family,
            "front": candidate.trial in self._front,
            "tflops": candidate.tflops,
            "speedup": candidate.speedup,
            "nfe": candidate.nfe,
            "seconds": candidate.seconds,
            "stopped_at": candidate.stopped_at,
            "scores": scores,
            "held_out": {name: [score.mean, score.delta, *score.ci95] for name, score in held_out.items()},
        }

    def _drawn(self, schedule: Schedule) -> dict[str, Any]:
        """What a schedule is, and what it scored on each search prompt."""
        key = schedule.content_hash
        return {
            "schedule": key,
            "spec": shorthand(schedule),
            "stages": [
                {"scale": stage.scale, "sigmas": [_short(sigma) for sigma in stage.sigmas], "solver": stage.solver}
                for stage in schedule.resolved
            ],
            "prompt_scores": {name: _rounded(self.scores.of(key, name)) for name in self.study.directions},
        }


def _rounded(values: Iterable[float]) -> list[float]:
    return [_short(value) for value in values]


def _short(value: float) -> float:
    """Rounds to six digits, which is more than a screen shows."""
    return (
        value
        if value == 0 or not math.isfinite(value)
        else round(value, _DIGITS - 1 - math.floor(math.log10(abs(value))))
    )
