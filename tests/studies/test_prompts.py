from __future__ import annotations

from pathlib import Path

import pytest

from studies.plan.prompts import load_prompts, shipped_sets
from tests.blueprints import small_blueprint
from tuner.errors import UserError
from tuner.models import blueprint
from tuner.tiny.descriptions import captions

MODEL = small_blueprint()


def test_every_second_prompt_is_held_out(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text(
        "\ufeff# a comment\n\n  a fox \na hen\r\n# another\na fox\nein Bär\na bee\na cat", encoding="utf-8"
    )
    prompts = load_prompts(file, MODEL)
    assert prompts.search == ("a fox", "ein Bär", "a cat")
    assert prompts.held_out == ("a hen", "a bee")
    assert prompts.name == "mine.txt"


def test_the_hash_is_of_the_prompts_and_their_split_alone(tmp_path: Path) -> None:
    one, same, other = tmp_path / "one.txt", tmp_path / "same.txt", tmp_path / "other.txt"
    one.write_text("a\nb\nc\nd\n")
    same.write_text("# again\na\nb\n\nc\nd")
    other.write_text("b\na\nc\nd\n")
    assert load_prompts(one, MODEL).hash == load_prompts(str(same), MODEL).hash
    assert load_prompts(one, MODEL).hash != load_prompts(other, MODEL).hash
    assert len(load_prompts(one, MODEL).hash) == 16


def test_models_without_a_set_of_their_own_get_the_general_one() -> None:
    for model in (MODEL, blueprint("flux")):
        prompts = load_prompts(None, model)
        assert prompts.name == "general"
        assert len(prompts.search) == len(prompts.held_out) == 32
        assert not set(prompts.search) & set(prompts.held_out)


def test_models_of_one_world_share_its_prompts() -> None:
    assert load_prompts(None, blueprint("tiny-cfg")) == load_prompts(None, blueprint("tiny"))


def test_tiny_is_scored_on_captions_that_its_training_never_saw() -> None:
    prompts = load_prompts(None, blueprint("tiny"))
    assert prompts.name == "tiny"
    assert list(prompts.search) == captions("search", 64)
    assert list(prompts.held_out) == captions("held_out", 64)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "has 0 different prompts, and at least 4 are needed"),
        (b"# only\n\n#comments\n", "has 0 different prompts"),
        (b"one prompt\n", "has 1 different prompts.* add 3"),
        (b"the same\nthe same\nthe same\nthe same\n", "has 1 different prompts"),
        (b"a\nb\nc\n", "add 1"),
        (b"caf\xe9\nb\nc\nd\n", r"is not UTF-8 text \(byte 3\); save it as UTF-8"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "is not UTF-8 text"),
        (b"a\x00b\nc\nd\ne\n", "has zero bytes"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path, content: bytes, why: str) -> None:
    file = tmp_path / "bad.txt"
    file.write_bytes(content)
    with pytest.raises(UserError, match=why) as error:
        load_prompts(file, MODEL)
    assert "\n" not in str(error.value)
    assert "bad.txt" in str(error.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.txt' does not exist"):
        load_prompts(tmp_path / "gone.txt", MODEL)
    with pytest.raises(UserError, match="is a folder"):
        load_prompts(tmp_path, MODEL)


def test_shipped_sets_say_where_they_come_from_and_may_be_used_freely() -> None:
    sets = {shipped.name: shipped for shipped in shipped_sets()}
    assert sets.keys() == {"general", "tiny"}
    assert {shipped.license for shipped in sets.values()} == {"CC0 1.0"}
    assert len(sets["general"].prompts) == 64
    assert len(sets["tiny"].prompts) == 128
    assert sets["tiny"].source.startswith("the first 64 search captions")
    assert not any("#" in shipped.source for shipped in sets.values())
