from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from studies import search
from studies.judge.early_stopping import Estimate
from studies.plan.plan import Plan, make_plan
from studies.propose.proposer import Proposal, Proposer
from studies.propose.surrogate import Results, Unscored
from studies.records.results import PROPOSED
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


def scored(number: int) -> dict[str, Estimate]:
    return {"clip": Estimate(float(number % 5), 0.0), "image_reward": Estimate(0.0, 0.1)}


def coarse_plan(out: Path) -> Plan:
    return replace(make_plan(toy_settings(out)), space=Coarse(), references=())


def test_no_schedule_is_proposed_twice(tmp_path: Path) -> None:
    plan = coarse_plan(tmp_path)
    proposer = Proposer(plan)
    hashes = []
    for number in range(12):
        hashes.append(proposer.propose().schedule.content_hash)
        proposer.tell(scored(number), rests=False)
    assert len(set(hashes)) == 12
    assert plan.space.asked > 12  # the sampler did repeat itself
    assert proposer.propose().schedule.content_hash in hashes  # there is no thirteenth


def test_a_replayed_study_proposes_what_the_first_one_did(tmp_path: Path) -> None:
    def run(replayed: int) -> list[tuple[str, dict[str, Any]]]:
        proposer = Proposer(coarse_plan(tmp_path))
        found: list[tuple[str, dict[str, Any]]] = []
        for number in range(11):
            if number < replayed:
                content_hash, params = whole[number]
                schedule = Schedule.model_validate({"stages": [{"steps": 4, "shift": float(params["shift"])}]})
                assert schedule.content_hash == content_hash
                proposer.start(Proposal(PROPOSED, schedule, params))
            else:
                schedule = proposer.propose().schedule
            trial = proposer.tell(scored(number), rests=False)
            found.append((schedule.content_hash, trial.params))
        return found

    whole: list[tuple[str, dict[str, Any]]] = []
    whole = run(0)
    for replayed in (3, 8):
        assert run(replayed) == whole


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


def forked(out: Path, rungs: int) -> tuple[Proposer, list[Proposal]]:
    """Returns a proposer of a forked space, and six proposals with the same first stage."""
    space = Forked()
    plan = replace(make_plan(toy_settings(out, rungs=rungs, search_prompts=32)), space=space, references=())
    params = [{"end": 0.5, "shift": 2.0 + number} for number in range(6)]
    return Proposer(plan), [
        Proposal(PROPOSED, space.suggest(optuna.trial.FixedTrial(each)), each) for each in params
    ]


def score(proposer: Proposer, proposals: list[Proposal], resting: tuple[int, ...] = ()) -> None:
    for number, proposal in enumerate(proposals):
        proposer.start(proposal)
        proposer.tell(scored(number), rests=number in resting)


def test_of_what_promises_the_same_the_one_is_chosen_whose_first_stage_is_kept(
    tmp_path: Path, all_promise_the_same: None
) -> None:
    proposer, known = forked(tmp_path, rungs=1)
    score(proposer, known)
    assert {proposer.propose().schedule.stages[0].sigmas[-1] for _ in range(6)} == {0.5}


def test_of_what_promises_the_same_one_goes_on_that_a_part_of_the_prompts_is_left_of(
    tmp_path: Path, all_promise_the_same: None
) -> None:
    proposer, known = forked(tmp_path, rungs=2)
    score(proposer, known, resting=(2, 4))
    on = [one._replace(rung=1, continues=number) for number, one in enumerate(known) if number in (2, 4)]
    assert proposer.resting == on
    assert [proposer.propose(), proposer.propose()] == on
    assert proposer.resting == []
    assert proposer.propose().rung == 0
    trial = proposer.tell(scored(0), rests=False)
    assert (trial.user_attrs["prompts"], trial.user_attrs["continues"]) == (32, 2)


def test_a_stage_is_kept_on_the_prompts_alone_that_were_run(tmp_path: Path, all_promise_the_same: None) -> None:
    proposer, known = forked(tmp_path, rungs=2)
    other = known[0]._replace(schedule=Forked().suggest(optuna.trial.FixedTrial({"end": 0.4, "shift": 3.0})))
    for one in (*known, other, other._replace(rung=1)):  # of the two beginnings, only the other has run on all
        proposer.start(one)
    for number in range(8):
        proposer.tell(scored(number), rests=False)
    assert {proposer.propose().schedule.stages[0].sigmas[-1] for _ in range(6)} == {0.4}


def test_a_space_that_a_reference_exhausts_repeats_it(tmp_path: Path) -> None:
    plan = make_plan(toy_settings(tmp_path, budget="1nfe", space="plain"))
    (reference,) = plan.references  # one step, which is all that the space holds
    proposer = Proposer(plan)
    assert proposer.propose() == Proposal(reference.label, reference.schedule, {"steps": 1})
    assert proposer.tell(None, rests=False).params == {"steps": 1}
    again = proposer.propose()
    assert again == Proposal("search", reference.schedule, {"steps": 1})  # at no cost, as it is evaluated already


def test_a_reference_comes_next_when_it_promises_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def first(known: Unscored, wanted: Any, costs: Any, *_: Any) -> Any:
        return np.arange(len(costs)) == 0  # of the references that wait, the cheapest

    plan = make_plan(toy_settings(tmp_path))
    proposer = Proposer(plan)
    with monkeypatch.context() as patch:
        patch.setattr(Unscored, "expected_gains", first)
        labels = [proposer.propose().label for _ in plan.references]
    assert labels == [reference.label for reference in plan.references]
    assert proposer.waiting == []
    assert proposer.propose().label == "search"


@pytest.mark.parametrize("space", loadable())
def test_every_space_can_be_searched(tmp_path: Path, space: str) -> None:
    executor = Counting()
    result = search(toy_settings(tmp_path, space=space, trials=4, search_prompts=2), executor=executor)
    hashes = [candidate.schedule.content_hash for candidate in result.evaluated]
    assert (
        len(set(hashes)) == len(hashes) == 4 + 2 + (":" in space)
    )  # the preset that a space is around is a reference
    assert json.loads((tmp_path / "toy-3x" / "result.json").read_text())["front"]
