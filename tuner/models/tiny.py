"""`tiny`: a small FLUX that ships inside the package and runs anywhere; see ``docs/tiny.md``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tuner.models.flux import BLUEPRINT as FLUX

_FOLDER = Path(__file__).parent.parent / "tiny" / "weights" / "pipeline"


def _read(part: str) -> Mapping[str, Any]:
    config: Mapping[str, Any] = json.loads((_FOLDER / part).read_text())
    return config


BLUEPRINT = replace(
    FLUX.reconfigured(str(_FOLDER), _read),
    name="tiny",
    license="Apache-2.0",
    height=64,
    width=64,
    steps=50,
    scorers="tiny",
)
