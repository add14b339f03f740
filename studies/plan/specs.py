"""The objectives of a plan: their weights, directions and plain names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tuner.errors import UserError

if TYPE_CHECKING:
    from objectives.base import Direction
    from tuner.models import Blueprint


def objective_specs(objectives: Sequence[str], model: Blueprint) -> tuple[str, ...]:
    """Gives the model's own scorers to objectives without weights, where there are such scorers.

    Raises:
        UserError: If there is no objective, if a name is unknown, or if one is given twice.
    """
    from objectives import describe, parse

    parsed = [parse(spec) for spec in objectives]
    if not parsed:
        raise UserError("There must be at least one objective, such as clip.")
    names = [name for name, _ in parsed]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"Objective {twice!r} is given twice; scores are kept by name, so give each once.")
    chosen = [
        (name, weights or (model.scorers if describe(name).about.embedded else None)) for name, weights in parsed
    ]
    return tuple(f"{name}:{weights}" if weights else name for name, weights in chosen)


def fidelity_objectives(specs: Sequence[str]) -> tuple[str, ...]:
    """Returns the plain names of the objectives that compare images with the baseline's."""
    from objectives import describe, parse

    return tuple(parse(spec)[0] for spec in specs if describe(spec).reads == "the baseline's images")


def directions_of(specs: Sequence[str]) -> dict[str, Direction]:
    """Returns the direction in which each objective improves, by its plain name."""
    from objectives import direction, parse

    return {parse(spec)[0]: direction(spec) for spec in specs}
