"""Importers: what people have in other tools becomes a preset, where it is one.

A ComfyUI workflow or an image that holds one, a list of noise levels, or a scheduler's configuration in diffusers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tuner.errors import UserError
from tuner.importers.base import Reading, unreadable
from tuner.importers.comfyui import read_graph
from tuner.importers.lists import read_list, read_neutral
from tuner.importers.scheduler_config import read_config
from tuner.models import Blueprint, blueprint
from tuner.models.base import Size
from tuner.presets import ANY_MODEL, Preset, first_problem

__all__ = ["read"]


def read(path: Path, model: Blueprint | None = None, size: Size | None = None, steps: int | None = None) -> Preset:
    """Makes a preset of another tool's file.

    Args:
        path: A workflow of ComfyUI in API format (``.json``), an image with one inside (``.png``), noise levels as
            text or JSON, or ``scheduler_config.json`` of diffusers.
        model: What it is for; by default what the file says.
        size: Output (height, width) in pixels; by default the file's, or else the model's.
        steps: Steps of a scheduler's grid; by default the model's.

    Raises:
        UserError: If the file cannot be read, or if no preset does what it does.
    """
    found = _found(path, model, size, steps)
    known = model or (blueprint(found.model) if found.model != ANY_MODEL else None)
    size = size or found.size or (known.size if known else None)
    if size is None:
        raise UserError(f"{path.name!r} names no image size; give --size, or --model for the model's own.")
    try:
        preset = Preset(
            name=path.stem,
            model=known.name if known else ANY_MODEL,
            source=f"{found.source}, imported from {path.name}",
            height=size[0],
            width=size[1],
            schedule=found.schedule(),
            model_options=found.options.of_presets(),
        )
    except ValidationError as error:
        raise unreadable(path.name, first_problem(error)) from error
    if known is not None:
        known.check_size(size)
        known.start(preset.schedule.stages[0].sigmas[0])
    return preset


def _found(path: Path, model: Blueprint | None, size: Size | None, steps: int | None) -> Reading:
    """Tells by the contents what a file is, and reads it."""
    if path.suffix.lower() == ".png":
        return read_graph(path.name, _embedded(path), model)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"File {str(path)!r} cannot be read: {error}.") from error
    try:
        data: Any = json.loads(text)
    except json.JSONDecodeError:
        return read_list(path.name, text, model)
    if isinstance(data, list | float | int):
        return read_list(path.name, text, model)
    if not isinstance(data, dict):
        raise unreadable(path.name, "it holds neither a workflow, nor levels, nor a scheduler's configuration")
    if isinstance(data.get("prompt"), dict):
        data = data["prompt"]  # as it is sent to ComfyUI's server
    if str(data.get("_class_name", "")).endswith("Scheduler"):
        return read_config(path.name, data, model, size, steps)
    if "stages" in data:
        return read_neutral(path.name, data)
    return read_graph(path.name, data, model)


def _embedded(path: Path) -> dict[str, Any]:
    """Returns the workflow in API format that ComfyUI leaves in the images that it saves."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            text = image.info.get("prompt")
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(f"Image {str(path)!r} cannot be read: {error}.") from error
    try:
        graph = json.loads(text or "null")
    except json.JSONDecodeError:
        graph = None
    if not isinstance(graph, dict):
        raise unreadable(path.name, "the image holds no workflow of ComfyUI")
    return graph
