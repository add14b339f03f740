from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from benchmarks.busy_workers import propose_at_random
from studies import search
from studies.judge.early_stopping import ERROR_RATE, Rival, estimated, is_beaten
from studies.plan.plan import make_plan
from studies.plan.rungs import in_random_order, rung_sizes
from studies.records.study_folder import open_study
from tests.studies.test_search import Shuffled, comparable
from tests.studies.toy import Counting, toy_settings
from tuner.flops import price

DIRECTIONS: Any = {"clip": "maximize", "loss": "minimize"}
RUNGS = (4, 8, 16, 32)


def test_every_rung_has_a_quarter_of_the_next() -> None:
    assert rung_sizes(1000, 3) == (63, 250, 1000)
    assert rung_sizes(100, 4) == (16, 25, 100)
    assert rung_sizes(32, 2) == (16, 32)
    assert rung_sizes(32, 1) == (32,)
    assert rung_sizes(31, 2) == (31,)


def test_the_order_of_prompts_is_that_of_their_text_alone() -> None:
    prompts = [f"prompt {i}" for i in range(20)]
    ordered = in_random_order(prompts)
    assert sorted(ordered) == sorted(prompts)
    assert ordered == in_random_order(prompts[::-1])
    assert list(ordered) != prompts


def stopped_at(candidate: dict[str, Any], rivals: list[dict[str, Any]]) -> int | None:
    finished = [Rival.of(rival, DIRECTIONS) for rival in rivals]
    for n in RUNGS[:-1]:
        if is_beaten({name: s[:n] for name, s in candidate.items()}, finished, DIRECTIONS, len(RUNGS) - 1):
            return n
    return None


Draw = Callable[[np.random.Generator], Any]
POPULATIONS: dict[str, tuple[Draw, float]] = {
    "normal": (lambda rng: rng.normal(size=32), ERROR_RATE),
    "right or wrong": (lambda rng: rng.integers(0, 2, size=32) - rng.integers(0, 2, size=32), ERROR_RATE),
    "skewed": (lambda rng: rng.exponential(size=32), ERROR_RATE),
    "heavy-tailed": (lambda rng: rng.standard_t(3, size=32), 2 * ERROR_RATE),
}


def wrongly_stopped(draw: Draw, rivals: int, rounds: int = 600) -> float:
    """How often a candidate stops that is, over all prompts, exactly as good as every rival on one objective.

    On the other objective the rivals are far better, so that nothing else holds the candidate.
    """
    rng = np.random.default_rng(0)
    stops = 0
    for _ in range(rounds):
        candidate = {"clip": rng.normal(size=32), "loss": rng.normal(size=32)}
        others = []
        for k in range(rivals):
            difference = draw(rng)
            difference = difference - difference.mean() + 1e-9 * k
            others.append(
                {"clip": candidate["clip"] + difference, "loss": candidate["loss"] - 50 + k - rng.normal(size=32)}
            )
        stops += stopped_at(candidate, others) is not None
    return stops / rounds


@pytest.mark.parametrize("rivals", [1, 5])
@pytest.mark.parametrize("population", POPULATIONS)
def test_a_candidate_that_nobody_beats_is_stopped_no_more_often_than_stated(population: str, rivals: int) -> None:
    draw, error_rate = POPULATIONS[population]
    assert wrongly_stopped(draw, rivals) < error_rate + 0.02  # the standard error of 5 % in 600 rounds is 0.9 %


def test_a_candidate_that_is_far_worse_stops_on_the_first_rungs() -> None:
    rng = np.random.default_rng(0)
    stops = []
    for _ in range(200):
        rival = {"clip": rng.normal(size=32), "loss": rng.normal(size=32)}
        candidate = {
            "clip": rival["clip"] - rng.normal(3, 1, size=32),
            "loss": rival["loss"] + rng.normal(3, 1, size=32),
        }
        stops.append(stopped_at(candidate, [rival]))
    assert None not in stops
    assert np.mean(np.array(stops) <= 8) > 0.9


def test_being_better_on_one_objective_is_enough_to_go_on() -> None:
    rng = np.random.default_rng(0)
    rival = {"clip": rng.normal(size=32), "loss": rng.normal(size=32)}
    noise = 0.01 * rng.normal(size=32)
    assert stopped_at({"clip": rival["clip"] - 5 + noise, "loss": rival["loss"] - 1 + noise}, [rival]) is None
    assert stopped_at({"clip": rival["clip"] - 5 + noise, "loss": rival["loss"] + 1 + noise}, [rival]) == 4


def test_a_mean_is_the_baselines_and_the_difference_so_far() -> None:
    scores, baseline = [1.0, 3.0, 2.0, 6.0], [0.0, 1.0, 2.0, 3.0]
    error = np.std([1.0, 2.0, 0.0, 3.0], ddof=1) / 2
    assert estimated(scores, baseline) == pytest.approx((np.mean(scores), error))
    error = np.std([1.0, 2.0], ddof=1) / np.sqrt(2)
    assert estimated(scores[:2], baseline) == pytest.approx((np.mean(baseline) + 1.5, error))


def test_equal_differences_and_no_rivals_prove_nothing() -> None:
    ones = {"clip": [1.0] * 32, "loss": [0.0] * 32}
    zeros = {"clip": [0.0] * 32, "loss": [1.0] * 32}
    assert stopped_at(zeros, [ones]) is None
    assert stopped_at(zeros, []) is None


