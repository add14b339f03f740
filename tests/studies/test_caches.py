from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from studies import search
from studies.plan.plan import make_plan
from studies.records.results import Candidate
from studies.work.evaluator import Evaluator
from studies.work.reuse import LimitedCache, openings
from studies.work.task import ChunkResult
from tests.studies.test_evaluation import PROMPTS, SCHEDULE, finished, task
from tests.studies.toy import (
    FACTOR,
    TOY,
    Brightness,
    Counting,
    CountingModel,
    Smoothness,
    ToyModel,
    recorded,
    toy_settings,
)
from tuner.errors import UserError
from tuner.feature_cache import FirstBlockCache
from tuner.flops import tflops_per_call
from tuner.models import ModelOptions
from tuner.schedule import Schedule, Stage
from tuner.solvers import network_calls

SIBLING = Schedule(stages=(SCHEDULE.stages[0], Stage(sigmas=(0.5, 0.2, 0.0))))
OTHER_SOLVER = SIBLING.model_copy(update={"solver": "heun"})


def test_what_was_not_used_for_longest_goes_first() -> None:
    cache = LimitedCache(limit=3 * 4 * 10)
    for name in "abc":
        cache.keep(name, torch.zeros(10))
    cache.get("a")
    cache.keep("d", {"row": torch.zeros(5), "column": torch.zeros(5)})
    assert [name for name in "abcd" if cache.get(name) is not None] == ["a", "c", "d"]


def test_what_is_larger_than_all_that_may_be_kept_is_not_kept() -> None:
    cache = LimitedCache(limit=39)
    large = torch.zeros(10)
    assert cache.keep("large", large) is large
    assert cache.get("large") is None


def test_shared_first_stages_run_once_and_change_no_bit() -> None:
    model = CountingModel()
    evaluator = Evaluator(model, [Brightness(), Smoothness()])
    for schedule, kept, opened, calls in (
        (SCHEDULE, 0, (), 6),
        (SIBLING, 1, (), 2),
        (SCHEDULE, 1, (1,), 1),
        (OTHER_SOLVER, 0, (0,), 9),
    ):
        before = model.calls
        result = finished(evaluator.evaluate(task(schedule=schedule)))
        alone = finished(Evaluator(ToyModel(), [Brightness(), Smoothness()], 0).evaluate(task(schedule=schedule)))
        assert (result.scores, result.images) == (alone.scores, alone.images)
        assert (result.kept_stages, result.kept_calls) == (kept, opened)
        assert model.calls - before == calls


@st.composite
def _related(draw: st.DrawFn) -> Schedule:
    """A schedule of few possible parts, so that two of them mostly have some in common."""
    count = draw(st.integers(1, 3))
    stages = []
    for k in range(count):
        levels = draw(st.sampled_from(((0.4, 0.0), (0.4, 0.2, 0.0), (0.3, 0.0))))
        stage = Stage(
            scale=1.0 if k == count - 1 else draw(st.sampled_from((0.5, 1.0))),
            sigmas=(draw(st.sampled_from((0.6, 0.8))) if k else 1.0, *levels),
            resample=draw(st.sampled_from(("bilinear", "nearest"))) if k else "bilinear",
            reuse=draw(st.sampled_from(((), (1,)))),
            amplitudes=draw(st.sampled_from(((), ((-1.0, 1.0),), ((-1.0, 2.0),)))) * len(levels),
        )
        stages.append(stage)
    return Schedule(stages=tuple(stages), solver=draw(st.sampled_from(("euler", "heun"))))


@given(st.lists(_related(), min_size=2, max_size=4))
@settings(deadline=None)
def test_whatever_was_kept_a_schedule_gives_the_same_bits_for_fewer_calls(related: list[Schedule]) -> None:
    model = CountingModel()
    evaluator, drawn = Evaluator(model, [Brightness()]), task(PROMPTS[:2])
    for schedule in related:
        before = model.calls
        result = finished(evaluator.evaluate(replace(drawn, schedule=schedule)))
        alone = finished(Evaluator(ToyModel(), [Brightness()], 0).evaluate(replace(drawn, schedule=schedule)))
        assert (result.scores, result.images) == (alone.scores, alone.images)
        ran = [
            network_calls(schedule.solver, one.sigmas, one.reuse) for one in schedule.stages[result.kept_stages :]
        ]
        assert model.calls - before == sum(ran) - len(result.kept_calls)


