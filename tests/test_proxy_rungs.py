"""The simulated search with a proxy: without one it is the product's, and with one its accounts are right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.proxy_rungs import Search, calibrated
from benchmarks.proxy_testbed import FULL, noisy, plan_of, scores_at
from benchmarks.search_efficiency import run_loop
from benchmarks.table import OBJECTIVES, TableExecutor
from tuner.schedule import Schedule

STEPS = 14
SEED = 5


class Noisy:
    """What the simulated search measures, as a worker's scores."""

    def scores(self, schedule: Schedule, prompts: Sequence[str]) -> dict[str, list[float]]:
        plan = plan_of(SEED)
        found = noisy(FULL, schedule, SEED, plan.rungs[-1])
        if schedule == plan.baseline:
            found = scores_at(FULL).exact(schedule)
        rows = [plan.prompts.search.index(prompt) for prompt in prompts]
        return dict(zip(OBJECTIVES, found[rows].T.tolist(), strict=True))


def test_without_a_proxy_it_is_the_search_of_the_product(tmp_path: Path) -> None:
    simulated = Search(SEED, None)
    steps = [simulated.step() for _ in range(STEPS)]
    plan = plan_of(SEED)
    plan = replace(plan, settings=plan.settings.model_copy(update={"trials": STEPS}))
    expected = run_loop(plan, TableExecutor(Noisy(), keep_calls=False), str(tmp_path))[:STEPS]
    assert [step.spent for step in steps] == pytest.approx([step.spent for step in expected])
    assert [set(step.front) for step in steps] == [set(step.front) for step in expected]


def test_a_proxy_is_paid_for_and_never_on_the_front() -> None:
    plan, search = plan_of(SEED), Search(SEED, FULL)  # proxy videos that cost as much as full ones
    first, prompts = plan.rungs
    spent = plan.baseline_price.tflops * (prompts + first)
    assert search.spent == pytest.approx(spent)
    steps = [search.step() for _ in range(3 * STEPS)]
    assert steps[0].spent == pytest.approx(spent + first * search.trials[0].price.tflops)
    assert {trial.rung for trial in search.trials} == {0, 1, 2}
    whole = [0, first, prompts - first]
    paid = sum(trial.price.tflops * (whole[trial.rung] or first) for trial in search.trials)
    assert search.spent <= spent + paid * (1 + 1e-9)  # less where latents were kept
    scored = {trial.schedule for trial in search.trials if trial.rung == 2}
    assert steps[-1].front
    assert set(steps[-1].front) <= scored


def test_a_proxy_counts_as_much_as_it_has_foretold() -> None:
    rng = np.random.default_rng(0)
    proxy, wanted = rng.normal(size=40), np.array([-1.0, 0.5])
    means, errors = calibrated(proxy, 2 * proxy, wanted, 1e-3)
    assert means == pytest.approx(2 * wanted, rel=0.1)
    assert (errors < 0.3 * np.abs(wanted)).all()
    _, unsure = calibrated(proxy, rng.normal(size=40), wanted, 0.1)
    assert (unsure > np.abs(wanted)).all()
    means, prior = calibrated(np.empty(0), np.empty(0), wanted, 1e-3)
    assert means == pytest.approx(wanted)
    assert prior == pytest.approx(0.5 * np.abs(wanted), rel=1e-3)
