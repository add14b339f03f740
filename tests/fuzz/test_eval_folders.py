"""Whatever is in the files of an evaluation, the same command ends as before or says in one line why not."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import studies.evaluate.plan
from studies.evaluate import EvalResult, EvalSettings, evaluate
from tests.fuzzing import broken_bytes, broken_json, fuzzed
from tests.studies.evaluate.test_evaluate import comparable
from tests.studies.toy import Counting, find_blueprint
from tuner.errors import UserError

_FILES = ("evaluation.json", "scores.jsonl", "result.json", "result.md")


@pytest.fixture(scope="module", autouse=True)
def toy_evaluated() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studies.evaluate.plan, "blueprint", find_blueprint)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with prompts and a finished evaluation, ``finished``."""
    place = tmp_path_factory.mktemp("evals")
    (place / "prompts.txt").write_text("a fox\na hen\na cat\nan oak\n")
    evaluate(settings_in(place, "finished"), executor=Counting())
    return place


def settings_in(place: Path, name: str) -> EvalSettings:
    prompts = str(place / "prompts.txt")
    return EvalSettings(model="toy", presets=("plain:4",), prompts=prompts, chunk=1, out=str(place / name))


@fuzzed(0.1)
@given(st.data())
def test_eval_folders(place: Path, data: Any) -> None:
    shutil.rmtree(place / "broken", ignore_errors=True)
    shutil.copytree(place / "finished", place / "broken")
    name = data.draw(st.sampled_from(_FILES))
    content = (place / "finished" / name).read_bytes()
    breaks = broken_json if name.endswith(".json") else broken_bytes
    (place / "broken" / name).write_bytes(breaks(data.draw, content))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is set aside is named
        try:
            result, _ = evaluate(settings_in(place, "broken"), executor=Counting())
        except UserError:
            refused = True
        else:
            refused = False
    assert not refused or name in _FILES[:2]  # another evaluation's identity, or scores of another device
    if not refused and name != "scores.jsonl":  # a changed digit of a score is a score
        whole = EvalResult.model_validate_json((place / "finished" / "result.json").read_bytes())
        assert comparable(result) == comparable(whole)
    assert {path.name for path in place.iterdir()} == {"prompts.txt", "finished", "broken"}
