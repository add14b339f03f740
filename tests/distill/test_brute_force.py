from __future__ import annotations

import math

import pytest
import torch

from benchmarks.oss_brute_force import every_way, report_exactness
from tests.distill.test_table import SIGMAS, STEPS, bent, rule, start
from tuner.distill.teacher import walk
from tuner.solvers import load


@pytest.mark.parametrize("solver", ["euler", "dpmpp-2m"])
def test_every_way_is_walked_once_as_the_solver_walks_it(solver: str) -> None:
    teacher = walk(bent, start(2), SIGMAS)
    calls: list[float] = []

    def counting(x: torch.Tensor, sigma: float) -> torch.Tensor:
        calls.append(sigma)
        return bent(x, sigma)

    ends = dict(every_way(rule(counting, teacher, solver), teacher, 4))
    assert len(ends) == sum(math.comb(STEPS - 1, steps - 1) for steps in range(1, 5))
    assert len(calls) == sum(math.comb(STEPS - 1, inner) for inner in range(1, 4))  # once for every beginning
    for way, end in ends.items():
        sigmas = [SIGMAS[level] for level in way]
        torch.testing.assert_close(end, load(solver)(bent, teacher.x[0], sigmas))


def test_the_report_names_mean_and_most() -> None:
    excess = {"euler": {"x_0": {3: [0.0, 0.1], 4: [0.2, 0.4], 5: [0.0, 0.0]}}}
    text = report_exactness({"sets": 2, "excess": excess, "seconds": 1.0})
    assert "5.0 % (10 %)" in text
    assert "30.0 % (40 %)" in text
