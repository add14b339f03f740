"""How images become one score per prompt: one file per objective, loaded by name.

``load("clip:ViT-B-32/laion2b_s34b_b79k")`` imports ``objectives/clip.py``, takes the class ``Clip`` from
it and hands it what follows the colon. Other packages add objectives through the entry-point group
``tuner.objectives`` (name -> class); a file here wins over an entry point of the same name.
"""

from __future__ import annotations

import importlib
import pkgutil
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol, cast

from objectives.base import Direction, Objective
from tuner.errors import UserError, unknown_name

__all__ = ["Objective", "available", "direction", "load", "parse"]

_ENTRY_POINT_GROUP = "tuner.objectives"


class _ObjectiveClass(Protocol):
    direction: Direction

    def __call__(self, weights: str | None, device: str) -> Objective: ...


def available() -> list[str]:
    """Lists the names that ``load`` accepts, sorted, without importing any objective."""
    return sorted({*_files(), *_entry_points()})


def parse(spec: str) -> tuple[str, str | None]:
    """Splits ``"name:weights"`` at its first colon.

    Args:
        spec: An objective's name, optionally followed by a colon and the weights to use.

    Returns:
        The name and the weights, ``None`` if there is no colon.

    Raises:
        UserError: If the name is unknown or nothing follows the colon.
    """
    name, colon, weights = spec.strip().partition(":")
    if name not in available():
        raise unknown_name("objective", name, available())
    if colon and not weights:
        raise UserError(
            f"Objective {spec!r} names no weights after the colon. "
            f"Write {name!r} for its default weights or {name + ':tiny'!r} for the embedded ones."
        )
    return name, weights or None


def load(spec: str, device: str = "cpu") -> Objective:
    """Builds the objective that a spec names.

    Args:
        spec: ``"clip"``, ``"clip:ViT-B-32/laion2b_s34b_b79k"``, ``"clip:/local/folder"``, ``"clip:tiny"``,
            ``"image_reward"``, ``"image_reward:/local/folder"``, ``"image_reward:tiny"``, ...
        device: A torch device string.

    Returns:
        The objective, its weights loaded on ``device``.

    Raises:
        UserError: If the name is unknown or its weights cannot be loaded.
    """
    name, weights = parse(spec)
    return _class(name)(weights, device)


def direction(spec: str) -> Direction:
    """Says which way an objective improves, without loading its weights.

    Raises:
        UserError: If the name is unknown.
    """
    return _class(parse(spec)[0]).direction


def _class(name: str) -> _ObjectiveClass:
    if name in _files():
        module = importlib.import_module(f"{__name__}.{name}")
        found: object = getattr(module, _class_name(name))
    else:
        found = _entry_points()[name].load()
    return cast(_ObjectiveClass, found)


def _files() -> list[str]:
    return [
        module.name
        for module in pkgutil.iter_modules(__path__)
        if not module.ispkg and not module.name.startswith("_") and module.name != "base"
    ]


def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=_ENTRY_POINT_GROUP)}


def _class_name(file_name: str) -> str:
    return "".join(word.capitalize() for word in file_name.split("_"))
