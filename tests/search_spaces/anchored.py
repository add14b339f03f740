"""The registered spaces as they can be loaded: one around a preset needs a preset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import search_spaces

ANCHOR = Path(__file__).with_name("anchor.yaml")


def loadable() -> list[Any]:
    names = search_spaces.available()
    return [pytest.param(f"oss:{ANCHOR}", id="oss") if name == "oss" else name for name in names]
