"""Searches multi-stage sampling schedules for diffusion and flow-matching models, and runs them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tuner import presets
    from tuner.errors import UserError
    from tuner.generation import Generation, attach, generate
    from tuner.presets import Preset
    from tuner.schedule import Schedule, Stage

__all__ = ["Generation", "Preset", "Schedule", "Stage", "UserError", "attach", "generate", "presets"]
__version__ = "0.2.0"

_HOMES = {
    "Generation": "tuner.generation",
    "Preset": "tuner.presets",
    "Schedule": "tuner.schedule",
    "Stage": "tuner.schedule",
    "UserError": "tuner.errors",
    "attach": "tuner.generation",
    "generate": "tuner.generation",
}


def __getattr__(name: str) -> object:
    """Imports a public name when it is first used, so that the command line answers at once."""
    if name == "presets":
        return importlib.import_module("tuner.presets")
    if name not in _HOMES:
        raise AttributeError(f"module 'tuner' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """Lists the public names, imported or not."""
    return sorted({*globals(), *__all__})
