"""The end of a search: the pick and its rivals on unseen prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from studies.engine.loop import paired_scores
from studies.judge.sequential import looks, until_decided
from studies.plan.references import plain_steps_at
from studies.records.results import PICK, Checked, Pick, Rival
from studies.work.task import Failure
from tuner.presets import PLAIN, plain_name

if TYPE_CHECKING:
    from studies.judge.early_stopping import Scores
    from studies.plan.plan import Plan
    from studies.records.results import Candidate
    from studies.work.task import Task
    from studies.workers.dispatcher import Evaluations
    from tuner.schedule import Schedule


@dataclass(frozen=True)
class UnseenPrompts:
    """Draws schedules on prompts that the search never saw.

    Args:
        plan: The search.
        evaluations: Keeps the outcomes of tasks.
        draw: Runs tasks and returns when they are finished.
    """

    plan: Plan
    evaluations: Evaluations
    draw: Callable[[Sequence[Task]], None]

    def measure(self, chosen: Candidate, best_preset: Candidate | None) -> tuple[Pick, list[Rival]]:
        """Scores the pick, plain steps at its cost, and the best preset on the held-out prompts.

        Rivals that are the pick or the baseline, or that fail, are left out.

        Args:
            chosen: The pick.
            best_preset: What the pick rule chooses of the presets within the budget; None if there are none.

        Raises:
            RuntimeError: If the pick or the baseline fails.
        """
        plan = self.plan
        rivals = self._rivals(chosen, best_preset)
        drawn = [plan.baseline, chosen.schedule, *rivals.values()]
        self.draw([task for schedule in drawn for task in plan.held_out_tasks(schedule)])
        baseline, mine = (self._scores(schedule) for schedule in drawn[:2])
        return Pick(**dict(chosen), held_out=paired_scores(_succeeded(mine), _succeeded(baseline))), [
            self._rival(label, schedule, scores, _succeeded(mine), _succeeded(baseline))
            for label, schedule in rivals.items()
            if isinstance(scores := self._scores(schedule), dict)
        ]

    def decide(self, chosen: Candidate, rivals: Sequence[Rival]) -> list[Checked]:
        """Looks at more and more unseen prompts until the pick, and plain steps, are decided; see `until_decided`.

        Objectives that compare with the baseline's own images have no say, because everything differs from those.

        Args:
            chosen: The pick.
            rivals: Its rivals; those that are plain steps are decided, too.
        """
        plan = self.plan
        directions = {name: way for name, way in plan.directions.items() if name not in plan.fidelity}
        if not directions:
            return []
        first = len(plan.prompts.held_out)
        schedules = {PICK: chosen.schedule}
        schedules |= {rival.label: rival.schedule for rival in rivals if rival.label.startswith(PLAIN)}

        def draw(count: int, labels: Sequence[str]) -> tuple[Scores | None, Mapping[str, Scores]]:
            drawn = [plan.baseline, *(schedules[label] for label in labels)]
            self.draw([task for schedule in drawn for task in plan.held_out_tasks(schedule, count)])
            scores = {label: self._scores(schedules[label], count) for label in labels}
            baseline = self._scores(plan.baseline, count)
            succeeded: dict[str, Scores] = {label: one for label, one in scores.items() if isinstance(one, dict)}
            return baseline if isinstance(baseline, dict) else None, succeeded

        counts = looks(first + len(plan.prompts.further), first)
        return list(until_decided(list(schedules), counts, draw, plan.margins, directions).values())

    def _rivals(self, chosen: Candidate, best_preset: Candidate | None) -> dict[str, Schedule]:
        plan = self.plan
        steps = min(plan.blueprint.steps, plain_steps_at(chosen.tflops, plan.blueprint, plan.size))
        rivals = {plain_name(steps): plan.blueprint.plain(steps, plan.size)}
        if best_preset is not None:
            rivals[best_preset.label] = best_preset.schedule
        known = {plan.baseline.content_hash, chosen.schedule.content_hash}
        return {label: schedule for label, schedule in rivals.items() if schedule.content_hash not in known}

    def _rival(self, label: str, schedule: Schedule, scores: Scores, mine: Scores, baseline: Scores) -> Rival:
        price = self.plan.price(schedule)
        return Rival(
            label=label,
            tflops=price.tflops,
            nfe=price.nfe,
            seconds=self.plan.seconds(price),
            speedup=self.plan.baseline_price.tflops / price.tflops,
            schedule=schedule,
            held_out=paired_scores(scores, baseline),
            pick=paired_scores(mine, scores),
        )

    def _scores(self, schedule: Schedule, prompts: int | None = None) -> dict[str, list[float]] | Failure | None:
        outcome = self.evaluations.outcome(self.plan.held_out_tasks(schedule, prompts or 0))
        if not isinstance(outcome, dict) or prompts is None:
            return outcome
        return {name: values[:prompts] for name, values in outcome.items()}


def _succeeded(outcome: Mapping[str, Sequence[float]] | Failure | None) -> Scores:
    if outcome is None or isinstance(outcome, Failure):
        raise RuntimeError(f"an evaluation that the outcome needs has failed: {outcome and outcome.reason}")
    return outcome
