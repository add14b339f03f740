"""Identifies weights, so that scores of different models or scorers never mix."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import objectives
from tuner.models import Blueprint, ModelOptions

_HASHED_WHOLE = 256 * 1024 * 1024  # bytes; larger weights are told apart by size and both ends
_HASHED_END = 1024 * 1024


def hash_files(path: Path) -> str:
    """Returns a hash of the names and the contents of a file, or of all files below a folder."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    small = sum(file.stat().st_size for file in files) <= _HASHED_WHOLE
    for found in files:
        digest.update(f"{found.relative_to(path)} {found.stat().st_size}".encode())
        with found.open("rb") as file:
            digest.update(file.read() if small else file.read(_HASHED_END))
            if not small and found.stat().st_size > _HASHED_END:
                file.seek(-_HASHED_END, 2)
                digest.update(file.read())
    return digest.hexdigest()


def made_by(spec: str, conditions: Mapping[str, Any]) -> str:
    """Identifies what makes the scores of an objective, in sixteen hex digits.

    They change with the name, the conditions, and local weights. Weights on a hub are identified by name.

    Args:
        spec: The objective, as ``name:weights``.
        conditions: Versions of the packages, and the options that the model is loaded with.
    """
    _, weights = objectives.parse(spec)
    embedded = Path(objectives.__file__).parent / "tiny" / "weights"
    path = embedded if weights == "tiny" else Path(weights or "").expanduser()
    files = hash_files(path) if weights and path.exists() else None
    return hashlib.sha256(json.dumps([spec, files, conditions], sort_keys=True).encode()).hexdigest()[:16]


def options_identity(options: ModelOptions) -> dict[str, Any]:
    """Returns the options that decide the images; leaves out those that are off, as older studies have none."""
    identity = options.of_images()
    if options.lora is not None:
        path = Path(options.lora_and_weight()[0])
        if path.is_file():
            identity["lora_hash"] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    if (file := options.transformer_file()) is not None:
        identity["transformer"] = hash_files(file)[:16]
    return {"options": identity} if identity else {}


def fingerprint(model: Blueprint) -> str:
    """Returns sixteen hex digits that change with a model's configuration and with its weights.

    Weights on a hub are identified by name, local weights by the content of their folder.
    """
    digest = hashlib.sha256()
    described = [model.source, dict(model.transformer), dict(model.scheduler), model.text_tokens, model.guidance]
    if model.passes > 1:
        described.append(model.negative_prompt)
    folder = Path(model.source)
    digest.update(json.dumps(described[folder.is_dir() :], sort_keys=True, default=str).encode())
    if folder.is_dir():
        digest.update(hash_files(folder).encode())
    return digest.hexdigest()[:16]