def test_a_cache_is_filled_by_the_first_call_of_every_stage() -> None:
    cached = SCHEDULE.model_copy(update={"cache": FirstBlockCache(kind="first_block")})
    assert len(openings(SCHEDULE)) == 2
    assert openings(cached) == []


def test_what_is_spent_is_what_the_network_was_called_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[float] = []

    def velocity(self: ToyModel, x: torch.Tensor, *others: Any) -> torch.Tensor:
        height, width = (FACTOR * side for side in x.shape[-2:])
        called.append(len(x) * tflops_per_call(TOY, (height, width)))
        return unpatched(self, x, *others)

    unpatched = ToyModel.velocity
    monkeypatch.setattr(ToyModel, "velocity", velocity)
    result = search(toy_settings(tmp_path), executor=Counting())
    assert result.tflops_spent == pytest.approx(sum(called))
    assert result.reused.prefixes > 0


def test_other_prompts_and_other_noise_share_nothing() -> None:
    evaluator = Evaluator(ToyModel(), [Brightness()])
    evaluator.evaluate(task())
    for other in (task(first_seed=8), task(PROMPTS[::-1]), task(size=(64, 64))):
        result = finished(evaluator.evaluate(other))
        assert (result.kept_stages, result.kept_calls) == (0, ())


class Keeping(Counting):
    """Says of every schedule of several stages that the first one was kept, and of no first call."""

    def next(self) -> Any:
        task, outcome = super().next()
        if isinstance(outcome, ChunkResult):
            outcome = replace(outcome, kept_stages=int(len(task.schedule.stages) > 1), kept_calls=())
        return task, outcome


def test_kept_stages_are_reused_and_not_spent(tmp_path: Path) -> None:
    settings = toy_settings(tmp_path, trials=8)
    executor = Keeping()
    result = search(settings, executor=executor)
    plan = make_plan(settings)
    kept = sum(
        plan.price(t.schedule).stages[0].tflops * len(t.prompts)
        for t in executor.ran
        if len(t.schedule.stages) > 1
    )
    everything = sum(plan.price(t.schedule).tflops * len(t.prompts) for t in executor.ran)
    assert kept > 0
    assert result.reused.prefixes == pytest.approx(kept)
    assert result.tflops_spent == pytest.approx(everything - kept)
    assert search(settings, executor=Keeping(), resume=True).reused == result.reused


def test_a_later_study_takes_the_scores_of_an_earlier_one(tmp_path: Path) -> None:
    first = search(toy_settings(tmp_path, study="first"), executor=Counting())
    executor = Counting()
    second = search(toy_settings(tmp_path, study="second", trials=9), executor=executor)
    alone = search(toy_settings(tmp_path, study="alone", trials=9, reuse=False), executor=Counting())
    assert alone.reused.scores == 0
    assert second.front == alone.front
    assert second.evaluated == alone.evaluated
    assert second.reused.scores > 0.5 * first.tflops_spent
    folder = tmp_path / "second" / "images"
    shown = {c.schedule.content_hash for c in (*second.front, *second.references, second.pick)}
    assert shown | {make_plan(toy_settings(tmp_path)).baseline.content_hash} == {f.name for f in folder.iterdir()}
    again = Counting()
    assert (
        search(toy_settings(tmp_path, study="second", trials=9), executor=again, resume=True).front == alone.front
    )
    assert again.ran == []


def test_scores_of_other_weights_or_versions_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import studies.plan.plan

    search(toy_settings(tmp_path, study="first", trials=1), executor=Counting())
    monkeypatch.setattr(studies.plan.plan, "versions", lambda: {"tuner": "0.2.0", "torch": "1.0"})
    assert search(toy_settings(tmp_path, study="second", trials=1), executor=Counting()).reused.scores == 0


