"""Carries warnings of objectives from the workers to the user, once per study."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import TextIO

from objectives.base import CutPromptWarning


@contextmanager
def noted(notes: MutableMapping[str, str], objective: str) -> Iterator[None]:
    """Keeps the first warning of a cut prompt inside the context, instead of showing it.

    Ray hides the output of its workers, and every worker would repeat the warning.

    Args:
        notes: Warnings by objective; written here.
        objective: Name of the objective that scores inside.
    """
    show = warnings.showwarning

    def keep(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, CutPromptWarning):
            notes.setdefault(objective, str(message))
        else:
            show(message, category, filename, lineno, file, line)

    warnings.showwarning = keep  # `catch_warnings` would make Python forget what it has shown, each time
    try:
        yield
    finally:
        warnings.showwarning = show


class Notes:
    """Shows each objective's note once."""

    def __init__(self) -> None:
        self._shown: set[str] = set()

    def show(self, notes: Mapping[str, str]) -> None:
        """Shows the notes of objectives that have not shown one yet."""
        for objective, note in notes.items():
            if objective not in self._shown:
                self._shown.add(objective)
                warnings.warn(note, CutPromptWarning, stacklevel=2)
