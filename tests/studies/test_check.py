"""The end of a search: rivals of the pick, and the check on further unseen prompts."""

from __future__ import annotations

from pathlib import Path

import pytest

from studies import StudyResult, estimate, search
from studies.plan.plan import make_plan
from studies.records.results import PICK
from tests.studies.toy import Counting, toy_settings
from tuner.errors import UserError


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(f"{chr(97 + i % 26)} thing {i}" for i in range(160)))
    return str(file)


def without_clock(result: StudyResult) -> dict[str, object]:
    left_out = {"elapsed_s", "preset", "tflops_spent", "reused"}
    return result.model_dump(exclude=left_out)


def test_the_pick_stands_beside_plain_steps_at_its_cost_and_the_best_preset(tmp_path: Path) -> None:
    result = search(toy_settings(tmp_path, trials=4, pick="best:clip"), executor=Counting())
    pick = result.pick
    plain = [rival for rival in result.rivals if rival.label.startswith("plain:")]
    presets = [rival for rival in result.rivals if not rival.label.startswith("plain:")]
    assert plain or pick.label.startswith("plain:")
    for rival in plain:
        steps = int(rival.label.removeprefix("plain:"))
        assert rival.tflops >= pick.tflops * (1 - 1e-9)
        assert rival.tflops * (steps - 1) / steps < pick.tflops
    assert all(rival.tflops <= result.baseline.tflops / 3 * (1 + 1e-9) for rival in presets)
    for rival in result.rivals:
        for name, score in rival.pick.items():
            apart = pick.held_out[name].delta - rival.held_out[name].delta
            assert score.delta == pytest.approx(apart, abs=1e-9)
    assert StudyResult.model_validate_json(result.model_dump_json()) == result


def test_a_result_of_before_still_opens(tmp_path: Path) -> None:
    result = search(toy_settings(tmp_path, trials=2), executor=Counting())
    before = result.model_dump(mode="json", exclude={"rivals", "checks", "pick_note"})
    assert StudyResult.model_validate(before).rivals == []


def test_a_longer_check_resumes_and_sees_what_an_uninterrupted_one_sees(tmp_path: Path, prompts: str) -> None:
    changes = {"prompts": prompts, "trials": 2, "held_out_prompts": 16, "search_prompts": 4}
    short = toy_settings(tmp_path / "a", **changes)
    before = search(short, executor=Counting())
    assert {one.prompts for one in before.checks} == {16}
    losses = before.checks[0].losses
    near = ",".join(f"{name}={max(0.1, loss.mean)}" for name, loss in losses.items())  # so it is not soon decided
    longer = {**changes, "check_prompts": 64, "margin": near}
    with pytest.raises(KeyboardInterrupt):
        search(toy_settings(tmp_path / "a", **longer), executor=Counting(interrupt_after=2), resume=True)
    resumed = search(toy_settings(tmp_path / "a", **longer), executor=Counting(), resume=True)
    at_once = search(toy_settings(tmp_path / "b", **longer), executor=Counting())
    assert without_clock(resumed) == without_clock(at_once)
    assert resumed.pick == before.pick
    assert (resumed.checks[0].label, resumed.checks[0].prompts) == (PICK, 64)
    for one in resumed.checks:
        assert one.prompts in (16, 32, 64)
        assert one.verdict != "undecided" or one.prompts == 64


def test_the_price_of_the_check_is_known_and_limits_it(tmp_path: Path, prompts: str) -> None:
    changes = {"prompts": prompts, "trials": 1, "held_out_prompts": 4, "search_prompts": 4}
    free = make_plan(toy_settings(tmp_path, **changes))
    assert free.prompts.further == ()
    everything = make_plan(toy_settings(tmp_path, **changes, check_prompts=1000))
    assert len(everything.prompts.held_out + everything.prompts.further) == 80
    assert everything.identity == free.identity
    limit = 8 * (everything.least_tflops - free.least_tflops) / 76
    limited = make_plan(toy_settings(tmp_path, **changes, check_tflops=limit * (1 + 1e-9)))
    assert len(limited.prompts.held_out + limited.prompts.further) == 8

    settings = toy_settings(tmp_path, **changes, check_prompts=40, workers=1)
    priced = estimate(settings)
    executor = Counting()
    result = search(settings, executor=executor)
    assert result.tflops_spent <= priced.total
    assert sum(len(task.prompts) for task in executor.ran) <= priced.images


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"check_prompts": 1}, "`check_prompts` must be at least 2"),
        ({"margin": "none"}, "Margin 'none' is not a number"),
        ({"pick": "within:none"}, "Margin 'none' is not a number"),
        ({"pick": "within"}, "'within' is not one of knee, .*within:1%"),
    ],
)
def test_what_is_no_check_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_plan(toy_settings(tmp_path, **changes))


def test_a_pick_within_a_margin_is_chosen_by_the_search(tmp_path: Path) -> None:
    wide = search(toy_settings(tmp_path, trials=3, pick="within:1000"), executor=Counting())
    assert (wide.pick.trial, wide.pick_note) == (wide.front[0].trial, None)
    narrow = search(toy_settings(tmp_path / "other", trials=3, pick="within:1e-6"), executor=Counting())
    assert "no schedule on the front is shown to be within 1e-6 of the baseline" in (narrow.pick_note or "")
