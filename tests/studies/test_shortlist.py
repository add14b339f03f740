from __future__ import annotations

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from studies.propose.shortlist import Shortlist

DIRECTIONS = ("maximize", "minimize")


def listed_after(values: list[tuple[int, int]], places: int) -> list[int]:
    study = optuna.create_study(
        storage=Shortlist(places, DIRECTIONS), directions=DIRECTIONS, sampler=optuna.samplers.RandomSampler()
    )
    for pair in values:
        study.tell(study.ask(), [float(value) for value in pair])
    return [trial.number for trial in study.get_trials(states=(TrialState.COMPLETE,))]


@settings(max_examples=40)
@given(values=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=30), places=st.integers(2, 12))
def test_the_front_comes_first_and_the_latest_fill_up(values: list[tuple[int, int]], places: int) -> None:
    listed = listed_after(values, places)
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
    ("places", "told", "listed"),
    [
        (3, [(9, 0, None), (1, 1, None), (2, 2, None), (5, 3, 0), (3, 4, 2)], [1, 3, 4]),
        (2, [(9, 0, None), (5, 1, None), (1, 2, None), (4, 3, 0)], [2, 3]),  # 1 stays off the front
    ],
)
def test_a_trial_that_continues_another_takes_its_place(
    places: int, told: list[tuple[int, int, int | None]], listed: list[int]
) -> None:
    study = optuna.create_study(storage=Shortlist(places, DIRECTIONS), directions=DIRECTIONS)
    for gain, loss, continues in told:
        trial = study.ask()
        trial.set_user_attr("continues", continues)
        study.tell(trial, [float(gain), float(loss)])
    assert [trial.number for trial in study.get_trials()] == listed


def test_trials_that_run_or_failed_are_listed_always() -> None:
    study = optuna.create_study(storage=Shortlist(2, DIRECTIONS), directions=DIRECTIONS)
    running = study.ask()
    study.tell(study.ask(), state=TrialState.FAIL)
    for value in range(5):
        study.tell(study.ask(), [float(value), float(value)])
    assert {running.number, 1} <= {trial.number for trial in study.get_trials()}
    assert len(study.get_trials(states=(TrialState.COMPLETE,))) == 2
