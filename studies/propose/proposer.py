"""Proposes the next trial: the candidate that promises most hypervolume for its remaining cost.

A trial scores a schedule on the prompts of one rung (`studies.judge.early_stopping`). The candidates are newly
drawn schedules, the references that have not run, schedules of earlier studies that the plan learns from
(`studies.propose.transfer`), and the schedules that may be promoted to the next rung. The
cost of a schedule is known before it runs; a surrogate predicts its scores from the finished trials
(`studies.propose.surrogate`). The remaining cost is what has to run until the schedule is scored on all prompts:
it excludes the prompts of earlier rungs, and the stages that workers cached for trials with the same prefix
(`studies.work.reuse`).

A proposal is a pure function of the plan and the trials before it. It sees the outcomes of all trials but the
last lag - 1. Those are pending: only their schedules are known, and they count as scored at their posterior
means.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import compress
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.propose.improvement import Array
from studies.propose.random_trial import Draw
from studies.propose.shortlist import shortlist
from studies.propose.surrogate import LEAST_KNOWN, Results, Unscored, features_of
from studies.propose.transfer import best_taught, lessons_of
from studies.propose.trial import Trial, latest
from studies.records.results import PROPOSED
from tuner.errors import UserError
from tuner.schedule import Schedule

if TYPE_CHECKING:
    from studies.plan.plan import Plan

_DRAWN = 64  # schedules drawn for a proposal
_DRAWN_UNSCORED = 256  # without scores, predictions are cheap
_ATTEMPTS = 4  # draws per wanted schedule before a space counts as exhausted
_HEADROOMS = (0.02, 0.25)  # in turn: one trial closes gaps of the front, the next looks beyond it


def propose(plan: Plan, visible: Sequence[Trial], pending: Sequence[Trial]) -> Trial:
    """Proposes the next trial.

    The first trial is the cheapest reference, with which later ones are compared. A space without new schedules
    repeats one, which costs nothing: its scores are known.

    Args:
        plan: The search.
        visible: The trials whose outcomes the proposal depends on, in order.
        pending: The trials started after those, in order; their outcomes are ignored.
    """
    started = [*visible, *pending]
    rng = generator(plan, len(started))
    waiting = waiting_references(plan, started)
    if not started:
        return waiting[0] if waiting else draw(plan, started, rng, (), 1)[0]
    listed = shortlist(visible)
    known: Results | Unscored
    if len(listed) >= LEAST_KNOWN:
        references = latest(trial for trial in visible if trial.succeeded and trial.label != PROPOSED)
        known = Results.of(plan, listed, references, pending, lessons_of(plan))
        taught = [(schedule, params) for _, schedule, params in plan.taught]
        near = [trial.params for trial in compress(listed, known.on_front()) if trial.params]
        drawn = draw(plan, started, rng, near, _DRAWN)
    else:
        costs = np.array([trial.cost for trial in started])
        known, taught = Unscored(features_of(started), costs, plan.budget.limit), best_taught(plan)
        drawn = draw(plan, started, rng, (), _DRAWN_UNSCORED)
    learnt = _taught(plan, started, taught) if taught else []
    candidates = [*waiting, *promotions(plan, listed, started), *learnt, *drawn]
    costs = np.array([candidate.cost for candidate in candidates])
    gains = known.expected_gains(features_of(candidates), costs, _HEADROOMS[len(started) % len(_HEADROOMS)])
    return candidates[int(np.argmax(gains / (_remaining(plan, candidates, started) * costs)))]


def _taught(
    plan: Plan, started: Sequence[Trial], taught: Sequence[tuple[Schedule, Mapping[str, Any]]]
) -> list[Trial]:
    """Makes trials of schedules of earlier studies that have not been started, each as the next trial."""
    excluded = _excluded(plan, started)
    return [
        _trial(plan, started, PROPOSED, schedule, params)
        for schedule, params in taught
        if schedule.content_hash not in excluded
    ]


def generator(plan: Plan, number: int) -> Random:
    """Returns the generator of one proposal, seeded by the study's seed and the trial's number."""
    digest = hashlib.sha256(f"{plan.settings.seed}/{number}".encode()).digest()
    return Random(int.from_bytes(digest[:4], "big"))


def waiting_references(plan: Plan, started: Sequence[Trial]) -> list[Trial]:
    """Lists the references that have not been started, cheapest first, each as the next trial."""
    begun = {trial.schedule.content_hash for trial in started if trial.label != PROPOSED}
    return [
        _trial(plan, started, reference.label, reference.schedule, params)
        for reference, (params, _) in zip(plan.references, plan.references_in_space, strict=True)
        if reference.schedule.content_hash not in begun
    ]


def promotions(plan: Plan, finished: Sequence[Trial], started: Sequence[Trial]) -> list[Trial]:
    """Lists the possible promotions of finished trials to their next rungs, each as the next trial."""
    continued = {trial.continues for trial in started}
    return [
        replace(
            trial, number=len(started), rung=trial.rung + 1, continues=trial.number, outcome=None, started=None
        )
        for trial in finished
        if trial.succeeded and trial.result.promotable and trial.number not in continued
    ]


def draw(
    plan: Plan, started: Sequence[Trial], rng: Random, near: Sequence[Mapping[str, Any]], count: int
) -> list[Trial]:
    """Draws new schedules, each as the next trial; every second one lies near some of the given parameters.

    Args:
        plan: The search.
        started: All trials so far; their schedules are not drawn again, nor are those of the references.
        rng: Decides every draw.
        near: Parameters of good schedules.
        count: The wanted number. An exhausted space gives fewer, at least one, which may be known.

    Raises:
        UserError: If the study's target carries none of the drawn schedules.
    """
    excluded = _excluded(plan, started)
    new: dict[str, Trial] = {}
    last: Trial | None = None
    for attempt in range(_ATTEMPTS * count):
        answers = Draw(rng, rng.choice(near) if near and attempt % 2 else None)
        schedule = plan.space.suggest(answers)
        if plan.target and not plan.target.carries(schedule):
            continue
        last = _trial(plan, started, PROPOSED, schedule, answers.drawn)
        if schedule.content_hash not in excluded:
            new[schedule.content_hash] = last
        if len(new) == count:
            break
    if last is None:
        raise UserError(
            f"Of {_ATTEMPTS * count} schedules that the space {plan.settings.space!r} drew, "
            f"{plan.settings.for_target} carries none; use another --space."
        )
    return list(new.values()) or [last]


def _excluded(plan: Plan, started: Sequence[Trial]) -> set[str]:
    """Returns the content hashes of schedules that are no new proposals."""
    excluded = {trial.schedule.content_hash for trial in started}
    excluded.update(reference.schedule.content_hash for reference in plan.references)
    excluded.update(rounded for _, rounded in plan.references_in_space)
    return excluded


def _trial(
    plan: Plan, started: Sequence[Trial], label: str, schedule: Schedule, params: Mapping[str, Any] | None
) -> Trial:
    price = plan.price(schedule)
    return Trial(len(started), label, schedule, price, plan.budget.cost(price), params)


def _remaining(plan: Plan, candidates: Sequence[Trial], started: Sequence[Trial]) -> Array:
    """Computes the part of each candidate's cost on all prompts that remains to be run, (n,)."""
    prompts = plan.rungs[-1]
    cached: dict[bytes, int] = {}  # prompts on which workers have the stages of a prefix
    for trial in started:
        for prefix in trial.prefixes:
            cached[prefix] = max(cached.get(prefix, 0), plan.rungs[trial.rung])

    def remaining(trial: Trial) -> float:
        done = plan.scored_before(trial.rung)
        skipped = [*(max(done, cached.get(prefix, 0)) for prefix in trial.prefixes), done]
        left = (stage.tflops * (prompts - n) for stage, n in zip(trial.price.stages, skipped, strict=True))
        return sum(left) / (prompts * trial.price.tflops)

    return np.array([remaining(candidate) for candidate in candidates])
