from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from studies.plan.prompt_files import read_prompts
from tests.cli.conftest import Outcome


def test_sets_are_listed_with_source_and_licence(run: Callable[..., Outcome]) -> None:
    rows = json.loads(run("prompts", "--json").out)
    assert [(row["name"], row["prompts"], row["licence"]) for row in rows] == [
        ("general", 64, "CC0 1.0"),
        ("tiny", 128, "CC0 1.0"),
    ]
    assert "written for this project" in run("prompts").out


def test_a_set_is_printed_as_the_file_that_search_reads(run: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = run("prompts", "tiny")
    (tmp_path / "mine.txt").write_text(outcome.out)
    assert read_prompts(tmp_path / "mine.txt") == json.loads(run("prompts", "tiny", "--json").out)


def test_an_unknown_set_is_one_line(run: Callable[..., Outcome]) -> None:
    outcome = run("prompts", "tinny")
    assert (outcome.code, outcome.out) == (2, "")
    assert "Unknown prompt set 'tinny'. Did you mean 'tiny'?" in outcome.err
