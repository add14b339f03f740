from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from studies import search
from studies.plan.plan import Plan, make_plan
from studies.propose.proposer import promotions, propose, waiting_references
from studies.propose.surrogate import Results, Unscored
from studies.propose.trial import Outcome, Trial, as_optuna
from studies.records.results import PROPOSED
from studies.work.task import Failure
from tests.search_spaces.anchored import loadable
from tests.studies.toy import Counting, toy_settings
from tuner.schedule import Schedule
from tuner.sigmas import truncated_sigmas


class Coarse:
    """A space in which a sampler that is free to repeat itself does so: twelve schedules."""

    def __init__(self, *made_from: Any):
        self.asked = 0

    def suggest(self, trial: Any) -> Schedule:
        self.asked += 1
        shift = float(trial.suggest_int("shift", 1, 12))
        return Schedule.model_validate({"stages": [{"steps": 4, "shift": shift}]})

    def params_of(self, schedule: Schedule) -> dict[str, Any]:
        raise ValueError("nothing is known.")


def coarse_plan(out: Path) -> Plan:
    return replace(make_plan(toy_settings(out)), space=Coarse(), references=())


def finished(trial: Trial, promotable: bool = False) -> Trial:
    """Gives a trial scores that depend on its number."""
    return replace(trial, outcome=Outcome({}, (-float(trial.number % 5), 0.0), (0.0, 0.1), promotable))


def test_no_schedule_is_proposed_twice(tmp_path: Path) -> None:
    plan = coarse_plan(tmp_path)
    trials: list[Trial] = []
    for _ in range(12):
        trials.append(finished(propose(plan, trials, ())))
    hashes = {trial.schedule.content_hash for trial in trials}
    assert len(hashes) == 12
    assert plan.space.asked > 12  # the draws did repeat themselves
    assert propose(plan, trials, ()).schedule.content_hash in hashes  # there is no thirteenth


def test_a_proposal_depends_on_visible_outcomes_and_pending_schedules_alone(tmp_path: Path) -> None:
    plan = make_plan(toy_settings(tmp_path))
    trials: list[Trial] = []
    for _ in range(9):
        trials.append(finished(propose(plan, trials[:-2], trials[-2:])))
    visible, pending = trials[:-2], [replace(trial, outcome=None) for trial in trials[-2:]]
    expected = propose(plan, visible, trials[-2:])
    assert expected.number == 9
    assert propose(make_plan(toy_settings(tmp_path)), visible, pending) == expected
    assert propose(plan, [*visible[:-1], replace(visible[-1], outcome=Failure("why"))], pending) != expected
    assert propose(plan, visible, [pending[0], visible[0]]) != expected


class Forked:
    """Two first stages that cost the same, and many second ones."""

    def suggest(self, trial: Any) -> Schedule:
        end, shift = trial.suggest_categorical("end", (0.4, 0.5)), trial.suggest_float("shift", 1.0, 9.0)
        stages = [{"scale": 0.5, "sigmas": [1.0, end]}, {"sigmas": truncated_sigmas(4, shift=shift)}]
        return Schedule.model_validate({"stages": stages})


