"""What `benchmarks.reliability` counts, and a short part of it; the rest takes many minutes and runs apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.reliability import Bench
from benchmarks.reliability_study import SMALL, twice


def test_what_is_counted_twice_is_seen() -> None:
    line = b'{"schedule": "a", "prompts": ["a fox"], "seeds": [1]}'
    assert twice([line, line.replace(b"1", b"2"), line]) == 1


def test_a_task_that_is_tried_again_after_a_failure_is_not_counted_twice() -> None:
    line = b'{"schedule": "a", "prompts": ["a fox"], "seeds": [1]}'
    assert twice([line[:-1] + b', "failure": "no memory"}', line]) == 0


def test_a_line_that_is_no_more_where_it_was_is_lost(tmp_path: Path) -> None:
    bench, scores = Bench(tmp_path, seed=0), tmp_path / "study" / "scores.jsonl"
    scores.parent.mkdir()
    for content in (b"a\nb\n", b"a\nb\nc\n", b"a\nc\n"):
        scores.write_bytes(content)
        bench._look(tmp_path)
    assert bench.wrong["lost"] == 2


@pytest.mark.servers
def test_a_killed_worker_and_a_killed_driver_lose_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, seed=0, long=SMALL)
    bench.inject("both", 1)
    assert bench.injected == {"both": 1}
    assert bench.wrong.total() == 0, bench.wrong
