from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import studies.engine.loop
import studies.plan.plan
from studies import Progress, StudyResult, open_study, search
from studies.plan.plan import Plan, make_plan
from studies.propose.trial import Trial
from tests.studies.toy import Counting, find_blueprint, toy_settings
from tuner import presets
from tuner.errors import UserError
from tuner.flops import price


def comparable(result: StudyResult) -> dict[str, Any]:
    """Everything but the clock, the place, and which worker happened to have kept a stage."""
    taken = result.tflops_spent + result.reused.prefixes
    return result.model_dump(exclude={"elapsed_s", "preset", "tflops_spent", "reused"}) | {"taken": f"{taken:.9g}"}


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    """An uninterrupted search to compare others with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studies.plan.plan, "blueprint", find_blueprint)
        return search(toy_settings(tmp_path_factory.mktemp("plain")), executor=Counting())


def test_a_search_finds_a_front_within_the_budget_and_exports_its_pick(tmp_path: Path) -> None:
    seen: list[Progress] = []
    executor = Counting()
    settings = toy_settings(tmp_path, gpus_per_worker=0)
    result = search(settings, executor=executor, on_progress=seen.append)

    plan = make_plan(settings)
    assert result.study == "toy-3x"
    assert executor.closed
    assert result.trials == len(result.evaluated) == 8 + len(plan.references)
    assert [candidate.trial for candidate in result.evaluated] == list(range(result.trials))
    assert result.front
    limit = result.baseline.tflops / 3
    assert all(candidate.tflops <= limit * (1 + 1e-9) for candidate in result.front)
    known = {candidate.label for candidate in (*result.front, *result.references)}
    assert {reference.label for reference in plan.references} <= known
    assert all(candidate.label != "search" for candidate in result.references)
    assert not any(candidate in result.front for candidate in result.references)
    for candidate in result.evaluated:
        assert candidate.tflops == price(candidate.schedule, plan.blueprint).tflops
        assert candidate.speedup == pytest.approx(result.baseline.tflops / candidate.tflops)
        for name, score in candidate.scores.items():
            if candidate.stopped_at is None:  # else the baseline has other prompts, too
                assert score.delta == pytest.approx(score.mean - result.baseline.scores[name].mean)
            assert score.ci95[0] <= score.delta <= score.ci95[1]
    assert {"plain:6", "plain:3"} <= {candidate.label for candidate in result.evaluated}
    assert result.pick.trial in {candidate.trial for candidate in result.front}
    assert set(result.pick.held_out) == {"clip", "image_reward"}

    preset = presets.load(result.preset)
    assert preset.schedule == result.pick.schedule
    assert preset.scores == result.pick.held_out
    assert preset.search_scores == result.pick.scores
    assert preset.provenance is not None
    assert preset.provenance.trial == result.pick.trial
    folder = open_study(str(tmp_path), result.study)
    assert preset.provenance.created == folder.created  # of the study, not of the export
    assert (preset.provenance.versions, preset.provenance.device) == (folder.versions, "cpu")

    assert seen[0].phase == "starting"
    assert seen[-1].phase == "held-out"
    assert seen[-1].trials_done == seen[-1].trials_total == result.trials
    assert seen[-1].best["clip"] == max(
        c.scores["clip"].mean for c in result.evaluated if c.tflops <= limit and c.stopped_at is None
    )


def test_progress_shows_who_leads_and_what_is_left(tmp_path: Path) -> None:
    seen: list[Progress] = []
    result = search(toy_settings(tmp_path), on_progress=seen.append, executor=Counting())
    last = seen[-1]
    complete = {one.trial: one for one in result.evaluated if one.stopped_at is None}
    assert last.leaders
    assert [one.speedup for one in last.leaders] == sorted((o.speedup for o in last.leaders), reverse=True)
    for leader in last.leaders:
        own = complete[leader.trial]
        assert leader.differences == pytest.approx({name: score.delta for name, score in own.scores.items()})
        assert not any(  # nobody is as cheap and better in every mean
            other.tflops <= own.tflops
            and all(other.scores[name].mean > own.scores[name].mean for name in result.directions)
            for other in complete.values()
        )
    assert last.stopped_early == len(result.evaluated) - len(complete)
    assert any(one.running for one in seen)
    assert last.running == 0
    assert last.tflops_total == pytest.approx(last.tflops_spent, rel=0.05)


def test_spent_tflops_are_those_of_every_image_that_was_drawn(tmp_path: Path) -> None:
    executor = Counting()
    settings = toy_settings(tmp_path)
    result = search(settings, executor=executor)
    blueprint = make_plan(settings).blueprint
    drawn = sum(price(task.schedule, blueprint).tflops * len(task.prompts) for task in executor.ran)
    assert result.tflops_spent + result.reused.prefixes == pytest.approx(drawn)


def test_no_task_runs_twice_and_all_candidates_share_prompts_and_noise(tmp_path: Path) -> None:
    executor = Counting()
    search(toy_settings(tmp_path), executor=executor)
    keys = [task.key for task in executor.ran]
    assert len(set(keys)) == len(keys)
    pairs = {}
    for task in executor.ran:
        pairs.setdefault(task.schedule.content_hash, set()).update(zip(task.prompts, task.seeds, strict=True))
    drawn = {pair for found in pairs.values() for pair in found}
    searched = {(prompt, seed) for prompt, seed in drawn if seed < 6}
    assert (len(searched), len(drawn - searched)) == (6, 4)
    assert {frozenset(found & searched) for found in pairs.values()} <= {frozenset(), frozenset(searched)}
    assert {frozenset(found - searched) for found in pairs.values()} == {frozenset(), frozenset(drawn - searched)}


def test_the_seed_decides_the_study(tmp_path: Path, plain_run: StudyResult) -> None:
    again = search(toy_settings(tmp_path), executor=Counting())
    other = search(toy_settings(tmp_path / "other", seed=1), executor=Counting())
    assert comparable(again) == comparable(plain_run)
    assert [c.schedule for c in other.evaluated] != [c.schedule for c in plain_run.evaluated]


class Shuffled(Counting):
    """Finishes tasks last in, first out, as some number of workers might."""

    def next(self) -> Any:
        self._waiting.insert(0, self._waiting.pop())
        return super().next()


def test_the_order_in_which_tasks_finish_changes_nothing(tmp_path: Path, plain_run: StudyResult) -> None:
    shuffled = search(toy_settings(tmp_path), executor=Shuffled())
    assert comparable(shuffled) == comparable(plain_run)


@pytest.mark.parametrize("after", [1, 10, 25])
def test_an_interrupted_search_resumes_to_the_same_end(tmp_path: Path, plain_run: StudyResult, after: int) -> None:
    settings = toy_settings(tmp_path)
    first = Counting(interrupt_after=after)
    with pytest.raises(KeyboardInterrupt):
        search(settings, executor=first)
    assert first.closed
    second = Counting()
    resumed = search(settings, executor=second, resume=True)
    assert not {task.key for task in first.ran} & {task.key for task in second.ran}
    assert len(first.ran) == after
    assert comparable(resumed) == comparable(plain_run)


def test_a_line_that_a_killed_driver_left_unfinished_is_dropped(tmp_path: Path, plain_run: StudyResult) -> None:
    settings = toy_settings(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        search(settings, executor=Counting(interrupt_after=20))
    folder = open_study(settings.out, settings.name)
    for path in (folder.scores, folder.journal):
        path.write_bytes(path.read_bytes() + b'{"weights": "half a li')
    Path(f"{folder.journal}.lock").touch()
    second = Counting()
    assert comparable(search(settings, executor=second, resume=True)) == comparable(plain_run)
    assert len(second.ran) + 20 == len(folder.scores.read_text().splitlines())


def test_a_finished_study_resumes_without_running_anything(tmp_path: Path) -> None:
    settings = toy_settings(tmp_path)
    first = search(settings, executor=Counting())
    executor = Counting()
    again = search(settings, executor=executor, resume=True)
    assert executor.ran == []
    assert executor.closed
    assert comparable(again) == comparable(first)


def test_more_trials_extend_a_study_as_if_asked_for_at_once(tmp_path: Path, plain_run: StudyResult) -> None:
    short = toy_settings(tmp_path, trials=3)
    search(short, executor=Counting())
    longer = search(short.model_copy(update={"trials": 8}), executor=Counting(), resume=True)
    assert [c.schedule for c in longer.evaluated] == [c.schedule for c in plain_run.evaluated]


PRESETS = ("bottleneck-flux-3x", "bottleneck-flux-5stage", "ralu-flux-4x", "ralu-flux-7x", "speed-flux-2stage")


@pytest.fixture(scope="module")
def many_references(tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studies.plan.plan, "blueprint", find_blueprint)
        out = tmp_path_factory.mktemp("references")
        return search(toy_settings(out, start=PRESETS, lag=1, trials=8), executor=Counting())


def test_the_cheapest_reference_comes_first_and_those_that_never_promise_most_in_the_end(
    many_references: StudyResult,
) -> None:
    labels = [candidate.label for candidate in many_references.evaluated]
    costs = [candidate.tflops for candidate in many_references.evaluated]
    assert labels.count("search") == 8
    assert len(set(labels)) == 1 + 3 + len(PRESETS)  # "search", plain steps of both rules
    assert costs[0] == min(c for c, label in zip(costs, labels, strict=True) if label != "search")  # comes first
    assert labels[-1] != "search"


@pytest.mark.parametrize("after", [12, 30, 45])
def test_references_that_wait_wait_again_after_an_interruption(
    tmp_path: Path, many_references: StudyResult, after: int
) -> None:
    settings = toy_settings(tmp_path, start=PRESETS, lag=1, trials=8)
    with pytest.raises(KeyboardInterrupt):
        search(settings, executor=Counting(interrupt_after=after))
    assert comparable(search(settings, executor=Counting(), resume=True)) == comparable(many_references)


def test_more_trials_extend_a_study_whose_references_waited(tmp_path: Path, many_references: StudyResult) -> None:
    short = toy_settings(tmp_path, start=PRESETS, lag=1, trials=4)
    search(short, executor=Counting())
    longer = search(short.model_copy(update={"trials": 8}), executor=Counting(), resume=True)
    assert [c.schedule for c in longer.evaluated] == [c.schedule for c in many_references.evaluated]


def test_a_failing_schedule_fails_its_trial_alone(tmp_path: Path, plain_run: StudyResult) -> None:
    unlucky = plain_run.evaluated[0]
    executor = Counting(failing={unlucky.schedule.content_hash: "the latents are not finite."})
    result = search(toy_settings(tmp_path), executor=executor)
    assert len(result.evaluated) == len(plain_run.evaluated) - 1
    assert unlucky.trial not in {candidate.trial for candidate in result.evaluated}
    lines = [json.loads(line) for line in (tmp_path / "toy-3x" / "scores.jsonl").read_text().splitlines()]
    assert {line["failure"] for line in lines if "failure" in line} == {"the latents are not finite."}


def test_a_failing_baseline_ends_the_search(tmp_path: Path, plain_run: StudyResult) -> None:
    settings = toy_settings(tmp_path)
    baseline = make_plan(settings).baseline
    with pytest.raises(RuntimeError, match=r"the baseline failed.*out of memory"):
        search(settings, executor=Counting(failing={baseline.content_hash: "out of memory"}))


def test_after_the_time_limit_nothing_new_is_proposed(tmp_path: Path, plain_run: StudyResult) -> None:
    settings = toy_settings(tmp_path, time_limit=1e-9)
    result = search(settings, executor=Counting())
    assert [candidate.label for candidate in result.evaluated] == ["plain:3"]  # a study has a result
    resumed = search(settings.model_copy(update={"time_limit": None}), executor=Counting(), resume=True)
    assert [c.schedule for c in resumed.evaluated] == [c.schedule for c in plain_run.evaluated]


def test_a_proposal_sees_all_trials_but_the_last_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    propose = studies.engine.loop.propose

    def spy(plan: Plan, visible: list[Trial], pending: list[Trial]) -> Trial:
        assert [trial.number for trial in (*visible, *pending)] == list(range(len(visible) + len(pending)))
        assert all(trial.succeeded for trial in visible)
        seen.append((len(visible) + len(pending), len(visible)))
        return propose(plan, visible, pending)

    monkeypatch.setattr(studies.engine.loop, "propose", spy)
    search(toy_settings(tmp_path, lag=3), executor=Shuffled())
    assert seen == [(number, max(0, number - 2)) for number in range(9)]  # the tenth is a reference that waited


def test_an_existing_study_is_not_overwritten(tmp_path: Path) -> None:
    settings = toy_settings(tmp_path, trials=1)
    search(settings, executor=Counting())
    with pytest.raises(UserError, match=r"'toy-3x' already exists.*--resume.*--study"):
        search(settings, executor=Counting())


@pytest.mark.parametrize(
    ("change", "named"),
    [({"seed": 3}, "seed"), ({"lag": 2}, "lag"), ({"search_prompts": 4}, "prompts"), ({"budget": "4x"}, "budget")],
)
def test_a_study_does_not_resume_with_settings_that_change_its_result(
    tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    settings = toy_settings(tmp_path, trials=0, study="one")
    search(settings, executor=Counting())
    with pytest.raises(UserError, match=f"another `{named}`"):
        search(settings.model_copy(update=change), executor=Counting(), resume=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trials": -1}, "`trials` must be at least 0"),
        ({"lag": 0}, "`lag` must be at least 1"),
        ({"chunk": 0}, "`chunk` must be at least 1"),
        ({"workers": -1}, "`workers` must be 0"),
        ({"time_limit": 0.0}, "`time_limit` must be positive"),
        ({"objectives": ()}, "at least one objective"),
        ({"objectives": ("clip", "clip:tiny")}, "'clip' is given twice"),
        ({"objectives": ("klip",)}, "Did you mean 'clip'"),
        ({"budget": "banana"}, "'banana'"),
        ({"budget": "$$"}, r"Budget '\$\$' is not a budget"),
        ({"pick": "best:nothing"}, "'best:nothing'"),
        ({"study": "../elsewhere"}, "'../elsewhere' cannot name a folder"),
        ({"size": (33, 32)}, "33x32 does not fit"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_made(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        search(toy_settings(tmp_path, **change), executor=Counting())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be written.*--out"):
        search(toy_settings(tmp_path / "file" / "runs"), executor=Counting())
