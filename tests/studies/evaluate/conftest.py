from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import studies.evaluate.plan
import studies.evaluate.verification
from studies.evaluate import EvalSettings
from tests.studies.toy import find_blueprint
from tuner import presets
from tuner.presets import Preset
from tuner.schedule import Schedule, Stage

STAGED = Schedule(stages=(Stage(scale=0.5, steps=4), Stage(sigmas=(0.7, 0.3, 0.0))))
PROMPTS = [
    f"{colour} {thing}" for colour in ("red", "blue", "pale", "dark") for thing in ("fox", "hen", "cat", "oak")
]


@pytest.fixture(autouse=True)
def toy_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies.evaluate.plan, "blueprint", find_blueprint)
    monkeypatch.setattr(studies.evaluate.verification, "blueprint", find_blueprint)


@pytest.fixture
def staged(tmp_path: Path) -> str:
    preset = Preset(name="staged", model="toy", source="a test", height=32, width=32, schedule=STAGED)
    return str(presets.save(preset, tmp_path / "staged.yaml"))


@pytest.fixture
def toy_eval(tmp_path: Path, staged: str) -> Callable[..., EvalSettings]:
    """Makes settings of an evaluation of a second, on eight held-out prompts."""
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(PROMPTS))

    def make(**changes: Any) -> EvalSettings:
        values: dict[str, Any] = {
            "model": "toy",
            "presets": ("plain:12", staged, "plain:4"),
            "prompts": str(file),
            "chunk": 3,
            "out": str(tmp_path / "eval"),
        }
        return EvalSettings(**(values | changes))

    return make
