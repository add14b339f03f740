"""How a trial becomes a schedule that fits the budget: one file per space, loaded by name.

``load("free", ...)`` imports ``search_spaces/free.py`` and builds its class ``Free``. A space around a preset
takes it after a colon: ``load("oss:FILE", ...)``. Other packages add spaces through the entry-point group
``tuner.search_spaces`` (name -> class); a file here wins over an entry point of the same name.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from search_spaces.base import Budget, SearchSpace, TimeLimit
from tuner.errors import UserError, unknown_name

if TYPE_CHECKING:
    from tuner.models import Blueprint, Size

__all__ = ["Budget", "SearchSpace", "TimeLimit", "available", "load", "preset_of", "stage_sizes"]

_ENTRY_POINT_GROUP = "tuner.search_spaces"


def available() -> list[str]:
    """Lists the names that ``load`` accepts, sorted, without importing any space."""
    return sorted({*_files(), *_entry_points()})


def load(name: str, blueprint: Blueprint, size: Size, budget: Budget) -> SearchSpace:
    """Builds a search space.

    Args:
        name: One of ``available()``, or ``NAME:PRESET`` for a space around a preset.
        blueprint: The model whose schedules are searched.
        size: Output (height, width) in pixels.
        budget: What one image may cost.

    Raises:
        UserError: If no space has this name, or if it takes no preset, or needs another one.
    """
    plain = name.partition(":")[0]
    if plain in _files():
        class_name = "".join(word.capitalize() for word in plain.split("_"))
        space_class: Any = getattr(importlib.import_module(f"{__name__}.{plain}"), class_name)
    elif plain in _entry_points():
        space_class = _entry_points()[plain].load()
    else:
        raise unknown_name("search space", plain, available())
    around: dict[str, str] = {}
    if (preset := preset_of(name)) is not None:
        if "preset" not in inspect.signature(space_class).parameters:
            raise UserError(f"The space {plain!r} takes no preset, but got {preset!r}; write {plain} alone.")
        around["preset"] = preset
    space: SearchSpace = space_class(blueprint, size, budget, **around)
    return space


def preset_of(name: str) -> str | None:
    """Returns the preset that a space is asked to be around, or None.

    Args:
        name: As ``load`` takes it.
    """
    return name.partition(":")[2] or None


def stage_sizes(blueprint: Blueprint, size: Size) -> list[Size]:
    """Lists the stage sizes that the spaces of this package use, the output size last.

    Args:
        blueprint: The model.
        size: Output (height, width) in pixels.
    """
    from search_spaces._costs import distinct_scales

    return [blueprint.stage_size(size, scale) for scale in distinct_scales(blueprint, size)]


def _files() -> list[str]:
    return [
        module.name
        for module in pkgutil.iter_modules(__path__)
        if not module.name.startswith("_") and module.name != "base"
    ]


def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=_ENTRY_POINT_GROUP)}
