"""Model families: one file per short name, holding one constant, ``BLUEPRINT``.

A new file is a new ``--model`` name: ``flux_schnell.py`` is ``flux-schnell``, and since a module's name holds no
point, ``sd3p5_medium.py`` is ``sd3.5-medium``. Files that begin with an underscore are what families share. Third
parties add theirs through the entry-point group ``tuner.models``,
whose values are `Blueprint` objects.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tuner.errors import UserError, one_line
from tuner.models._configuration import check_network, trusting
from tuner.models._loading import as_on_file
from tuner.models._options import OF_MACHINES, ModelOptions
from tuner.models.base import Blueprint, Conditioning, FlowModel, Item, ReadConfig, Size, Sound
from tuner.registry import Registry
from tuner.text_files import MEBIBYTE, read_text

_LARGEST_CONFIG = 16 * MEBIBYTE

__all__ = [
    "OF_MACHINES",
    "Blueprint",
    "Conditioning",
    "FlowModel",
    "Item",
    "ModelOptions",
    "Size",
    "Sound",
    "available",
    "blueprint",
    "is_available",
    "wrap",
]


def _short_name(file_name: str) -> str:
    """Spells a file's name as users do: ``_`` stands for ``-``, a ``p`` between digits for a point."""
    return re.sub(r"(?<=\d)p(?=\d)", ".", file_name).replace("_", "-")


_REGISTRY = Registry("model", __name__, __path__, member=lambda _: "BLUEPRINT", spelled=_short_name)


def available() -> list[str]:
    """Lists the short names, without importing any family."""
    return _REGISTRY.available()


def is_available(name: str) -> bool:
    """Whether a model has a short name, without importing any family."""
    return name in _REGISTRY


def blueprint(model: str) -> Blueprint:
    """Finds what is known of a model without loading its weights.

    Args:
        model: A short name, a folder that holds a saved pipeline, or a hub id (``owner/name``).

    Raises:
        UserError: If nothing has this name, or if the pipeline's class belongs to no known family.
    """
    if not is_available(model) and ("/" in model or Path(model).is_dir()):
        with trusting(model, "pipeline"):
            return _from_configs(model, functools.partial(_read_config, model))
    found: Blueprint = _REGISTRY.load(model)
    return found


def wrap(pipe: Any) -> FlowModel:
    """Makes a `FlowModel` of a pipeline that the user has already loaded; the pipeline is not changed.

    Args:
        pipe: A diffusers pipeline.

    Raises:
        UserError: If the pipeline's class belongs to no known family.
    """

    def read(part: str) -> Mapping[str, Any]:
        if part == "model_index.json":
            return {**pipe.config, "_class_name": type(pipe).__name__}
        component = getattr(pipe, part.split("/")[0])
        config: Mapping[str, Any] = getattr(component, "config", None) or component.init_kwargs
        return {**config, "_class_name": type(component).__name__} if component is pipe.scheduler else config

    source = str(getattr(pipe, "name_or_path", "") or type(pipe).__name__)
    return _from_configs(source, read).wrap(pipe)


def _from_configs(source: str, read: ReadConfig) -> Blueprint:
    """Reconfigures, of all models that run in this pipeline class, the one that is most like it."""
    index = read("model_index.json")
    pipeline_class = index.get("_class_name", "")
    known = [blueprint(name) for name in available()]
    family = [model for model in known if model.pipeline_class == pipeline_class]
    if not family:
        classes = sorted({model.pipeline_class for model in known})
        raise UserError(
            f"Pipeline class {pipeline_class!r} of {source!r} belongs to no known model family. "
            f"Known: {', '.join(classes)}."
        )
    given = read(f"{family[0].denoiser}/config.json"), read("scheduler/scheduler_config.json"), index

    def likeness(model: Blueprint) -> tuple[float, bool]:
        return _likeness((model.transformer, model.scheduler, model.index), given), _same_place(
            source, model.source
        )

    check_network(source, given[0])
    nearest = max(family, key=likeness)
    return nearest if likeness(nearest) == (1, True) else nearest.reconfigured(source, read)


def _same_place(source: str, known: str) -> bool:
    """Whether two hub ids or folders are one."""
    return source == known or (Path(source).is_dir() and Path(source).resolve() == Path(known).resolve())


def _likeness(known: Sequence[Mapping[str, Any]], given: Sequence[Mapping[str, Any]]) -> float:
    """Returns the part of a known model's configuration values that another configuration shares."""
    pairs = [
        (value, theirs.get(key)) for ours, theirs in zip(known, given, strict=True) for key, value in ours.items()
    ]
    return sum(bool(as_on_file(a) == as_on_file(b)) for a, b in pairs) / len(pairs)


def _read_config(source: str, part: str) -> Mapping[str, Any]:
    path = Path(source) / part
    if not Path(source).is_dir():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        try:
            path = Path(hf_hub_download(source, part))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            raise UserError(
                f"Model {source!r} is no short name ({', '.join(available())}) and no folder, and the hub did "
                f"not answer for {part} ({type(error).__name__}); check the name, or give a local folder."
            ) from error
    if not path.exists():
        raise UserError(f"Folder {source!r} holds no saved pipeline: {part} is missing.")
    text = read_text(path, "Configuration", _LARGEST_CONFIG, "give a folder that save_pretrained wrote")
    try:
        config: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{part} of {source!r} is not JSON ({one_line(error)}); save the pipeline again."
        ) from error
    if not isinstance(config, dict):
        raise UserError(
            f"{part} of {source!r} holds no object, but {type(config).__name__}; save the pipeline again."
        )
    return config
