"""The tabular benchmark on made-up scores: its space, its accounts and its measure."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import optuna
import pytest

from benchmarks import search_efficiency
from benchmarks.search_measure import Run, Step, compare, losses, report, spent_to_reach, volume_at, volumes
from benchmarks.table import HELD_OUT_PROMPTS, SEARCH_PROMPTS, Table, TableSpace, schedules, settings, table_plan
from studies.judge.pareto import nondominated
from studies.plan.plan import make_plan


@pytest.fixture(scope="module")
def plan() -> Any:
    return table_plan()


@pytest.fixture(scope="module")
def table(plan: Any, tmp_path_factory: pytest.TempPathFactory) -> Table:
    """Scores that grow with the cost."""
    everything = [plan.baseline, *(reference.schedule for reference in plan.references), *schedules()]
    rng = np.random.default_rng(0)
    quality = np.array([-1 / plan.price(schedule).nfe for schedule in everything])
    about = {
        "schedules": [schedule.content_hash for schedule in everything],
        "prompts": [*plan.prompts.search, *plan.prompts.held_out],
        "cpu_seconds": 0,
    }
    path = tmp_path_factory.mktemp("table") / "table.npz"
    scores = quality[:, None, None] + 0.01 * rng.normal(
        size=(len(everything), SEARCH_PROMPTS + HELD_OUT_PROMPTS, 2)
    )
    np.savez_compressed(path, scores=scores, about=json.dumps(about))
    return Table(path)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, table: Table) -> None:
    monkeypatch.setattr(search_efficiency, "TRIALS", 12)
    monkeypatch.setattr(search_efficiency, "OUR_TRIALS", 12)
    monkeypatch.setattr(search_efficiency, "_table", lambda: table)
    search_efficiency._plan.cache_clear()
    search_efficiency._whole_front.cache_clear()


def test_the_measure_knows_the_unseen_prompts_of_a_study_and_more() -> None:
    study, measure = make_plan(settings()).prompts, table_plan().prompts
    assert measure.search == study.search
    assert measure.held_out[: len(study.held_out)] == study.held_out
    assert len(set(measure.held_out)) == HELD_OUT_PROMPTS
    assert not set(measure.held_out) & set(measure.search)


def test_every_point_is_in_the_table_and_within_the_budget(plan: Any) -> None:
    known = {schedule.content_hash for schedule in schedules()}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    space, raw = TableSpace(plan), TableSpace(plan, within_budget=False)
    dearer = 0
    for _ in range(200):
        trial = study.ask()
        schedule = space.suggest(trial)
        assert schedule.content_hash in known
        assert plan.budget.allows(plan.price(schedule))
        dearer += not plan.budget.allows(plan.price(raw.suggest(trial)))
    assert dearer > 0


def test_the_parameters_of_a_schedule_lead_back_to_it(plan: Any) -> None:
    for schedule in schedules()[::7]:
        params = TableSpace(plan).params_of(schedule)
        trial = optuna.trial.FixedTrial(params)
        assert TableSpace(plan, within_budget=False).suggest(trial) == schedule


@pytest.mark.parametrize("name", ["Optuna TPE", "Optuna NSGA-II", "random"])
def test_a_peer_pays_for_every_new_schedule_on_every_prompt(plan: Any, name: str) -> None:
    tried = search_efficiency.tried_by(name, 0)
    different = {schedule for _, schedule in tried}
    expected = sum(plan.price(schedule).tflops for schedule in different) + plan.baseline_price.tflops
    assert len(tried) == 12
    assert tried[-1][0] == pytest.approx(SEARCH_PROMPTS * expected)
    assert set(search_efficiency.PEERS[name](0)[-1].front) <= different


def test_rungs_and_kept_stages_spend_less_of_the_same() -> None:
    spent = {name: search_efficiency.OURS[name](0)[-1].spent for name in search_efficiency.OURS}
    assert spent["ours"] < spent["ours without rungs"]
    assert spent["ours"] <= spent["ours without kept stages"]
    assert spent["ours"] < spent["ours without kept first calls"]


def test_who_knows_the_table_scores_its_front_and_nothing_else(plan: Any, table: Table) -> None:
    bound = search_efficiency.knows_the_table(0)
    found = volumes(bound, plan, table)
    assert found == sorted(found)  # no part of a front beats another
    fronts = [set[Any](), *(set(step.front) for step in bound)]
    scored = [new for before, after in itertools.pairwise(fronts) for new in after - before]
    assert len(scored) == len(bound)
    gains = np.diff([0.0, *found]) / [plan.price(schedule).tflops for schedule in scored]
    assert gains[0] == max(gains)
    affordable = [one for one in schedules() if plan.budget.allows(plan.price(one))]
    values = [losses(plan, table, one, plan.prompts.search) for one in affordable]
    on_front = set(itertools.compress(affordable, nondominated(values, keep_equal=True)))
    assert on_front == set(scored) == set(bound[-1].front)


def test_ours_reports_what_it_expects_to_be_best(plan: Any) -> None:
    fronts = {name: search_efficiency.OURS[name](0)[-1].front for name in ("ours", "ours without expected scores")}
    assert len(fronts["ours"]) > 1
    assert set(fronts["ours"]) != set(fronts["ours without expected scores"])
    assert all(plan.budget.allows(plan.price(schedule)) for front in fronts.values() for schedule in front)


def test_the_volume_is_that_of_the_front_so_far(plan: Any) -> None:
    steps = search_efficiency.OURS["ours"](0)
    found = volumes(steps, plan, search_efficiency._table())
    assert len(found) == len(steps)
    assert found[-1] > 0
    target = found[-1]
    spent = spent_to_reach(steps, found, target)
    assert volume_at(steps, found, spent) >= target
    assert spent_to_reach(steps, found, 1e9) == np.inf


def test_searches_are_compared_with_the_best_peer_seed_by_seed() -> None:
    def run(*reached: tuple[float, float]) -> Run:
        return [Step(spent, ()) for spent, _ in reached], [volume for _, volume in reached]

    runs = {
        ("slow", 7): run((8.0, 1.0), (16.0, 2.0)),
        ("slow", 8): run((8.0, 3.0), (32.0, 4.0)),
        ("poor", 7): run((1.0, 1.0)),
        ("poor", 8): run((1.0, 1.0)),
        ("ours", 7): run((2.0, 2.0), (4.0, 5.0), (17.0, 9.0)),
        ("ours", 8): run((1.0, 3.0), (8.0, 4.0)),
    }
    found = compare(runs, ["poor", "slow"], ["ours"], range(7, 9)) | {"trials": 2, "our_trials": 3}
    assert (found["seeds"], found["best_peer"]) == ([7, 8], "slow")
    ours = next(row for row in found["rows"] if row["search"] == "ours")
    assert ours["shares"] == [2 / 16, 8 / 32]
    assert ours["share_of_best_peers_spend"][0] == 3 / 16
    assert ours["gain_at_equal_spend"] == 1.5  # 5 - 2 before the spend of 17, and 4 - 4
    assert ours["hypervolume_at_an_eighth"] == 2.5  # 2 and 3
    assert "never" in report(found)  # what the poor one does
