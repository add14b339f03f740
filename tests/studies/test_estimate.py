from __future__ import annotations

from pathlib import Path

import pytest

from studies import estimate, search
from studies.plan.plan import make_plan
from tests.studies.toy import Counting, load_toy, toy_settings


def test_a_search_spends_no_more_than_was_estimated(tmp_path: Path) -> None:
    settings = toy_settings(tmp_path, workers=2, trials=5)
    found = estimate(settings, load_toy)
    assert list(tmp_path.iterdir()) == []
    parts = (found.baseline, found.references, found.proposals, found.held_out)
    assert found.total == pytest.approx(sum(parts))
    executor = Counting()
    result = search(settings, executor=executor)
    assert result.tflops_spent <= found.total
    assert sum(len(task.prompts) for task in executor.ran) <= found.images
    seconds = found.total * found.seconds_per_tflop + found.images * found.seconds_per_image
    assert found.hours == pytest.approx(seconds / 2 / 3600)


def test_a_limit_lowers_the_estimate(tmp_path: Path) -> None:
    plan = make_plan(toy_settings(tmp_path))
    limit = plan.least_tflops + plan.budget.tflops
    assert estimate(toy_settings(tmp_path, max_tflops=limit), load_toy).total == pytest.approx(limit)
