"""Tests that need a GPU: ``python -m pytest -m gpu tests/gpu``.

With ``GPU_TESTS_ON=cpu`` those that can run on a CPU do, which proves the tests themselves.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

DEVICE = os.environ.get("GPU_TESTS_ON", "cuda")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks all tests of this folder, and skips them where there is no GPU."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if DEVICE == "cuda" and not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="there is no GPU"))


@pytest.fixture
def device() -> str:
    return DEVICE


@pytest.fixture
def gpu() -> str:
    """The device of what no CPU can stand in for."""
    if DEVICE != "cuda":
        pytest.skip("a CPU cannot stand in for the GPU here")
    return DEVICE
