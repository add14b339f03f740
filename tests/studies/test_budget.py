from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.blueprints import small_blueprint
from tuner.budget import Budget, TimeLimit, parse_budget
from tuner.errors import UserError
from tuner.flops import price, tflops_per_call
from tuner.latency import LatencyTable
from tuner.schedule import Schedule, Stage

MODEL = small_blueprint()
BASELINE = price(MODEL.baseline(), MODEL)
STEP = tflops_per_call(MODEL, MODEL.size)


def parse(text: str) -> Budget:
    return parse_budget(text, BASELINE, MODEL, MODEL.size)


@pytest.mark.parametrize(
    ("text", "steps", "nfe"),
    [
        ("3x", 50 / 3, None),
        ("1x", 50, None),
        ("2.5X", 20, None),
        ("50x", 1, None),
        ("40%", 20, None),
        ("100 %", 50, None),
        ("2%", 1, None),
        ("16nfe", 16, 16),
        (" 50NFE ", 50, 50),
        ("1e1nfe", 10, 10),
    ],
)
def test_every_form_gives_limits(text: str, steps: float, nfe: int | None) -> None:
    budget = parse(text)
    assert budget.tflops == pytest.approx(steps * STEP)
    assert budget.nfe == nfe


def test_tflops_are_taken_as_written() -> None:
    assert parse(f"{10 * STEP!r}T") == Budget(tflops=10 * STEP)
    assert parse(f"{10 * STEP!r}t").nfe is None


def test_twenty_of_fifty_steps_cost_forty_percent_whatever_the_rounding() -> None:
    for percent in range(2, 101, 2):
        plain = price(MODEL.plain(percent // 2), MODEL)
        assert parse(f"{percent}%").allows(plain)
        assert not parse(f"{percent}%").allows(price(MODEL.plain(percent // 2 + 1), MODEL))


def test_network_calls_are_limited_at_every_size() -> None:
    plain = price(MODEL.plain(17), MODEL)
    assert not Budget(tflops=100 * STEP, nfe=16).allows(plain)
    assert Budget(tflops=100 * STEP, nfe=17).allows(plain)


@pytest.mark.parametrize("text", ["banana", "", "3", "16", "nan", "x", "3y", "3x3", "1,000T", "0x10", "--3x"])
def test_what_is_no_budget_is_told_the_forms(text: str) -> None:
    with pytest.raises(UserError, match=r"is not a budget; write 3x .* 40% .* 1200T .* 4s .* or 16nfe"):
        parse(text)


@pytest.mark.parametrize("text", ["0x", "-3x", "0nfe", "-40%", "1e999x", "1e999T"])
def test_numbers_are_positive_and_finite(text: str) -> None:
    with pytest.raises(UserError, match="must be a positive, finite number"):
        parse(text)


@pytest.mark.parametrize("text", ["16.5nfe", "0.5nfe"])
def test_network_calls_are_whole(text: str) -> None:
    with pytest.raises(UserError, match="must be a whole number"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "dearest"),
    [("0.5x", "1x"), ("150%", "100%"), ("51nfe", "50nfe"), ("1e-300x", "1x"), ("9999T", None)],
)
def test_dearer_than_the_baseline_is_refused(text: str, dearest: str | None) -> None:
    with pytest.raises(UserError, match="is dearer than the baseline") as error:
        parse(text)
    at_most = str(error.value).rpartition("write at most ")[2].removesuffix(".")
    assert dearest in (at_most, None)
    parse(at_most)


@pytest.mark.parametrize(("text", "smallest"), [("60x", "50x"), ("1%", "2%"), ("1e-9T", None)])
def test_the_smallest_budget_is_told_and_is_accepted(text: str, smallest: str | None) -> None:
    with pytest.raises(UserError, match=r"buys .* but the last step runs at full size") as error:
        parse(text)
    least = str(error.value).rpartition("the smallest budget is ")[2].removesuffix(".")
    assert smallest in (least, None)
    assert parse(least).tflops >= STEP * (1 - 1e-9)


def outcome(text: str) -> Budget | str:
    try:
        return parse(text)
    except UserError as error:
        return str(error)


@given(text=st.text(alphabet="0123456789.eE+-x%Tnf ", max_size=8))
def test_any_text_gives_a_usable_budget_or_one_line_that_names_it(text: str) -> None:
    result = outcome(text)
    if isinstance(result, str):
        assert "\n" not in result
        assert repr(text) in result
    else:
        assert STEP * (1 - 1e-9) <= result.tflops <= BASELINE.tflops * (1 + 1e-9)


SLOW = LatencyTable("abacus", 1.0, {(64, 64): 0.5, (96, 96): 2.0, (128, 128): 2.0})


def parse_seconds(text: str) -> Budget:
    return parse_budget(text, BASELINE, MODEL, MODEL.size, lambda: SLOW)


def test_seconds_are_those_of_calls_as_measured_and_of_what_is_around_them() -> None:
    budget = parse_seconds("11s")
    assert budget.allows(price(MODEL.plain(5), MODEL))
    assert not budget.allows(price(MODEL.plain(6), MODEL))
    small = Stage(scale=0.5, steps=8)
    assert budget.allows(price(Schedule(stages=(small, Stage(steps=3))), MODEL))
    assert not budget.allows(price(Schedule(stages=(small, Stage(steps=4))), MODEL))
    # A size between those measured is taken to be as slow as the next larger one.
    assert SLOW.seconds(price(Schedule(stages=(Stage(scale=0.625, sigmas=(1, 0)), Stage(steps=1))), MODEL)) == 5
    assert LatencyTable.from_dict(json.loads(json.dumps(SLOW.as_dict()))) == SLOW


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("102s", r"'102s' is dearer than the baseline, which takes 101 s .* on abacus.*at most 101s"),
        ("2.9s", r"less than encoding, decoding and the last step.*3 s per image.* on abacus.*budget is 3s"),
        ("0s", "must be a positive, finite number"),
    ],
)
def test_seconds_out_of_range_are_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_seconds(text)
    assert parse_seconds("101s").time == TimeLimit(101, SLOW)
    assert parse_seconds("3s").time == TimeLimit(3, SLOW)


def test_importing_it_is_quick() -> None:
    code = "import sys, tuner.budget; print([n for n in ('torch', 'optuna', 'ray', 'mlflow') if n in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
