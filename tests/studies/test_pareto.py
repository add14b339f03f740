from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from objectives.base import Direction
from studies.judge.pareto import attained, front, knee, nondominated, pick
from studies.records.results import Candidate
from tuner.errors import UserError
from tuner.presets import Score
from tuner.schedule import Schedule, Stage

UP: dict[str, Direction] = {"clip": "maximize"}
MIXED: dict[str, Direction] = {"clip": "maximize", "fid": "minimize"}
_ANY = Schedule(stages=(Stage(sigmas=(1, 0)),))


def candidate(trial: int, tflops: float, *means: float, names: Sequence[str] = ("clip", "fid")) -> Candidate:
    scores = {
        name: Score(mean=mean, delta=mean, ci95=(mean, mean)) for name, mean in zip(names, means, strict=False)
    }
    return Candidate(
        trial=trial, label="search", tflops=tflops, speedup=1 / tflops, nfe=1, scores=scores, schedule=_ANY
    )


small = st.integers(1, 4).map(float)
values = st.lists(st.tuples(small, small, small), min_size=1, max_size=12)


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """By the definition, for (TFLOPs, clip, fid)."""
    no_worse = a[0] <= b[0] and a[1] >= b[1] and a[2] <= b[2]
    return no_worse and tuple(a) != tuple(b)


@given(rows=values)
def test_the_front_is_what_brute_force_finds(rows: list[tuple[float, float, float]]) -> None:
    found = front([candidate(i, *row) for i, row in enumerate(rows)], MIXED)
    expected = {row for row in rows if not any(dominates(other, row) for other in rows)}
    vectors = [(c.tflops, c.scores["clip"].mean, c.scores["fid"].mean) for c in found]
    assert len(vectors) == len(expected)
    assert set(vectors) == expected
    assert [c.trial for c in found] == [rows.index(vector) for vector in vectors], "the earliest of equals"
    assert [c.tflops for c in found] == sorted(c.tflops for c in found)


@given(rows=st.integers(1, 4).flatmap(lambda m: st.lists(st.lists(small, min_size=m, max_size=m), max_size=12)))
def test_nondominated_points_are_what_brute_force_finds(rows: list[list[float]]) -> None:
    beaten = [any(np.less_equal(a, b).all() and a != b for a in rows) for b in rows]
    first = [rows.index(row) == i for i, row in enumerate(rows)]
    assert nondominated(rows, keep_equal=True).tolist() == [not worse for worse in beaten]
    expected = [not worse and is_first for worse, is_first in zip(beaten, first, strict=True)]
    assert nondominated(rows, keep_equal=False).tolist() == expected


@given(rows=values, points=values)
def test_a_point_is_attained_by_what_equals_or_dominates_it(rows: list[Any], points: list[Any]) -> None:
    expected = [any(all(a <= b for a, b in zip(row, point, strict=True)) for row in rows) for point in points]
    assert attained(np.array(points), np.array(rows)).tolist() == expected


@given(rows=values, spec=st.sampled_from(["knee", "cheapest", "best:clip", "best:fid"]), data=st.data())
def test_every_pick_lies_on_the_front_in_any_order(
    rows: list[tuple[float, float, float]], spec: str, data: st.DataObject
) -> None:
    candidates = [candidate(i, *row) for i, row in enumerate(rows)]
    chosen = pick(candidates, spec, MIXED)
    assert chosen in front(candidates, MIXED)
    assert pick(data.draw(st.permutations(candidates)), spec, MIXED) == chosen


@given(rows=values, factor=st.sampled_from([0.25, 4.0]), offset=st.integers(-8, 8))
def test_the_knee_does_not_depend_on_units(
    rows: list[tuple[float, float, float]], factor: float, offset: int
) -> None:
    plain = [candidate(i, *row) for i, row in enumerate(rows)]
    scaled = [candidate(i, row[0] * 8, factor * row[1] + offset, row[2]) for i, row in enumerate(rows)]
    assert knee(plain, MIXED).trial == knee(scaled, MIXED).trial


def test_the_knee_of_a_square_root() -> None:
    # On [1/4, 1] the chord of sqrt has slope (1 - 1/2) / (3/4) = 2/3, and 1 / (2 sqrt(c)) = 2/3 at c = 9/16.
    curve = [candidate(i, cost, math.sqrt(cost)) for i, cost in enumerate(np.arange(4, 17) / 16)]
    assert knee(curve, UP).tflops == pytest.approx(9 / 16)


