"""Searches multi-stage sampling schedules for diffusion and flow-matching models, and runs what it finds."""

from __future__ import annotations

from tuner.errors import UserError
from tuner.generate import Generation, generate
from tuner.presets import Preset
from tuner.schedule import Schedule, Stage

__all__ = ["Generation", "Preset", "Schedule", "Stage", "UserError", "generate"]
__version__ = "0.1.0"
