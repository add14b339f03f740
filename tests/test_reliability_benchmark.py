"""What `benchmarks.reliability` counts; its rounds take minutes and run apart."""

from __future__ import annotations

from benchmarks.reliability import twice


def test_what_is_counted_twice_is_seen() -> None:
    line = b'{"schedule": "a", "prompts": ["a fox"], "seeds": [1]}'
    assert twice([line, line.replace(b"1", b"2"), line]) == 1


def test_a_task_that_is_tried_again_after_a_failure_is_not_counted_twice() -> None:
    line = b'{"schedule": "a", "prompts": ["a fox"], "seeds": [1]}'
    assert twice([line[:-1] + b', "failure": "no memory"}', line]) == 0
