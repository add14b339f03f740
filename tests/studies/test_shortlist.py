from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studies.propose.shortlist import shortlist
from studies.propose.trial import Outcome, Trial
from studies.records.results import PROPOSED
from studies.work.task import Failure
from tests.studies.toy import TOY
from tuner.flops import Price

Values = list[tuple[int, int, int | None]]


def trial(
    number: int, outcome: Outcome | Failure | None, cost: float = 1.0, continues: int | None = None
) -> Trial:
    return Trial(
        number, PROPOSED, TOY.plain(3), Price(cost, 3, ()), cost, None, continues=continues, outcome=outcome
    )


def finished(number: int, gain: float, cost: float, continues: int | None = None) -> Trial:
    return trial(number, Outcome({}, (-gain,), (0.1,), False), cost, continues)


def listed_after(values: Values, places: int) -> list[int]:
    trials = [finished(number, gain, cost, continues) for number, (gain, cost, continues) in enumerate(values)]
    return [trial.number for trial in shortlist(trials, places)]


@settings(max_examples=40)
@given(values=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=30), places=st.integers(2, 12))
def test_the_front_comes_first_and_the_latest_fill_up(values: list[tuple[int, int]], places: int) -> None:
    listed = listed_after([(gain, cost, None) for gain, cost in values], places)
    if len(values) <= places:
        assert listed == list(range(len(values)))
        return
    assert len(listed) == places
    front = [
        number
        for number, (gain, loss) in enumerate(values)
        if not any(
            g >= gain and c <= loss and ((g, c) != (gain, loss) or other < number)
            for other, (g, c) in enumerate(values)
            if other != number
        )
    ]
    best = front[-(places // 2) :]
    rest = [number for number in range(len(values)) if number not in best]
    assert listed == sorted(best + rest[len(best) - places :])


@pytest.mark.parametrize(
    ("places", "values", "listed"),
    [
        (3, [(9, 0, None), (1, 1, None), (2, 2, None), (5, 3, 0), (3, 4, 2)], [1, 3, 4]),
        (2, [(9, 0, None), (5, 1, None), (1, 2, None), (4, 3, 0)], [2, 3]),  # 1 stays off the front
    ],
)
def test_a_promoted_trial_replaces_the_one_that_it_continues(
    places: int, values: Values, listed: list[int]
) -> None:
    assert listed_after(values, places) == listed


def one_by_one(values: Values, places: int) -> list[int]:
    """The definition: trials arrive in order, join the front if it has no better one, and replace worse ones."""
    front: dict[int, tuple[int, int]] = {}
    complete: list[int] = []
    for number, (gain, cost, continues) in enumerate(values):
        if continues is not None:
            complete.remove(continues)
            front.pop(continues, None)
        complete.append(number)
        if not any(g >= gain and c <= cost for g, c in front.values()):
            front = {n: (g, c) for n, (g, c) in front.items() if not (gain >= g and cost <= c)}
            front[number] = (gain, cost)
    listed = set(list(front)[-(places // 2) :])
    others = [number for number in complete if number not in listed]
    return sorted(listed | set(others[max(0, len(others) - places + len(listed)) :]))


@settings(max_examples=200)
@given(data=st.data(), places=st.integers(2, 8))
def test_the_shortlist_is_that_of_trials_that_arrive_one_by_one(data: st.DataObject, places: int) -> None:
    values: Values = []
    for number in range(data.draw(st.integers(0, 30))):
        left = [n for n in range(number) if n not in {continues for *_, continues in values}]
        continues = data.draw(st.sampled_from([None, *left]))
        values.append((data.draw(st.integers(0, 9)), data.draw(st.integers(0, 9)), continues))
    assert listed_after(values, places) == one_by_one(values, places)


def test_trials_without_scores_are_not_listed() -> None:
    trials = [finished(0, 1, 1), trial(1, Failure("why")), trial(2, None), trial(3, Failure("why"), continues=0)]
    assert [one.number for one in shortlist(trials)] == [0]