def test_schedules_of_a_step_or_two_do_not_move_the_knee() -> None:
    curve = [candidate(i, cost, math.sqrt(cost)) for i, cost in enumerate(np.arange(4, 17) / 16)]
    hopeless = [candidate(100 + i, cost, -9.0 + i) for i, cost in enumerate((0.05, 0.1, 0.2))]
    assert front([*hopeless, *curve], UP) == [*hopeless, *curve]
    assert knee([*hopeless, *curve], UP) == knee(curve, UP)


def test_seconds_replace_tflops_where_they_were_measured() -> None:
    cheap = candidate(0, 1, 0.5).model_copy(update={"seconds": 3.0})
    fast = candidate(1, 2, 0.5).model_copy(update={"seconds": 2.0})
    assert front([cheap, fast], UP) == [fast]


def test_who_was_lucky_is_not_on_the_front() -> None:
    best, lucky = candidate(0, 1, 0.5), candidate(1, 1, 0.9)
    assert front([best, lucky], UP) == [lucky]
    expected = [one.model_copy(update={"expected": {"clip": mean}}) for one, mean in ((best, 0.6), (lucky, 0.4))]
    assert front(expected, UP) == [expected[0]]
    assert pick(expected, "best:clip", UP) == expected[0]


def test_schedules_that_draw_the_same_stand_once_whatever_is_expected_of_them() -> None:
    twins = [candidate(0, 1, 0.5, 3), candidate(1, 1, 0.5, 3)]
    expected = [{"clip": 0.5, "fid": 2.0}, {"clip": 0.6, "fid": 3.0}]
    apart = [one.model_copy(update={"expected": means}) for one, means in zip(twins, expected, strict=True)]
    assert front(apart[::-1], MIXED) == apart[:1]


def test_the_knee_weighs_objectives_alike() -> None:
    members = [candidate(0, 1, 0, 10), candidate(1, 2, 9, 10), candidate(2, 3, 9, 1), candidate(3, 11, 10, 0)]
    assert knee(members, MIXED).trial == 2


def test_dearer_members_of_less_quality_do_not_move_the_knee() -> None:
    members = [candidate(0, 1, 0.0, 5), candidate(1, 2, 0.9, 1), candidate(2, 3, 1.0, 0)]
    specialist = candidate(3, 50, 1.05, 4)  # on the front for its clip alone, and worse on average
    assert specialist in front([*members, specialist], MIXED)
    assert knee([*members, specialist], MIXED).trial == 1


@pytest.mark.parametrize("rows", [[(1, 0)], [(1, 0), (2, 1)], [(1, 0), (2, 1), (3, 2)], [(2, 5), (2, 5)]])
def test_the_knee_of_a_straight_front_is_its_cheapest(rows: list[tuple[float, float]]) -> None:
    assert knee([candidate(i, *row) for i, row in enumerate(rows)], UP).trial == 0


def test_of_equal_costs_the_best_is_the_knee() -> None:
    assert knee([candidate(0, 2, 0, 0), candidate(1, 2, 9, 1), candidate(2, 2, 10, 10)], MIXED).trial == 1


MEMBERS = [
    candidate(0, 1, 0.0, 5),
    candidate(1, 2, 0.9, 1),
    candidate(2, 3, 1.0, 0),
    candidate(7, 4, 1.0, 0),  # dominated, but a trial that may be asked for
]


@pytest.mark.parametrize(
    ("spec", "trial"), [("cheapest", 0), ("knee", 1), ("best:clip", 2), ("best:fid", 2), ("trial:7", 7)]
)
def test_picks(spec: str, trial: int) -> None:
    assert pick(MEMBERS, spec, MIXED).trial == trial


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("kne", r"Unknown pick 'kne'\. Did you mean 'knee'\?.*best:clip, best:fid, cheapest, knee, trial:N"),
        ("best:clop", r"Unknown objective 'clop'\. Did you mean 'clip'\?"),
        ("best:", "Unknown pick"),
        ("best", "Unknown pick"),
        ("trial:", "Unknown pick"),
        ("", "Unknown pick"),
        ("trial:3", r"Trial '3' cannot be picked.*the front's are 0, 1, 2\."),
        ("trial:two", "Trial 'two' cannot be picked"),
    ],
)
def test_other_picks_are_refused(spec: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        pick(MEMBERS, spec, MIXED)
