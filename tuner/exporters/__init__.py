"""Exporters: one file per target, holding one constant, ``EXPORTER``.

A new file is a new ``--format``: ``comfyui.py`` is ``comfyui``. Third parties add theirs through the entry-point
group ``tuner.exporters``, whose values are `Exporter` objects.
"""

from __future__ import annotations

from typing import cast

from tuner.errors import UserError
from tuner.exporters.base import Exporter, ExportOptions, RefusedError
from tuner.registry import Registry

__all__ = ["ExportOptions", "Exporter", "RefusedError", "available", "for_file", "load"]

_REGISTRY = Registry(
    "format", __name__, __path__, member=lambda _: "EXPORTER", spelled=lambda name: name.replace("_", "-")
)


def available() -> list[str]:
    """Lists the names of the formats, without importing any exporter."""
    return _REGISTRY.available()


def load(name: str) -> Exporter:
    """Finds an exporter.

    Raises:
        UserError: If no format has this name.
    """
    return cast(Exporter, _REGISTRY.load(name))


def for_file(name: str) -> str:
    """Names the one format that is written to files of this name.

    Args:
        name: A file's name; its suffix decides.

    Raises:
        UserError: If no format is written to such files, or if several are.
    """
    suffix = "." + name.rpartition(".")[2].lower() if "." in name else ""
    fitting = [found for found in available() if suffix in load(found).suffixes]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UserError(f"File {name!r} fits the formats {' and '.join(fitting)}; name one with --format.")
    known = ", ".join(f"{found} ({', '.join(load(found).suffixes)})" for found in available())
    raise UserError(f"File {name!r} has no ending of a known format; name one with --format. Formats: {known}.")
