"""Models with the one scheduler whose levels every target can carry."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tuner.models._own_grid import OwnGridBlueprint

EULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}


def euler_blueprint(blueprint: Any) -> Any:
    """Returns the blueprint with Euler's scheduler where its own rounds timesteps; else unchanged."""
    return replace(blueprint, scheduler=EULER) if isinstance(blueprint, OwnGridBlueprint) else blueprint


def with_euler(model: Any) -> Any:
    """Returns the loaded model with the blueprint of `euler_blueprint`."""
    return euler_blueprint(model.blueprint).wrap(model.pipe)
