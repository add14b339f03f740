"""Models with the one scheduler whose levels every target can carry."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tuner.models._own_grid import OwnGridBlueprint

EULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}


def with_euler(model: Any) -> Any:
    """Returns the model with Euler's scheduler where its own rounds timesteps; else unchanged."""
    if not isinstance(model.blueprint, OwnGridBlueprint):
        return model
    return replace(model.blueprint, scheduler=EULER).wrap(model.pipe)
