from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

# Nothing in the tests may reach for a hub: a missing file must fail at once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.pop("COLUMNS", None)  # pytest-xdist sets it, and tables would be as narrow

if "PYTEST_XDIST_WORKER" in os.environ:  # one thread for each of the processes that share the cores
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from hypothesis import settings

from tests import fuzzing
from tests.small_flux import small_flux


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fuzz", type=int, default=fuzzing.EXAMPLES, help="examples of all tests in tests/fuzz together"
    )


def pytest_configure(config: pytest.Config) -> None:
    fuzzing.EXAMPLES = config.getoption("--fuzz")


@pytest.fixture(scope="session", autouse=True)
def _own_cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps the counts of the tests apart from the user's, which may be those of other code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNER_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def flux_pipe() -> Any:
    return small_flux()


# A slow machine must not fail a property: timing never decides a test.
settings.register_profile("tuner", deadline=None)
settings.load_profile("tuner")
