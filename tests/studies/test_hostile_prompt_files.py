"""Any file at all is either prompts or one line that says what is wrong with it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from studies.plan import prompt_files
from studies.plan.prompt_files import read_prompts
from tuner.errors import LONGEST_LINE, UserError, one_line

SUFFIXES = (".txt", ".csv", ".tsv", ".jsonl", ".json")
SEPARATORS = "\u2028\u2029\x0b\x0c\x1c\x1d\x1e\x85"
"""Where ``str.splitlines`` ends a line and no file format does."""

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(prompt_files.FIELDS), inner),
    max_leaves=12,
)
contents = st.one_of(
    st.binary(max_size=200),
    st.text(st.characters(codec="utf-8"), max_size=200).map(str.encode),
    values.map(lambda value: json.dumps(value).encode()),
    st.lists(values, max_size=4).map(lambda rows: "\n".join(map(json.dumps, rows)).encode()),
    st.lists(st.lists(st.text("ab,\"'\t;#", max_size=6), max_size=4), max_size=4).map(
        lambda rows: ("prompt,x\n" + "\n".join(",".join(row) for row in rows)).encode()
    ),
    st.integers(4300, 6000).map(lambda digits: b"[" + b"9" * digits + b"]"),
    st.sampled_from([b"[" * 100_000, b'{"a":' * 100_000, b'["\\ud800"]', b'{"prompt": "\\udfff fox"}']),
)


@seed(0)
@settings(max_examples=300, deadline=None)
@given(content=contents, suffix=st.sampled_from(SUFFIXES))
def test_any_content_is_prompts_or_one_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"hostile{suffix}"
    path.write_bytes(content)
    said = ""
    prompts: list[str] = []
    try:
        prompts = read_prompts(path)
    except UserError as error:
        said = one_line(error)
    assert len(said) <= LONGEST_LINE
    assert not said or path.name in said
    assert all(prompt == prompt.strip() and prompt.encode() is not None for prompt in prompts)


@seed(0)
@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.text(st.sampled_from("ab" + SEPARATORS), min_size=1).map(lambda text: f"a{text}z"),
        min_size=1,
        unique=True,
    ),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_a_line_ends_at_line_ends_alone(
    tmp_path_factory: pytest.TempPathFactory, prompts: list[str], end: str
) -> None:
    folder = tmp_path_factory.mktemp("lines")
    rows: dict[str, list[str]] = {
        "p.txt": prompts,
        "p.csv": ["id,prompt", *(f"1,{prompt}" for prompt in prompts)],
        "p.tsv": ["prompt", *prompts],
        "p.jsonl": [json.dumps({"prompt": prompt}, ensure_ascii=False) for prompt in prompts],
    }
    for name, lines in rows.items():
        (folder / name).write_text(end.join(lines) + end, encoding="utf-8", newline="")
        assert read_prompts(folder / name) == prompts


@pytest.mark.parametrize("extra", [1, 2, 5])
@pytest.mark.parametrize(("suffix", "between"), [(".csv", ","), (".tsv", "\t")])
def test_a_row_with_more_cells_than_the_header_is_refused_and_empty_ones_are_not(
    tmp_path: Path, extra: int, suffix: str, between: str
) -> None:
    path = tmp_path / f"p{suffix}"
    path.write_text(f"prompt{between}kind\na fox{between}x\na car{between}y{extra * (between + 'z')}\n")
    with pytest.raises(UserError, match=f"has {extra + 2} cells in line 3, and its header names 2"):
        read_prompts(path)
    path.write_text(f"prompt{between}kind\na fox{between}x{extra * between}\n")
    assert read_prompts(path) == ["a fox"]


@pytest.mark.parametrize(
    "data",
    [
        [{"prompt_en": "a fox", "dimension": ["x"]}, {"prompt_en": "a cat", "dimension": ["y"]}],
        {"a fox": {"caption": "a fox", "dimension": ["a"]}, "a cat": {"caption": "a cat", "dimension": ["b"]}},
        {"1": {"prompt": "a fox"}, "2": {"prompt_en": "a cat"}},
    ],
)
def test_layouts_of_video_benchmarks_are_read(tmp_path: Path, data: Any) -> None:
    (tmp_path / "p.json").write_text(json.dumps(data))
    assert read_prompts(tmp_path / "p.json") == ["a fox", "a cat"]


def test_what_may_never_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    for endless in ("/dev/zero", tmp_path / "pipe"):
        with pytest.raises(UserError, match="not a regular file; save it to a file first"):
            read_prompts(endless)
    with (tmp_path / "huge.txt").open("wb") as file:
        file.truncate(prompt_files.MOST_BYTES + 1)  # a sparse file: takes no room
    with pytest.raises(UserError, match=r"67,108,865 bytes, and at most 67,108,864 are read"):
        read_prompts(tmp_path / "huge.txt")
    monkeypatch.setattr(prompt_files, "MOST_PROMPTS", 3)
    (tmp_path / "many.txt").write_text("a\nb\nc\nd\n")
    with pytest.raises(UserError, match="more than 3 prompts"):
        read_prompts(tmp_path / "many.txt")


@pytest.mark.parametrize("name", ["a\0b.txt", "x" * 300, "/".join(["y" * 200] * 40), "\ud800.txt", ".", ""])
def test_a_name_that_no_file_can_have_is_one_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="Prompts file"):
        read_prompts(os.path.join(tmp_path, name))
