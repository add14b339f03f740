"""How a trial becomes a schedule that fits the budget: one file per space, loaded by name.

``load("free", ...)`` imports ``search_spaces/free.py`` and builds its class ``Free``. Other packages add spaces
through the entry-point group ``tuner.search_spaces`` (name -> class); a file here wins over an entry point of
the same name.
"""

from __future__ import annotations

import importlib
import pkgutil
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from search_spaces.base import Budget, SearchSpace, TimeLimit
from tuner.errors import unknown_name

if TYPE_CHECKING:
    from tuner.models import Blueprint, Size

__all__ = ["Budget", "SearchSpace", "TimeLimit", "available", "load", "stage_sizes"]

_ENTRY_POINT_GROUP = "tuner.search_spaces"


def available() -> list[str]:
    """Lists the names that ``load`` accepts, sorted, without importing any space."""
    return sorted({*_files(), *_entry_points()})


def load(name: str, blueprint: Blueprint, size: Size, budget: Budget) -> SearchSpace:
    """Builds a search space.

    Args:
        name: One of ``available()``.
        blueprint: The model whose schedules are searched.
        size: Output (height, width) in pixels.
        budget: What one image may cost.

    Raises:
        UserError: If no space has this name.
    """
    if name in _files():
        class_name = "".join(word.capitalize() for word in name.split("_"))
        space_class: Any = getattr(importlib.import_module(f"{__name__}.{name}"), class_name)
    elif name in _entry_points():
        space_class = _entry_points()[name].load()
    else:
        raise unknown_name("search space", name, available())
    space: SearchSpace = space_class(blueprint, size, budget)
    return space


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