@pytest.fixture
def all_promise_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what is left to run decides."""

    def as_many(known: Results | Unscored, wanted: Any, costs: Any, *_: Any) -> Any:
        return np.ones(len(costs))

    for known in (Results, Unscored):
        monkeypatch.setattr(known, "expected_gains", as_many)


def forked(out: Path, rungs: int) -> tuple[Plan, list[Trial]]:
    """Returns a plan of a forked space, and six trials with the same first stage."""
    plan = replace(make_plan(toy_settings(out, rungs=rungs, search_prompts=32)), space=Forked(), references=())
    return plan, [forked_trial(plan, number, 0.5, 2.0 + number) for number in range(6)]


def forked_trial(plan: Plan, number: int, end: float, shift: float, rung: int = 0) -> Trial:
    params = {"end": end, "shift": shift}
    schedule = plan.space.suggest(optuna.trial.FixedTrial(params))
    price = plan.price(schedule)
    return Trial(number, PROPOSED, schedule, price, plan.budget.cost(price), params, rung)


def next_ends(plan: Plan, trials: list[Trial]) -> set[float]:
    """Where the first stages of the next six proposals end, while none of them finishes."""
    pending: list[Trial] = []
    for _ in range(6):
        pending.append(propose(plan, trials, pending))
    return {trial.schedule.stages[0].sigmas[-1] for trial in pending}


def test_of_what_promises_the_same_the_one_is_chosen_whose_first_stage_is_kept(
    tmp_path: Path, all_promise_the_same: None
) -> None:
    plan, trials = forked(tmp_path, rungs=1)
    assert next_ends(plan, [finished(trial) for trial in trials]) == {0.5}


def test_of_what_promises_the_same_one_is_promoted_that_was_scored_on_a_part_of_the_prompts(
    tmp_path: Path, all_promise_the_same: None
) -> None:
    plan, trials = forked(tmp_path, rungs=2)
    trials = [finished(trial, promotable=trial.number in (2, 4)) for trial in trials]
    first = propose(plan, trials, ())
    second = propose(plan, trials, [first])
    assert [(trial.number, trial.rung, trial.continues, trial.outcome) for trial in (first, second)] == [
        (6, 1, 2, None),
        (7, 1, 4, None),
    ]
    assert (first.schedule, second.schedule) == (trials[2].schedule, trials[4].schedule)
    assert promotions(plan, trials, [*trials, first, second]) == []
    assert propose(plan, trials, [first, second]).rung == 0
    recorded = as_optuna(plan, finished(first))
    assert (recorded.user_attrs["prompts"], recorded.user_attrs["continues"]) == (32, 2)
    assert not recorded.user_attrs["partial"]
    assert as_optuna(plan, trials[2]).user_attrs["partial"]


def test_a_stage_is_kept_on_the_prompts_alone_that_were_run(tmp_path: Path, all_promise_the_same: None) -> None:
    plan, trials = forked(tmp_path, rungs=2)
    trials += [forked_trial(plan, 6, 0.4, 3.0), forked_trial(plan, 7, 0.4, 3.0, rung=1)]
    assert next_ends(plan, [finished(trial) for trial in trials]) == {0.4}  # the only one that has run on all


def test_a_space_that_a_reference_exhausts_repeats_it(tmp_path: Path) -> None:
    plan = make_plan(toy_settings(tmp_path, budget="1nfe", space="plain"))
    (reference,) = plan.references  # one step, which is all that the space holds
    first = propose(plan, (), ())
    assert (first.label, first.schedule, first.params) == (reference.label, reference.schedule, {"steps": 1})
    failed = replace(first, outcome=Failure("why"))
    assert as_optuna(plan, failed).params == {"steps": 1}
    again = propose(plan, [failed], ())  # at no cost, as it is evaluated already
    assert (again.label, again.schedule, again.params) == (PROPOSED, reference.schedule, {"steps": 1})


def test_a_reference_comes_next_when_it_promises_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def first(known: Unscored, wanted: Any, costs: Any, *_: Any) -> Any:
        return np.arange(len(costs)) == 0  # of the references that wait, the cheapest

    plan = make_plan(toy_settings(tmp_path))
    pending: list[Trial] = []
    with monkeypatch.context() as patch:
        patch.setattr(Unscored, "expected_gains", first)
        for _ in plan.references:
            pending.append(propose(plan, (), pending))
    assert [trial.label for trial in pending] == [reference.label for reference in plan.references]
    assert waiting_references(plan, pending) == []
    assert propose(plan, (), pending).label == PROPOSED


@pytest.mark.parametrize("space", loadable())
def test_every_space_can_be_searched(tmp_path: Path, space: str) -> None:
    executor = Counting()
    result = search(toy_settings(tmp_path, space=space, trials=4, search_prompts=2), executor=executor)
    hashes = [candidate.schedule.content_hash for candidate in result.evaluated]
    around = ":" in space  # the preset that a space is around is a reference, too
    assert len(set(hashes)) == len(hashes) == 4 + 3 + around  # plain:6 with both rules, and plain:3
    assert json.loads((tmp_path / "toy-3x" / "result.json").read_text())["front"]
