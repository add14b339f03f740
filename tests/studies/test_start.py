"""Starting and resuming: nothing is written before the lock, and no password is ever written."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest

from studies import open_study, search
from studies.records.study_folder import StudyFolder
from tests.studies.toy import Counting, toy_settings
from tuner.errors import UserError, masked, one_line

SECRET = "hunter2"


def _race(out: str, seed: int, at: float, outcomes: Any) -> None:
    import studies.plan.plan
    from tests.studies.toy import find_blueprint

    studies.plan.plan.blueprint = find_blueprint
    time.sleep(max(0.0, at - time.time()))
    try:
        result = search(toy_settings(Path(out), seed=seed, study="raced", trials=2), executor=Counting())
        outcomes.put((seed, result.pick.model_dump(mode="json")))
    except UserError as error:
        outcomes.put((seed, str(error)))


def test_of_two_searches_that_start_one_study_at_once_one_wins(
    tmp_path: Path,
) -> None:
    context = multiprocessing.get_context("fork")
    for number in range(3):
        out, outcomes = tmp_path / str(number), context.Queue()
        at = time.time() + 0.2
        drivers = [context.Process(target=_race, args=(str(out), seed, at, outcomes)) for seed in (1, 2)]
        for driver in drivers:
            driver.start()
        found = dict(outcomes.get(timeout=60) for _ in drivers)
        for driver in drivers:
            driver.join()
        (winner,) = [seed for seed, outcome in found.items() if not isinstance(outcome, str)]
        loser = found[3 - winner]
        assert "run by another process" in loser or "already exists" in loser
        study = open_study(str(out), "raced")
        assert study.settings.seed == winner
        again = search(toy_settings(out, seed=winner, study="raced", trials=2), resume=True, executor=Counting())
        assert again.pick.model_dump(mode="json") == found[winner]


def test_a_storage_that_cannot_be_opened_leaves_nothing_behind(tmp_path: Path) -> None:
    url = f"postgresql+nodriver://me:{SECRET}@host/db"
    with pytest.raises(UserError, match="cannot be opened") as caught:
        search(toy_settings(tmp_path, storage=url), executor=Counting())
    assert SECRET not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_no_password_is_written(tmp_path: Path) -> None:
    uri = f"https://me:{SECRET}@mlflow.example/?token={SECRET}"
    search(toy_settings(tmp_path, tracking_uri=uri, trials=1), executor=Counting())
    written = [path for path in tmp_path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert not written


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"postgresql://me:{SECRET}@host:5432/db", "postgresql://me:***@host:5432/db"),
        (f"postgresql://me:p@{SECRET}@host/db", "postgresql://me:***@host/db"),
        (f"see https://{SECRET[:0]}:{SECRET}@host, then", "see https://:***@host, then"),
        (f"mysql://h/db?user=me&password={SECRET}&x=1", "mysql://h/db?user=me&password=***&x=1"),
        ("sqlite:///studies.db", "sqlite:///studies.db"),
        ("http://127.0.0.1:5000/a@b", "http://127.0.0.1:5000/a@b"),
    ],
)
def test_passwords_in_urls_are_masked(text: str, shown: str) -> None:
    assert masked(text) == shown
    assert one_line(f"{text}\n") == shown
    assert str(UserError(text)) == shown


def test_resuming_for_fewer_trials_is_refused(tmp_path: Path) -> None:
    before = search(toy_settings(tmp_path), executor=Counting())
    with pytest.raises(UserError, match="has 8 trials, but --trials is 3"):
        search(toy_settings(tmp_path, trials=3), resume=True, executor=Counting())
    assert open_study(str(tmp_path), "toy-3x").result() == before


@pytest.mark.parametrize("missing", ["settings.json", "prompts.json"])
def test_a_resumed_study_writes_what_is_missing(tmp_path: Path, missing: str) -> None:
    before = search(toy_settings(tmp_path), executor=Counting())
    (tmp_path / "toy-3x" / missing).unlink()
    executor = Counting()
    after = search(toy_settings(tmp_path), resume=True, executor=executor)
    assert after.front == before.front
    assert executor.ran == []
    assert StudyFolder(tmp_path / "toy-3x").prompts
    assert open_study(str(tmp_path), "toy-3x").settings.trials == 8