def test_scores_of_a_model_with_other_options_are_not_taken(tmp_path: Path) -> None:
    with_lora = {"trials": 1, "options": ModelOptions(lora="someone/lora")}
    for study, changes, taken in [
        ("plain", {"trials": 1}, False),
        ("lora", with_lora, False),
        ("half", {"trials": 1, "options": ModelOptions(dtype="bfloat16")}, False),
        ("again", with_lora, True),
    ]:
        result = search(toy_settings(tmp_path, study=study, **changes), executor=Counting())
        assert (result.reused.scores > 0) is taken


def test_a_line_that_another_study_is_writing_is_left_alone(tmp_path: Path) -> None:
    search(toy_settings(tmp_path, study="first", trials=1), executor=Counting())
    scores = tmp_path / "first" / "scores.jsonl"
    lines = scores.read_text().splitlines(keepends=True)
    scores.write_text("".join(lines[:3]) + lines[3][: len(lines[3]) // 2])
    result = search(toy_settings(tmp_path, study="second", trials=1), executor=Counting())
    assert result.reused.scores > 0
    assert scores.read_text().endswith(lines[3][: len(lines[3]) // 2])


def test_the_scorers_weights_decide_what_made_a_score(tmp_path: Path) -> None:
    from studies.plan.identity import made_by

    file = tmp_path / "weights.bin"
    file.write_bytes(b"one")
    names = [made_by(f"clip:{tmp_path}", {"torch": "2"})]
    file.write_bytes(b"two")
    names += [made_by(f"clip:{tmp_path}", {"torch": version}) for version in ("2", "3")]
    names += [made_by("clip:tiny", {"torch": "2"}), made_by("clip", {"torch": "2"})]
    assert len(set(names)) == len(names)
    assert names[0] != made_by(f"clip:{tmp_path}", {"torch": "2"})


def measured(candidate: Candidate) -> Candidate:
    """Leaves out what is expected, which later trials change."""
    return candidate.model_copy(update={"expected": {}})


def test_a_study_takes_no_more_than_it_may(tmp_path: Path) -> None:
    plan = make_plan(toy_settings(tmp_path))
    limit = plan.least_tflops + 2.5 * plan.budget.tflops * len(plan.prompts.search)
    result = search(toy_settings(tmp_path, max_tflops=limit), executor=Counting())
    assert result.tflops_spent <= limit
    assert result.ended_by == "max tflops"
    assert len(plan.references) < result.trials < len(plan.references) + 8
    longer = search(toy_settings(tmp_path), executor=Counting(), resume=True)
    assert longer.ended_by == "trials"
    assert len(recorded(result)) > 1
    again = longer.evaluated[: len(recorded(result))]  # references that waited have waited on
    assert [measured(one) for one in again] == [measured(one) for one in recorded(result)]


def test_a_limit_that_the_baseline_alone_breaks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"`max_tflops` 1e-09 does not pay for the baseline.*--search-prompts"):
        search(toy_settings(tmp_path, max_tflops=1e-9), executor=Counting())


def test_a_search_without_a_gain_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import studies.engine.stopping

    monkeypatch.setattr(studies.engine.stopping, "GAIN", 1e9)
    result = search(toy_settings(tmp_path, patience=2), executor=Counting())
    plan = make_plan(toy_settings(tmp_path))
    assert result.ended_by == "patience"
    assert result.trials == len(plan.references) + 2 + plan.settings.lag - 1


def test_a_search_that_gains_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import studies.engine.stopping

    monkeypatch.setattr(studies.engine.stopping, "GAIN", -1.0)
    monkeypatch.setattr(studies.engine.stopping, "hypervolume", lambda losses, reference: float(len(losses)))
    result = search(toy_settings(tmp_path, patience=2, rungs=1), executor=Counting())
    assert result.ended_by == "trials"


def test_hypervolume_is_that_of_a_union_of_boxes() -> None:
    from studies.judge.pareto import hypervolume

    assert hypervolume([[1, 2, 2], [2, 1, 2], [3, 3, 3]], [3, 3, 3]) == pytest.approx(2 + 2 - 1)
    assert hypervolume([[4, 0, 0]], [3, 3, 3]) == 0
