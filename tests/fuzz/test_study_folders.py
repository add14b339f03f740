"""Whatever is in the files of a study, its search goes on and ends as before, or says in one line why not."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import studies.plan.plan
from studies import StudyResult, list_studies, search
from studies.report.files import write_report
from tests.fuzzing import broken_bytes, broken_json, fuzzed
from tests.studies.test_search import comparable
from tests.studies.toy import Counting, find_blueprint, toy_settings
from tuner.errors import UserError

_FILES = (
    *("settings.json", "prompts.json", "result.json"),
    *("scores.jsonl", "proposals.jsonl", "journal.log", "preset.yaml"),
)
_MAY_REFUSE = ("settings.json", "scores.jsonl", "journal.log")
"""Another study's identity, scores of another device, and trials that the study would not have."""


@pytest.fixture(scope="module", autouse=True)
def toy_searched() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studies.plan.plan, "blueprint", find_blueprint)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a finished study."""
    place = tmp_path_factory.mktemp("studies")
    found(place / "finished")
    return place


def found(out: Path) -> StudyResult:
    return search(toy_settings(out, trials=2, rungs=1), executor=Counting(), resume=True)


@fuzzed(0.03)  # each of them is a search
@given(st.data())
def test_study_folders(place: Path, data: Any) -> None:
    shutil.rmtree(place / "broken", ignore_errors=True)
    shutil.copytree(place / "finished", place / "broken")
    name = data.draw(st.sampled_from(_FILES))
    content = (place / "finished" / "toy-3x" / name).read_bytes()
    breaks = broken_json if name.endswith(".json") else broken_bytes
    (place / "broken" / "toy-3x" / name).write_bytes(breaks(data.draw, content))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is set aside is named
        for study in list_studies(str(place / "broken")):
            assert study.state in ("finished", "unfinished", "broken")
            try:
                write_report(study, place / "broken" / "report.csv")
            except UserError:
                continue
        try:
            result = found(place / "broken")
        except UserError:
            assert name in _MAY_REFUSE
            return
    if name != "scores.jsonl":  # a changed digit of a score is a score
        whole = StudyResult.model_validate_json((place / "finished" / "toy-3x" / "result.json").read_bytes())
        assert comparable(result) == comparable(whole)
    assert {path.name for path in place.iterdir()} == {"finished", "broken"}
