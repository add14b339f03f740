"""What has been counted, on disk: to build a network and count one call takes seconds, to read it does not.

``counts.json`` ships with the package and holds the models of this package at common sizes. Other counts are kept
in the user's cache folder, one small file each: ``$TUNER_CACHE_HOME``, else ``$XDG_CACHE_HOME/tuner``, else
``~/.cache/tuner``. A folder that cannot be written and a file that cannot be read only cost a count.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from tuner.errors import UserError
from tuner.feature_cache import FeatureCache
from tuner.models.base import Blueprint, Size

SHIPPED = Path(__file__).with_name("counts.json")

_SOURCES = ("models/*.py", "feature_cache.py", "flops.py", "activations.py", "memory.py")

T = TypeVar("T")


def once(blueprint: Blueprint, size: Size, cache: FeatureCache | None, count: Callable[[], float]) -> float:
    """Returns TFLOPs that are on disk, or counts and keeps them; see `kept`.

    Args:
        blueprint: The model.
        size: Height and width in pixels.
        cache: The feature cache that the count includes.
        count: Counts the TFLOPs.

    Raises:
        UserError: If the network cannot be cached in this way; that is kept, too.
    """
    known = kept(blueprint, key_of(blueprint, size, cache), _tflops, lambda: counted(count, cache))
    if isinstance(known, str):
        raise UserError(known)
    return known


def kept(blueprint: Blueprint, key: str, read: Callable[[Any], T], count: Callable[[], Any]) -> T:
    """Returns what is on disk under a key, or counts and keeps it.

    Models of other packages are always counted, because nothing here tells when their code changes.

    Args:
        blueprint: The model.
        key: Names everything that decides the count.
        read: Checks what was on disk or was counted, plain JSON types, and returns it; raises a `ValueError` if it
            is no such count.
        count: Counts.
    """
    if not type(blueprint).__module__.startswith("tuner."):
        return read(count())
    if (shipped := _shipped().get(key)) is not None:
        return read(shipped)
    file = _folder() / f"{_here(key)}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return read(json.loads(file.read_text(encoding="utf-8"))["count"])
    found = count()
    _write(file, found)
    return read(found)


def counted(count: Callable[[], float], cache: FeatureCache | None) -> float | str:
    """Counts, and returns the message where the network cannot be cached in this way."""
    try:
        return count()
    except UserError as error:
        if cache is None:
            raise
        return str(error)


def key_of(blueprint: Blueprint, size: Size, cache: FeatureCache | None) -> str:
    """Returns what names a count: a hash of everything that decides it, sixteen hex digits.

    The source of the weights and the steps of the baseline are left out. The name is part of it only with a
    feature cache, because a refusal may say it.
    """
    plain = replace(
        blueprint,
        name=blueprint.name if cache else "",
        source="",
        license="",
        steps=1,
        negative_prompt="",
        scorers=None,
    )
    return hashed(f"{type(plain).__module__} {plain.text} {tuple(size)} {cache!r}")


@functools.cache
def _shipped() -> dict[str, Any]:
    """Reads the shipped counts; none where another diffusers is installed, whose networks may differ."""
    try:
        data: dict[str, Any] = json.loads(SHIPPED.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    same = _minor(data["diffusers"]) == _minor(importlib.metadata.version("diffusers"))
    found: dict[str, Any] = data["counts"] if same else {}
    return found


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]


def _folder() -> Path:
    if home := os.environ.get("TUNER_CACHE_HOME"):
        return Path(home) / "counts"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tuner" / "counts"


def _here(key: str) -> str:
    """Adds to a key what counts in this environment: the versions and the source of the models."""
    return hashed(f"{key} {_environment()}")


@functools.cache
def _environment() -> str:
    sources = hashlib.sha256()
    for pattern in _SOURCES:
        for path in sorted(Path(__file__).parent.glob(pattern)):
            sources.update(path.read_bytes())
    versions = [importlib.metadata.version(name) for name in ("torch", "diffusers")]
    return f"{versions} {sources.hexdigest()}"


def _tflops(found: Any) -> float | str:
    """Returns TFLOPs, or why there are none."""
    if isinstance(found, str) or (isinstance(found, float) and math.isfinite(found) and found > 0):
        return found
    raise ValueError(f"{found!r} is no count")


def _write(file: Path, count: Any) -> None:
    """Writes a file whole or not at all."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=file.parent, suffix=".tmp")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                json.dump({"count": count}, stream)
            os.replace(name, file)
        except OSError:
            os.unlink(name)
            raise


def hashed(text: str) -> str:
    """Returns sixteen hex digits that change with a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
