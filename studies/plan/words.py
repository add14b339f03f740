"""Checks what a user may mistype, before anything is counted or imported that takes long."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from studies.plan.margins import WITHIN, parse_margins
from tuner.budget import read_budget
from tuner.errors import UserError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from studies.plan.settings import SearchSettings


def check_words(settings: SearchSettings) -> None:
    """Checks the texts of a search: budget, and names of space, objectives, pick, format and study.

    The model's name is checked by ``blueprint``, which imports no more than its family.

    Raises:
        UserError: If one of them means nothing.
    """
    import objectives
    import search_spaces
    from tuner import exporters

    read_budget(settings.budget)
    search_spaces.check_name(settings.space)
    names = [objectives.parse(spec)[0] for spec in settings.objectives]
    _check_pick(settings.pick, names)
    if settings.for_target is not None:
        exporters.load(settings.for_target)
    check_study_name(settings.name)


def _check_pick(pick: str, objectives: Sequence[str]) -> None:
    if pick.startswith(WITHIN):
        parse_margins(pick.removeprefix(WITHIN), list(objectives))
        return
    accepted = ["knee", "cheapest", *(f"best:{name}" for name in objectives)]
    if pick not in accepted:
        raise UserError(f"Pick {pick!r} is not one of {', '.join(accepted)}, {WITHIN}1%.")


def check_study_name(name: str) -> str:
    """Returns a study's name unchanged if it can name a folder.

    Raises:
        UserError: If it cannot.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name):
        raise UserError(
            f"Study name {name!r} cannot name a folder; use letters, digits, '.', '_', '+' and '-', "
            "the first one a letter or a digit."
        )
    return name


def check_new(out: str, name: str) -> None:
    """Checks that no study has this name yet.

    Raises:
        UserError: If one has.
    """
    if (Path(out) / name / "settings.json").exists():
        raise UserError(
            f"Study {name!r} already exists in {out!r}; continue it with --resume, or choose another name with "
            "--study."
        )


def check_counts(settings: BaseModel, least: Mapping[str, int]) -> None:
    """Checks that numbers are not too small; None means the default.

    Raises:
        UserError: If one is.
    """
    for name, bound in least.items():
        value = getattr(settings, name)
        if value is not None and value < bound:
            raise UserError(f"`{name}` must be at least {bound}, but got {value}.")
