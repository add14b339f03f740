"""Presets that are drawn until they are proven as good as the baseline, or worse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from studies.evaluate import EvalSettings, evaluate
from studies.evaluate.report import objective_names
from studies.judge.sequential import ERROR_RATE, levels, looks
from tests.studies.toy import Counting
from tuner.errors import UserError

Settings = Callable[..., EvalSettings]
MOST = 150


@pytest.fixture
def many(tmp_path: Path) -> str:
    file = tmp_path / "many.txt"
    file.write_text("\n".join(f"a fox, take {number}" for number in range(MOST)))
    return str(file)


def settings(toy_eval: Settings, prompts: str, margin: str, chunk: int = 7) -> EvalSettings:
    return toy_eval(
        presets=("plain:12",), prompts=prompts, all_prompts=True, until_decided=True, margin=margin, chunk=chunk
    )


def test_what_is_decided_at_the_first_look_is_drawn_no_further(toy_eval: Settings, many: str) -> None:
    executor = Counting()
    result, _ = evaluate(settings(toy_eval, many, "1000"), executor=executor)
    first = looks(MOST)[0]
    rows = {row.name: row for row in result.rows}
    assert {row.prompts for row in result.rows} == {result.prompts} == {first}
    assert max(len(task.prompts) for task in executor.ran) == 7
    assert len(executor.ran) == 2 * -(-first // 7)
    checked = rows["plain:12"].checked
    assert checked is not None
    assert (checked.verdict, checked.prompts, rows["plain:20"].checked) == ("as good", first, None)
    for name in objective_names(result):
        claim = rows["plain:12"].non_inferior[name]
        assert (claim.holds, claim.most_lost) == (True, checked.losses[name].high)
        assert claim.most_lost > rows["plain:12"].baseline[name].ci95[0] * -1  # wider than that of a single look


def test_what_stays_undecided_is_drawn_on_all_prompts(toy_eval: Settings, many: str, tmp_path: Path) -> None:
    once = settings(toy_eval, many, "1000").model_copy(update={"until_decided": False})
    whole, _ = evaluate(once, executor=Counting())
    row = next(row for row in whole.rows if row.name == "plain:12")
    lost = {name: -row.baseline[name].delta for name in row.baseline}  # both improve upwards
    margins = ",".join(f"{name}={max(loss, 1e-9):.12f}" for name, loss in lost.items())
    again = settings(toy_eval, many, margins).model_copy(update={"out": str(tmp_path / "other")})
    result, _ = evaluate(again, executor=Counting())
    (checked,) = [row.checked for row in result.rows if row.checked is not None]
    assert (checked.verdict, checked.prompts) == ("undecided", MOST)
    assert len(levels(looks(MOST), ERROR_RATE)) == 3


def test_seeds_are_refused(toy_eval: Settings) -> None:
    with pytest.raises(UserError, match="leave `seeds` out"):
        evaluate(toy_eval(until_decided=True, seeds=2), executor=Counting())


def test_objectives_that_compare_with_the_baselines_images_alone_decide_nothing(toy_eval: Settings) -> None:
    with pytest.raises(UserError, match="each of these objectives compares with its images"):
        evaluate(toy_eval(until_decided=True, objectives=("psnr",)), executor=Counting())
