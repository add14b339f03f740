"""The page of dependencies names each of them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_direct_dependency_has_a_licence_on_the_page() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[^\w.-]", one, maxsplit=1)[0].lower() for one in project["dependencies"]}
    rows = re.findall(r"^\| ([\w.-]+) \| (.+) \|$", (ROOT / "docs" / "supply.md").read_text(), re.MULTILINE)
    stated = {name for name, licence in rows if licence != "not stated"}
    assert needed <= stated