@pytest.fixture(autouse=True, scope="module")
def random_proposals() -> Iterator[None]:
    """Some of which are worth stopping."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("studies.engine.loop.propose", propose_at_random)
        yield


def raced(out: Path, **changes: Any) -> Any:
    return toy_settings(out, **({"search_prompts": 32, "trials": 40} | changes))


@pytest.fixture(scope="module")
def race(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Counting, Any]:
    """A search whose candidates stop early, its executor, and its plan."""
    import studies.plan.plan
    from tests.studies.toy import find_blueprint

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studies.plan.plan, "blueprint", find_blueprint)
        settings = raced(tmp_path_factory.mktemp("race"))
        executor = Counting()
        return search(settings, executor=executor), executor, make_plan(settings)


def test_a_stopped_candidate_draws_the_prompts_of_its_rungs_alone(race: Any) -> None:
    result, executor, plan = race
    drawn: dict[str, set[int]] = {}
    for task in executor.ran:
        drawn.setdefault(task.schedule.content_hash, set()).update(task.seeds)
    stopped = [candidate for candidate in result.evaluated if candidate.stopped_at]
    assert stopped
    for candidate in stopped:
        assert candidate.stopped_at in plan.rungs[:-1]
        assert drawn[candidate.schedule.content_hash] == set(range(candidate.stopped_at))


def test_every_stopped_candidate_has_a_finished_rival_that_is_cheaper_and_better(race: Any) -> None:
    result, _, plan = race
    last = len(plan.references) + plan.settings.trials - plan.settings.lag  # from there on some still rest
    stopped = [candidate for candidate in result.evaluated if candidate.stopped_at and candidate.trial < last]
    assert stopped
    for candidate in stopped:
        assert any(
            rival.trial < candidate.trial
            and rival.stopped_at is None
            and rival.tflops <= candidate.tflops
            and all(rival.scores[n].delta > candidate.scores[n].delta for n in candidate.scores)
            for rival in result.evaluated
        )


def test_the_front_and_the_pick_were_scored_on_all_prompts(race: Any) -> None:
    result, executor, plan = race
    for member in (*result.front, result.pick):
        assert member.stopped_at is None
        seeds = {s for t in executor.ran if t.schedule == member.schedule for s in t.seeds}
        assert set(range(32)) <= seeds
    drawn = sum(price(task.schedule, plan.blueprint).tflops * len(task.prompts) for task in executor.ran)
    assert result.tflops_spent + result.reused.prefixes == pytest.approx(drawn)


def test_without_rungs_nothing_stops_and_more_is_spent(race: Any, tmp_path: Path) -> None:
    whole = search(raced(tmp_path, rungs=1), executor=Counting())
    assert not any(candidate.stopped_at for candidate in whole.evaluated)
    assert whole.tflops_spent > race[0].tflops_spent


def test_rungs_do_not_depend_on_what_finishes_first(race: Any, tmp_path: Path) -> None:
    shuffled = search(raced(tmp_path), executor=Shuffled())
    assert comparable(shuffled) == comparable(race[0])


@pytest.mark.parametrize("after", [3, 30])
def test_an_interrupted_race_resumes_to_the_same_end(race: Any, tmp_path: Path, after: int) -> None:
    first, second = Counting(interrupt_after=after), Counting()
    with pytest.raises(KeyboardInterrupt):
        search(raced(tmp_path), executor=first)
    resumed = search(raced(tmp_path), executor=second, resume=True)
    assert comparable(resumed) == comparable(race[0])
    assert not {task.key for task in first.ran} & {task.key for task in second.ran}


def test_more_trials_extend_a_race_whose_front_was_completed(race: Any, tmp_path: Path) -> None:
    search(raced(tmp_path, trials=15), executor=Counting())
    longer = search(raced(tmp_path), executor=Counting(), resume=True)
    assert (longer.front, longer.evaluated) == (race[0].front, race[0].evaluated)


@pytest.mark.parametrize("whole", [1.0, 2.5, 4.0])
def test_a_race_takes_no_more_than_it_may(race: Any, tmp_path: Path, whole: float) -> None:
    plan = race[2]
    limit = plan.least_tflops + whole * plan.budget.tflops * len(plan.prompts.search)
    result = search(raced(tmp_path, max_tflops=limit), executor=Counting())
    assert result.ended_by == "max tflops"
    assert result.tflops_spent <= limit


def test_the_study_says_on_how_many_prompts_a_trial_scored_and_which_it_continues(tmp_path: Path) -> None:
    result = search(raced(tmp_path, trials=12), executor=Counting())
    journal = open_study(str(tmp_path), result.study).journal
    backend = optuna.storages.journal.JournalFileBackend(str(journal))
    trials = optuna.load_study(study_name=result.study, storage=optuna.storages.JournalStorage(backend)).trials
    continued = [trial for trial in trials if trial.user_attrs["continues"] is not None]
    assert continued
    for trial in trials:
        first = trial.user_attrs["continues"]
        assert trial.user_attrs["partial"] == (first is None)
        assert trial.user_attrs["prompts"] == (16 if first is None else 32)
        assert first is None or trials[first].user_attrs["schedule"] == trial.user_attrs["schedule"]
