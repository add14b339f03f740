"""Pipelines of the real classes with small random weights, made in code: nothing is downloaded.

One file per pipeline class, named after it: ``FluxPipeline`` is in ``flux.py``. Each has ``build(seed)``, two
``SIZES`` and ``stock_latents(pipe, blueprint, prompts, seeds, steps, size)``, which runs the pipeline itself and
returns its latents as the family's `FlowModel` has them. ``TEXT_TOKENS`` shortens prompts where the pipeline takes
their length as an argument.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import replace
from types import ModuleType

from tuner.models import Blueprint, available, blueprint


def families() -> dict[str, str]:
    """Names, for every pipeline class that is registered, one model that runs in it."""
    return {blueprint(name).pipeline_class: name for name in reversed(available())}


def small_pipeline(pipeline_class: str) -> ModuleType:
    """Finds the small pipeline of a class by the name of its file."""
    name = pipeline_class.removesuffix("Pipeline").lower()
    if importlib.util.find_spec(f"{__name__}.{name}") is None:
        raise LookupError(
            f"Family {pipeline_class} has no small pipeline to be proven with: write "
            f"tests/small_pipelines/{name}.py with SIZES, build and stock_latents, as the files beside it have."
        )
    return importlib.import_module(f"{__name__}.{name}")


def shortened(model: Blueprint, small: ModuleType) -> Blueprint:
    """Makes prompts as long as the small pipeline's module says, and videos nine frames long."""
    shorter = replace(model, text_tokens=getattr(small, "TEXT_TOKENS", model.text_tokens))
    return shorter if model.fps is None else shorter.with_frames(9)


__all__ = ["families", "shortened", "small_pipeline"]
