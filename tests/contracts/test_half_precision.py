"""What every model family must do in bfloat16, proven on a small random pipeline of the family's own classes."""

from __future__ import annotations

import pytest

from tests.half_precision import Runs, run_both
from tests.small_pipelines import families


@pytest.fixture(scope="module", params=sorted(families()))
def runs(request: pytest.FixtureRequest) -> Runs:
    return run_both(request.param, "cpu")


def test_the_network_is_given_the_timesteps_of_the_stock_pipeline(runs: Runs) -> None:
    runs.check_timesteps()


def test_latents_are_as_close_to_those_of_float32_as_the_stock_pipelines(runs: Runs) -> None:
    runs.check_latents()
