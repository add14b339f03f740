"""What is kept of proposals: it saves time, and decides nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

import pytest

import studies.engine.loop
import studies.plan.plan
from studies import StudyResult, open_study, search
from tests.studies.test_search import comparable
from tests.studies.toy import Counting, find_blueprint, toy_settings


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies.plan.plan, "blueprint", find_blueprint)


@pytest.fixture
def whole(tmp_path: Path) -> StudyResult:
    return search(toy_settings(tmp_path), executor=Counting())


def resumed(out: Path, **changes: int) -> StudyResult:
    return search(toy_settings(out, **changes), executor=Counting(), resume=True)


def test_a_resumed_study_chooses_no_trial_again(
    tmp_path: Path, whole: StudyResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    def propose(*_: object) -> None:
        raise AssertionError("it is known what was proposed")

    monkeypatch.setattr(studies.engine.loop, "propose", propose)
    assert comparable(resumed(tmp_path)) == comparable(whole)


def test_a_longer_study_is_the_same_whether_its_first_trials_were_kept_or_not(
    tmp_path: Path, whole: StudyResult
) -> None:
    shutil.copytree(tmp_path / "toy-3x", tmp_path / "other" / "toy-3x")
    (tmp_path / "other" / "toy-3x" / "proposals.jsonl").unlink()
    assert comparable(resumed(tmp_path, trials=14)) == comparable(resumed(tmp_path / "other", trials=14))


@pytest.mark.parametrize("seed", range(4))
def test_a_file_with_other_bytes_changes_nothing(tmp_path: Path, whole: StudyResult, seed: int) -> None:
    kept, rng = open_study(str(tmp_path), "toy-3x").proposals, Random(seed)
    content = bytearray(kept.read_bytes())
    for _ in range(20):
        content[rng.randrange(len(content))] = rng.randrange(256)
    kept.write_bytes(content)
    assert comparable(resumed(tmp_path)) == comparable(whole)
