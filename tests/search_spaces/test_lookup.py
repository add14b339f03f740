from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from typing import Any

import pytest

import search_spaces
from tests.blueprints import small_blueprint
from tuner import registry
from tuner.budget import Budget
from tuner.errors import UserError


class Elsewhere:
    """A third party's space."""

    def __init__(self, blueprint: Any, size: Any, budget: Budget):
        self.made_from = (blueprint, size, budget)


def test_listing_imports_no_space_and_no_heavy_package() -> None:
    code = (
        "import sys, search_spaces; print(search_spaces.available());"
        "print([n for n in ('optuna', 'torch', 'diffusers', 'search_spaces.free') if n in sys.modules])"
    )
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert printed.splitlines() == ["['bottleneck', 'free', 'oss', 'plain', 'progressive']", "[]"]


def test_a_near_miss_is_suggested() -> None:
    with pytest.raises(UserError, match=r"Unknown search space 'fre'\. Did you mean 'free'"):
        search_spaces.load("fre", small_blueprint(), (128, 128), Budget(1.0))


@pytest.mark.parametrize("name", ["base", "__init__", "free.py"])
def test_files_that_hold_no_space_have_no_name(name: str) -> None:
    with pytest.raises(UserError, match="Available: bottleneck, free, oss, plain, progressive"):
        search_spaces.load(name, small_blueprint(), (128, 128), Budget(1.0))


def test_other_packages_add_spaces_through_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("elsewhere", f"{__name__}:Elsewhere", "tuner.search_spaces")
    monkeypatch.setattr(registry, "_installed", lambda group: [point] if group == point.group else [])
    assert search_spaces.available() == ["bottleneck", "elsewhere", "free", "oss", "plain", "progressive"]
    space: Any = search_spaces.load("elsewhere", small_blueprint(), (128, 128), Budget(1.0))
    assert space.made_from == (small_blueprint(), (128, 128), Budget(1.0))
