"""How a trial becomes a schedule that fits the budget: one file per space, loaded by name.

``load("free", ...)`` imports ``search_spaces/free.py`` and builds its class ``Free``. A space around a preset
takes it after a colon: ``load("oss:FILE", ...)``. Other packages add spaces through the entry-point group
``tuner.search_spaces`` (name -> class); a file here wins over an entry point of the same name.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from search_spaces.base import Carries, SearchSpace
from tuner.errors import UserError, unknown_name
from tuner.registry import Registry

if TYPE_CHECKING:
    from tuner.budget import Budget
    from tuner.models import Blueprint, Size

__all__ = ["SearchSpace", "available", "check_name", "load", "preset_around", "stage_sizes"]

_REGISTRY = Registry("search space", __name__, __path__)


def available() -> list[str]:
    """Lists the names that ``load`` accepts, sorted, without importing any space."""
    return _REGISTRY.available()


def check_name(name: str) -> None:
    """Checks the name of a space, without importing it.

    Args:
        name: As ``load`` takes it.

    Raises:
        UserError: If no space has this name.
    """
    plain = name.partition(":")[0]
    if plain not in available():
        raise unknown_name("search space", plain, available())


def load(
    name: str, blueprint: Blueprint, size: Size, budget: Budget, carries: Carries | None = None
) -> SearchSpace:
    """Builds a search space.

    Args:
        name: One of ``available()``, or ``NAME:PRESET`` for a space around a preset.
        blueprint: The model whose schedules are searched.
        size: Output (height, width) in pixels.
        budget: What one image may cost.
        carries: Whether a runtime carries a schedule; None for all. A space may still make some that it does not.

    Raises:
        UserError: If no space has this name, or if it takes no preset, or needs another one.
    """
    plain = name.partition(":")[0]
    space_class = _REGISTRY.load(plain)
    more: dict[str, Any] = {}
    taken = inspect.signature(space_class).parameters
    if (preset := preset_around(name)) is not None:
        if "preset" not in taken:
            raise UserError(f"The space {plain!r} takes no preset, but got {preset!r}; write {plain} alone.")
        more["preset"] = preset
    if carries is not None and "carries" in taken:
        more["carries"] = carries
    space: SearchSpace = space_class(blueprint, size, budget, **more)
    return space


def preset_around(name: str) -> str | None:
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
