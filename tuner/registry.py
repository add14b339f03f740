"""Finds things by name: one file of a package each, and entry points of other packages."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from tuner.errors import unknown_name


def class_name(file_name: str) -> str:
    """The class of a file: ``image_reward`` holds ``ImageReward``."""
    return "".join(word.capitalize() for word in file_name.split("_"))


class Registry:
    """Everything of one kind: listed without importing anything, imported one by one.

    Files that begin with an underscore, sub-packages and ``base`` have no name. A file wins over an entry point of
    the same name.

    Args:
        kind: What is registered, in the singular, e.g. ``"model"``.
        package: Dotted name of the package that holds the files.
        path: The package's ``__path__``.
        member: What a file holds, by the name of the file.
        spelled: The name that users write, by the name of the file.
    """

    def __init__(
        self,
        kind: str,
        package: str,
        path: Iterable[str],
        member: Callable[[str], str] = class_name,
        spelled: Callable[[str], str] = str,
    ):
        self._kind, self._package, self._path = kind, package, path
        self._member, self._spelled = member, spelled
        self._group = "tuner." + package.rpartition(".")[2]

    def available(self) -> list[str]:
        """Lists the names, sorted."""
        return sorted({*self._files(), *self._entry_points()})

    def __contains__(self, name: str) -> bool:
        """Whether anything has a name; of one that a file has, this is much faster than `available`."""
        return name in self._files() or name in self._entry_points()

    def load(self, name: str) -> Any:
        """Imports a registered object by name.

        Raises:
            UserError: If nothing has it.
        """
        if (file := self._files().get(name)) is not None:
            return getattr(importlib.import_module(f"{self._package}.{file}"), self._member(file))
        if (point := self._entry_points().get(name)) is not None:
            return point.load()
        raise unknown_name(self._kind, name, self.available())

    def _files(self) -> dict[str, str]:
        found = [module.name for module in pkgutil.iter_modules(self._path) if not module.ispkg]
        return {self._spelled(name): name for name in found if not name.startswith("_") and name != "base"}

    def _entry_points(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in _installed(self._group)}


@functools.cache
def _installed(group: str) -> tuple[EntryPoint, ...]:
    """Reads the entry points of all installed packages once, since a search asks for names dozens of times."""
    return tuple(entry_points(group=group))
