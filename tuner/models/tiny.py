"""`tiny`: a small FLUX that ships inside the package and runs anywhere; see ``docs/tiny.md``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tuner.models.flux import BLUEPRINT as FLUX
from tuner.tiny import PIPELINE_FOLDER


def _read(part: str) -> Mapping[str, Any]:
    config: Mapping[str, Any] = json.loads((PIPELINE_FOLDER / part).read_text())
    return config


BLUEPRINT = replace(
    FLUX.reconfigured(str(PIPELINE_FOLDER), _read),
    name="tiny",
    license="Apache-2.0",
    height=64,
    width=64,
    steps=50,
    scorers="tiny",
)
